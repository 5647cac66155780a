"""The tables of recipes.py: figures of each run, what one change does, how well each validation ranks recipes."""
import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.metrics import log_loss, roc_auc_score

from cxr_nbdev.layout import patient_of
from cxr_nbdev.paired import holm, paired_bootstrap
from cxr_nbdev.stats import auc
from runs import RESULTS

SHAPE_TFMS = {'stretch', 'wide', 'crop'} # augmentation that changes the shape of a chest
VALIDATIONS = ('plain', 'range', 'plain_changed', 'range_changed', 'shifted', 'reshaped')
FEWEST = 8 # runs; resampling fewer says nothing


def in_five_shapes(table):
    "Say which rows are of the unchanged image or of a change of shape."
    return table.change.str.startswith('shape') | (table.change == 'none')


class RunScores:
    "Figures of one run, from its predictions; AUC unless said otherwise."
    def __init__(self, folder):
        self.run = json.loads((folder/'run.json').read_text())
        self.table = pd.read_csv(folder/'predictions.csv')
        self.table['y'] = (self.table.label == 'PNEUMONIA').astype(int)

    def select(self, use, ways='raw'):
        "Rows of a part; a held-out series has normals only, so it borrows the ill of the random tenth."
        t = self.table
        borrowed = (t.use == 'valid') & (t.y == 1) & (use == 'range') & bool(self.run['hold'])
        return t[((t.use == use) | borrowed) & (t.ways == ways)]

    def auc(self, use, change='none', ways='raw'):
        "AUC under one change."
        t = self.select(use, ways)
        t = t[t.change == change]
        return roc_auc_score(t.y, t.p)

    def at_half(self, use):
        "Accuracy, sensitivity and specificity at one half, and the log loss."
        t = self.select(use)
        t = t[t.change == 'none']
        return dict(accuracy=float(((t.p >= .5) == t.y).mean()),
                    sensitivity=float((t.p[t.y == 1] >= .5).mean()),
                    specificity=float((t.p[t.y == 0] < .5).mean()),
                    log_loss=float(log_loss(t.y, t.p.clip(1e-6, 1-1e-6))))

    def reshaped(self, use):
        "AUC where the shape of an image is drawn without regard to its class; NaN for runs of before."
        t = self.select(use)
        t = t[in_five_shapes(t)]
        return roc_auc_score(t.y, t.p) if (t.change != 'none').any() else float('nan')

    def five_shapes(self, use):
        "AUC of the mean over the shapes of each image."
        t = self.select(use)
        t = t[in_five_shapes(t)]
        mean = t.groupby('file').agg(y=('y', 'first'), p=('p', 'mean'))
        return roc_auc_score(mean.y, mean.p) if (t.change != 'none').any() else float('nan')

    def changed(self, use):
        "AUC under each change that is not one of shape."
        names = sorted(c for c in set(self.table.change) - {'none'} if not c.startswith('shape'))
        return [self.auc(use, c) for c in names]


def scores(folder, with_test=False):
    "Return the row of one run."
    r = RunScores(folder)
    run, plain, range_ = r.run, r.changed('valid'), r.changed('range')
    out = dict(recipe=run['recipe'], seed=run['seed'], hold=run['hold'] or '',
               shapes=not SHAPE_TFMS.isdisjoint(run['settings']['augment']), minutes=run['seconds']/60,
               plain=r.auc('valid'), range=r.auc('range'),
               plain_changed=np.mean(plain), range_changed=np.mean(range_),
               plain_reshaped=r.reshaped('valid'), range_reshaped=r.reshaped('range'),
               range_ema=r.auc('range', ways='ema'), range_tta=r.auc('range', ways='tta'),
               plain_shapes=r.five_shapes('valid'), range_shapes=r.five_shapes('range'))
    out['shifted'] = np.mean([r.auc('range')] + range_)    # meant to choose: fixed before any recipe was compared
    out |= {f'range_{k}': v for k, v in r.at_half('range').items()}
    if not with_test: return out
    out |= dict(test=r.auc('test'), test_ema=r.auc('test', ways='ema'), test_tta=r.auc('test', ways='tta'))
    return out | {f'test_{k}': v for k, v in r.at_half('test').items()}


def run_folders(work):
    "Return the folders of finished runs."
    return [f.parent for f in sorted((work/'recipes').glob('*/predictions.csv'))]


def read_runs(work, with_test=False):
    "Return the rows of all runs, best first by `shifted`."
    table = pd.DataFrame([scores(f, with_test) for f in run_folders(work)])
    return table.sort_values('shifted', ascending=False).reset_index(drop=True)


