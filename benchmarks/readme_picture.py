"""Draw the README's picture from what cxr_demo left: `cxr_demo --output-dir cxr_demo && python benchmarks/readme_picture.py cxr_demo`.

Six new phantoms, three bacterial and three viral, with the lesion outlined, and below them Grad-CAM and HiResCAM of the second stage of the
network that the demo trained. How often each points at the lesion is printed for a hundred more phantoms.
The first three of each kind that the network calls pneumonia are taken, whether the map hits the lesion or not.
"""
import sys
from pathlib import Path
import numpy as np
from matplotlib.figure import Figure
from cxr_nbdev.images import to_batch
from cxr_nbdev.gradcam import class_activation_maps
from cxr_nbdev.gradcam import pointing_hit
from cxr_nbdev.phantom import draw_phantom
from cxr_nbdev.predict import Predictor
from cxr_nbdev.networks import probability
from PIL import Image
import torch

METHODS = 'gradcam', 'hirescam'
FIRST = 900_000 # seeds from here on are in no split of the demo

def found(predictor, kind, n=3):
    "The first phantoms of a kind, from FIRST on, that the network calls pneumonia, each with its probability and heat map."
    out, size = [], predictor.size
    for seed in range(FIRST, FIRST + 100):
        phantom = draw_phantom(seed, kind, 2*size)
        x = to_batch([Image.fromarray(phantom.image).resize((size, size), Image.Resampling.BILINEAR)], predictor.model.stats).to(predictor.device)
        with torch.no_grad(): p = float(probability(predictor.model(x))[0])
        if p >= .5: out.append((phantom, p, [class_activation_maps(predictor.model, x, 1, layer=predictor.model.layer2, method=m)[0] for m in METHODS]))
        if len(out) == n: return out
    raise SystemExit(f'fewer than {n} {kind} phantoms are found by this network; train it longer')

def enlarged(cam, phantom):
    "A map at the size of its phantom."
    return np.asarray(Image.fromarray(cam).resize(phantom.image.shape[::-1], Image.Resampling.BILINEAR))

def main(folder):
    predictor = Predictor.load(Path(folder)/'checkpoints'/'custom_resnet_cbam'/'best_model.pth', device='cpu')
    fig = Figure(figsize=(9, 4.8), layout='constrained')
    axes = fig.subplots(3, 6)
    for column, (phantom, p, cams) in zip(axes.T, found(predictor, 'bacterial') + found(predictor, 'viral')):
        for ax in column:
            ax.imshow(phantom.image, cmap='gray', vmin=0, vmax=255); ax.contour(phantom.mask, [.5], colors='cyan', linewidths=.7)
            ax.set(xticks=[], yticks=[])
        for ax, cam in zip(column[1:], cams): ax.imshow(enlarged(cam, phantom), cmap='inferno', alpha=.5, vmin=0, vmax=1)
        column[0].set_title(f'{phantom.kind}, p = {p:.2f}', fontsize=9)
    for ax, text in zip(axes[:, 0], ('phantom', 'Grad-CAM', 'HiResCAM')): ax.set_ylabel(text, fontsize=9)
    hits = np.array([[pointing_hit(enlarged(c, phantom), phantom.mask) for c in cams] for k in ('bacterial', 'viral') for phantom, _, cams in found(predictor, k, 50)])
    print('points at the lesion:', dict(zip(METHODS, hits.mean(0).round(2))), 'of', len(hits))
    out = Path(__file__).parent.parent/'nbs'/'images'/'demo.png'
    fig.savefig(out, dpi=90, pil_kwargs=dict(optimize=True))
    Image.open(out).convert('P', palette=Image.Palette.ADAPTIVE, colors=192).save(out, optimize=True)
    print(out.name, out.stat().st_size, 'bytes')

if __name__ == '__main__':
    if len(sys.argv) != 2: sys.exit(__doc__)
    main(sys.argv[1])
