"""Draw the README's picture from what cxr_demo left: `cxr_demo --output-dir cxr_demo && python benchmarks/readme_picture.py cxr_demo`.

Six new phantoms, three bacterial and three viral, with the lesion outlined, and below them the heat maps of the network that the demo trained.
The first three of each kind that the network calls pneumonia are taken, whether the map hits the lesion or not.
"""
import sys
from pathlib import Path
import numpy as np
from matplotlib.figure import Figure
from cxr_nbdev.data import to_batch
from cxr_nbdev.gradcam import class_activation_maps
from cxr_nbdev.phantom import draw_phantom
from cxr_nbdev.predict import Predictor
from cxr_nbdev.zoo import probability
from PIL import Image
import torch

FIRST = 900_000 # seeds from here on are in no split of the demo

def found(predictor, kind, n=3):
    "The first phantoms of a kind, from FIRST on, that the network calls pneumonia, each with its probability and heat map."
    out, size = [], predictor.size
    for seed in range(FIRST, FIRST + 100):
        phantom = draw_phantom(seed, kind, 2*size)
        x = to_batch([Image.fromarray(phantom.image).resize((size, size), Image.Resampling.BILINEAR)]).to(predictor.device)
        with torch.no_grad(): p = float(probability(predictor.model(x))[0])
        if p >= .5: out.append((phantom, p, class_activation_maps(predictor.model, x, 1, layer=predictor.model.layer2)[0]))
        if len(out) == n: return out
    raise SystemExit(f'fewer than {n} {kind} phantoms are found by this network; train it longer')

def main(folder):
    predictor = Predictor.load(Path(folder)/'checkpoints'/'custom_resnet_cbam'/'best_model.pth', device='cpu')
    fig = Figure(figsize=(9, 3.3), layout='constrained')
    axes = fig.subplots(2, 6)
    for (upper, lower), (phantom, p, cam) in zip(axes.T, found(predictor, 'bacterial') + found(predictor, 'viral')):
        big = np.asarray(Image.fromarray(cam).resize(phantom.image.shape[::-1], Image.Resampling.BILINEAR))
        for ax in (upper, lower): ax.imshow(phantom.image, cmap='gray', vmin=0, vmax=255); ax.contour(phantom.mask, [.5], colors='cyan', linewidths=.7); ax.set_axis_off()
        lower.imshow(big, cmap='inferno', alpha=.5, vmin=0, vmax=1)
        upper.set_title(f'{phantom.kind}, {p:.2f}', fontsize=9)
    out = Path(__file__).parent.parent/'nbs'/'images'/'demo.png'
    fig.savefig(out, dpi=90, pil_kwargs=dict(optimize=True))
    Image.open(out).convert('P', palette=Image.Palette.ADAPTIVE, colors=192).save(out, optimize=True)
    print(out.name, out.stat().st_size, 'bytes')

if __name__ == '__main__':
    if len(sys.argv) != 2: sys.exit(__doc__)
    main(sys.argv[1])
