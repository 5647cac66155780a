"""What nbdev leaves to a project: tests with a count, drift, README and docs site, all without Quarto.

    python .ci/tools.py test [NOTEBOOK ...] [--flags "data slow"] [--flagged] [--workers 2]
    python .ci/tools.py sync              clean and export the notebooks; fail when that changed a file
    python .ci/tools.py readme [--check]  write README.md from nbs/index.ipynb, or compare the two
    python .ci/tools.py lint              list the cells that the docs build would lose or run alone
    python .ci/tools.py docs              build the site in _docs/ and check every link in it
    python .ci/tools.py links FOLDER      check the links of a site that is already built
"""
import argparse, ast, builtins, hashlib, importlib, json, os, posixpath, re, shutil, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
FILE_RE = r'\.(?:ipynb|qmd|html)$'  # What a page of the docs can be made from, as nbdev's own nbdev_docs says it


def settings():
    "Return nbdev's settings of this project."
    from nbdev.config import get_config
    return get_config(path=ROOT)


def notebooks(names=()):
    "List the notebooks named, or all that nbdev tests, as absolute paths in reading order."
    from nbdev.doclinks import nbglob
    if names: return [Path(n).resolve() for n in names]
    return [p.resolve() for p in sorted(nbglob(settings().nbs_path, as_path=True))]


def cells_of(path, kind='code'):
    "Return the sources of a notebook's cells of one kind."
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    return [''.join(c['source']) for c in cells if c['cell_type'] == kind]


def has_flag(source, flags):
    "Say whether a cell carries one of the flags, as in `#| data`."
    return any(w in flags for line in re.findall(r'^#\|\s*(.*)$', source, re.M) for w in line.split()[:1])


# ---------------------------------------------------------------- test

def test(args):
    "Run notebooks as nbdev_test does, with a line and the seconds of each, and a count at the end."
    from fastcore.parallel import parallel
    from nbdev.test import test_nb
    cfg, flags = settings(), args.flags.split()
    files = notebooks(args.notebook)
    if args.flagged: files = [f for f in files if any(has_flag(s, flags) for s in cells_of(f))]
    if not files:
        print('0 passed, 0 failed: no notebook to test')
        return 0 if args.flagged else 1
    results = parallel(test_nb, files, skip_flags=cfg.tst_flags.split(), force_flags=flags, basepath=cfg.config_path,
                       n_workers=min(args.workers, len(files)), pause=.01)
    for f, (ok, seconds) in zip(files, results):
        print(f'{"ok  " if ok else "FAIL"} {f.relative_to(ROOT).as_posix():<44} {seconds:6.1f} s')
    failed = sum(not ok for ok, _ in results)
    print(f'{len(files) - failed} passed, {failed} failed')
    return int(failed > 0)


# ---------------------------------------------------------------- sync

def sources():
    "Map every file that clean, export and readme may write to the hash of its bytes."
    cfg = settings()
    files = notebooks() + sorted(cfg.lib_path.rglob('*.py')) + [ROOT/'README.md']
    return {f.relative_to(ROOT).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.exists()}


def sync(args):
    "Clean and export; fail with the names of the files that this changed. Works in a tree with changes of its own too."
    before = sources()
    for command in ('nbdev.clean:nbdev_clean', 'nbdev.doclinks:nbdev_export'): call(command)
    after = sources()
    changed = sorted(f for f in before.keys() | after.keys() if before.get(f) != after.get(f))
    for f in changed: print(f'out of step: {f}')
    print('run nbdev_clean, then nbdev_export, and commit what they wrote' if changed else f'{len(after)} files in step')
    return int(bool(changed))


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
    return '\n\n'.join([f'# {front["title"]}'] + [f'> {front[k]}' for k in ('description',) if front.get(k)])


def cell_text(cell):
    "Write a cell of a filtered notebook, and its text outputs, as Markdown; front matter and empty cells give ''."
    source = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M).strip('\n')
    if cell.cell_type == 'markdown': return from_top(source)
    if cell.cell_type != 'code' or not source: return ''
    return '\n\n'.join([f'```python\n{source}\n```'] + [f'```\n{t}\n```' for o in cell.outputs if (t := output_text(o))])


def output_text(output):
    "Return the plain text of one output, '' where there is none."
    text = output.get('text') or output.get('data', {}).get('text/plain', '')
    return ''.join(text).strip('\n')


def from_top(text):
    "Make links that are relative to nbs/ relative to the top folder, outside code fences."
    parts = re.split(r'(^```.*?^```[ \t]*$)', text, flags=re.M|re.S)
    link = re.compile(r'(\]\(|<img[^>]*?\ssrc="|<a[^>]*?\shref=")(?![a-z][a-z0-9+.-]*:|[#/])(?:\./)?([^)"\s]+)')
    above = lambda m: m.group(1) + posixpath.normpath(posixpath.join('nbs', m.group(2)))
    return ''.join(p if i % 2 else link.sub(above, p) for i, p in enumerate(parts))


