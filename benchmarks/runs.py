"""Train and evaluate many runs by the package's own commands, several at a time, each resumable."""
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

RESULTS = Path(__file__).parent/'results'

def command(log, name, *flags, threads=1):
    "Run one of the package's commands; its output goes to the file `log`."
    env = dict(os.environ, OMP_NUM_THREADS=str(threads), PYTHONUNBUFFERED='1')
    with open(log, 'a') as f:
        print('$', name, *flags, file=f, flush=True)
        argv = [str(Path(sys.executable).parent/name), *map(str, flags)]
        subprocess.run(argv, check=True, stdout=f, stderr=f, env=env)

def train_one(name, flags, data, work, threads=1):
    "Train a run, unless that was done; go on with it if it was stopped."
    run = work/'checkpoints'/name
    run.mkdir(parents=True, exist_ok=True)
    if (run/'result.json').exists(): return run
    resume = ['--resume'] if (run/'last_model.pth').exists() else []
    command(run/'log.txt', 'cxr_train', '--data-dir', data, *flags, '--save-freq', 0, '--no-tensorboard',
            '--output-dir', run, *resume, threads=threads)
    return run

def evaluate_one(name, data, work, results, threads=1, flags=()):
    "Evaluate a run on the test split, unless that was done, and keep what pages show."
    run, evaluation, out = work/'checkpoints'/name, work/'evaluation'/name, results/name
    if not (evaluation/'metrics_test.json').exists():
        command(run/'log.txt', 'cxr_evaluate', '--data-dir', data, '--checkpoint', run/'best_model.pth',
                '--manifest', run/'split.csv', '--output-dir', evaluation, '--force',
                '--error-maps', 0, *flags, threads=threads)
    out.mkdir(parents=True, exist_ok=True)
    files = [run/f for f in ('config.json', 'history.csv', 'result.json')]
    files += [evaluation/f for f in ('predictions_test.csv', 'metrics_test.json')]
    for f in files: shutil.copy(f, out/f.name)
    return out

def in_parallel(do, names, jobs):
    "Do each, `jobs` at a time; one failure does not stop the others, and is told at the end."
    def attempt(name):
        try:
            do(name)
            print('done', name, flush=True)
        except Exception as e:
            print('FAILED', name, e, flush=True)
            return name
    with ThreadPoolExecutor(jobs) as pool: failed = [n for n in pool.map(attempt, names) if n]
    if not failed: return
    print(f'{len(failed)} of {len(names)} runs failed: {", ".join(failed)}', file=sys.stderr)
    sys.exit('see log.txt in their folders, run again to go on')
