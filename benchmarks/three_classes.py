"""NORMAL, BACTERIAL and VIRAL told apart, from the names of the Kermany files, with three seeds.

    python benchmarks/three_classes.py run --data-dir DATA --work WORK [--seeds 0 1 2] [--epochs 8] [--size 128]
                                           [--model custom_resnet18] [--threads 1]
    python benchmarks/three_classes.py report --work WORK    writes benchmarks/results/three_classes/*.csv

A run is `cxr_train --classes kinds` with the recipe of the published two-class networks at 128 px: one-cycle of 8
epochs, rate 1e-3, progressive sizes, bfloat16, batches of 32, a tenth of the patients for validation. The epoch with
the best macro AUC on validation patients is kept. Nothing is chosen on the test split: model, size, epochs and rate
were fixed before the first run, and the test images are predicted once, by the kept network.

The images are read once and kept as squares of the input's size (lossless PNG under their own names), which is what
the network sees in any case. WORK gets one folder a seed; each goes on from its last finished epoch when the script is
started again. `predictions.npz` in it holds image, use, label, patient and probabilities of every validation and test
image. `report` needs these only.
"""
import argparse
from pathlib import Path

RESULTS = Path(__file__).parent/'results'/'three_classes'
CLASSES = ['NORMAL', 'BACTERIAL', 'VIRAL']
OVERALL = ('roc_auc', 'accuracy', 'balanced_accuracy', 'f1_macro', 'brier', 'log_loss', 'ece')
EACH = ('roc_auc', 'sensitivity', 'specificity', 'ppv', 'npv')
# array in predictions.npz -> column of split.csv
COLUMNS = dict(image='file', use='use', label='label', patient='patient')


def write_squares(data_dir, folder, size):
    "Write every image as a square PNG under its own name, in the folders of the data set, and return that folder."
    from concurrent.futures import ThreadPoolExecutor
    from cxr_nbdev.core import atomic_path
    from cxr_nbdev.dataset import DataSet
    from cxr_nbdev.images import read_square
    if (folder/'done').exists(): return folder/'images'
    data = DataSet.scan(data_dir)

    def write(file):
        path = (folder/'images'/file).with_suffix('.png')
        if path.exists(): return
        with atomic_path(path) as tmp: read_square(data.root/file, size).save(tmp)

    with ThreadPoolExecutor(2) as pool: list(pool.map(write, data.table.file))
    check = folder/'images'/data.table.file[0]
    assert read_square(check.with_suffix('.png'), size).tobytes() == read_square(data.root/data.table.file[0],
                                                                                 size).tobytes()
    (folder/'done').write_text('all squares are written\n')
    return folder/'images'


def run_one(args, seed, images):
    "Train one seed and predict its validation and test images, unless that was done."
    import numpy as np
    from cxr_nbdev.config import TrainConfig
    from cxr_nbdev.dataset import DataSet
    from cxr_nbdev.predict import Predictor
    from cxr_nbdev.train import train
    out = args.work/f'{args.model}-{args.size}px-{args.epochs}e-s{seed}'
    if (out/'predictions.npz').exists(): return print('already done', out.name)
    config = TrainConfig(data_dir=str(images), classes='kinds', model=args.model, img_size=args.size,
                         epochs=args.epochs, lr=1e-3, progressive=True, amp=True, seed=seed, device='cpu',
                         num_workers=0, save_freq=0, tensorboard=False, output_dir=str(out),
                         resume=(out/'config.json').exists())

    def log(text): print(f'{out.name}: {text}', flush=True)
    if not (out/'result.json').exists(): train(config, log)
    predictor = Predictor.load(out/'best_model.pth', device='cpu', guard=False)
    assert predictor.classes == CLASSES
    table = DataSet.from_manifest(out/'split.csv', images).table.query("use in ('valid', 'test')")
    p = predictor.probabilities([images/file for file in table.file])
    columns = {name: table[column].to_numpy(str) for name, column in COLUMNS.items()}
    np.savez_compressed(out/'predictions.tmp.npz', p=p, classes=np.array(CLASSES), **columns)
    (out/'predictions.tmp.npz').replace(out/'predictions.npz')
    log('predicted')