def readme(args):
    "Write README.md, or with --check compare it byte for byte and check the files that it links to."
    path, text = ROOT/'README.md', readme_text()
    missing = [t for t in re.findall(r'\]\((?![a-z]+:|#)([^)#\s]+)', text) if not (ROOT/t).exists()]
    for t in missing: print(f'README.md links to {t}, which does not exist')
    table = ROOT/'benchmarks/results/quality/table.md'
    if table.exists() and table.read_text(encoding='utf-8') not in text:
        print('nbs/index.ipynb does not show benchmarks/results/quality/table.md: run `python benchmarks/quality.py --report`')
        return 1
    if args.check:
        same = path.exists() and path.read_bytes() == text.encode()
        print('README.md is in step with nbs/index.ipynb' if same else
              'README.md differs from nbs/index.ipynb: run `python .ci/tools.py readme` and commit it')
        return int(not same or bool(missing))
    path.write_bytes(text.encode())
    print('wrote README.md')
    return int(bool(missing))


# ---------------------------------------------------------------- docs

def docs(args):
    "Build the site with nbdev and smalldocs in _docs/, then check its links."
    from nbdev.quarto import nbdev_sidebar, refresh_quarto_yml
    from nbdev.serve import proc_nbs
    stub = settings().nbs_path/'_quarto.yml'
    if not stub.exists(): sys.exit(f'{stub.relative_to(ROOT)} is missing, and nbdev would put its default there: restore it')
    lost = list(lost_prose())
    for line in lost: print(line)
    refresh_quarto_yml()
    nbdev_sidebar.__wrapped__(file_glob=None, file_re=FILE_RE)
    try: proc_nbs(force=True, n_workers=args.workers)
    except Exception: sys.exit(why_not_processed(args.workers))
    render()
    site = ROOT/settings().doc_path.name
    shutil.rmtree(site, ignore_errors=True)
    shutil.move(ROOT/'_proc'/site.name, site)
    rename_pages(site)
    return report_links(site) or int(bool(lost))


def render():
    "Make pages of the processed notebooks with smalldocs; show its warnings but those on options that are Quarto's alone."
    code = 'import sys; from smalldocs.cli import main; sys.exit(main(["render", "_proc"]))'
    run = subprocess.run([sys.executable, '-c', code], cwd=ROOT, stderr=subprocess.PIPE, text=True, encoding='utf-8')
    for line in run.stderr.splitlines():
        if not re.search(r'output-file is not read|format.html.grid', line): print(line)
    if run.returncode: sys.exit(f'smalldocs failed with exit status {run.returncode}')


def filter_one(args):
    "Filter one notebook for the docs; print where and why that fails."
    from execnb.nbio import read_nb
    from nbdev.processors import FilterDefaults
    try: FilterDefaults()(read_nb(args.notebook))
    except Exception as e:
        cell = next((l for l in str(e).splitlines()[1:] if l.strip() and not l.startswith('#|')), '')
        print(f'{args.notebook}: {type(e.__cause__ or e).__name__}: {e.__cause__ or ""} in the cell {cell[:80]}')
        return 1
    return 0


def why_not_processed(workers):
    "Say for each notebook that nbdev cannot process what is wrong in it (nbdev itself stops at the first)."
    def fault(path):
        command = [sys.executable, str(Path(__file__).resolve()), 'filter', path.relative_to(ROOT).as_posix()]
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding='utf-8')
        return (run.stdout.splitlines() or ['no reason given'])[-1] if run.returncode else ''
    with ThreadPoolExecutor(workers) as pool: faults = [f for f in pool.map(fault, notebooks()) if f]
    return '\n'.join(['nbdev could not process:', *faults, *undefined_names()])


def lost_prose():
    "List the notebooks whose title cell holds more than title, summary and options: nbdev drops the rest from the page."
    for path in notebooks():
        cell = next((s for s in cells_of(path, 'markdown') if re.search(r'^# ', s, re.M)), '')
        rest = [l for l in cell.splitlines() if l.strip() and not re.match(r'# |>|- \S.*:', l)]
        if rest: yield f'{path.relative_to(ROOT).as_posix()}: the docs lose this text of the title cell, give it a cell: {rest[0][:60]}'


def bound_names(tree):
    "Return every name that the code of a cell binds: assigned, imported, defined, an argument."
    found = set()
    for n in ast.walk(tree):
        if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load): found.add(n.id)
        elif isinstance(n, (ast.FunctionDef, ast.ClassDef)): found.add(n.name)
        elif isinstance(n, ast.arg): found.add(n.arg)
        elif isinstance(n, ast.ExceptHandler) and n.name: found.add(n.name)
        elif isinstance(n, ast.ImportFrom) and n.names[0].name == '*': found |= set(dir(importlib.import_module(n.module)))
        elif isinstance(n, (ast.Import, ast.ImportFrom)): found |= {(a.asname or a.name).split('.')[0] for a in n.names}
    return found


