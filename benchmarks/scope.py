"""Measure the three verdicts of the guard: on test images, on a made variety of chest radiographs, on other images.

    python benchmarks/scope.py --data-dir DATA [--out FOLDER] [--n 100]

Fits the guard on the training images and writes real.csv, variety.csv, other.csv and about.json, by default to
benchmarks/results/scope; nbs/inference/03_scope.ipynb shows them. Needs scikit-image for photographs. The variety is
made from test images and adult-like phantoms. It is no outside data: it shows how far the decision carries, not how it
does in another hospital. The kinds of other images are not those of the fit, save that the fit has generic bodies and
sections of bodies; turned, cut and shuffled radiographs, which the fit does have, are listed apart.
"""
import argparse
import io
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps
from scipy import ndimage

RESULTS = Path(__file__).parent/'results'/'scope'

# --- chest radiographs, made different -------------------------------------------------------------------------------

def crop(a, rng, low, high):
    "The middle part, a little off."
    h, w = a.shape
    hh, ww = (int(n*f) for n, f in zip((h, w), rng.uniform(low, high, 2)))
    y, x = (int((n - m)*rng.uniform(.3, .7)) for n, m in ((h, hh), (w, ww)))
    return a[y:y+hh, x:x+ww]

def border(a, rng, level, low=.05, high=.25):
    "A border on all sides."
    h, w = a.shape
    t, b, l, r = (rng.uniform(low, high, 4)*[h, h, w, w]).astype(int)
    return np.pad(a, ((t, b), (l, r)), constant_values=level)

def letterbox(a, rng):
    "Black bars beside or above, up to a square of a narrow image."
    h, w = a.shape
    narrow = np.asarray(Image.fromarray(a).resize((int(w*rng.uniform(.6, .8)), h)))
    image = narrow if rng.random() < .5 else np.asarray(Image.fromarray(a).resize((w, int(h*rng.uniform(.6, .8)))))
    return np.asarray(ImageOps.pad(Image.fromarray(image), (h, h), color=0))

def shutters(a, rng):
    "Black outside a tilted rectangle, as a collimator leaves it."
    h, w = a.shape
    mask = Image.new('L', (w, h), 0)
    x0, x1, y0, y1 = rng.uniform(.02, .13)*w, rng.uniform(.87, .98)*w, rng.uniform(.02, .1)*h, rng.uniform(.9, .98)*h
    s = rng.normal(0, .03, 2)*[w, h]
    corners = [(x0 + s[0], y0), (x1 + s[0], y0 + s[1]), (x1 - s[0], y1 + s[1]), (x0 - s[0], y1)]
    ImageDraw.Draw(mask).polygon(corners, fill=255)
    return np.where(np.asarray(mask) > 0, a, 0).astype(np.uint8)

def disc(a, rng):
    "Black outside a circle."
    h, w = a.shape
    y, x = np.mgrid[:h, :w]
    return np.where(np.hypot((x - w/2)/(w/2), (y - h/2)/(h/2)) < rng.uniform(1.02, 1.2), a, 0).astype(np.uint8)

def curve(f):
    "A contrast curve of grey levels in [0,1]."
    return lambda a, rng: (255*np.clip(f(a/255., rng), 0, 1)).astype(np.uint8)

def clahe(a, rng):
    "Adaptive equalisation, of scikit-image."
    from skimage.exposure import equalize_adapthist
    return (255*equalize_adapthist(a, clip_limit=rng.uniform(.01, .05))).astype(np.uint8)

def font(size):
    "A font that matplotlib brings."
    import matplotlib
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans-Bold.ttf')), int(size))

