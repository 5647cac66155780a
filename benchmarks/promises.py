"""Try every promise: bad input, faults, the guard, the ways in, the statistics. Counts cases and publishes the table.

    python benchmarks/promises.py [--quick] [--data-dir DATA] [--check] [--out FILE.json]

Writes benchmarks/results/promises/cases.json (every case) and promises.csv (promise by promise), shown in
nbs/explanations/03_promises.ipynb. Long by default: 100 kills, 2,000 fuzzed files, 30 payloads; about ten minutes on
two cores, everything in a temporary folder. --quick takes a tenth of it. DATA, a data set in the Kaggle layout, adds
the guard's cases on real radiographs. --check writes nothing there: it fails when a case failed, or when the published
table has a case that was not tried (the guard's aside, where no DATA is given).
"""
import argparse
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

RESULTS = Path(__file__).parent/'results'/'promises'
PARTS = ('bad_input', 'faults', 'guard', 'ways', 'statistics')


def ways_cases(cases, work):
    "Python and the command line on the same images, of every format, one by one and in batches: one probability."
    import numpy as np
    import pandas as pd
    import torch
    from PIL import Image
    from cxr_nbdev.core import set_seed
    from cxr_nbdev.phantom import draw_phantom
    from cxr_nbdev.predict import Ensemble, Predictor
    from cxr_nbdev.testing.promises import command
    from cxr_nbdev.zoo import create_model, save_checkpoint
    torch.set_num_threads(1)
    work.mkdir(parents=True, exist_ok=True)
    files = []
    for i, kind in enumerate(('normal', 'bacterial', 'viral')*4):
        suffix = ('png', 'jpeg', 'bmp', 'tiff')[i % 4]
        files.append(work/f'{i}.{suffix}')
        Image.fromarray(draw_phantom(i, kind, 160).image).save(files[-1])
    for name in ('custom_resnet18', 'custom_resnet_cbam'):
        set_seed(3)
        model = create_model(name).eval()
        with torch.no_grad(): model.fc.weight.mul_(20) # probabilities that differ
        extra = dict(size=64, classes=['NORMAL', 'PNEUMONIA'])
        checkpoint = save_checkpoint(work/f'{name}.pth', model, extra=extra)
        p = Predictor.load(checkpoint, device='cpu')
        want = p.probabilities(files)
        with cases(37, f'{name}: answers differ between pictures'): assert want.std() > 1e-3, want
        with cases(37, f'{name}: one by one as in a batch'):
            alone = np.concatenate([p.probabilities([f]) for f in files])
            assert np.abs(alone - want).max() < 1e-6
        with cases(37, f'{name}: command line as Python'):
            out = work/f'{name}.csv'
            flags = ('--checkpoint', checkpoint, '--output', out, '--device', 'cpu')
            run = command('cxr_predict', *files, *flags, process=True)
            assert run.returncode == 0, run.stderr
            assert np.abs(pd.read_csv(out).probability.to_numpy() - want).max() < 1e-6
        with cases(37, f'{name}: an ensemble of one and the same network as that network'):
            twice = Ensemble([p, Predictor.load(checkpoint, device='cpu')]).probabilities(files)
            assert np.abs(twice - want).max() < 1e-6


def random_sets():
    "Yield seed, labels and probabilities of 20 random sets, every second one with ties."
    import numpy as np
    for seed in range(20):
        rng = np.random.default_rng(seed)
        y = rng.integers(0, 2, 80)
        y[:2] = 0, 1
        p = np.clip((rng.random(80) + .4*y)/1.4, .02, .98)
        yield seed, y, p.round(2 if seed % 2 else 6)


def statistics_cases(cases, work):
    "Our statistics against scikit-learn, scipy and statsmodels, with ties, on 20 random sets each."
    import numpy as np
    from scipy import stats
    from sklearn import metrics as sk
    from cxr_nbdev import metrics as ours

    def value(name): return lambda y, p: ours.all_metrics(y, p, n_boot=0)[name]['value']
    def at_half(f): return lambda y, p: f(y, (p >= .5).astype(int))
    def our_wilson(y, p): return ours.wilson_interval(int(y.sum()), len(y))
    def our_mcnemar(y, p): return ours.mcnemar_test(y, (p >= .5).astype(int), (p >= .6).astype(int))['p']
    def wilson(y, p): return tuple(stats.binomtest(int(y.sum()), len(y)).proportion_ci(method='wilson'))

    pairs = {
        'AUC': (ours.auc, sk.roc_auc_score),
        'average precision': (ours.average_precision, sk.average_precision_score),
        'Brier score': (ours.brier_score, sk.brier_score_loss),
        'log loss': (ours.log_loss, sk.log_loss),
        'accuracy': (value('accuracy'), at_half(sk.accuracy_score)),
        'balanced accuracy': (value('balanced_accuracy'), at_half(sk.balanced_accuracy_score)),
        'F1': (value('f1'), at_half(sk.f1_score)),
        'Matthews correlation': (value('mcc'), at_half(sk.matthews_corrcoef)),
        'sensitivity': (value('sensitivity'), at_half(sk.recall_score)),
        'Wilson interval': (our_wilson, wilson),
        'exact McNemar': (our_mcnemar, mcnemar),
    }
    for name, (mine, theirs) in pairs.items():
        for seed, y, p in random_sets():
            with cases(38, f'{name}, set {seed}'):
                assert np.max(np.abs(np.subtract(mine(y, p), theirs(y, p)))) < 1e-6