def module_names(tree):
    "Return the names that a cell leaves behind: what is bound in it outside functions, classes and comprehensions."
    found, todo = set(), list(ast.iter_child_nodes(tree))
    while todo:
        n = todo.pop()
        if isinstance(n, (ast.FunctionDef, ast.ClassDef)): found.add(n.name)
        elif isinstance(n, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)): pass
        else:
            if isinstance(n, (ast.Name, ast.Import, ast.ImportFrom)): found |= bound_names(ast.Module([n], []))
            todo += ast.iter_child_nodes(n)
    return found


def loaded_names(tree):
    "Return every name that the code of a cell reads."
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def quoted_types(tree):
    "Return the names in annotations of public functions and methods that are written as text, which show_doc evaluates."
    public = [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith('_')]
    functions = [f for n in public for f in (n.body if isinstance(n, ast.ClassDef) else [n]) if isinstance(f, ast.FunctionDef)]
    notes = [f.returns for f in functions] + [n.annotation for f in functions for n in ast.walk(f.args) if isinstance(n, ast.arg)]
    texts = [n.value for n in notes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return set().union(*(loaded_names(ast.parse(t, mode='eval')) for t in texts))


def undefined_names():
    "List what a notebook's cells lack, or should not do, when the docs build runs only exported cells and cells with an import."
    for path in notebooks():
        sources, known = cells_of(path), set(dir(builtins)) | {'display', 'get_ipython', 'show_doc'}
        if not any('#| default_exp' in s for s in sources): continue
        for source in sources:
            if 'nbdev_export()' in source or has_flag(source, ('eval:',)): continue
            try: tree = ast.parse(source)
            except SyntaxError: continue
            exported = has_flag(source, ('export', 'exporti', 'exports', 'exec_doc'))
            if not exported and not any(isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.walk(tree)): continue
            if has_flag(source, settings().tst_flags.split()):
                yield f'{path.relative_to(ROOT).as_posix()}: the docs build runs this flagged cell, for it holds an import: {source[:60]!r}'
            lacking = (quoted_types(tree) if exported else loaded_names(tree)) - known - bound_names(tree)
            known |= module_names(tree)
            first = next((l for l in source.splitlines() if l.strip() and not l.startswith(('#|', '@'))), '')
            names = ', '.join(sorted(lacking))
            if lacking: yield f'{path.relative_to(ROOT).as_posix()}: the docs build does not know {names} in: {first[:60]}'


def skipped_code():
    "List cells in which code stands beside `nbdev_export()`: nbdev_test skips them whole, so it would never run as a test."
    for path in notebooks():
        for source in cells_of(path):
            beside = [l for l in source.splitlines() if l.strip() and not l.startswith('#|') and 'nbdev_export()' not in l]
            if 'nbdev_export()' in source and beside: yield f'{path.relative_to(ROOT).as_posix()}: nbdev_test skips this line, which stands in the cell of nbdev_export(): {beside[0][:60]!r}'


def lint(args):
    "List what would not survive the docs build, or be skipped by the tests; quick, since nothing runs."
    found = [*lost_prose(), *undefined_names(), *skipped_code()]
    for line in found: print(line)
    print(f'{len(notebooks())} notebooks, {len(found)} cells to mend')
    return int(bool(found))


def new_name(page):
    "Return the address nbdev gives a page, relative to the site: `00_core.html` becomes `core.html`."
    from nbdev.doclinks import _nbpath2html
    return _nbpath2html(Path(page)).as_posix()


def rename_pages(site):
    "Rename the pages as nbdev's links expect them (smalldocs ignores `output-file`), and every link to them."
    pages = {p.relative_to(site).as_posix(): None for p in site.rglob('*.html') if 'site_libs' not in p.parts}
    names = {old: new_name(old) for old in pages}
    twice = {n for n in names.values() if list(names.values()).count(n) > 1}
    if twice: sys.exit(f'two notebooks would become the same page: {", ".join(sorted(twice))}; rename one')
    for old, new in names.items(): relink(site/old, old, new, names)
    for old, new in names.items():
        if new != old: (site/old).rename(site/new)
    for name in ('search.json', 'sitemap.xml', 'llms.txt'):
        if (site/name).exists(): relist(site/name, names)


def base_url():
    "Return the address at which the site is published, ending in a slash."
    cfg = settings()
    return f'{cfg.doc_host}{cfg.doc_baseurl}'.rstrip('/') + '/'


def relink(path, old, new, names):
    "Rewrite the links of one page: to the new names, and from the published address to relative ones."
    folder, base = posixpath.dirname(old), base_url()
    def link(m):
        page, mark, rest = re.match(r'([^#?]*)([#?]?)(.*)', unescape(m.group(2)), re.S).groups()
        if page.startswith(base): target = page[len(base):] or 'index.html'
        elif re.match(r'[a-z][a-z0-9+.-]*:|/', page) or not page: return m.group(0)
        else: target = posixpath.normpath(posixpath.join(folder, page))
        if not target.endswith('.html'): return m.group(0)
        return m.group(1) + posixpath.relpath(names.get(target, target), folder or '.') + mark + rest + '"'
    text = re.sub(r'(<a\b[^>]*?\shref=")([^"]*)"', link, path.read_text(encoding='utf-8'))
    path.write_text(text.replace(base + old, base + new), encoding='utf-8')


def relist(path, names):
    "Put the new names into a list of pages: the search index, the sitemap."
    text = path.read_text(encoding='utf-8')
    for old, new in names.items(): text = re.sub(rf'(["/]){re.escape(old)}(?=["#<)])', rf'\g<1>{new}', text)
    path.write_text(text, encoding='utf-8')


class Page(HTMLParser):
    "What the link check needs of a page: the ids that can be linked to, and the links with their tags."
    def __init__(self, path):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs[k] for k in ('id', 'name') if attrs.get(k)}
        self.links += [(tag, attrs[k]) for k in ('href', 'src') if attrs.get(k)]
        if tag == 'img' and not attrs.get('src'): self.links.append((tag, 'an image without a source'))


