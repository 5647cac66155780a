"""Fit the guard on training images; count what it flags of 200 images that are no radiographs and of the test images.

    python benchmarks/guard.py --data-dir DATA [--part report|develop] [--out FOLDER]

Needs scikit-image for its photographs. Writes rates.csv and guard.json, by default to benchmarks/results/guard;
nbs/testing/02_strange.ipynb shows them. `--part develop` takes other photographs and the validation images, and prints
only: for choices.
"""
import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_nbdev import dataset, guard, images, scope
from cxr_nbdev.layout import classes
from cxr_nbdev.phantom import draw_phantom
from cxr_nbdev.testing.strange import flag_table, photographs, strange_images

RESULTS = Path(__file__).parent/'results'/'guard'


def beyond(radiographs, n=100, seed=0):
    "Make n images of each kind at which no promise is aimed."
    rng = np.random.default_rng([seed, 1])
    def some(): return radiographs[rng.integers(len(radiographs))]
    makers = {
        'cropped to 60-75 %': lambda i: guard.crop_part(some(), rng, .6, .75),
        'cropped to 75-90 %': lambda i: guard.crop_part(some(), rng, .75, .9),
        'slanted by 10 degrees': lambda i: images.affine_image(some(), 10),
        'slanted by 20 degrees': lambda i: images.affine_image(some(), 20),
        'upside down, mirrored': lambda i: guard.corrupt(some(), 'upside down', rng),
        'mirrored': lambda i: some()[:, ::-1].copy(), 'negative': lambda i: guard.corrupt(some(), 'negative', rng),
        'shuffled': lambda i: guard.corrupt(some(), 'shuffled', rng), 'darker': lambda i: (some()*.6).astype(np.uint8),
        'phantom': lambda i: draw_phantom(i, ('normal', 'bacterial', 'viral')[i % 3], 160).image}
    return {kind: [make(i) for i in range(n)] for kind, make in makers.items()}

def measure_guard(data, part='report'):
    """Fit a guard on a data set and count what it flags: the guard; a table of set, kind, n, flagged, share, low, high.
    develop takes other photographs than report, and radiographs of the validation part."""
    root = dataset.find_root(data)
    table = dataset.make_splits(dataset.scan_folder(root))
    fitted = guard.Guard(scope.fit_scope(table, root))
    rows = table[table.use == dict(report='test', develop='valid')[part]]
    read = [images.read_image(root/f) for f in rows.file]
    sets = dict(real={f'real, {c}': [im for im, label in zip(read, rows.label) if label == c] for c in classes},
                strange=strange_images(read, part))
    for kinds in sets.values(): kinds['all'] = [im for some in kinds.values() for im in some]
    tables = {name: flag_table(fitted, kinds) for name, kinds in dict(sets, beyond=beyond(read)).items()}
    return fitted, pd.concat(tables, names=['set']).reset_index('set').reset_index(drop=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data-dir', default='data/chest_xray')
    p.add_argument('--part', default='report', choices=('report', 'develop'))
    p.add_argument('--out', type=Path, default=RESULTS)
    a = p.parse_args()
    from cxr_nbdev.core import atomic_path, write_json
    if a.part == 'report' and len(photographs('report')) < 8:
        p.error('the photographs are in scikit-image; pip install scikit-image')
    fitted, rates = measure_guard(a.data_dir, a.part)
    print(rates.round(3).to_string(index=False))
    if a.part == 'develop': return
    root = Path(a.data_dir)
    table = dataset.make_splits(dataset.scan_folder(root))
    started = time.process_time()
    stored = scope.fit_scope(table, root)
    seconds = time.process_time() - started
    read = [images.read_image(root/f) for f in table.file[table.use == 'valid'][:200]]
    started = time.process_time()
    for image in read: fitted.scores([image])
    each = (time.process_time() - started)/len(read)*1e3
    a.out.mkdir(parents=True, exist_ok=True)
    with atomic_path(a.out/'rates.csv') as tmp: rates.to_csv(tmp, index=False, lineterminator='\n')
    about = dict(fit_cpu_seconds=round(seconds, 1), milliseconds_an_image=round(each, 2),
                 stored_bytes=len(json.dumps(stored)), n_fit=fitted.n, n_held=fitted.n_held,
                 quantile=stored['quantile'], photographs=list(photographs('report')))
    write_json(a.out/'guard.json', about)

if __name__ == '__main__': main()
