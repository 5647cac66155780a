"""Do crops that are drawn for each image help? Runs on training images only; the test split is opened by `report`,
after the choice.

    python benchmarks/crops.py run --data-dir DATA --work WORK [--variants none 0.5 0.25 0.08] [--size 64] [--epochs 15]
                                   [--model custom_resnet18] [--seeds 0] [--threads 1]
    python benchmarks/crops.py report --work WORK      writes benchmarks/results/crops/crops.csv

A variant is the smallest share of the area that a crop keeps: 0.25 draws crops of 25 to 100 % of the area with
aspect ratios from 3/4 to 4/3, one for each image, cut from the 224 px file before it is reduced. `none` cuts
nothing. The other augmentation is the package's. The parts are those of recipes.py: `valid` is a random tenth
of the patients, `range` holds the lowest patient numbers of each series.

The rule of choice, written down before any run: the highest mean of two AUCs over `valid` and `range`, that of
images in five shapes (`reshaped`) and that of images without their outer tenth (`border_free`). Variants with
crops are judged with the centre zoom that matches their training (the mean side of a crop, as in Touvron et al.
2019, Fixing the train-test resolution discrepancy), and `none` without a zoom. Every run goes on from its last
finished epoch when it is started again.
"""
import argparse
import json
import math
import os
import time
from pathlib import Path

RESULTS = Path(__file__).parent/'results'/'crops'
SHAPES = (-.2, -.1, .1, .2)     # logarithm of a factor: width by e^a, height by e^-a, as in recipes.py
BORDER = .1                     # share of a side that `border_free` removes at each edge
RATIO = (3/4, 4/3)              # aspect ratio of a crop


def mean_side(low):
    "Return the mean side of a square crop, as a share, when its area is uniform between `low` and 1."
    return 2/3*(1 - low**1.5)/(1 - low)


def read_data(data_dir, work):
    "Read every image once at 224 px; return the table with `use`, and the images as (n,1,224,224) uint8."
    import numpy as np
    import torch
    from concurrent.futures import ThreadPoolExecutor
    from cxr_nbdev.images import read_square
    from recipe_runs import parts
    table, root = parts(data_dir)
    table = table.reset_index(drop=True)
    cache = work/'squares.npy'
    if not cache.exists():
        with ThreadPoolExecutor(2) as pool:
            squares = list(pool.map(lambda f: np.asarray(read_square(root/f, 224)), table.file))
        np.save(cache, np.stack(squares))
    return table, torch.from_numpy(np.load(cache))[:,None]


def crop_box(rng, low, side):
    "Draw top, left, height and width of one crop, pixels."
    for _ in range(10):
        area = rng.uniform(low, 1)*side*side
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area*ratio)), round(math.sqrt(area/ratio))
        if w <= side and h <= side:
            return int(rng.integers(0, side - h + 1)), int(rng.integers(0, side - w + 1)), h, w
    return 0, 0, side, side


def zoomed(images, keep, size):
    "Cut the centre, `keep` of each side, and bring it to `size` pixels."
    from torchvision.transforms.v2.functional import resized_crop
    side = images.shape[-1]
    inner = round(keep*side)
    start = (side - inner)//2
    return resized_crop(images, start, start, inner, inner, [size, size], antialias=True)


def reshaped(x, a):
    "Widen by e^a and shorten by e^-a; black comes in from beyond the border."
    import torch
    import torch.nn.functional as F
    theta = torch.tensor([[math.exp(-a), 0, 0], [0, math.exp(a), 0]]).expand(len(x), 2, 3)
    return F.grid_sample(x, F.affine_grid(theta, x.shape, align_corners=False), align_corners=False)


