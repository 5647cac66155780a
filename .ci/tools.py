"""What nbdev leaves to a project: tests with a count, drift, lint, README and docs site, all without Quarto.

    python .ci/tools.py test [NOTEBOOK ...] [--flags "data slow"] [--flagged] [--workers 2]
    python .ci/tools.py sync              clean and export the notebooks; fail when that changed a file
    python .ci/tools.py lint              lines, cells, pages, notebooks and sidebar that break a rule of the house
    python .ci/tools.py readme [--check]  write README.md from nbs/index.ipynb, or compare the two
    python .ci/tools.py docs              build the site in _docs/ and check every link in it
    python .ci/tools.py links FOLDER      check the links of a site that is already built
"""
import argparse
import hashlib
import json
import os
import posixpath
import re
import subprocess
import sys
from pathlib import Path

from common import ROOT, has_flag, notebooks, relative, settings, sources

# ---------------------------------------------------------------- test

def test(args):
    "Run notebooks as nbdev_test does, with a line and the seconds of each, and a count at the end."
    from fastcore.parallel import parallel
    from nbdev.test import test_nb
    cfg, flags = settings(), args.flags.split()
    files = notebooks(args.notebook)
    if args.flagged: files = [f for f in files if any(has_flag(s, flags) for s in sources(f))]
    if not files:
        print('0 passed, 0 failed: no notebook to test')
        return 0 if args.flagged else 1
    options = dict(skip_flags=cfg.tst_flags.split(), force_flags=flags, basepath=cfg.config_path)
    results = parallel(test_nb, files, n_workers=min(args.workers, len(files)), pause=.01, **options)
    for f, (ok, seconds) in zip(files, results):
        print(f'{"ok  " if ok else "FAIL"} {relative(f):<44} {seconds:6.1f} s')
    failed = sum(not ok for ok, _ in results)
    print(f'{len(files) - failed} passed, {failed} failed')
    return int(failed > 0)


# ---------------------------------------------------------------- sync

def written_files():
    "Map every file that clean, export and readme may write to the hash of its bytes."
    cfg = settings()
    files = notebooks() + sorted(cfg.lib_path.rglob('*.py')) + [ROOT/'README.md']
    return {relative(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.exists()}


def sync(args):
    "Clean and export; fail with the names of the files that this changed. Works in a tree with changes of its own too."
    before = written_files()
    call('nbdev.clean:nbdev_clean')
    for path in notebooks(): clean_outputs(path)
    call('nbdev.doclinks:nbdev_export')
    after = written_files()
    changed = sorted(f for f in before.keys() | after.keys() if before.get(f) != after.get(f))
    for f in changed: print(f'out of step: {f}')
    print('commit what clean and export wrote' if changed else f'{len(after)} files in step')
    return int(bool(changed))


def clean_outputs(path):
    "Drop `metadata` of printed outputs, which nbformat refuses, and warnings that name a folder of packages."
    notebook = json.loads(path.read_text(encoding='utf-8'))
    changed = False
    for cell in notebook['cells']:
        before = cell.get('outputs', [])
        kept = [o for o in before if not (o.get('name') == 'stderr' and 'site-packages' in ''.join(o['text']))]
        streams = [o for o in kept if o['output_type'] == 'stream' and 'metadata' in o]
        for o in streams: o.pop('metadata')
        if streams or len(kept) < len(before): cell['outputs'], changed = kept, True
    if changed: path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')


def call(command):
    "Call one of nbdev's commands, `module:function`, in a Python of its own (nbdev keeps state between calls)."
    module, function = command.split(':')
    code = f'from {module} import {function}; {function}.__wrapped__()'
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)


# ---------------------------------------------------------------- readme

def readme_text():
    "Return nbs/index.ipynb as Markdown for the top folder, through nbdev's own filters."
    from execnb.nbio import read_nb
    from nbdev.processors import FilterDefaults
    nb = read_nb(settings().nbs_path/'index.ipynb')
    FilterDefaults()(nb)
    parts = [p for c in nb.cells if (p := cell_text(c))]
    return '\n\n'.join([title(nb.frontmatter_)] + parts) + '\n'


def title(front):
    "Write the heading and the quoted summary that nbdev moved from the first cell into the front matter."
    summary = [f'> {front["description"]}'] if front.get('description') else []
    return '\n\n'.join([f'# {front["title"]}'] + summary)


