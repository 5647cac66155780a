"""What moves generalisation? Many short runs on training images only, judged on several kinds of validation; the
test split is opened once, after the choice.

    python benchmarks/recipes.py run  --data-dir DATA --work WORK [--only NAME ...] [--seeds 0] [--jobs 2]
    python benchmarks/recipes.py rank --work WORK      tables of what was run, on validation only
    python benchmarks/recipes.py shape --data-dir DATA --run FOLDER
                              what a change of shape does to a run of cxr_train, on its validation images
    python benchmarks/recipes.py test --work WORK
                              adds the test figures and how well each validation had ranked the recipes

The training and val folders give three parts. `plain`: a tenth of the patients at random. `range`: the eighth of
each series (IM, NORMAL2-IM, bacteria, virus) with the lowest patient numbers, since the official test split is made
of other ranges of numbers than the training split. `plain` and `range` are also scored with changed images
(`CHANGES` in recipe_runs.py). The rest trains. With `--hold NORMAL2-IM` that whole series of normals is kept from
training and forms `range` instead: another acquisition series.

WORK/recipes/NAME-sSEED gets predictions.csv (a row an image and way of predicting). A finished run is not repeated.
"""
import argparse
import os
import subprocess
import sys
from pathlib import Path

AFFINE = ['affine', 'lighting', 'gamma']
STRETCH = ['affine', 'stretch', 'lighting', 'gamma']

# The base: the package's augmentation of before, class-weighted loss, one cycle
BASE = dict(augment=AFFINE, weighted=True, lr=1e-3, decay=1e-4, epochs=4, size=64, model='custom_resnet18')
LITE0 = dict(model='tf_efficientnet_lite0', size=128, epochs=3, freeze=1, body_lr=.3)
SIZES = dict(sizes=(64, 64, 96, 96), size=96) # of each epoch, and of the predictions


def stretched(*more, **changes):
    "Return a recipe with changes of shape, with `more` augmentation and other changes."
    return dict(augment=[*STRETCH, *more], **changes)


RECIPES = { # changes to the base
    'base': {},
    'no augmentation': dict(augment=[]),
    'unweighted': dict(weighted=False),
    'balanced sampling': dict(weighted=False, balanced=True),
    'smoothing .1': dict(smoothing=.1),
    'mixup .4': dict(mixup=.4),
    'cutmix 1': dict(cutmix=1.),
    'crop': dict(augment=['crop', 'lighting', 'gamma']),
    'wide affine': dict(augment=['wide', 'lighting', 'gamma']),
    'exposure': dict(augment=['affine', 'exposure']),
    'noise and blur': dict(augment=[*AFFINE, 'noise', 'blur']),
    'erasing': dict(augment=[*AFFINE, 'erase']),
    'flip': dict(augment=[*AFFINE, 'flip']),
    'stretch contrast': dict(standard='stretch'),
    'CLAHE': dict(standard='clahe'),
    'rate x 3': dict(lr=3e-3),
    'rate / 3': dict(lr=3e-4),
    'decay .05': dict(decay=.05),
    'dropout .5': dict(dropout=.5),
    '2 epochs': dict(epochs=2),
    '8 epochs': dict(epochs=8),
    '96 px': dict(size=96),
    '64, 96 px': SIZES,
    'rotation pretraining': dict(rotations=3),
    'stretch': stretched(),
    'blur, noise, smoothing': dict(augment=[*AFFINE, 'noise', 'blur'], smoothing=.1),
    'stretch, blur, noise, smoothing': stretched('noise', 'blur', smoothing=.1),
    'stretch, blur, noise': stretched('noise', 'blur'),
    'stretch, crop': stretched('crop'),
    'stretch, erasing': stretched('erase'),
    'stretch, flip': stretched('flip'),
    'stretch, mixup .4': stretched(mixup=.4),
    'stretch, cutmix 1': stretched(cutmix=1.),
    'stretch, balanced sampling': stretched(weighted=False, balanced=True),
    'stretch, SWA': stretched(swa=.75),
    'stretch, exposure': stretched('exposure'),
    'stretch, smoothing .1': stretched(smoothing=.1),
    'stretch, CLAHE': stretched(standard='clahe'),
    'stretch, contrast': stretched(standard='stretch'),
    'stretch, rate / 3': stretched(lr=3e-4),
    'stretch, 2 epochs': stretched(epochs=2),
    'stretch, unweighted': stretched(weighted=False),
    'stretch, rate x 3': stretched(lr=3e-3),
    'stretch, 8 epochs': stretched(epochs=8),
    'stretch, 96 px': stretched(size=96),
    'stretch, 64, 96 px': stretched(**SIZES),
    'stretch, dropout .5': stretched(dropout=.5),
    'stretch, rotation pretraining': stretched(rotations=3),
    'lite0, stretch': stretched(**LITE0),
    'lite0': LITE0,
    'all': dict(augment=['crop', 'wide', 'exposure', 'noise', 'blur', 'erase']),
}


def run_all(a):
    "Run every recipe with every seed, each in a process of its own."
    from runs import in_parallel
    shared = ['--data-dir', a.data_dir, '--work', str(a.work)]
    if a.hold: shared += ['--hold', a.hold]
    def one(job):
        name, seed = job
        command = [sys.executable, __file__, 'one', '--only', name, '--seeds', str(seed), *shared]
        subprocess.run(command, check=True, env=dict(os.environ, OMP_NUM_THREADS='1'))
    in_parallel(one, [(name, seed) for seed in a.seeds for name in a.only], a.jobs)


def make_parser():
    "Make the parser."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('do', choices=['run', 'one', 'rank', 'shape', 'test'])
    p.add_argument('--data-dir', default='data/chest_xray')
    p.add_argument('--work', type=Path, default=Path('runs'))
    p.add_argument('--only', nargs='+', default=list(RECIPES), metavar='NAME')
    p.add_argument('--seeds', type=int, nargs='+', default=[0])
    p.add_argument('--hold', default=None)
    p.add_argument('--run', type=Path, help='folder of a run of cxr_train')
    p.add_argument('--name', help='name of its table (default: that of the folder)')
    p.add_argument('--jobs', type=int, default=2)
    return p


def main():
    "Do what the first word says."
    a = make_parser().parse_args()
    if a.do == 'run': run_all(a)
    elif a.do == 'one':
        from recipe_runs import run_recipe
        name = a.only[0]
        run_recipe(name, BASE | RECIPES[name], a.seeds[0], a.data_dir, a.work, a.hold)
    elif a.do == 'shape':
        from recipe_runs import write_shape_table
        write_shape_table(a.data_dir, a.run, a.name or a.run.name)
    else:
        from recipe_tables import write_tables
        write_tables(a.work, a.data_dir, with_test=a.do == 'test')


if __name__ == '__main__': main()
