"""Does CBAM help? No attention, CBAM after each stage and in each block, both starts, the same seeds; from random
weights and on a pretrained backbone.

    python benchmarks/attention.py --data-dir DATA --work WORK [--size 64 --epochs 5 --seeds 0 1 2 --jobs 2 --amp]

WORK gets the checkpoints; benchmarks/results/attention/NAME-sSEED gets config, history, predictions and metrics of
each run as it ends. Everything is resumable: run the same line again. A run at 64 px takes some six minutes on one
core; with --amp the variants from random weights train in bfloat16 in half the time, where the CPU has instructions
for it (the committed results were made so, see config.json of each).
"""
import argparse
import os
import subprocess
import sys
from pathlib import Path

from runs import RESULTS, evaluate_one, in_parallel, train_one

VARIANTS = {
    'none': ['--model', 'custom_resnet18'],
    'stage-identity': ['--model', 'custom_resnet_cbam', '--place', 'stage', '--start', 'identity'],
    'stage-paper': ['--model', 'custom_resnet_cbam', '--place', 'stage', '--start', 'paper'],
    'block-identity': ['--model', 'custom_resnet_cbam', '--place', 'block', '--start', 'identity'],
    'block-paper': ['--model', 'custom_resnet_cbam', '--place', 'block', '--start', 'paper'],
}
# CBAM after each of the seven stages of tf_efficientnet_lite0: how it starts
PRETRAINED = {'lite0-none': None, 'lite0-identity': 'identity', 'lite0-paper': 'paper'}


def pretrained_config(data, size, epochs, seed):
    "Return the options of a run on the pretrained backbone."
    from cxr_nbdev.config import TrainConfig, check_config
    from cxr_nbdev.networks import LITE0
    return check_config(TrainConfig(
        data_dir=str(data), model='tf_efficientnet_lite0', weights=LITE0, img_size=size, epochs=epochs, body_lr=.3,
        seed=seed))


def pretrained_model(config, start):
    "Return the network with ImageNet weights, and with CBAM after each stage unless `start` is None."
    import torch
    from cxr_nbdev.attention import CBAM
    from cxr_nbdev.zoo import create_model
    model = create_model(config.model, weights=config.weights)
    if start is None: return model
    for i, stage in enumerate(model.blocks):
        norms = [m for m in stage.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        model.blocks[i] = torch.nn.Sequential(stage, CBAM(norms[-1].num_features, start=start))
    return model


def fine_tune(config, data, model):
    "Train the network; return the one that is judged, and the history."
    from cxr_nbdev.callbacks import EMACallback
    from cxr_nbdev.dataset import class_weights
    from cxr_nbdev.learner import fit, make_learner
    from cxr_nbdev.loaders import make_dls
    dls = make_dls(data.table, data.root, config.img_size, 32, tfms=None, stats=model.stats)
    weights = class_weights(data.part('train').label)
    learn = make_learner(dls, model, weights, config.weight_decay, config.label_smoothing)
    average = EMACallback(learn.model, config.ema)
    with learn.no_bar():
        history = fit(learn, config.epochs, config.lr, config.seed, config.freeze_epochs, config.body_lr,
                      average=average)
    return average.averaged, history


def pretrained_one(variant, seed, data_dir, results, size, epochs):
    "Fine-tune with CBAM put in afterwards, which no command can do; the parts are the package's."
    import torch
    from cxr_nbdev.core import set_seed
    from cxr_nbdev.dataset import DataSet
    from cxr_nbdev.evaluate import compute_metrics, predict_table, select_split
    from cxr_nbdev.predict import Predictor
    torch.set_num_threads(1)
    config = pretrained_config(data_dir, size, epochs, seed)
    data = DataSet.scan(config.data_dir).split(config.valid, config.seed, config.official_val)
    set_seed(seed)
    model, history = fine_tune(config, data, pretrained_model(config, PRETRAINED[variant]))
    predictor = Predictor(model, size, 'cpu')
    rows, _, root = select_split(data, 'test')
    predictions = predict_table(predictor, rows, root)
    metrics = compute_metrics(predictions, predictor, rows)
    write_run(results/f'{variant}-s{seed}', config, history, predictions, metrics)


def write_run(out, config, history, predictions, metrics):
    "Write the files that a run of the commands leaves; the metrics come last and say that it is done."
    import pandas as pd
    from dataclasses import asdict
    from cxr_nbdev.core import atomic_path, package_versions, write_json
    out.mkdir(parents=True, exist_ok=True)
    for name, table in (('predictions_test.csv', predictions), ('history.csv', pd.DataFrame(list(history)))):
        with atomic_path(out/name) as tmp: table.to_csv(tmp, index=False, lineterminator='\n')
    versions = package_versions('torch', 'timm')
    write_json(out/'config.json', dict(config=asdict(config), device='cpu', versions=versions, epoch='last'))
    write_json(out/'metrics_test.json', metrics)


def make_parser():
    "Make the parser."
    names = [*VARIANTS, *PRETRAINED]
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data-dir', default='data/chest_xray')
    p.add_argument('--work', type=Path, default=Path('runs'))
    p.add_argument('--size', type=int, default=64)
    p.add_argument('--epochs', type=int, default=5)
    p.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    p.add_argument('--jobs', type=int, default=2)
    p.add_argument('--only', nargs='+', choices=names, default=names, metavar='VARIANT')
    p.add_argument('--pretrained-size', type=int, default=64)
    p.add_argument('--pretrained-epochs', type=int, default=3)
    p.add_argument('--amp', action='store_true', help='mixed precision for the variants from random weights')
    p.add_argument('--one', help=argparse.SUPPRESS)
    return p


def run_one(name, a):
    "Train and evaluate one run, unless that was done; a pretrained one in a process of its own."
    variant, seed = name.rsplit('-s', 1)
    work, results = a.work/'attention', RESULTS/'attention'
    if (results/name/'metrics_test.json').exists(): return
    if variant in PRETRAINED:
        flags = ['--one', name, '--data-dir', a.data_dir, '--work', a.work,
                 '--pretrained-size', a.pretrained_size, '--pretrained-epochs', a.pretrained_epochs]
        env = dict(os.environ, OMP_NUM_THREADS='1')
        subprocess.run([sys.executable, __file__, *map(str, flags)], check=True, env=env)
        return
    flags = [*VARIANTS[variant], '--img-size', a.size, '--epochs', a.epochs, '--seed', seed]
    if a.amp: flags.append('--amp')
    train_one(name, flags, a.data_dir, work)
    evaluate_one(name, a.data_dir, work, results)


def main():
    "Train and evaluate every variant with every seed."
    a = make_parser().parse_args()
    if a.one:
        variant, seed = a.one.rsplit('-s', 1)
        pretrained_one(variant, int(seed), a.data_dir, RESULTS/'attention', a.pretrained_size, a.pretrained_epochs)
        return
    in_parallel(lambda name: run_one(name, a), [f'{v}-s{s}' for s in a.seeds for v in a.only], a.jobs)


if __name__ == '__main__': main()
