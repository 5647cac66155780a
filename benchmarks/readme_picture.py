"""Draw the README's figure from what cxr_demo left:

    cxr_demo --output-dir cxr_demo && python benchmarks/readme_picture.py cxr_demo

Six new phantoms, three bacterial and three viral, with the lesion outlined, and below them Grad-CAM and HiResCAM
of the second stage of the network that the demo trained. How often each points at the lesion is printed for a
hundred more phantoms. The first three of each kind that the network calls pneumonia are taken, whether the map
hits the lesion or not.
"""
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from cxr_nbdev.gradcam import class_activation_maps, pointing_hit
from cxr_nbdev.phantom import draw_phantom
from cxr_nbdev.predict import Predictor

METHODS = 'gradcam', 'hirescam'
FIRST = 900_000 # seeds from here on are in no split of the demo


def heat_maps(predictor, phantom):
    "Return one map of the second stage for each method."
    x, layer = predictor.to_input([phantom.image]), predictor.model.layer2
    return [class_activation_maps(predictor.model, x, 1, layer=layer, method=m)[0] for m in METHODS]


def find_ill(predictor, kind, n=3):
    "Return the first phantoms of a kind that the network calls pneumonia, each with its probability and maps."
    out = []
    for seed in range(FIRST, FIRST + 100):
        phantom = draw_phantom(seed, kind, 2*predictor.size)
        p = float(predictor.predict_batch([phantom.image])[0])
        if p >= .5: out.append((phantom, p, heat_maps(predictor, phantom)))
        if len(out) == n: return out
    raise SystemExit(f'fewer than {n} {kind} phantoms are found by this network; train it longer')


def enlarge(cam, phantom):
    "Return a map at the size of its phantom."
    return np.asarray(Image.fromarray(cam).resize(phantom.image.shape[::-1], Image.Resampling.BILINEAR))


def draw_figure(found):
    "Draw a column for each phantom: itself, and below it its maps."
    fig = Figure(figsize=(9, 4.8), layout='constrained')
    axes = fig.subplots(3, 6)
    for column, (phantom, p, cams) in zip(axes.T, found):
        for ax in column:
            ax.imshow(phantom.image, cmap='gray', vmin=0, vmax=255)
            ax.contour(phantom.mask, [.5], colors='cyan', linewidths=.7)
            ax.set(xticks=[], yticks=[])
        for ax, cam in zip(column[1:], cams):
            ax.imshow(enlarge(cam, phantom), cmap='inferno', alpha=.5, vmin=0, vmax=1)
        column[0].set_title(f'{phantom.kind}, p = {p:.2f}', fontsize=9)
    for ax, text in zip(axes[:, 0], ('phantom', 'Grad-CAM', 'HiResCAM')): ax.set_ylabel(text, fontsize=9)
    return fig


def count_hits(predictor):
    "Print how often each method points at the lesion of fifty phantoms of each kind."
    found = find_ill(predictor, 'bacterial', 50) + find_ill(predictor, 'viral', 50)
    hits = np.array([[pointing_hit(enlarge(c, phantom), phantom.mask) for c in cams] for phantom, _, cams in found])
    print('points at the lesion:', dict(zip(METHODS, hits.mean(0).round(2))), 'of', len(hits))


def main(folder):
    "Draw the figure and save it with a palette, under 100 KB."
    checkpoint = Path(folder)/'checkpoints'/'custom_resnet_cbam'/'best_model.pth'
    predictor = Predictor.load(checkpoint, device='cpu')
    fig = draw_figure(find_ill(predictor, 'bacterial') + find_ill(predictor, 'viral'))
    count_hits(predictor)
    out = Path(__file__).parent.parent/'nbs'/'images'/'demo.png'
    fig.savefig(out, dpi=90, pil_kwargs=dict(optimize=True))
    Image.open(out).convert('P', palette=Image.Palette.ADAPTIVE, colors=192).save(out, optimize=True)
    print(out.name, out.stat().st_size, 'bytes')


if __name__ == '__main__':
    if len(sys.argv) != 2: sys.exit(__doc__)
    main(sys.argv[1])
