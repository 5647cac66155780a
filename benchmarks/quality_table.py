"What quality.py writes from its results: the published table, paired tests, what the table supports, the model card."
import json
import textwrap
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
from runs import RESULTS

PROBE = 'tf_efficientnet_lite0-probe'    # only its last layer is trained
SCRATCH, OTHERS = ('custom_resnet18', 'custom_resnet_cbam'), ('plain_resnet18', 'resnet_cbam', 'alexnet', 'vgg16')
STUDY = 'student study'                  # the six-model study whose rows we compare with
PUBLISHED = [    # system, accuracy %, AUC, protocol
    (f'{STUDY} `vgg16`', '88.46', '.9594', 'ImageNet, 224 px; one run, epoch chosen on 16 images'),
    (f'{STUDY} `plain_resnet18`', '87.98', '.9625', 'same'),
    (f'{STUDY} `alexnet`', '85.74', '.9449', 'same'),
    (f'{STUDY} `resnet_cbam`', '84.94', '.9281', 'same, 50 epochs'),
    (f'{STUDY} `custom_resnet18`', '83.65', '.9376', '70 epochs from scratch'),
    (f'{STUDY} `custom_resnet_cbam`', '81.73', '.9333', 'same'),
    ('Kermany et al. 2018', '92.8', '.968', 'Inception v3, ImageNet'),
    ('MedMNIST v2 ResNet-18', '86.4', '.956', '28 px enlarged to 224'),
    ('MedMNIST+ ResNet-18', '91.13 ± .96', '.9804', '224 px, 3 seeds, threshold .5'),
    ('MedMNIST+ VGG16', '87.39 ± 1.00', '.9847', 'same'),
    ('MedMNIST+ AlexNet', '87.23 ± .77', '.9825', 'same'),
    ('MedMNIST+ DINO ViT-B/16, linear probe', '91.56 ± .27', '.9892', 'same'),
    ('Google AutoML Vision', '94.6', '.991', 'black box'),
]
STUDY_ROWS = {    # accuracy and AUC, from 0 to 1
    'vgg16': (.8846, .9594), 'plain_resnet18': (.8798, .9625), 'alexnet': (.8574, .9449),
    'resnet_cbam': (.8494, .9281), 'custom_resnet18': (.8365, .9376), 'custom_resnet_cbam': (.8173, .9333)}
TARGETS = [    # systems, what they are called, test AUC and accuracy aimed at before anything was trained
    (SCRATCH, 'from scratch', .970, .90),
    (('tf_efficientnet_lite0', PROBE), 'pretrained single model', .980, .915),
    (('ensemble',), 'best system', .988, .93)]
LABELS = {
    'border': 'outer tenth of the image only (a check for shortcuts)',
    'ensemble': 'ensemble: mean probability of the {n} networks with three seeds, five shapes each',
    'ensemble-plain': 'ensemble: mean probability of the {n} networks with three seeds'}
PAIRS = [
    ('custom_resnet_cbam', 'custom_resnet18'), ('resnet_cbam', 'plain_resnet18'),
    ('tf_efficientnet_lite0', 'custom_resnet18'), (PROBE, 'tf_efficientnet_lite0'),
    ('ensemble', 'tf_efficientnet_lite0'), ('ensemble', 'custom_resnet18')]
ORDER = ['custom_resnet18', 'custom_resnet_cbam', 'tf_efficientnet_lite0', PROBE, *OTHERS, 'ensemble', 'border']
MARKS = '<!-- quality table, written by benchmarks/quality.py --report -->', '<!-- end of the quality table -->'


def wrapped(text, bullet=False):
    "Wrap a paragraph, or a list item, at 112 columns."
    first, rest = ('- ', '  ') if bullet else ('', '')
    options = dict(break_long_words=False, break_on_hyphens=False)
    return textwrap.fill(text, 112, initial_indent=first, subsequent_indent=rest, **options)


def base_name(system):
    "Return the name of a system without the size: `vgg16-64` is `vgg16`."
    name, _, size = system.rpartition('-')
    return name if size.isdigit() else system


# ---------------------------------------------------------------- reading the results