def cell_text(cell):
    "Write a cell of a filtered notebook, and its text outputs, as Markdown; front matter and empty cells give ''."
    source = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M).strip('\n')
    if cell.cell_type == 'markdown': return from_top(source)
    if cell.cell_type != 'code' or not source: return ''
    texts = [t for o in cell.outputs if (t := output_text(o))]
    return '\n\n'.join([f'```python\n{source}\n```'] + [f'```\n{t}\n```' for t in texts])


def output_text(output):
    "Return the plain text of one output, '' where there is none."
    text = output.get('text') or output.get('data', {}).get('text/plain', '')
    return ''.join(text).strip('\n')


def from_top(text):
    "Make links that are relative to nbs/ relative to the top folder, outside code fences."
    parts = re.split(r'(^```.*?^```[ \t]*$)', text, flags=re.M|re.S)
    tag = r'\]\(|<img[^>]*?\ssrc="|<a[^>]*?\shref="'
    link = re.compile(rf'({tag})(?![a-z][a-z0-9+.-]*:|[#/])(?:\./)?([^)"\s]+)')
    def above(m): return m.group(1) + posixpath.normpath(posixpath.join('nbs', m.group(2)))
    return ''.join(p if i % 2 else link.sub(above, p) for i, p in enumerate(parts))


def readme(args):
    "Write README.md, or with --check compare it byte for byte and check the files that it links to."
    path, text = ROOT/'README.md', readme_text()
    missing = [t for t in re.findall(r'\]\((?![a-z]+:|#)([^)#\s]+)', text) if not (ROOT/t).exists()]
    for t in missing: print(f'README.md links to {t}, which does not exist')
    table = ROOT/'benchmarks/results/quality/table.md'
    if table.exists() and table.read_text(encoding='utf-8') not in text:
        print('nbs/index.ipynb does not show the table of results: run `python benchmarks/quality.py --report`')
        return 1
    if not args.check:
        path.write_bytes(text.encode())
        print('wrote README.md')
        return int(bool(missing))
    if path.exists() and path.read_bytes() == text.encode():
        print('README.md is in step with nbs/index.ipynb')
        return int(bool(missing))
    print('README.md differs from nbs/index.ipynb: run `python .ci/tools.py readme` and commit it')
    return 1


# ---------------------------------------------------------------- lint, docs, links

def lint(args):
    "List what breaks a rule of the house; quick, since nothing runs."
    from lint import lint as find
    found = list(find())
    for line in found: print(line)
    print(f'{len(notebooks())} notebooks, {len(found)} findings')
    return int(bool(found))


def docs(args):
    "Build the site with nbdev and smalldocs in _docs/, then check its links."
    from docs_site import build
    return build(args.workers)


def links(args):
    "Check the links of a built site."
    from docs_site import report_links
    return report_links(args.folder)


def filter_one(args):
    "Process one notebook for the docs, to see what is wrong with it."
    from docs_site import filter_one
    return filter_one(args.notebook)


def make_parser():
    "Make the parser: one verb a tool."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tools = parser.add_subparsers(required=True)
    verbs = {}
    for run in (test, sync, lint, readme, docs, links, filter_one):
        name = run.__name__.removesuffix('_one')
        verbs[name] = tools.add_parser(name, help=run.__doc__)
        verbs[name].set_defaults(run=run)
    for name in ('test', 'docs'): verbs[name].add_argument('--workers', type=int, default=2, help='processes')
    verbs['readme'].add_argument('--check', action='store_true', help='compare only')
    verbs['test'].add_argument('notebook', nargs='*', help='all, when none is named')
    verbs['test'].add_argument('--flags', default='', help='flags whose cells run too, separated by spaces')
    verbs['test'].add_argument('--flagged', action='store_true', help='only notebooks with a cell flagged so')
    verbs['links'].add_argument('folder')
    verbs['filter'].add_argument('notebook')
    return parser


def main():
    "Read the command line and run one of the tools in the project's top folder."
    args = make_parser().parse_args()
    if args.run is test: args.notebook = [Path(n).resolve() for n in args.notebook]
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    before = os.environ.get('PYTHONPATH', '').split(os.pathsep)
    os.environ['PYTHONPATH'] = os.pathsep.join([str(ROOT)] + before).rstrip(os.pathsep)
    sys.exit(args.run(args))


if __name__ == '__main__': main()