def batches(images, rows, low, size, seed):
    "Yield batches of 32: positions in the table, and images (32,3,size,size) in [0,1], cropped and augmented."
    import numpy as np
    import torch
    from fastai.torch_core import TensorImage
    from fastai.vision.augment import setup_aug_tfms
    from fasttransform import Pipeline
    from torchvision.transforms.v2.functional import resize, resized_crop
    from cxr_nbdev.loaders import radiograph_tfms
    rng = np.random.default_rng(seed)
    augment = Pipeline(setup_aug_tfms(radiograph_tfms()), split_idx=0)
    for start in range(0, len(rows) - 31, 32):
        if start == 0: rows = rng.permutation(rows)
        own = rows[start:start+32]
        if low is None: x = resize(images[own], [size, size], antialias=True)
        else:
            boxes = [crop_box(rng, low, images.shape[-1]) for _ in own]
            crops = [resized_crop(images[i], *box, [size, size], antialias=True) for i, box in zip(own, boxes)]
            x = torch.stack(crops)
        x = x.float().div_(255).expand(-1, 3, -1, -1).contiguous()
        yield own, augment(TensorImage(x)).as_subclass(torch.Tensor)


def build(args, steps):
    "Make network, averaged network, optimizer and schedule."
    import torch
    from timm.utils.model_ema import ModelEmaV3
    from cxr_nbdev.zoo import LITE0, create_model
    lite = args.model.startswith('tf_efficientnet_lite0')
    model = create_model(args.model, weights=LITE0 if lite else None).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), args.lr, weight_decay=.01, betas=(.9, .99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=steps, pct_start=.25)
    return model, ModelEmaV3(model, .99, use_warmup=True), optimizer, schedule


def train(args, low, seed, table, images, folder):
    "Train one variant, going on from its last epoch; return the averaged network."
    import numpy as np
    import torch
    from cxr_nbdev.dataset import class_weights
    torch.manual_seed(seed)
    rows = np.flatnonzero(table.use == 'train')
    y = torch.tensor((table.label == 'PNEUMONIA').to_numpy().astype(int))
    n = len(rows)//32
    model, ema, optimizer, schedule = build(args, n*args.epochs)
    mean, std = (torch.tensor(s)[None,:,None,None] for s in model.stats)
    loss_of = torch.nn.CrossEntropyLoss(torch.tensor(class_weights(table.label[rows])), label_smoothing=.1)
    last, first = folder/'last.pt', 0
    if last.exists():
        saved = torch.load(last, weights_only=True)
        first = saved['epoch']
        for name, o in dict(model=model, ema=ema.module, optimizer=optimizer, schedule=schedule).items():
            o.load_state_dict(saved[name])
    for epoch in range(first, args.epochs):
        torch.manual_seed(1000*seed + epoch)
        model.train()
        started, losses = time.time(), []
        for step, (own, x) in enumerate(batches(images, rows, low, args.size, [seed, epoch])):
            x = ((x - mean)/std).contiguous(memory_format=torch.channels_last)
            loss = loss_of(model(x), y[own])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            ema.update(model, epoch*n + step + 1)
            losses.append(float(loss.detach()))
        parts = dict(model=model, ema=ema.module, optimizer=optimizer, schedule=schedule)
        torch.save({**{k: o.state_dict() for k, o in parts.items()}, 'epoch': epoch+1}, folder/'last.tmp')
        os.replace(folder/'last.tmp', last)
        seconds = time.time() - started
        print(f'{folder.name} epoch {epoch+1}/{args.epochs}: loss {np.mean(losses):.4f}, {seconds:.0f} s', flush=True)
    return ema.module


def predict(net, x):
    "Return P(PNEUMONIA), (n,), for images (n,1,size,size) in [0,1]."
    import torch
    from cxr_nbdev.zoo import probability
    mean, std = (torch.tensor(s)[None,:,None,None] for s in net.stats)
    net.eval()
    with torch.inference_mode():
        parts = [(b.expand(-1, 3, -1, -1) - mean)/std for b in x.split(64)]
        return torch.cat([probability(net(b.contiguous(memory_format=torch.channels_last))) for b in parts]).numpy()