def read_run(folder):
    "Return what one run left: metrics, settings, seconds and predictions."
    names = ('metrics_test.json', 'config.json', 'result.json')
    metrics, facts, run = (json.loads((folder/n).read_text()) if (folder/n).exists() else {} for n in names)
    system, _, seed = folder.name.rpartition('-s')
    if not seed.isdigit(): system, seed = folder.name, 0    # an ensemble has no seed
    predictions = pd.read_csv(folder/'predictions_test.csv').sort_values('file').reset_index(drop=True)
    return dict(system=system, seed=int(seed), metrics=metrics, config=facts.get('config', {}), facts=facts,
                device=facts.get('device'), minutes=run.get('seconds', np.nan)/60, best=run.get('best'),
                predictions=predictions)


def read_results(results):
    "Return a row for each run."
    folders = [f.parent for f in sorted(results.glob('*/metrics_test.json'))]
    return [read_run(f) for f in folders if f.name != 'metadata']


def truth(runs):
    "Labels (n,), patients (n,) and probabilities (k,n) of the k runs of a system."
    tables = [r['predictions'] for r in runs]
    if any(list(t.file) != list(tables[0].file) for t in tables):
        raise SystemExit(f"{runs[0]['system']}: its runs have other test images; evaluate them again")
    y = (tables[0].label == 'PNEUMONIA').to_numpy().astype(int)
    return y, tables[0].patient.to_numpy(), np.stack([t.probability for t in tables])


# ---------------------------------------------------------------- the table

def statistics(thresholds):
    "Name -> statistic of y (n,), p (k,n), weights (b,n): the mean over k networks, each at its threshold."
    from cxr_nbdev.paired import threshold_stat
    from cxr_nbdev.stats import auc
    def mean(stats, y, p, w): return np.mean([np.atleast_1d(s(y, q, w)) for s, q in zip(stats, p)], axis=0)
    found = dict(auc=lambda y, p, w=None: mean([auc]*len(p), y, p, w))
    for name in ('accuracy', 'sensitivity', 'specificity'):
        stats = [threshold_stat(name, t) for t in thresholds]
        found[name] = lambda y, p, w=None, stats=stats: mean(stats, y, p, w)
    return found


def summarise_system(system, runs):
    "Means over the seeds of one system, with intervals over patients for these networks."
    from cxr_nbdev.intervals import cluster_bootstrap
    y, patients, p = truth(runs)
    config, metrics = runs[0]['config'], runs[0]['metrics']
    minutes = [r['minutes'] for r in runs if np.isfinite(r['minutes'])]
    row = dict(system=system, model=metrics.get('model'), seeds=len(runs),
               pixels=config.get('img_size') or metrics.get('size'), epochs=config.get('epochs'),
               minutes=np.mean(minutes) if minutes else np.nan, device=runs[0]['device'], tta=bool(metrics.get('tta')))
    for name, stat in statistics([r['metrics']['threshold'] for r in runs]).items():
        # the bootstrap wants one probability an image; the statistic takes those of all networks instead
        low, high = cluster_bootstrap(lambda y, _, w: stat(y, p, w), y, p.mean(0), patients, n_boot=2000)
        each = [r['metrics'][{'auc': 'roc_auc'}.get(name, name)] for r in runs]
        deviation = float(np.std(each, ddof=1)) if len(each) > 1 else np.nan
        row |= {name: float(stat(y, p)[0]), f'{name}_low': low, f'{name}_high': high, f'{name}_sd': deviation}
    return row


def summarise(rows):
    "Return a row for each system."
    systems = dict.fromkeys(r['system'] for r in rows)
    return pd.DataFrame([summarise_system(s, [r for r in rows if r['system'] == s]) for s in systems])


def label_of(system, members):
    "Name a system for readers."
    name = LABELS.get(system) or LABELS.get(base_name(system)) or f'`{base_name(system)}`'
    return name.format(n=members.get(system, 0))


def labelled(table, rows):
    "Add labels, and sort as the README shows the rows."
    members = {r['system']: len(r['metrics'].get('members') or ()) for r in rows}
    table['label'] = [label_of(s, members) for s in table.system]
    plain = {r['system'] for r in rows if r['config'].get('model') in OTHERS and not r['config'].get('pretrained')}
    table.loc[table.system.isin(plain), 'label'] += ', random weights'
    table.loc[table.system.str.startswith(PROBE), 'label'] = '`tf_efficientnet_lite0`, linear probe'
    place = {s: i for i, s in enumerate(ORDER)}
    def order(names): return names.map(lambda n: place.get(n.rpartition('-')[0] or n, place.get(n, 99)))
    return table.sort_values('system', key=order, kind='stable').reset_index(drop=True)


