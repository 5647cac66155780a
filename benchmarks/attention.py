"""Does CBAM help? No attention, CBAM after each stage and in each block, both starts, the same seeds; from scratch and on a pretrained backbone.

    python benchmarks/attention.py --data-dir DATA --work WORK [--size 64 --epochs 5 --seeds 0 1 2 --jobs 2]

WORK gets the checkpoints; benchmarks/results/attention/NAME-sSEED gets config, history, predictions and metrics of each run as it ends.
Everything is resumable: run the same line again. On two cores the default takes some 40 minutes.
"""
import argparse
from pathlib import Path
from runs import RESULTS, evaluate_one, in_parallel, train_one

VARIANTS = {
    'none': ['--model', 'custom_resnet18'],
    'stage-identity': ['--model', 'custom_resnet_cbam', '--place', 'stage', '--start', 'identity'],
    'stage-paper': ['--model', 'custom_resnet_cbam', '--place', 'stage', '--start', 'paper'],
    'block-identity': ['--model', 'custom_resnet_cbam', '--place', 'block', '--start', 'identity'],
    'block-paper': ['--model', 'custom_resnet_cbam', '--place', 'block', '--start', 'paper'],
}

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data-dir', default='data/chest_xray')
    p.add_argument('--work', type=Path, default=Path('runs'))
    p.add_argument('--size', type=int, default=64)
    p.add_argument('--epochs', type=int, default=5)
    p.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    p.add_argument('--jobs', type=int, default=2)
    a = p.parse_args()
    work, results = a.work/'attention', RESULTS/'attention'
    def one(name):
        variant, seed = name.rsplit('-s', 1)
        train_one(name, [*VARIANTS[variant], '--img-size', a.size, '--epochs', a.epochs, '--lr', .001, '--class-weights', '--seed', seed], a.data_dir, work)
        evaluate_one(name, a.data_dir, work, results)
    in_parallel(one, [f'{v}-s{s}' for s in a.seeds for v in VARIANTS], a.jobs)

if __name__ == '__main__': main()
