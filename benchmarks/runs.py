"""Train and evaluate many runs by the package's own commands, several at a time, each resumable; used by the other programs here."""
import json, os, shutil, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

RESULTS = Path(__file__).parent/'results'

def command(log, name, *flags, threads=1):
    "Run one of the package's commands; its output goes to the file `log`."
    env = dict(os.environ, OMP_NUM_THREADS=str(threads), PYTHONUNBUFFERED='1')
    with open(log, 'a') as f:
        print('$', name, *flags, file=f, flush=True)
        subprocess.run([str(Path(sys.executable).parent/name), *map(str, flags)], check=True, stdout=f, stderr=f, env=env)

def train_one(name, flags, data, work, threads=1):
    "Train a run, unless that was done; go on with it if it was stopped."
    ck = work/'checkpoints'/name
    ck.mkdir(parents=True, exist_ok=True)
    if (ck/'result.json').exists(): return ck
    resume = ['--resume'] if (ck/'last_model.pth').exists() else []
    command(ck/'log.txt', 'cxr_train', '--data-dir', data, *flags, '--save-freq', 0, '--no-tensorboard', '--output-dir', ck, *resume, threads=threads)
    return ck

def evaluate_one(name, data, work, results, threads=1, flags=()):
    "Evaluate a run on the test split, unless that was done, and keep what pages show."
    ck, ev, out = work/'checkpoints'/name, work/'evaluation'/name, results/name
    if not (ev/'metrics_test.json').exists():
        command(ck/'log.txt', 'cxr_evaluate', '--data-dir', data, '--checkpoint', ck/'best_model.pth', '--manifest', ck/'split.csv',
                '--output-dir', ev, '--force', '--error-maps', 0, *flags, threads=threads)
    out.mkdir(parents=True, exist_ok=True)
    for f in (ck/'config.json', ck/'history.csv', ck/'result.json', ev/'predictions_test.csv', ev/'metrics_test.json'): shutil.copy(f, out/f.name)
    return out

def in_parallel(do, names, jobs):
    "Do each, `jobs` at a time; one failure does not stop the others, and is told at the end."
    def attempt(name):
        try: do(name); print('done', name, flush=True)
        except Exception as e: print('FAILED', name, e, flush=True); return name
    with ThreadPoolExecutor(jobs) as pool: failed = [n for n in pool.map(attempt, names) if n]
    if failed: sys.exit(f'{len(failed)} of {len(names)} runs failed: {", ".join(failed)}; see log.txt in their folders, run again to go on')
