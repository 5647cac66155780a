"""Run the notebooks' code cells without nbdev, for an environment that nbdev 2 does not fit (fastcore 2).

    python .ci/cells.py [NOTEBOOK ...] [--importing fastai fastcore.basics] [--flags "data slow"] [--workers 2]

--importing keeps the notebooks that use one of these packages, directly or through a module of ours. Lines that need
nbdev are left out, and so are cells marked `eval: false` or with one of `tst_flags` (settings.ini) that --flags does
not name. Each notebook runs in a Python of its own, in its own folder, as nbdev_test does it.
"""
import argparse
import ast
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBDEV = re.compile(r'^\s*(from\s+nbdev\b|import\s+nbdev\b|show_doc\()|nbdev_export\(')
ENV = dict(MPLBACKEND='Agg', IN_TEST='1', PYTHONUTF8='1')


def test_flags():
    "Return the flags whose cells run only on request."
    config = ConfigParser(delimiters=['='])
    config.read(ROOT/'settings.ini', encoding='utf-8')
    return set(config['DEFAULT']['tst_flags'].split())


def skipped(source, flags):
    "Say whether a cell must not run: `eval: false`, or a flag that was not asked for."
    marks = re.findall(r'^#\|\s*(.*?)\s*$', source, re.M)
    unasked = test_flags() - set(flags)
    return any(re.sub(r'\s', '', m) == 'eval:false' or (m.split() or [''])[0] in unasked for m in marks)


def code_cells(path, flags):
    "Return the sources of the cells to run, without the lines that need nbdev."
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    found = [''.join(c['source']) for c in cells if c['cell_type'] == 'code']
    wanted = [s for s in found if not skipped(s, flags)]
    clean = ['\n'.join(l for l in s.splitlines() if not NBDEV.search(l)) for s in wanted]
    return [s for s in clean if s.strip()]


# ---------------------------------------------------------------- which notebooks

def imported(source, package='cxr_nbdev'):
    "Return the modules that some code imports, relative ones by their full name."
    try: tree = ast.parse(source)
    except SyntaxError: return set()
    found = set()
    for n in ast.walk(tree):
        if isinstance(n, ast.Import): found |= {a.name for a in n.names}
        elif isinstance(n, ast.ImportFrom):
            base = f'{package}.{n.module}' if n.level else n.module
            found |= {base} | {f'{base}.{a.name}' for a in n.names}
    return found


def users_of(names):
    "Return our modules that use one of the packages, directly or through another of ours."
    files = {f'cxr_nbdev.{p.stem}': p for p in (ROOT/'cxr_nbdev').glob('*.py')}
    files |= {f'cxr_nbdev.testing.{p.stem}': p for p in (ROOT/'cxr_nbdev/testing').glob('*.py')}
    imports = {m: imported(p.read_text(encoding='utf-8')) for m, p in files.items()}
    found, before = set(), None
    while found != before:
        before = set(found)
        found |= {m for m, i in imports.items() if any(o.split('.')[0] in names or o in names or o in found for o in i)}
    return found


def uses(path, names, modules):
    "Say whether a notebook uses one of the packages or modules; the test apparatus itself does not count."
    code = '\n'.join(code_cells(path, []))
    if '#| default_exp testing' in code: return False
    lines = '\n'.join(re.findall(r'^\s*(?:from \S+ import .*|import .*)$', code, re.M))
    words = set(re.findall(r'[\w.]+', lines))
    return any(w in modules or w in names or w.split('.')[0] in names for w in words)


# ---------------------------------------------------------------- run

def run_here(path, flags):
    "Run one notebook in this Python; return 1 and print the cell at the first error."
    from IPython.core.interactiveshell import InteractiveShell
    os.chdir(path.parent)
    sys.path.insert(0, str(ROOT))
    shell = InteractiveShell.instance()
    shell.colors = 'nocolor'
    for source in code_cells(path, flags):
        result = shell.run_cell(source)
        if not result.success:
            print(f'in the cell\n{source}', flush=True)
            return 1
    return 0


def run_apart(path, flags):
    "Run one notebook in a Python of its own; return whether it passed, its seconds and its output."
    start = time.time()
    command = [sys.executable, str(Path(__file__).resolve()), '--here', str(path), '--flags', ' '.join(flags)]
    run = subprocess.run(command, env={**os.environ, **ENV}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True, encoding='utf-8', errors='replace')
    return run.returncode == 0, time.time() - start, run.stdout


def all_notebooks():
    "List the notebooks under nbs/ in reading order, without hidden folders and those whose name starts with `_`."
    paths = sorted((ROOT/'nbs').rglob('*.ipynb'))
    return [p for p in paths if not any(part.startswith(('.', '_')) for part in p.relative_to(ROOT).parts)]


def main():
    "Run the notebooks, print a line for each and the count."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('notebook', nargs='*', type=Path, help='all, when none is named')
    parser.add_argument('--importing', nargs='+', metavar='PACKAGE', help='only notebooks that use one of these')
    parser.add_argument('--flags', default='', help='flags whose cells run too, separated by spaces')
    parser.add_argument('--workers', type=int, default=2, help='processes')
    parser.add_argument('--here', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    flags = args.flags.split()
    if args.here: sys.exit(run_here(args.here, flags))
    paths = [p.resolve() for p in args.notebook] or all_notebooks()
    if args.importing:
        modules = users_of(args.importing)
        paths = [p for p in paths if uses(p, args.importing, modules)]
    with ThreadPoolExecutor(args.workers) as pool: results = list(pool.map(lambda p: run_apart(p, flags), paths))
    for path, (ok, seconds, output) in zip(paths, results):
        if not ok: print('\n'.join(output.splitlines()[-40:]))
        print(f'{"ok  " if ok else "FAIL"} {path.relative_to(ROOT).as_posix():<44} {seconds:6.1f} s')
    failed = sum(not r[0] for r in results)
    print(f'{len(paths) - failed} passed, {failed} failed')
    sys.exit(failed > 0 or not paths)


if __name__ == '__main__': main()
