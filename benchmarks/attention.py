"""Does CBAM help? No attention, CBAM after each stage and in each block, both starts, the same seeds; from scratch and on a pretrained backbone.

    python benchmarks/attention.py --data-dir DATA --work WORK [--size 64 --epochs 5 --seeds 0 1 2 --jobs 2 --amp]

WORK gets the checkpoints; benchmarks/results/attention/NAME-sSEED gets config, history, predictions and metrics of each run as it ends.
Everything is resumable: run the same line again. A run at 64 px takes some six minutes on one core; with --amp
the variants from scratch train in bfloat16 in half the time, where the CPU has instructions for it (the committed results were made so, see config.json of each).
"""
import argparse, os, subprocess, sys
from pathlib import Path
from runs import RESULTS, evaluate_one, in_parallel, train_one

PRETRAINED = {'lite0-none': None, 'lite0-identity': 'identity', 'lite0-paper': 'paper'} # CBAM after each of the seven stages of tf_efficientnet_lite0

VARIANTS = {
    'none': ['--model', 'custom_resnet18'],
    'stage-identity': ['--model', 'custom_resnet_cbam', '--place', 'stage', '--start', 'identity'],
    'stage-paper': ['--model', 'custom_resnet_cbam', '--place', 'stage', '--start', 'paper'],
    'block-identity': ['--model', 'custom_resnet_cbam', '--place', 'block', '--start', 'identity'],
    'block-paper': ['--model', 'custom_resnet_cbam', '--place', 'block', '--start', 'paper'],
}

def pretrained_one(variant, seed, data, work, results, size, epochs):
    "Fine-tune tf_efficientnet_lite0 with ImageNet weights and CBAM put in afterwards, which no command can ask for; the parts are the package's."
    import json, torch
    from dataclasses import asdict
    from cxr_nbdev.attention import CBAM
    from cxr_nbdev.config import TrainConfig, check_config
    from cxr_nbdev.core import atomic_path, set_seed, write_json
    from cxr_nbdev.dataset import class_weights
    from cxr_nbdev.evaluate import compute_metrics, select_split, predict_table
    from cxr_nbdev.loaders import make_dls
    from cxr_nbdev.predict import Predictor
    from cxr_nbdev.callbacks import averaged_model
    from cxr_nbdev.learner import fit, make_learner
    from cxr_nbdev.train import read_data
    from cxr_nbdev.networks import LITE0
    from cxr_nbdev.zoo import create_model
    torch.set_num_threads(1)
    out = results/f'{variant}-s{seed}'
    config = check_config(TrainConfig(data_dir=str(data), model='tf_efficientnet_lite0', weights=LITE0, img_size=size, epochs=epochs, body_lr=.3, seed=seed))
    table, root = read_data(config)
    set_seed(seed)
    model = create_model(config.model, weights=LITE0)
    if PRETRAINED[variant]:
        for i, info in enumerate(model.blocks):
            ch = [m for m in info.modules() if isinstance(m, torch.nn.BatchNorm2d)][-1].num_features
            model.blocks[i] = torch.nn.Sequential(info, CBAM(ch, start=PRETRAINED[variant]))
    dls = make_dls(table, root, size, 32, tfms=None, stats=model.stats)
    learn = make_learner(dls, model, class_weights(table.label[table.use == 'train']), config.weight_decay, config.label_smoothing)
    with learn.no_bar(): history = fit(learn, epochs, config.lr, seed, config.freeze_epochs, config.body_lr, ema=config.ema)
    predictor = Predictor(averaged_model(learn), size, 'cpu')
    rows, _, root = select_split(root, 'test')
    predictions = predict_table(predictor, rows, root)
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out/'predictions_test.csv') as tmp: predictions.to_csv(tmp, index=False, lineterminator='\n')
    import pandas as pd, platform, timm
    with atomic_path(out/'history.csv') as tmp: pd.DataFrame(history).to_csv(tmp, index=False, lineterminator='\n')
    write_json(out/'config.json', dict(config=asdict(config), device='cpu', versions=dict(torch=torch.__version__, timm=timm.__version__, python=platform.python_version()), epoch='last'))
    write_json(out/'metrics_test.json', compute_metrics(predictions, predictor, rows))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data-dir', default='data/chest_xray')
    p.add_argument('--work', type=Path, default=Path('runs'))
    p.add_argument('--size', type=int, default=64)
    p.add_argument('--epochs', type=int, default=5)
    p.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    p.add_argument('--jobs', type=int, default=2)
    p.add_argument('--only', nargs='+', choices=[*VARIANTS, *PRETRAINED], default=[*VARIANTS, *PRETRAINED], metavar='VARIANT')
    p.add_argument('--pretrained-size', type=int, default=64)
    p.add_argument('--pretrained-epochs', type=int, default=3)
    p.add_argument('--amp', action='store_true', help='mixed precision for the variants from scratch')
    p.add_argument('--one', help=argparse.SUPPRESS)
    a = p.parse_args()
    work, results = a.work/'attention', RESULTS/'attention'
    if a.one:
        variant, seed = a.one.rsplit('-s', 1)
        return pretrained_one(variant, int(seed), a.data_dir, work, results, a.pretrained_size, a.pretrained_epochs)
    def one(name):
        variant, seed = name.rsplit('-s', 1)
        if (results/name/'metrics_test.json').exists(): return
        if variant in PRETRAINED: # a process of its own
            flags = ['--one', name, '--data-dir', a.data_dir, '--work', a.work, '--pretrained-size', a.pretrained_size, '--pretrained-epochs', a.pretrained_epochs]
            return subprocess.run([sys.executable, __file__, *map(str, flags)], check=True, env=dict(os.environ, OMP_NUM_THREADS='1'))
        train_one(name, [*VARIANTS[variant], '--img-size', a.size, '--epochs', a.epochs, '--seed', seed, *(['--amp'] if a.amp else [])], a.data_dir, work)
        evaluate_one(name, a.data_dir, work, results)
    in_parallel(one, [f'{v}-s{s}' for s in a.seeds for v in a.only], a.jobs)

if __name__ == '__main__': main()