def broken_links(site):
    "Yield `page: link (why)` for every internal link, anchor, image, style sheet or script that does not resolve."
    pages = {p: Page(p) for p in sorted(site.rglob('*.html')) if 'site_libs' not in p.parts}
    for path, page in pages.items():
        for tag, link in page.links:
            if why := fault(site, path, pages, tag, link): yield f'{path.relative_to(site).as_posix()}: {link} ({why})'
    for entry in json.loads((site/'search.json').read_text(encoding='utf-8')):
        if why := fault(site, site/'index.html', pages, 'a', entry['href']): yield f'search.json: {entry["href"]} ({why})'


def fault(site, path, pages, tag, link):
    "Say what is wrong with one link, '' when it is right or leads out of the site."
    base = base_url()
    if link.startswith(base): link = link[len(base):] or 'index.html'; path = site/'index.html'
    if re.match(r'(?i)[a-z][a-z0-9+.-]*:|//', link): return ''
    name, _, anchor = link.partition('#')
    name = unquote(name.split('?')[0])
    target = path if not name else (site/name.lstrip('/') if name.startswith('/') else path.parent/name).resolve()
    if target.is_dir(): target = target/'index.html'
    if site not in target.parents: return 'outside the site'
    if not target.is_file(): return 'no such file'
    if anchor and tag == 'a' and target in pages and unquote(anchor) not in pages[target].ids: return 'no such anchor'
    return ''


def report_links(site):
    "Print the broken links of a built site and their number."
    site = Path(site).resolve()
    if not (site/'index.html').is_file(): sys.exit(f'{site}/index.html is missing: not a built site, or nbs/index.ipynb is absent')
    found = list(broken_links(site))
    for line in found: print(line)
    n = sum(1 for p in site.rglob('*.html') if 'site_libs' not in p.parts)
    print(f'{n} pages in {site.name}/, {len(found)} broken links')
    return int(bool(found))


def main():
    "Read the command line and run one of the tools in the project's top folder."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tools = parser.add_subparsers(required=True)
    for run in (test, sync, readme, lint, docs):
        p = tools.add_parser(run.__name__, help=run.__doc__)
        p.set_defaults(run=run)
        if run in (test, docs): p.add_argument('--workers', type=int, default=2, help='processes')
        if run is readme: p.add_argument('--check', action='store_true', help='compare only')
        if run is test:
            p.add_argument('notebook', nargs='*', help='all, when none is named')
            p.add_argument('--flags', default='', help='flags whose cells run too, separated by spaces')
            p.add_argument('--flagged', action='store_true', help='only notebooks with a cell flagged so')
    p = tools.add_parser('links', help='check the links of a built site')
    p.add_argument('folder')
    p.set_defaults(run=lambda args: report_links(args.folder))
    p = tools.add_parser('filter', help='process one notebook for the docs, to see what is wrong with it')
    p.add_argument('notebook')
    p.set_defaults(run=filter_one)
    args = parser.parse_args()
    if args.run is test: args.notebook = [Path(n).resolve() for n in args.notebook]
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    os.environ['PYTHONPATH'] = os.pathsep.join([str(ROOT)] + os.environ.get('PYTHONPATH', '').split(os.pathsep)).rstrip(os.pathsep)
    sys.exit(args.run(args))


if __name__ == '__main__': main()
