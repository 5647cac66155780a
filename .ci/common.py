"What the tools in this folder share: the project's settings, its notebooks and their cells."
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def settings():
    "Return nbdev's settings of this project."
    from nbdev.config import get_config
    return get_config(path=ROOT)


def notebooks(names=()):
    "List the notebooks named, or all that nbdev tests, as absolute paths in reading order."
    from nbdev.doclinks import nbglob
    if names: return [Path(n).resolve() for n in names]
    return [p.resolve() for p in sorted(nbglob(settings().nbs_path, as_path=True))]


def read_cells(path):
    "Return a notebook's cells as (kind, source) pairs; kind is code or markdown."
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    return [(c['cell_type'], ''.join(c['source'])) for c in cells]


def sources(path, kind='code'):
    "Return the sources of a notebook's cells of one kind."
    return [source for k, source in read_cells(path) if k == kind]


def has_flag(source, flags):
    "Say whether a cell carries one of the flags, as in `#| data`."
    lines = re.findall(r'^#\|\s*(.*)$', source, re.M)
    return any(w in flags for line in lines for w in line.split()[:1])


def is_exported(source):
    "Say whether nbdev writes this cell into the package."
    return has_flag(source, ('export', 'exporti', 'exports'))


def relative(path):
    "Return a path as it reads from the top folder."
    return path.relative_to(ROOT).as_posix()
