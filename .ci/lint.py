"What a reader, the docs build or the tests would stumble over, found without running a cell."
import ast
import builtins
import importlib
import json
import re
from pathlib import Path

from common import ROOT, has_flag, is_exported, notebooks, read_cells, relative, settings, sources

COLUMNS = 120          # hard limit of a line; 100 is what we aim at
CELL_LINES = 45        # of code in an exported cell; aim at 25 for a function
PAGE_CELLS, PAGE_LINES = 60, 300
LONG_PAGE = 'This page is long'    # how the first paragraph of a longer page begins its reason
MARKDOWN = ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'SECURITY.md')
NO_COLUMNS = re.compile(r'https?://|^\s*\||!\[|data:image')  # addresses, rows of tables and pictures may be longer


def lint():
    "Yield every finding as one line."
    yield from long_lines()
    yield from long_cells()
    yield from long_pages()
    yield from star_imports()
    yield from invalid_notebooks()
    yield from sidebar_gaps()
    yield from lost_prose()
    yield from undefined_names()
    yield from skipped_code()


# ---------------------------------------------------------------- length

def is_long(line):
    "Say whether a line is over the limit and not excepted."
    return len(line) > COLUMNS and not NO_COLUMNS.search(line)


def long_lines():
    "List lines over the limit: cells, benchmarks, this folder, and the Markdown files of the top folder."
    for path in notebooks():
        for kind, source in read_cells(path):
            for line in filter(is_long, source.splitlines()):
                yield f'{relative(path)}: {len(line)} columns in a {kind} cell: {line.strip()[:60]}'
    files = [*ROOT.glob('benchmarks/*.py'), *ROOT.glob('.ci/*'), ROOT/'setup.py', *(ROOT/m for m in MARKDOWN)]
    for path in filter(Path.is_file, files):
        for i, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
            if is_long(line): yield f'{relative(path)}:{i}: {len(line)} columns: {line.strip()[:60]}'


def code_lines(source):
    "Count the lines of a cell that are neither blank nor a directive."
    return sum(bool(l.strip()) and not l.startswith('#|') for l in source.splitlines())


def long_cells():
    "List exported cells that are too long to read at once."
    for path in notebooks():
        for source in filter(is_exported, sources(path)):
            if code_lines(source) > CELL_LINES:
                first = next(l for l in source.splitlines() if not l.startswith('#|'))
                yield f'{relative(path)}: an exported cell of {code_lines(source)} lines: {first[:60]}'


def long_pages():
    "List pages with too many cells or exported lines whose first paragraph gives no reason."
    for path in notebooks():
        cells = read_cells(path)
        lines = sum(code_lines(s) for k, s in cells if k == 'code' and is_exported(s))
        prose = [s for k, s in cells if k == 'markdown' and not re.search(r'^# ', s, re.M)]
        if (len(cells) > PAGE_CELLS or lines > PAGE_LINES) and LONG_PAGE not in ''.join(prose[:1]):
            yield (f'{relative(path)}: {len(cells)} cells and {lines} exported lines; '
                   f'split it, or begin its prose with "{LONG_PAGE}: ..."')


# ---------------------------------------------------------------- what stands in a cell

def star_imports():
    "List star imports in exported cells."
    for path in notebooks():
        for source in filter(is_exported, sources(path)):
            for line in re.findall(r'^\s*from \S+ import \*', source, re.M):
                yield f'{relative(path)}: {line.strip()} in an exported cell'


def invalid_notebooks():
    "List notebooks that nbformat refuses."
    import nbformat
    for path in notebooks():
        try: nbformat.validate(json.loads(path.read_text(encoding='utf-8')))
        except nbformat.ValidationError as e:
            yield f'{relative(path)}: not a valid notebook: {str(e).splitlines()[0]}'


def sidebar_gaps():
    "List pages that the sidebar lacks, and entries without a page."
    nbs = ROOT/'nbs'
    listed = re.findall(r'(?:href:|^\s*-)\s*([\w./-]+\.ipynb)', (nbs/'sidebar.yml').read_text(encoding='utf-8'), re.M)
    pages = {p.relative_to(nbs).as_posix() for p in notebooks()}
    hidden = {p for p in pages if re.match(r'testing/test_', p)}    # tests of a page; the page links to them
    for page in sorted(pages - hidden - set(listed)): yield f'nbs/sidebar.yml: {page} is missing'
    for page in sorted(set(listed) - pages): yield f'nbs/sidebar.yml: {page} does not exist'


