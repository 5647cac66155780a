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

RESULTS = Path(__file__).parent/'results'/'guard'

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data-dir', default='data/chest_xray')
    p.add_argument('--part', default='report', choices=('report', 'develop'))
    p.add_argument('--out', type=Path, default=RESULTS)
    a = p.parse_args()
    from cxr_nbdev.core import atomic_path, write_json
    from cxr_nbdev.images import read_image
    from cxr_nbdev.dataset import make_splits, scan_folder
    from cxr_nbdev.guard import fit_guard
    from cxr_nbdev.testing.strange import measure_guard, photographs
    if a.part == 'report' and len(photographs('report')) < 8:
        p.error('the photographs are in scikit-image; pip install scikit-image')
    guard, rates = measure_guard(a.data_dir, a.part)
    print(rates.round(3).to_string(index=False))
    if a.part == 'develop': return
    root = Path(a.data_dir)
    table = make_splits(scan_folder(root))
    started = time.process_time()
    stored = fit_guard(table, root)
    seconds = time.process_time() - started
    images = [read_image(root/f) for f in table.file[table.use == 'valid'][:200]]
    started = time.process_time()
    for image in images: guard.scores([image])
    each = (time.process_time() - started)/len(images)*1e3
    a.out.mkdir(parents=True, exist_ok=True)
    with atomic_path(a.out/'rates.csv') as tmp: rates.to_csv(tmp, index=False, lineterminator='\n')
    about = dict(fit_cpu_seconds=round(seconds, 1), milliseconds_an_image=round(each, 2),
                 stored_bytes=len(json.dumps(stored)), n_fit=guard.n, n_held=guard.n_held,
                 quantile=stored['quantile'], photographs=list(photographs('report')))
    write_json(a.out/'guard.json', about)

if __name__ == '__main__': main()
