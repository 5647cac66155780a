"""Try every promise: bad input, faults, the guard, the ways in, the statistics. Counts cases and publishes the table.

    python benchmarks/promises.py [--quick] [--data-dir DATA] [--check] [--out FILE.json]

Writes benchmarks/results/promises/cases.json (every case) and promises.csv (promise by promise), shown in nbs/explanations/03_promises.ipynb. Long by default: 100 kills, 2,000 fuzzed files,
30 payloads; about ten minutes on two cores, everything in a temporary folder. --quick takes a tenth of it. DATA, a data set in the Kaggle layout, adds the guard's cases on real radiographs.
--check writes nothing there: it fails when a case failed, or when the published table has a case that was not tried (cases that this machine cannot try, such as as another user, aside).
"""
import argparse, os, subprocess, sys, tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

RESULTS = Path(__file__).parent/'results'/'promises'
PARTS = ('bad_input', 'faults', 'guard', 'ways', 'statistics')

def ways_cases(tally, work):
    "Python and the command line on the same pictures, of every format, one by one and in batches: one probability."
    import numpy as np, pandas as pd, torch
    from PIL import Image
    from cxr_nbdev.phantom import draw_phantom
    from cxr_nbdev.predict import Ensemble, Predictor
    from cxr_nbdev.core import set_seed
    from cxr_nbdev.testing.promises import run_cli
    from cxr_nbdev.zoo import create_model, save_checkpoint
    torch.set_num_threads(1)
    work.mkdir(parents=True, exist_ok=True)
    files = []
    for i, kind in enumerate(('normal', 'bacterial', 'viral')*4):
        f = work/f'{i}.{("png", "jpeg", "bmp", "tiff")[i % 4]}'
        Image.fromarray(draw_phantom(i, kind, 160).image).save(f)
        files.append(f)
    for name in ('custom_resnet18', 'custom_resnet_cbam'):
        set_seed(3)
        model = create_model(name).eval()
        with torch.no_grad(): model.fc.weight.mul_(20) # answers that differ
        checkpoint = save_checkpoint(work/f'{name}.pth', model, extra=dict(size=64, classes=['NORMAL', 'PNEUMONIA']))
        p = Predictor.load(checkpoint, device='cpu')
        want = p.probabilities(files)
        with tally.case(37, f'{name}: answers differ between pictures'): assert want.std() > 1e-3, want
        with tally.case(37, f'{name}: one by one as in a batch'): assert np.abs(np.concatenate([p.probabilities([f]) for f in files]) - want).max() < 1e-6
        with tally.case(37, f'{name}: command line as Python'):
            out = work/f'{name}.csv'
            run = run_cli('cxr_predict', *files, '--checkpoint', checkpoint, '--output', out, '--device', 'cpu')
            assert run.returncode == 0, run.stderr
            assert np.abs(pd.read_csv(out).probability.to_numpy() - want).max() < 1e-6
        with tally.case(37, f'{name}: an ensemble of one and the same network as that network'):
            assert np.abs(Ensemble([p, Predictor.load(checkpoint, device='cpu')]).probabilities(files) - want).max() < 1e-6

def statistics_cases(tally, work):
    "Our statistics against scikit-learn, scipy and statsmodels, with ties, on 20 random sets each."
    import numpy as np
    from scipy import stats
    from sklearn import metrics as sk
    from cxr_nbdev import metrics as ours
    def sets():
        for seed in range(20):
            rng = np.random.default_rng(seed)
            y = rng.integers(0, 2, 80); y[:2] = 0, 1
            yield seed, y, np.clip((rng.random(80) + .4*y)/1.4, .02, .98).round(2 if seed % 2 else 6)
    value = lambda name: lambda y, p: ours.all_metrics(y, p, n_boot=0)[name]['value']
    at = lambda f: lambda y, p: f(y, (p >= .5).astype(int))
    pairs = {'AUC': (ours.auc, sk.roc_auc_score), 'average precision': (ours.average_precision, sk.average_precision_score), 'Brier score': (ours.brier_score, sk.brier_score_loss),
             'log loss': (ours.log_loss, sk.log_loss), 'accuracy': (value('accuracy'), at(sk.accuracy_score)), 'balanced accuracy': (value('balanced_accuracy'), at(sk.balanced_accuracy_score)),
             'F1': (value('f1'), at(sk.f1_score)), 'Matthews correlation': (value('mcc'), at(sk.matthews_corrcoef)), 'sensitivity': (value('sensitivity'), at(sk.recall_score)),
             'Wilson interval': (lambda y, p: ours.wilson_interval(int(y.sum()), len(y)), lambda y, p: tuple(stats.binomtest(int(y.sum()), len(y)).proportion_ci(method='wilson'))),
             'exact McNemar': (lambda y, p: ours.mcnemar_test(y, (p >= .5).astype(int), (p >= .6).astype(int))['p'], mcnemar)}
    for name, (mine, theirs) in pairs.items():
        for seed, y, p in sets():
            with tally.case(38, f'{name}, set {seed}'): assert np.max(np.abs(np.subtract(mine(y, p), theirs(y, p)))) < 1e-6