def percent(row, name):
    "A share in percent with its interval, as the table shows it."
    return f"{100*row[name]:.1f} ({100*row[name + '_low']:.1f}-{100*row[name + '_high']:.1f})"


def markdown_row(r):
    "One row of the table."
    minutes = f'{r.minutes:.0f}' if np.isfinite(r.minutes) else ''
    trained = np.isfinite(r.epochs or np.nan)
    how = f'{r.pixels:.0f}, {r.epochs:.0f}, {r.seeds}' if trained else f'{r.pixels:.0f}'
    shares = [percent(r, k) for k in ('accuracy', 'sensitivity', 'specificity')]
    cells = [r.label, how, f'{r.auc:.4f} ({r.auc_low:.3f}-{r.auc_high:.3f})', *shares, minutes]
    return f'| {" | ".join(cells)} |'


def markdown(table, metadata):
    "The table of the README: ours, then published ones."
    lines = ['| system | px, epochs, seeds | AUC (95 %) | accuracy % | sensitivity % | specificity % | minutes |',
             '| --- | --- | --- | --- | --- | --- | ---: |']
    lines += [markdown_row(r) for _, r in table.iterrows()]
    if metadata:
        names, found = ', '.join(metadata['features']), f"{metadata['roc_auc']:.4f} | {100*metadata['accuracy']:.1f}"
        lines.append(f'| file properties only ({names}) | no pixel | {found} | | | |')
    lines += [f'| *{name}* | {how} | {auc} | {acc} | | | |' for name, acc, auc, how in PUBLISHED]
    return '\n'.join(lines) + '\n'


# ---------------------------------------------------------------- what the table supports

def points_text(row):
    "What the ensemble reaches at thresholds that were fixed on validation images."
    points = row['metrics'].get('operating_points') or {}
    if not points: return ''
    def share(o, name):
        low, high = o['intervals'][name]
        return f'{name} {100*o[name]:.1f} % ({100*low:.1f}-{100*high:.1f})'
    found = [f"`{n}` ({o['threshold']:.3f}): {share(o, 'sensitivity')}, {share(o, 'specificity')}"
             for n, o in points.items() if n != 'half']
    start = ("The ensemble with five shapes at thresholds fixed on validation images, each the mean of its members' "
             'own: ')
    return '\n' + wrapped(start + '; '.join(found) + '.') + '\n'


def against_the_study(rows):
    "Which of the six models are ahead of the student study's row of the same name."
    ours = {n: rows[n] for n in STUDY_ROWS if n in rows}
    ahead = [n for n, r in ours.items() if r.accuracy > STUDY_ROWS[n][0] and r.auc > STUDY_ROWS[n][1]]
    behind = []
    for n, r in ours.items():
        if n in ahead: continue
        accuracy, auc = STUDY_ROWS[n]
        behind.append(f'`{n}` ({100*r.accuracy:.1f} % and {r.auc:.4f} against {100*accuracy:.1f} % and {auc:.4f})')
    best = [max(o) for o in zip(*STUDY_ROWS.values())]
    beyond = [f'`{n}`' for n in SCRATCH if n in rows and rows[n].accuracy > best[0] and rows[n].auc > best[1]]
    names = ', '.join(f'`{n}`' for n in ahead) or 'none'
    text = f"Ahead of the {STUDY}'s row of the same name in accuracy and AUC: {names}."
    if behind: text += f' Not ahead: {"; ".join(behind)}.'
    if beyond: text += f' {" and ".join(beyond)} {"are" if len(beyond) > 1 else "is"} ahead of all six of its rows.'
    return text


def against_the_targets(every):
    "Which figures that were aimed at are reached."
    def verdict(found, wanted): return 'reached' if found >= wanted else 'missed'
    for names, what, auc, accuracy in TARGETS:
        for n, r in every:
            if n not in names: continue
            size = f', {r.pixels:.0f} px' if sum(n == m for m, _ in every) > 1 else ''
            yield (f'Aimed at, {what}: AUC {auc:.3f} and accuracy {100*accuracy:.1f} %; {r.label}{size}: '
                   f'{r.auc:.4f} ({verdict(r.auc, auc)}) and {100*r.accuracy:.1f} % ({verdict(r.accuracy, accuracy)}).')