def run_one(args, variant, seed, table, images):
    "Train and predict one variant with one seed, unless that was done."
    import numpy as np
    import pandas as pd
    folder = args.work/f'{args.model}-{args.size}px-{args.epochs}e-crop_{variant}-s{seed}'
    if (folder/'run.json').exists(): return print('already done', folder.name)
    folder.mkdir(parents=True, exist_ok=True)
    low = None if variant == 'none' else float(variant)
    net = train(args, low, seed, table, images, folder)
    rows, keep = np.flatnonzero(table.use != 'train'), 1. if low is None else mean_side(low)
    found = []
    def add(change, x, own):
        part = table.iloc[own]
        columns = dict(file=part.file.values, use=part.use.values, label=part.label.values, patient=part.patient.values)
        found.append(pd.DataFrame(dict(columns, change=change, p=predict(net, x))))
    whole = {k: zoomed(images[rows], k, args.size).float().div_(255) for k in {1., keep}}
    for k, name in ((1., 'plain'), (keep, 'zoom')): add(name, whole[k], rows)
    inside = np.flatnonzero(table.iloc[rows].use.isin(['valid', 'range']))
    for k, name in ((1., 'plain'), (keep, 'zoom')):
        for a in SHAPES: add(f'{name} {a:+}', reshaped(whole[k][inside], a), rows[inside])
    inner = zoomed(images[rows[inside]], 1 - 2*BORDER, args.size).float().div_(255)
    add('border_free', inner, rows[inside])
    pd.concat(found).to_csv(folder/'predictions.csv', index=False, lineterminator='\n')
    facts = dict(model=args.model, size=args.size, epochs=args.epochs, lr=args.lr, crop=variant, zoom=keep, seed=seed)
    (folder/'run.json').write_text(json.dumps(facts, indent=1) + '\n')
    (folder/'last.pt').unlink()
    print('done', folder.name, flush=True)


def score(folder):
    "Compute the AUCs of one run, and what the rule of choice says of it."
    import numpy as np
    import pandas as pd
    from sklearn.metrics import roc_auc_score
    run, t = json.loads((folder/'run.json').read_text()), pd.read_csv(folder/'predictions.csv')
    t['y'] = (t.label == 'PNEUMONIA').astype(int)
    way = 'plain' if run['crop'] == 'none' else 'zoom'
    def auc(use, *changes):
        q = t[(t.use == use) & t.change.isin(changes)]
        return roc_auc_score(q.y, q.p)
    parts = ('valid', 'range')
    shapes = [way] + [f'{way} {a:+}' for a in SHAPES]
    run['plain'] = np.mean([auc(u, way) for u in parts])
    run['reshaped'] = np.mean([auc(u, *shapes) for u in parts])
    run['border_free'] = np.mean([auc(u, 'border_free') for u in parts])
    run['chosen_by'] = (run['reshaped'] + run['border_free'])/2
    test = t[(t.use == 'test') & (t.change == way)]
    run.update(test_auc=roc_auc_score(test.y, test.p), test_accuracy=float(((test.p >= .5) == test.y).mean()))
    run['test_auc_without_zoom'] = auc('test', 'plain')
    return run


def report(args):
    "Write the table of all finished runs, best by the rule first."
    import pandas as pd
    runs = [score(f.parent) for f in sorted(args.work.glob('*/run.json'))]
    table = pd.DataFrame(runs).sort_values('chosen_by', ascending=False).round(4)
    RESULTS.mkdir(parents=True, exist_ok=True)
    table.to_csv(RESULTS/'crops.csv', index=False, lineterminator='\n')
    print(table.to_string(index=False))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('verb', choices=('run', 'report'))
    parser.add_argument('--data-dir')
    parser.add_argument('--work', type=Path, required=True)
    parser.add_argument('--variants', nargs='+', default=['none', '0.5', '0.25', '0.08'])
    parser.add_argument('--model', default='custom_resnet18')
    parser.add_argument('--size', type=int, default=64)
    parser.add_argument('--epochs', type=int, default=15)
    parser.add_argument('--lr', type=float, default=1e-3)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--threads', type=int, default=1)
    args = parser.parse_args()
    if args.verb == 'report': return report(args)
    import torch
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    table, images = read_data(args.data_dir, args.work)
    for seed in args.seeds:
        for variant in args.variants: run_one(args, variant, seed, table, images)


if __name__ == '__main__': main()