def mcnemar(y, p):
    "scipy's exact test of the pairs where exactly one is right."
    from scipy import stats
    a, b = ((p >= t).astype(int) == y for t in (.5, .6))
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.

def part(name, out, work, long, data):
    "Run one part and write its cases."
    from cxr_nbdev.testing.promises import Tally
    tally = Tally()
    if name == 'bad_input':
        from cxr_nbdev.testing.bad_input import bad_input_cases
        bad_input_cases(tally, work, long=long)
    if name == 'faults':
        from cxr_nbdev.testing.faults import fault_cases
        fault_cases(tally, work, long=long)
    if name == 'guard':
        from cxr_nbdev.testing.strange import guard_cases
        guard_cases(tally, work, long=long, data=data)
    if name == 'ways': ways_cases(tally, work)
    if name == 'statistics': statistics_cases(tally, work)
    tally.write(out)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--quick', action='store_true')
    p.add_argument('--data-dir')
    p.add_argument('--check', action='store_true')
    p.add_argument('--out', type=Path, default=RESULTS/'cases.json')
    p.add_argument('--only', nargs='+', choices=PARTS, default=PARTS)
    p.add_argument('--part', help=argparse.SUPPRESS)
    p.add_argument('--work', type=Path, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.part: return part(a.part, a.out, a.work, not a.quick, a.data_dir)
    sys.exit(run(a))

def run(a):
    "Run the parts, two at a time, each in a process of its own; join, print, and write or compare."
    from cxr_nbdev.core import read_json, write_json
    from cxr_nbdev.testing.promises import promise_table
    with tempfile.TemporaryDirectory() as d:
        def one(name):
            flags = ['--part', name, '--out', f'{d}/{name}.json', '--work', f'{d}/{name}', *(['--quick'] if a.quick else []), *(['--data-dir', a.data_dir] if a.data_dir else [])]
            ended = subprocess.run([sys.executable, __file__, *flags], env=dict(os.environ, OMP_NUM_THREADS='1'), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace')
            print(f'{name}: {"ended" if ended.returncode == 0 else "FAILED " + ended.stdout[-2000:]}', flush=True)
            return read_json(f'{d}/{name}.json') if ended.returncode == 0 else None
        with ThreadPoolExecutor(2) as pool: parts = list(pool.map(one, a.only))
    if None in parts: return 1
    cases = sorted((c for part in parts for c in part), key=lambda c: (c['row'], c['case']))
    failed = [c for c in cases if not c['passed']]
    print(promise_table(cases).to_string(index=False))
    for c in failed: print(f"failed: {c['row']} {c['case']}: {c['why']}")
    if not a.check:
        write_json(a.out, cases)
        promise_table(cases).to_csv(a.out.with_name('promises.csv'), index=False, lineterminator='\n')
    else:
        tried = {(c['row'], c['case']) for c in cases}
        lacking = [] if a.quick or set(a.only) != set(PARTS) else [c for c in read_json(RESULTS/'cases.json') if (c['row'], c['case']) not in tried and (a.data_dir or c['row'] != 17)]
        for c in lacking: print(f"published, but not tried here: {c['row']} {c['case']}")
        failed += lacking
    print(f'{len(cases) - sum(not c["passed"] for c in cases)} passed, {len(failed)} failed')
    return int(bool(failed))

if __name__ == '__main__': main()