def mcnemar(y, p):
    "scipy's exact test of the pairs where exactly one is right."
    from scipy import stats
    a, b = ((p >= t).astype(int) == y for t in (.5, .6))
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.


def run_part(name, out, work, long, data):
    "Run one part and write its cases."
    from cxr_nbdev.core import write_json
    from cxr_nbdev.testing.promises import Cases
    cases = Cases()
    if name == 'bad_input':
        from cxr_nbdev.testing.bad_input import bad_input_cases
        bad_input_cases(cases, work, long=long)
    if name == 'faults':
        from cxr_nbdev.testing.faults import fault_cases
        fault_cases(cases, work, long=long)
    if name == 'guard':
        from guard import measure_guard
        from cxr_nbdev.testing.strange import guard_cases
        guard_cases(cases, work, long=long, rates=measure_guard(data)[1] if data else None)
    if name == 'ways': ways_cases(cases, work)
    if name == 'statistics': statistics_cases(cases, work)
    write_json(out, list(cases))


def main():
    "Read the command line; run all parts, or the one that a process of its own is for."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--quick', action='store_true')
    p.add_argument('--data-dir')
    p.add_argument('--check', action='store_true')
    p.add_argument('--out', type=Path, default=RESULTS/'cases.json')
    p.add_argument('--only', nargs='+', choices=PARTS, default=PARTS)
    p.add_argument('--part', help=argparse.SUPPRESS)
    p.add_argument('--work', type=Path, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.part: return run_part(a.part, a.out, a.work, not a.quick, a.data_dir)
    sys.exit(run(a))


def run_process(name, a, folder):
    "Run a part in a process of its own; return its cases, or None where it failed."
    from cxr_nbdev.core import read_json
    flags = ['--part', name, '--out', f'{folder}/{name}.json', '--work', f'{folder}/{name}']
    if a.quick: flags.append('--quick')
    if a.data_dir: flags += ['--data-dir', a.data_dir]
    ended = subprocess.run([sys.executable, __file__, *flags], env=dict(os.environ, OMP_NUM_THREADS='1'),
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace')
    failed = ended.returncode != 0
    print(f'{name}: {"FAILED " + ended.stdout[-2000:] if failed else "ended"}', flush=True)
    return None if failed else read_json(f'{folder}/{name}.json')


def not_tried(a, cases):
    "List the published cases that a whole run did not try."
    from cxr_nbdev.core import read_json
    if a.quick or set(a.only) != set(PARTS): return []
    tried = {(c['row'], c['case']) for c in cases}
    published = [c for c in read_json(RESULTS/'cases.json') if a.data_dir or c['row'] != 17]
    return [c for c in published if (c['row'], c['case']) not in tried]


def run(a):
    "Run the parts, two at a time, each in a process of its own; join, print, and write or compare."
    from cxr_nbdev.core import write_json
    from cxr_nbdev.testing.promises import promise_table
    with tempfile.TemporaryDirectory() as d, ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(lambda name: run_process(name, a, d), a.only))
    if None in parts: return 1
    cases = sorted((c for part in parts for c in part), key=lambda c: (c['row'], c['case']))
    failed = [c for c in cases if not c['passed']]
    print(promise_table(cases).to_string(index=False))
    for c in failed: print(f"failed: {c['row']} {c['case']}: {c['why']}")
    passed = len(cases) - len(failed)
    if not a.check:
        write_json(a.out, cases)
        promise_table(cases).to_csv(a.out.with_name('promises.csv'), index=False, lineterminator='\n')
    else:
        lacking = not_tried(a, cases)
        for c in lacking: print(f"published, but not tried here: {c['row']} {c['case']}")
        failed += lacking
    print(f'{passed} passed, {len(failed)} failed')
    return int(bool(failed))


if __name__ == '__main__': main()
