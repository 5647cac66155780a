"The docs site without Quarto: nbdev processes the notebooks, smalldocs renders them, and every link is checked."
import json
import posixpath
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

from common import ROOT, notebooks, relative, settings
from lint import lost_prose, undefined_names


def build(workers=2):
    "Build the site with nbdev and smalldocs in _docs/, then check its links."
    from nbdev.quarto import refresh_quarto_yml
    from nbdev.serve import proc_nbs
    stub = settings().nbs_path/'_quarto.yml'
    if not stub.exists(): sys.exit(f'{relative(stub)} is missing, and nbdev would put its default there: restore it')
    lost = list(lost_prose())
    for line in lost: print(line)
    refresh_quarto_yml()
    try: proc_nbs(force=True, n_workers=workers)
    except Exception: sys.exit(why_not_processed(workers))
    render()
    site = ROOT/settings().doc_path.name
    shutil.rmtree(site, ignore_errors=True)
    shutil.move(ROOT/'_proc'/site.name, site)
    rename_pages(site)
    return report_links(site) or int(bool(lost))


def render():
    "Make pages with smalldocs; show its warnings but those on options that only Quarto has."
    code = 'import sys; from smalldocs.cli import main; sys.exit(main(["render", "_proc"]))'
    run = subprocess.run([sys.executable, '-c', code], cwd=ROOT, stderr=subprocess.PIPE, text=True, encoding='utf-8')
    for line in run.stderr.splitlines():
        if not re.search(r'output-file is not read|format.html.grid', line): print(line)
    if run.returncode: sys.exit(f'smalldocs failed with exit status {run.returncode}')


def filter_one(notebook):
    "Filter one notebook for the docs; print where and why that fails."
    from execnb.nbio import read_nb
    from nbdev.processors import FilterDefaults
    try: FilterDefaults()(read_nb(notebook))
    except Exception as e:
        cell = next((l for l in str(e).splitlines()[1:] if l.strip() and not l.startswith('#|')), '')
        print(f'{notebook}: {type(e.__cause__ or e).__name__}: {e.__cause__ or ""} in the cell {cell[:80]}')
        return 1
    return 0


def why_not_processed(workers):
    "Say for each notebook that nbdev cannot process what is wrong in it (nbdev itself stops at the first)."
    def fault(path):
        command = [sys.executable, str(ROOT/'.ci/tools.py'), 'filter', relative(path)]
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding='utf-8')
        return (run.stdout.splitlines() or ['no reason given'])[-1] if run.returncode else ''
    with ThreadPoolExecutor(workers) as pool: faults = [f for f in pool.map(fault, notebooks()) if f]
    return '\n'.join(['nbdev could not process:', *faults, *undefined_names()])


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
    "Yield `page: link (why)` for every link, anchor, image, style sheet or script of the site that does not resolve."
    pages = {p: Page(p) for p in sorted(site.rglob('*.html')) if 'site_libs' not in p.parts}
    for path, page in pages.items():
        for tag, link in page.links:
            why = fault(site, path, pages, tag, link)
            if why: yield f'{path.relative_to(site).as_posix()}: {link} ({why})'
    text = (site/'llms.txt').read_text(encoding='utf-8')
    for link in re.findall(r'\]\(([^)]+)\)', text):
        why = fault(site, site/'index.html', pages, 'a', link)
        if why: yield f'llms.txt: {link} ({why})'
    for entry in json.loads((site/'search.json').read_text(encoding='utf-8')):
        why = fault(site, site/'index.html', pages, 'a', entry['href'])
        if why: yield f'search.json: {entry["href"]} ({why})'


def fault(site, path, pages, tag, link):
    "Say what is wrong with one link, '' when it is right or leads out of the site."
    base = base_url()
    if link.startswith(base): link, path = link[len(base):] or 'index.html', site/'index.html'
    if re.match(r'(?i)[a-z][a-z0-9+.-]*:|//', link): return ''
    name, _, anchor = link.partition('#')
    name = unquote(name.split('?')[0])
    folder = site if name.startswith('/') else path.parent
    target = (folder/name.lstrip('/')).resolve() if name else path
    if target.is_dir(): target = target/'index.html'
    if site not in target.parents: return 'outside the site'
    if not target.is_file(): return 'no such file'
    if anchor and tag == 'a' and target in pages and unquote(anchor) not in pages[target].ids: return 'no such anchor'
    return ''


def report_links(site):
    "Print the broken links of a built site and their number."
    site = Path(site).resolve()
    if not (site/'index.html').is_file():
        sys.exit(f'{site}/index.html is missing: not a built site, or nbs/index.ipynb is absent')
    found = list(broken_links(site))
    for line in found: print(line)
    n = sum(1 for p in site.rglob('*.html') if 'site_libs' not in p.parts)
    print(f'{n} pages in {site.name}/, {len(found)} broken links')
    return int(bool(found))