def read_runs(work):
    "Read finished runs: (name, seed, arrays) of each, and the means of their probabilities as one more."
    import numpy as np
    runs = []
    for file in sorted(work.glob('*/predictions.npz')):
        with np.load(file, allow_pickle=False) as stored: arrays = {name: stored[name] for name in stored.files}
        runs.append((file.parent.name, arrays))
    return runs


def mean_run(runs, use):
    "Average the test probabilities of all runs: the official test split is the same for each seed."
    import numpy as np
    parts = [{name: values[a['use'] == use] for name, values in a.items() if name != 'classes'} for _, a in runs]
    assert all((part['image'] == parts[0]['image']).all() for part in parts)
    return dict(parts[0], p=np.mean([part['p'] for part in parts], axis=0))


def statistics_of(arrays):
    "Measure one run on one part: rows of (class or all, statistic, value, low, high, interval from)."
    import numpy as np
    from cxr_nbdev.multiclass import multiclass_metrics
    y = np.array([CLASSES.index(label) for label in arrays['label']])
    found = multiclass_metrics(y, arrays['p'], CLASSES, arrays['patient'], 2000)

    def rows(which, source, names):
        for name in names:
            low, high = source['intervals'][name] or (None, None)
            yield {'class': which, 'statistic': name, 'value': source[name], 'low': low, 'high': high,
                   'interval_from': source['interval_from'][name]}

    out = list(rows('all', found, OVERALL))
    for label in CLASSES: out += rows(label, found['per_class'][label], EACH)
    return [dict(row, images=len(y), patients=found['n_patients']) for row in out]


def confusion_of(arrays):
    "Count true labels (rows) and predictions (columns) of one run on one part."
    import numpy as np
    import pandas as pd
    called = np.array(CLASSES)[arrays['p'].argmax(1)]
    table = pd.crosstab(pd.Categorical(arrays['label'], CLASSES), pd.Categorical(called, CLASSES), dropna=False)
    return [dict(label=label, **table.loc[label]) for label in CLASSES]


def report(args):
    "Write metrics.csv (a row a run, part, class and statistic), confusion.csv and history.csv of all finished runs."
    import pandas as pd
    runs = read_runs(args.work)
    parts = [(name, use, {k: v[a['use'] == use] for k, v in a.items() if k != 'classes'})
             for name, a in runs for use in ('valid', 'test')]
    if len(runs) > 1: parts.append((f'mean of {len(runs)}', 'test', mean_run(runs, 'test')))
    where = [dict(run=name, part=use) for name, use, _ in parts]
    tables = dict(
        metrics=[dict(at, **row) for at, (_, _, arrays) in zip(where, parts) for row in statistics_of(arrays)],
        confusion=[dict(at, **row) for at, (_, _, arrays) in zip(where, parts) for row in confusion_of(arrays)],
        history=[dict(row, run=name) for name, _ in runs
                 for row in pd.read_csv(args.work/name/'history.csv').to_dict('records')])
    RESULTS.mkdir(parents=True, exist_ok=True)
    for file, rows in tables.items():
        table = pd.DataFrame(rows)
        table.to_csv(RESULTS/f'{file}.csv', index=False, lineterminator='\n')
        if file != 'history': print(table.round(4).to_string(index=False))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('verb', choices=('run', 'report'))
    parser.add_argument('--data-dir')
    parser.add_argument('--work', type=Path, required=True)
    parser.add_argument('--model', default='custom_resnet18')
    parser.add_argument('--size', type=int, default=128)
    parser.add_argument('--epochs', type=int, default=8)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--threads', type=int, default=1)
    args = parser.parse_args()
    if args.verb == 'report': return report(args)
    import torch
    torch.set_num_threads(args.threads)
    images = write_squares(args.data_dir, args.work/f'squares_{args.size}', args.size)
    for seed in args.seeds: run_one(args, seed, images)


if __name__ == '__main__': main()