def about_cbam(t):
    "What one paired test says of CBAM."
    low, high = t.new_seeds_low, t.new_seeds_high
    if low > 0: conclusion = 'better.'
    elif high < 0: conclusion = 'worse.'
    else: conclusion = f'no difference is shown, and a loss of more than {-low:.3f} is excluded.'
    return (f'CBAM in `custom_resnet_cbam` against `custom_resnet18`, {t.runs_first} seeds each: AUC '
            f'{t.difference:+.4f}, for other patients and other seeds {low:+.4f} to {high:+.4f}: {conclusion}')


def reading(table, tests):
    "What the table supports, made from its figures."
    every = [(base_name(r.system), r) for r in table.itertuples()]
    found = [against_the_study(dict(every)), *against_the_targets(every)]
    for t in tests.itertuples():
        if t.first.startswith('custom_resnet_cbam') and np.isfinite(t.new_seeds_low): found.append(about_cbam(t))
    return '\n' + '\n'.join(wrapped(o, bullet=True) for o in found) + '\n'


def test_pair(a, b):
    "Compare the AUC of two systems over the same patients: for these networks, and for other seeds too."
    from cxr_nbdev.paired import paired_bootstrap
    from cxr_nbdev.stats import auc
    common = {r['seed'] for r in a} & {r['seed'] for r in b}
    if 'ensemble' not in (a[0]['system'], b[0]['system']):    # an ensemble has no seed
        a, b = ([r for r in runs if r['seed'] in common] for runs in (a, b))
    (y, patients, p), (_, _, q) = truth(a), truth(b)
    these = paired_bootstrap(auc, y, p, q, patients, n_boot=5000, seed=0)
    other = paired_bootstrap(auc, y, p, q, patients, n_boot=5000, seed=0, new_seeds=True)
    low, high = these['interval'] or (np.nan, np.nan)
    low_new, high_new = other['interval'] or (np.nan, np.nan)
    return dict(first=a[0]['system'], second=b[0]['system'], runs_first=len(a), runs_second=len(b),
                difference=these['difference'], low=low, high=high, p=these['p'],
                new_seeds_low=low_new, new_seeds_high=high_new, new_seeds_p=other['p'])


def paired(rows):
    "Test the pairs, with Holm's correction of the test for these networks."
    from cxr_nbdev.paired import holm
    by = {}
    for r in rows: by.setdefault(r['system'], []).append(r)
    def runs_of(name): return next((by[s] for s in by if name in (s, s.rpartition('-')[0])), None)
    pairs = [(runs_of(a), runs_of(b)) for a, b in PAIRS]
    t = pd.DataFrame([test_pair(a, b) for a, b in pairs if a and b])
    if len(t): t.insert(list(t).index('p') + 1, 'p_holm', holm(t.p.to_numpy()))
    return t


# ---------------------------------------------------------------- the model card

def lungs_hidden():
    "The AUC of `custom_resnet18` when the lungs are black, where benchmarks/shortcuts.py has measured it."
    path = RESULTS/'shortcuts'/'custom_resnet18-128-s0.json'
    if not path.exists(): return []
    auc = json.loads(path.read_text())['changes']['lungs_hidden']['auc']
    low, high = auc['interval']
    return ['With the lungs blacked out by an approximate mask, `custom_resnet18` still reaches AUC '
            f"{auc['value']:.3f} ({low:.3f} to {high:.3f}): part of what such networks use is not in the lungs."]


def best_single(rows):
    "The runs of the single model with the best mean validation AUC, among those with most seeds."
    single = [r for r in rows if r['best'] and not r['system'].startswith('border')]
    single = [r for r in single if r['metrics'].get('model') != 'ensemble']
    by = {}
    for r in single: by.setdefault(r['system'], []).append(r)
    most = max(map(len, by.values()))
    means = {s: np.mean([r['best']['roc_auc'] for r in runs]) for s, runs in by.items() if len(runs) == most}
    best = max(means, key=means.get)
    return sorted(by[best], key=lambda r: r['seed']), means[best]


def train_flags(config):
    "The flags of cxr_train that differ from its defaults."
    from cxr_nbdev.config import TrainConfig
    default = {f.name: f.default for f in fields(TrainConfig)}
    skip = {'data_dir', 'output_dir', 'seed', 'save_freq', 'tensorboard', 'force', 'resume', 'pretrained',
            'freeze_epochs', 'manifest'}
    def flag(k, v):
        name = k.replace('_', '-')
        if isinstance(v, bool): return f'--{name}' if v else f'--no-{name}'
        return f'--{name} {v}'
    wanted = {k: v for k, v in config.items() if k not in skip and v is not None}
    return ' '.join(flag(k, v) for k, v in wanted.items() if k == 'model' or v != default.get(k))