def skipped_code():
    "List cells in which code stands beside `nbdev_export()`: nbdev_test skips them whole."
    for path in notebooks():
        for source in sources(path):
            if 'nbdev_export()' not in source: continue
            lines = [l for l in source.splitlines() if l.strip() and not l.startswith('#|')]
            beside = [l for l in lines if 'nbdev_export()' not in l]
            if beside: yield f'{relative(path)}: nbdev_test skips this line beside nbdev_export(): {beside[0][:60]!r}'


# ---------------------------------------------------------------- what the docs build needs

def lost_prose():
    "List the notebooks whose title cell holds more than title, summary and options: nbdev drops the rest."
    for path in notebooks():
        cell = next((s for s in sources(path, 'markdown') if re.search(r'^# ', s, re.M)), '')
        rest = [l for l in cell.splitlines() if l.strip() and not re.match(r'# |>|- \S.*:', l)]
        if rest: yield f'{relative(path)}: the docs lose this text of the title cell: {rest[0][:60]}'


def bound_names(tree):
    "Return every name that the code of a cell binds: assigned, imported, defined, an argument."
    found = set()
    for n in ast.walk(tree):
        if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load): found.add(n.id)
        elif isinstance(n, (ast.FunctionDef, ast.ClassDef)): found.add(n.name)
        elif isinstance(n, ast.arg): found.add(n.arg)
        elif isinstance(n, ast.ExceptHandler) and n.name: found.add(n.name)
        elif isinstance(n, ast.ImportFrom) and n.names[0].name == '*':
            found |= set(dir(importlib.import_module(n.module)))
        elif isinstance(n, (ast.Import, ast.ImportFrom)):
            found |= {(a.asname or a.name).split('.')[0] for a in n.names}
    return found


def module_names(tree):
    "Return the names that a cell leaves behind: bound outside functions, classes and comprehensions."
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


def public_functions(tree):
    "Return the public functions and methods that a cell defines."
    public = [n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith('_')]
    members = [f for n in public for f in (n.body if isinstance(n, ast.ClassDef) else [n])]
    return [f for f in members if isinstance(f, ast.FunctionDef)]


def quoted_types(tree):
    "Return the names in annotations written as text, which show_doc evaluates."
    functions = public_functions(tree)
    notes = [f.returns for f in functions]
    notes += [n.annotation for f in functions for n in ast.walk(f.args) if isinstance(n, ast.arg)]
    texts = [n.value for n in notes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return set().union(*(loaded_names(ast.parse(t, mode='eval')) for t in texts))


def undefined_names():
    "List what cells lack when the docs build runs only exported cells and cells with an import."
    for path in notebooks():
        if any('#| default_exp' in s for s in sources(path)): yield from undefined_in(path)


def undefined_in(path):
    "List the names that cells of one notebook lack, and flagged cells that the docs build would run."
    known = set(dir(builtins)) | {'display', 'get_ipython', 'show_doc'}
    for source in sources(path):
        if 'nbdev_export()' in source or has_flag(source, ('eval:',)): continue
        try: tree = ast.parse(source)
        except SyntaxError: continue
        exported = is_exported(source) or has_flag(source, ('exec_doc',))
        if not exported and not any(isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.walk(tree)): continue
        if has_flag(source, settings().tst_flags.split()):
            yield f'{relative(path)}: the docs build runs this flagged cell, for it holds an import: {source[:60]!r}'
        lacking = (quoted_types(tree) if exported else loaded_names(tree)) - known - bound_names(tree)
        known |= module_names(tree)
        first = next((l for l in source.splitlines() if l.strip() and not l.startswith(('#|', '@'))), '')
        names = ', '.join(sorted(lacking))
        if lacking: yield f'{relative(path)}: the docs build does not know {names} in: {first[:60]}'


