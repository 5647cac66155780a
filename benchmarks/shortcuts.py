"""Predict changed copies of the test images with a trained network: lungs black, border only, mirrored, darker.

    python benchmarks/shortcuts.py --data-dir DATA --checkpoint WORK/checkpoints/NAME/best_model.pth [--out FILE.json]

Writes numbers only, by default to benchmarks/results/shortcuts/NAME.json, and prints them;
nbs/evaluation/03_shortcuts.ipynb shows them.
"""
import argparse
from pathlib import Path

RESULTS = Path(__file__).parent/'results'

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data-dir', default='data/chest_xray')
    p.add_argument('--checkpoint', type=Path, required=True)
    p.add_argument('--out', type=Path, default=None)
    p.add_argument('--split', default='test')
    p.add_argument('--masks', default=None, help='folder of PNG lung masks')
    p.add_argument('--changes', nargs='+', default=None, metavar='NAME')
    p.add_argument('--n-boot', type=int, default=1000)
    a = p.parse_args()
    from cxr_nbdev.core import write_json
    from cxr_nbdev.evaluate import select_split
    from cxr_nbdev.predict import Predictor
    from cxr_nbdev.shortcuts import shortcut_tests, shortcut_text
    rows, _, root = select_split(a.data_dir, a.split)
    predictor = Predictor.load(a.checkpoint, device='cpu')
    result = shortcut_tests(predictor, rows, root, a.n_boot, progress=True, changes=a.changes, masks=a.masks)
    result.update(run=a.checkpoint.parent.name, split=a.split)
    write_json(a.out or RESULTS/'shortcuts'/f'{a.checkpoint.parent.name}.json', result)
    print(shortcut_text(result))

if __name__ == '__main__': main()