def card_rows(t, seeds):
    "The rows of the card's table of results."
    auc = f'{t.auc:.4f} ({t.auc_low:.4f} to {t.auc_high:.4f})'
    if seeds > 1: auc += f', standard deviation over seeds {t.auc_sd:.4f}'
    rows = [('AUC', auc)]
    for name in ('accuracy', 'sensitivity', 'specificity'):
        value, low, high = (100*t[name + end] for end in ('', '_low', '_high'))
        rows.append((name.capitalize(), f'{value:.1f} % ({low:.1f} to {high:.1f})'))
    return '\n'.join(f'| {a} | {b} |' for a, b in rows)


def card(rows, table, metadata):
    "Fill the model card of the best single model by validation."
    from cxr_nbdev.report import shared_text
    runs, valid = best_single(rows)
    r, t = runs[0], table[table.system == runs[0]['system']].iloc[0]
    config, metrics, facts = r['config'], r['metrics'], r['facts']
    counts = facts['counts']
    border = table[table.system.str.startswith('border')]
    known = lungs_hidden()
    if metadata:
        names, auc = ', '.join(metadata['features']), metadata['roc_auc']
        known.insert(0, f'File properties alone ({names}) reach {auc:.3f} on this copy of the data; in the original '
                     'files size and colour mode tell still more. None of them reaches the network.')
    kinds = [f"{k} {v['found']} of {v['n']}" for k, v in metrics['sensitivity_by_kind'].items()]
    template = Path(__file__).with_name('model_card.md.in').read_text(encoding='utf-8')
    return template.format(
        model=config['model'], size=config['img_size'], epochs=config['epochs'], device=r['device'], minutes=t.minutes,
        start='ImageNet weights' if config['pretrained'] else 'Trained from random weights',
        version=facts['versions']['cxr_nbdev'], torch=facts['versions']['torch'], first_seed=r['seed'], valid=valid,
        seed_list=', '.join(str(x['seed']) for x in runs), flags=train_flags(config),
        n_train=counts['train']['images'], n_valid=counts['valid']['images'], n_test=metrics['n'],
        n_patients=metrics['n_patients'], n_normal=metrics['n_normal'], n_ill=metrics['n_pneumonia'],
        shared=f"sharing {' and '.join(shared_text(metrics).rsplit(', ', 1))} with training",
        threshold=metrics['threshold'], auc=t.auc, false_alarms=metrics['counts']['fp'], missed=metrics['counts']['fn'],
        rows=card_rows(t, len(runs)), kinds=', '.join(kinds),
        border=f'AUC {border.auc.iloc[0]:.3f}' if len(border) else 'not measured',
        known='\n'.join(wrapped(o, bullet=True) for o in known))


# ---------------------------------------------------------------- writing

def put_into_index(text):
    "Put the table between its marks in nbs/index.ipynb, from which the README is made."
    from cxr_nbdev.core import write_text
    path = Path(__file__).parents[1]/'nbs'/'index.ipynb'
    nb = json.loads(path.read_text(encoding='utf-8'))
    for cell in nb['cells']:
        source = ''.join(cell['source'])
        if MARKS[0] not in source: continue
        before, rest = source.split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        cell['source'] = f'{before}{MARKS[0]}\n\n{text}\n{MARKS[1]}{after}'.splitlines(keepends=True)
        write_text(path, json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + '\n')


def report(results):
    "Write table.csv, table.md, paired.csv and the model card from what is in the results folder."
    from cxr_nbdev.core import atomic_path, read_json, write_text
    rows = read_results(results)
    if not rows: raise SystemExit(f'{results.name}: holds no result yet; run with --data-dir and --work first')
    table, tests = labelled(summarise(rows), rows), paired(rows)
    file = results/'metadata'/'metrics_test.json'
    metadata = read_json(file) if file.exists() else None
    with atomic_path(results/'table.csv') as tmp: table.round(5).to_csv(tmp, index=False, lineterminator='\n')
    with atomic_path(results/'paired.csv') as tmp: tests.round(5).to_csv(tmp, index=False, lineterminator='\n')
    points = ''.join(points_text(r) for r in rows if r['system'] == 'ensemble')
    text = markdown(table, metadata) + points + reading(table, tests)
    write_text(results/'table.md', text)
    if any(r['best'] for r in rows): write_text(results/'MODEL_CARD.md', card(rows, table, metadata))
    put_into_index(text)
    print(text)