# ---------------------------------------------------------------- what one change does

def reshaped_predictions(folder):
    "Return labels, patients, which are of the random tenth, and probabilities in all shapes, in a fixed order."
    t = pd.read_csv(folder/'predictions.csv')
    t = t[t.use.isin(['valid', 'range']) & (t.ways == 'raw') & in_five_shapes(t)].sort_values(['file', 'change'])
    y = (t.label == 'PNEUMONIA').to_numpy().astype(int)
    return y, t.file.map(patient_of).to_numpy(), (t.use == 'valid').to_numpy(), t.p.to_numpy()


def compare_with(folders, others, n_boot):
    "Return the difference of the reshaped AUC of two recipes, over resampled patients."
    y, patients, tenth, _ = reshaped_predictions(folders[0])
    def mean_of_parts(y, p, w=None):
        def part(m): return auc(y[m], p[m], None if w is None else w[:, m])
        return (part(tenth) + part(~tenth))/2
    p, q = (np.stack([reshaped_predictions(f)[-1] for f in some]) for some in (folders, others))
    return paired_bootstrap(mean_of_parts, y, p, q, patients, n_boot=n_boot)


def effects(work, n_boot=1000):
    """Return what one change does to the reshaped AUC: each recipe less `stretch`, or less `base` where it has no
    changes of shape, over resampled patients; Holm's correction over all."""
    runs, out = {}, []
    for folder in run_folders(work):
        run = json.loads((folder/'run.json').read_text())
        if not run['hold']: runs.setdefault(run['recipe'], []).append(folder)
    for name, folders in runs.items():
        against = 'stretch' if name.startswith('stretch, ') else 'base'
        if name == against or against not in runs: continue
        r = compare_with(folders, runs[against], n_boot)
        low, high = r['interval']
        out.append(dict(recipe=name, against=against, seeds=len(folders), seeds_against=len(runs[against]),
                        reshaped=r['value1'], difference=r['difference'], low=low, high=high, p=r['p']))
    table = pd.DataFrame(out).sort_values(['against', 'difference'], ascending=[False, False])
    table['p_holm'] = holm(table.p.to_numpy())
    return table


# ---------------------------------------------------------------- how well a validation ranks recipes

def rank_agreement(table, name, n_boot, rng):
    "Return Spearman's correlation of a validation, and of the plain one, with the test AUC, over resampled runs."
    everything = np.arange(len(table))
    draws = [everything, *(rng.integers(0, len(table), len(table)) for _ in range(n_boot))]
    def rho(column): return [spearmanr(table[column].values[i], table.test.values[i]).statistic for i in draws]
    both = pd.DataFrame({c: rho(c) for c in dict.fromkeys(['plain', name])})
    gain = both[name] - both.plain
    return dict(spearman=both[name][0], low=both[name][1:].quantile(.025), high=both[name][1:].quantile(.975),
                plain=both.plain[0], gain=gain[0], gain_low=gain[1:].quantile(.025),
                gain_high=gain[1:].quantile(.975))


def agreement(table, n_boot=2000, seed=0):
    """Return the rank correlation of each validation with the test AUC, over all runs; then of three of them within
    the recipes that change shapes, and within the others."""
    table = table.assign(reshaped=(table.plain_reshaped + table.range_reshaped)/2)
    rng, out = np.random.default_rng(seed), []
    cases = [('all', name) for name in VALIDATIONS]
    for among in ('with changes of shape', 'without'):
        cases += [(among, name) for name in ('plain', 'shifted', 'reshaped')]
    for among, name in cases:
        t = table.dropna(subset=[name])
        if among != 'all': t = t[t.shapes == (among != 'without')]
        if len(t) < FEWEST: continue
        found = rank_agreement(t, name, n_boot, rng)
        out.append(dict(among=among, validation=name, runs=len(t), **found))
    return pd.DataFrame(out)


def write_tables(work, data_dir, with_test):
    "Write the tables of all runs to benchmarks/results/recipes and print them."
    out = RESULTS/'recipes'
    out.mkdir(parents=True, exist_ok=True)
    if Path(data_dir).is_dir():
        from recipe_runs import ranges
        ranges(data_dir).to_csv(out/'ranges.csv', index=False)
    table = read_runs(work, with_test)
    table.round(5).to_csv(out/('with_test.csv' if with_test else 'validation.csv'), index=False)
    effects(work).round(5).to_csv(out/'effects.csv', index=False)
    print(table.round(4).to_string())
    if with_test:
        agree = agreement(table[table.hold == ''])
        agree.round(4).to_csv(out/'agreement.csv', index=False)
        print(agree.round(3).to_string())