def marker(a, rng):
    "A large letter on a plate beside a shoulder."
    image = Image.fromarray(a)
    draw, (w, h) = ImageDraw.Draw(image), image.size
    s = int(rng.uniform(.08, .16)*h)
    x, y = int(rng.choice([.02, .98])*(w - s)), int(rng.uniform(.02, .25)*h)
    if rng.random() < .5: draw.rectangle([x, y, x + s, y + s], outline=255, width=2)
    draw.text((x + s//6, y), str(rng.choice(['L', 'R'])), fill=255, font=font(s*.8))
    return np.asarray(image)

def caption(a, rng):
    "Four corners of burnt-in lines, as a viewer exports them."
    image = Image.fromarray(a)
    draw, (w, h) = ImageDraw.Draw(image), image.size
    text = 'NAME^GIVEN\nID 0012345\nDX CHEST PA\n12-Mar-2019'
    size = max(5, int(h*rng.uniform(.025, .05)))
    for x, y in ((.01, .01), (.62, .01), (.01, .82), (.62, .82)):
        draw.multiline_text((x*w, y*h), text, fill=int(rng.choice([255, 230])), font=font(size))
    return np.asarray(image)

def devices(a, rng):
    "A pacemaker, leads and electrodes."
    image = Image.fromarray(a)
    draw, (w, h) = ImageDraw.Draw(image), image.size
    x, y = w*rng.uniform(.62, .8), h*rng.uniform(.15, .3)
    draw.ellipse([x, y, x + .13*w, y + .11*h], fill=245)
    t = np.linspace(0, 1, 40)
    draw.line([(x + .05*w - .22*w*q, y + .1*h + .5*h*q + .05*h*np.sin(5*q)) for q in t], fill=235, width=max(1, w//110))
    for _ in range(3):
        cx, cy, r = rng.uniform(.15, .85)*w, rng.uniform(.2, .8)*h, .02*w
        draw.ellipse([cx - r, cy - r, cx + r, cy + r], fill=240)
        draw.line([(cx, cy), (cx + rng.normal(0, .2)*w, h)], fill=220, width=max(1, w//150))
    return np.asarray(image)

def screen(a, rng):
    "Photographed from a screen: tilted, with stripes and a dark corner."
    h, w = a.shape
    d = rng.uniform(0, .07, 8)*h
    quad = (-d[0], -d[1], -d[2], h + d[3], w + d[4], h + d[5], w + d[6], -d[7])
    z = np.asarray(Image.fromarray(a).transform((w, h), Image.Transform.QUAD, quad, Image.Resampling.BILINEAR), float)
    y, x = np.mgrid[-1:1:h*1j, -1:1:w*1j]
    z = z*(1 - .25*np.hypot(x - rng.normal(0, .3), y - rng.normal(0, .3))**2) + 8*np.sin(x*90 + y*8)
    return (20 + z*.8).clip(0, 255).astype(np.uint8)

def resized(side):
    "Few pixels, or many."
    return lambda a, rng: np.asarray(Image.fromarray(a).resize((side, side), Image.Resampling.BILINEAR))

def jpeg(a, rng):
    "Saved at quality 5."
    out = io.BytesIO()
    Image.fromarray(a).save(out, 'JPEG', quality=5)
    return np.asarray(Image.open(out))

def turned(low, high):
    "Turned a little."
    def change(a, rng):
        from cxr_nbdev.images import affine_image
        return affine_image(a, rng.choice([-1, 1])*rng.uniform(low, high))
    return change

VARIETY = {
    'as it is': lambda a, rng: a,
    'cropped to 75-95 %': lambda a, rng: crop(a, rng, .75, .95),
    'white border': lambda a, rng: border(a, rng, 255), 'black border': lambda a, rng: border(a, rng, 0),
    'grey border': lambda a, rng: border(a, rng, 128), 'letterboxed': letterbox,
    'collimated, tilted': shutters, 'collimated, round': disc,
    'gamma 0.5': curve(lambda z, rng: z**.5), 'gamma 2': curve(lambda z, rng: z**2),
    'S-shaped curve': curve(lambda z, rng: .5 + .5*np.tanh((z - rng.uniform(.35, .65))*5)),
    'logarithmic curve': curve(lambda z, rng: np.log1p(20*z)/np.log(21)),
    'low contrast': curve(lambda z, rng: .4 + .2*z), 'dark': curve(lambda z, rng: .35*z),
    'overexposed': curve(lambda z, rng: 1.7*z),
    'equalised': lambda a, rng: np.asarray(ImageOps.equalize(Image.fromarray(a))),
    'equalised by parts (CLAHE)': clahe, 'inverted': lambda a, rng: 255 - a,
    'side marker': marker, 'burnt-in text': caption, 'pacemaker, leads': devices, 'photographed from a screen': screen,
    'wide (3:2)': lambda a, rng: np.asarray(Image.fromarray(a).resize((336, 224))),
    'tall (2:3)': lambda a, rng: np.asarray(Image.fromarray(a).resize((224, 336))),
    '2000 pixels': resized(2000), '64 pixels': resized(64), '40 pixels': resized(40),
    'blurred': lambda a, rng: np.asarray(Image.fromarray(a).filter(ImageFilter.GaussianBlur(a.shape[0]/75))),
    'noise': lambda a, rng: (a + rng.normal(0, 25, a.shape)).clip(0, 255).astype(np.uint8), 'JPEG of quality 5': jpeg,
    'turned by 3-8 degrees': turned(3, 8), 'mirrored': lambda a, rng: np.ascontiguousarray(a[:,::-1]),
}

ADULT = dict(wide=(.74, .86), top=(-.95, -.88), right_dome=(.56, .74), dome_step=(0, .05), heart=(.72, .95),
             gap=(.1, .125), slope=(.2, .34), spine=(.05, .075), fat=(.06, .2),
             arm=(.8, 2.2), chin=(-1.6, -1.3), clavicle=(-.8, -.68),
             shoulder=(-.75, -.6), flare=(.2, .5))

def adult(seed, rng, breasts=False, size=256):
    "A phantom with the proportions of an adult: long lungs, a small heart, arms down; perhaps breasts."
    from unittest.mock import patch
    from cxr_nbdev import phantom_anatomy as anatomy
    with patch.dict(anatomy._PROPORTIONS, ADULT): c = anatomy.draw_chest(seed, 0, size)
    dense = c.dense
    if breasts:
        for side in (-1, 1):
            u, v = c.frame.u - side*.38, c.frame.v - rng.uniform(.2, .35)
            r = np.hypot(u/rng.uniform(.28, .36), v/rng.uniform(.3, .4))
            dense = dense + .09*np.sqrt(np.clip(1 - r**2, 0, 1))*(dense > .02)
    return anatomy.develop(dense.astype(np.float32), c.view, c.rng)

# --- images that are no chest radiographs ----------------------------------------------------------------------------

def grey(z):
    "Any numbers as grey levels."
    z = z - z.min()
    return (255*z/max(z.max(), 1e-6)).astype(np.uint8)

def coordinates(n=200):
    "x and y from -1 to 1."
    return np.mgrid[-1:1:n*1j, -1:1:n*1j][::-1]

def tube(x, y, a, b, wide, wall=.35):
    "A long bone from a to b: brighter at its walls."
    d = np.subtract(b, a)
    t = np.clip(((x - a[0])*d[0] + (y - a[1])*d[1])/(d@d), 0, 1)
    r = np.hypot(x - a[0] - t*d[0], y - a[1] - t*d[1])/(wide*(1 + .35*np.abs(2*t - 1)**4))
    return np.where(r < 1, 1 - wall*(1 - r**2), 0)

def hand(rng):
    "Five fingers of three bones, a palm and a wrist."
    x, y = coordinates()
    soft, bone = np.zeros_like(x), np.zeros_like(x)
    for i, angle in enumerate(np.deg2rad(rng.normal([-52, -20, -4, 10, 26], 4))):
        at, long = np.array([-.3 + .16*i, .25 - .1*(i > 0)]), (.2, .3, .33, .3, .24)[i]*rng.uniform(.9, 1.1)
        up = np.array([np.sin(angle), -np.cos(angle)])
        for k, part in enumerate((1.3, 1, .65, .45)[i == 0:]):
            end = at + up*long*part
            bone = np.maximum(bone, tube(x, y, at + .06*up*long, end - .06*up*long, .035 - .004*k))
            soft = np.maximum(soft, tube(x, y, at, end, .085, 0))
            at = end
    soft = np.maximum(soft, tube(x, y, (-.1, .3), (-.02, 1.2), .28, 0))
    bone = np.maximum(bone, sum(tube(x, y, (s, .55), (s*1.05, 1.3), .07) for s in (-.18, .06)))
    for _ in range(8):
        cx, cy = rng.uniform(-.3, .2), rng.uniform(.32, .5)
        bone = np.maximum(bone, .8*(np.hypot(x - cx, y - cy) < .07))
    z = ndimage.gaussian_filter(.3*soft + .6*bone, 1) + rng.normal(0, .015, x.shape)
    return grey(np.clip(z, 0, 1))

def limb(rng):
    "A knee or an elbow."
    x, y = coordinates()
    x = x + .2*rng.normal()*y
    soft = np.sqrt(np.clip(1 - (x/rng.uniform(.45, .7))**2, 0, 1))
    w, gap, lean = rng.uniform(.12, .2), rng.uniform(.02, .05), rng.normal(0, .1)
    bone = np.maximum(tube(x, y, (lean, -1.4), (0, -gap - w), w), tube(x, y, (0, gap + w), (-lean, 1.4), w*.95))
    bone = np.maximum(bone, np.maximum(1 - (np.hypot(x/(1.7*w), (y + gap + w)/w))**4, 0)*.85)
    bone = np.maximum(bone, np.maximum(1 - (np.hypot(x/(1.7*w), (y - gap - w)/w))**4, 0)*.85)
    bone = np.maximum(bone, tube(x, y, (1.6*w, .3), (1.8*w, 1.4), .35*w))
    return grey(ndimage.gaussian_filter(.35*soft + .5*bone, 1.2) + rng.normal(0, .012, x.shape))

def skull(rng):
    "A skull from the front: vault, orbits, nose, teeth."
    x, y = coordinates()
    x, y = x/rng.uniform(.85, 1.1), y/rng.uniform(.9, 1.1)
    r = np.hypot(x/.66, (y + .18)/.72)
    z = .35*(r < 1) + .5*np.exp(-((r - .97)/.05)**2)
    jaw = np.hypot(x/.45, (y - .45)/.42)
    z = np.maximum(z, .35*(jaw < 1)) + .3*np.exp(-((jaw - .95)/.08)**2)*(y > .4)
    for s in (-1, 1):
        o = np.hypot((x - s*.26)/.19, (y - .02)/.16)
        z = z*(1 - .45*(o < 1)) + .25*np.exp(-((o - 1)/.12)**2)
    n = np.hypot(x/.09, (y - .27)/.16)
    z = z*(1 - .4*(n < 1))
    z += .3*(np.abs(y - .55) < .09)*(np.abs(x) < .25)*(np.abs(np.sin(x*38)) > .25)
    z += .12*(np.hypot(x/.2, (y - .9)/.4) < 1)
    return grey(ndimage.gaussian_filter(z, 1.5) + rng.normal(0, .015, x.shape))

def abdomen(rng):
    "Belly and pelvis: spine, iliac wings, hips, gas."
    x, y = coordinates()
    z = .45*np.sqrt(np.clip(1.1 - (x/rng.uniform(.85, 1.05))**2, 0, 1))
    z += .25*(np.abs(x) < .11)*(.8 + .2*np.cos(y*22))*(y < .45)
    for s in (-1, 1):
        wing = np.hypot((x - s*.48)/.36, (y - .38)/.4)
        z += .22*(wing < 1)*(y < .75)*(np.hypot((x - s*.1)/.3, (y - .65)/.3) > 1) + .15*np.exp(-((wing - 1)/.06)**2)
        z += .25*(np.hypot((x - s*.62)/.14, (y - .82)/.14) < 1)
        z += .2*tube(x, y, (s*.66, .85), (s*.7, 1.5), .1)
        z -= .1*np.exp(-(((x - s*.22)/.06)**2 + ((y - .82)/.1)**2)*2)
        if rng.random() < .5: z += .06*(np.abs(s*x - .25 - .2*(y + 1)) < .03)
    for _ in range(rng.integers(3, 12)):
        cx, cy = rng.uniform(-.7, .7), rng.uniform(-.8, .5)
        z -= rng.uniform(.08, .22)*np.exp(-(((x - cx)/rng.uniform(.05, .18))**2 + ((y - cy)/rng.uniform(.05, .13))**2))
    return grey(np.clip(ndimage.gaussian_filter(z, 1.2) + rng.normal(0, .012, x.shape), 0, 1))

def ct(rng):
    "An axial CT slice: of the chest with two lungs, or of the belly."
    x, y = coordinates()
    x, y = x/rng.uniform(.8, 1), y/rng.uniform(.8, 1.05)
    r = np.hypot(x/.9, y/.66)
    z = .55*(r < 1) + .1*np.exp(-((r - .9)/.05)**2)
    if rng.random() < .5:
        for s in (-1, 1):
            l = np.hypot((x - s*.42)/rng.uniform(.27, .33), y/rng.uniform(.36, .46))
            z = np.where(l < 1, .08 + .1*(rng.random(x.shape) < .06), z)
        z = np.where(np.hypot((x - .12)/.25, (y + .12)/.22) < 1, .6, z)
    else:
        z = np.where(np.hypot((x + .35)/.42, (y + .05)/.42) < 1, .66, z)
        for _ in range(6):
            cx, cy = rng.uniform(-.6, .6), rng.uniform(-.45, .2)
            z = np.where((np.hypot((x - cx)/.1, (y - cy)/.08) < 1) & (r < .9), rng.choice([.02, .7]), z)
    z = np.where(np.hypot(x/.11, (y - .38)/.1) < 1, .95, z)
    for t in np.linspace(0, 2*np.pi, 17):
        z = np.where(np.hypot((x - .82*np.cos(t))/.06, (y - .59*np.sin(t))/.025) < 1, .95, z)
    z = np.where((np.abs(y - .78) < .015) & (np.abs(x) < .9), .4, z)
    return grey(ndimage.gaussian_filter(z, .8) + rng.normal(0, .02, x.shape))

def brain(rng):
    "An axial slice of a head."
    x, y = coordinates()
    t = rng.normal(0, .1)
    x, y = x*np.cos(t) - y*np.sin(t), x*np.sin(t) + y*np.cos(t)
    r = np.hypot(x/.68, y/.86)
    z = .5*(r < .93) + .9*np.exp(-((r - .97)/.025)**2)
    folds = ndimage.gaussian_filter(rng.normal(size=x.shape), 4)
    z += .12*np.sign(folds)*(r < .9)*(r > .5)
    for s in (-1, 1): z = np.where(np.hypot((x - s*.12)/.07, y/.28) < 1, .12, z)
    return grey(ndimage.gaussian_filter(z, 1) + rng.normal(0, .02, x.shape))

def breast(rng):
    "A mammogram: half a disc at one edge."
    x, y = coordinates()
    s = rng.choice([-1, 1])
    r = np.hypot((s*x + 1)/rng.uniform(.8, 1.4), (y - rng.normal(0, .1))/rng.uniform(.65, .95))
    texture = ndimage.gaussian_filter(rng.normal(size=x.shape), 5)
    z = np.where(r < 1, .4 + .25*np.exp(-(r/.5)**2) + 1.2*texture*(1 - r), 0)
    return grey(np.clip(z, 0, 1))

def ultrasound(rng):
    "A fan of speckle under a small probe."
    x, y = coordinates()
    r, t = np.hypot(x, y + 1.15), np.arctan2(x, y + 1.15)
    inside = (r > .3) & (r < 2) & (np.abs(t) < rng.uniform(.5, .8))
    speckle = np.abs(ndimage.gaussian_filter(rng.normal(size=x.shape), (1, 2)))*3
    z = speckle*(.4 + .5*np.sin(r*rng.uniform(6, 14) + 3*t))**2
    for _ in range(3):
        cx, cy = rng.uniform(-.4, .4), rng.uniform(-.4, .7)
        z = z*(1 - .9*(np.hypot((x - cx)/rng.uniform(.08, .25), (y - cy)/rng.uniform(.08, .2)) < 1))
    return grey(np.clip(z*inside, 0, 1))

def teeth(rng):
    "A panoramic film of the jaws."
    x, y = coordinates()
    c = y - .35*x**2*rng.uniform(.7, 1.2) + .1
    z = .3 + .25*np.exp(-((c - .25)/.3)**2)
    tooth = np.abs(np.sin(x*rng.uniform(18, 24))) > .25
    z += .4*tooth*((np.abs(c - .12) < .17) | (np.abs(c + .24) < .16))*(np.abs(x) < .8)
    z += .25*np.exp(-((np.abs(x) - .85)/.06)**2)*(c < .1)
    z -= .2*np.exp(-((c + .06)/.03)**2)
    return grey(ndimage.gaussian_filter(z, 1.2) + rng.normal(0, .015, x.shape))

def chart(rng):
    "A figure of matplotlib."
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    fig = Figure(figsize=(3, 3), dpi=80, layout='constrained')
    ax, how = fig.subplots(), rng.integers(5)
    if how == 0: ax.plot(np.cumsum(rng.normal(size=(60, rng.integers(1, 5))), 0))
    if how == 1: ax.bar(range(8), rng.random(8))
    if how == 2: ax.scatter(*rng.normal(size=(2, 80)), s=rng.uniform(5, 40))
    if how == 3: ax.imshow(rng.random((9, 9)), cmap=str(rng.choice(['viridis', 'gray', 'Blues'])))
    if how == 4: ax.pie(rng.random(5), labels=list('abcde'))
    ax.set_title('Results, by year')
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    return np.asarray(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).convert('L'))

def window(rng):
    "A desktop with windows, buttons, lists and small pictures."
    w, h = rng.integers(240, 480, 2)
    image = Image.new('L', (int(w), int(h)), int(rng.choice([245, 30, 200])))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(2, 5)):
        x, y, ww, hh = rng.uniform(0, .6)*w, rng.uniform(0, .6)*h, rng.uniform(.3, .6)*w, rng.uniform(.3, .6)*h
        draw.rectangle([x, y, x + ww, y + hh], fill=int(rng.choice([255, 60, 225])), outline=120)
        draw.rectangle([x, y, x + ww, y + 14], fill=int(rng.choice([90, 180])))
        draw.text((x + 4, y + 1), 'File  Edit  View', fill=255, font=font(9))
        for k in range(int(hh/14) - 2):
            draw.text((x + 6, y + 18 + 13*k), f'item {k}: {rng.integers(10**6)}', fill=128, font=font(9))
    return np.asarray(image)

def medical_files(rng):
    "Slices and scenes that pydicom and scikit-image ship: CT, MR, ultrasound, cells, an eye."
    import pydicom
    from pydicom.data import get_testdata_file
    from skimage import data
    folder, names = Path(data.__file__).parent, ('retina.jpg', 'ihc.png', 'phantom.png')
    out = [np.asarray(Image.open(folder/name).convert('L')) for name in names]
    for name in ('CT_small.dcm', 'MR_small.dcm', 'examples_rgb_color.dcm', 'examples_ybr_color.dcm',
                 'examples_palette.dcm', 'J2K_pixelrep_mismatch.dcm'):
        try:
            pixels = pydicom.dcmread(get_testdata_file(name, download=False)).pixel_array
            z = np.asarray(pixels, float)
            if z.ndim == 4: z = z[0]
            out.append(grey(z.mean(-1) if z.ndim == 3 else z))
        except Exception as e: print('left out', name, type(e).__name__)
    return out

def written(rng):
    "Parts of the two scanned pages that scikit-image ships."
    from skimage import data
    from cxr_nbdev.guard import crop_part
    folder = Path(data.__file__).parent
    a = np.asarray(Image.open(folder/str(rng.choice(['page.png', 'text.png']))).convert('L'))
    return crop_part(a, rng, .4, 1.)

def other_images(radiographs, n, seed=0):
    "Set -> kind -> n images: drawn and found, and changed radiographs."
    from cxr_nbdev.guard import corrupt, crop_part
    from cxr_nbdev.testing import strange
    rng = np.random.default_rng(seed)
    shots, files, fonts = list(strange.photographs('report').values()), medical_files(rng), strange._fonts()
    drawn = {f.__name__: f for f in (hand, limb, skull, abdomen, ct, brain, breast, ultrasound, teeth, chart, window)}
    names = dict(ct='CT slice', brain='head, slice', breast='mammogram', teeth='jaws', window='screen of a computer')
    makers = {names.get(k, k): (lambda i, f=f: f(rng)) for k, f in drawn.items()}
    makers |= {'noise and patterns': lambda i: strange._pattern(i, rng),
               'typeset page': lambda i: strange.text_page(rng, fonts),
               'scanned page': lambda i: written(rng),
               'photograph': lambda i: crop_part(shots[i % len(shots)], rng, .4, 1.),
               'CT, MR, ultrasound, cells (files)': lambda i: crop_part(files[i % len(files)], rng, .6, 1.)}
    def some(): return radiographs[rng.integers(len(radiographs))]
    def skewed(i): return corrupt(some(), 'turned' if i % 4 < 3 else 'slanted', rng)
    changed = {'turned by 90, 180, 270 or 25-155 degrees': skewed,
               'upside down': lambda i: corrupt(some(), 'upside down', rng),
               'part, sides of 35-60 %': lambda i: crop_part(some(), rng, .35, .6),
               'shuffled': lambda i: corrupt(some(), 'shuffled', rng)}
    return {'other': {k: [make(i) for i in range(n)] for k, make in makers.items()},
            'changed radiograph': {k: [make(i) for i in range(n)] for k, make in changed.items()}}

# --- counting --------------------------------------------------------------------------------------------------------

def row(guard, what, images):
    "Counts of the verdicts, and the reasons for `outside`."
    from collections import Counter
    from cxr_nbdev.scope import NO_CHEST, OUTSIDE, USUAL
    from cxr_nbdev.stats import wilson_interval
    verdicts = guard.verdicts(images)
    count, n = Counter(v.scope for v in verdicts), len(verdicts)
    reasons = Counter(v.reason.split(':')[0] for v in verdicts if v.scope == OUTSIDE)
    low, high = wilson_interval(count[NO_CHEST], n)
    return dict(kind=what, n=n, no_chest=count[NO_CHEST], outside=count[OUTSIDE], usual=count[USUAL],
                no_chest_share=round(count[NO_CHEST]/n, 4), low=round(low, 4), high=round(high, 4),
                reasons='; '.join(f'{r} {k}' for r, k in reasons.most_common(3)))

def variety(radiographs, n, seed=0):
    "Kind -> n images: test images changed in one way each, and adult-like phantoms."
    rng = np.random.default_rng([seed, 7])
    some = [radiographs[i] for i in rng.permutation(len(radiographs))[:n]]
    out = {k: [f(a, rng) for a in some] for k, f in VARIETY.items()}
    out['phantom, adult proportions'] = [adult(i, rng) for i in range(n)]
    out['phantom, adult, breasts'] = [adult(n + i, rng, True) for i in range(n)]
    return out

def main():
    import pandas as pd
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data-dir', type=Path, default=Path('data/chest_xray'))
    p.add_argument('--out', type=Path, default=RESULTS)
    p.add_argument('--n', type=int, default=100, help='images of each kind')
    a = p.parse_args()
    from cxr_nbdev.core import atomic_path, write_json
    from cxr_nbdev.dataset import make_splits, scan_folder
    from cxr_nbdev.guard import Guard
    from cxr_nbdev.images import classes, read_image
    from cxr_nbdev.scope import fit_scope
    table = make_splits(scan_folder(a.data_dir))
    started = time.process_time()
    stored = fit_scope(table, a.data_dir)
    seconds = time.process_time() - started
    guard = Guard(stored)
    test = table[table.use == 'test']
    images = [read_image(a.data_dir/f) for f in test.file]
    started = time.process_time()
    for image in images[:200]: guard.verdicts([image])
    each = (time.process_time() - started)/200*1e3
    a.out.mkdir(parents=True, exist_ok=True)
    def write(name, rows):
        found = pd.DataFrame(rows)
        print(found.to_string(index=False), flush=True)
        with atomic_path(a.out/f'{name}.csv') as tmp: found.to_csv(tmp, index=False, lineterminator='\n')
    by_class = {c: [im for im, label in zip(images, test.label) if label == c] for c in classes}
    write('real', [row(guard, c, some) for c, some in dict(by_class, all=images).items()])
    others = other_images(images, a.n).items()
    write('other', [dict(set=s, **row(guard, k, v)) for s, kinds in others for k, v in kinds.items()])
    write('variety', [row(guard, k, v) for k, v in variety(images, a.n).items()])
    about = dict(fit_cpu_seconds=round(seconds, 1), milliseconds_an_image=round(each, 2), n=guard.n,
                 n_held=guard.n_held, stored_bytes=len(json.dumps(stored)))
    write_json(a.out/'about.json', about)

if __name__ == '__main__': main()
