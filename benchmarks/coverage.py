"""How often do the 95 % intervals of cxr_nbdev.metrics hold the truth? Simulated test sets, whose truth is
known; no data needed.

    python benchmarks/coverage.py [--sims 500] [--seed 0] [--boot 400] [--out benchmarks/results/coverage.csv]

A test set has a fixed number of patients of each class, as the real one has; images of one patient share a part
of their score. Scores are normal in both classes with equal spread, so that AUC, sensitivity and Brier score have
formulas or integrals, and the calibration slope is what we made it. One row of the CSV is a setting and an
interval: the share of test sets whose interval holds the truth, the shares with all of it below and above, and
the mean width.
"""
import argparse
import csv
import math
import time
from pathlib import Path

import numpy as np
from scipy.special import expit
from scipy.stats import norm

# Patients NORMAL and PNEUMONIA, images of one (or 'uneven': geometric, at most 6), AUC, share of the spread that
# lies between patients, calibration slope
SETTINGS = dict(
    official=(234, 390, 1, .95, 0, 1.),
    pairs=(117, 195, 2, .95, .5, .7),
    easy=(117, 195, 2, .99, .5, 1.),
    uneven=(80, 120, 'uneven', .95, .6, .8),
    few=(60, 40, 2, .90, .5, 1.3),
    rare=(270, 30, 1, .85, 0, 1.))
FORMULAS = [('sensitivity', 'Wilson, patients'), ('balanced_accuracy', 'Wilson, patients'),
            ('ppv_at_prevalence', 'Wilson, patients'), ('roc_auc', 'DeLong')]
BOOTSTRAPPED = ('sensitivity', 'roc_auc', 'brier', 'log_loss', 'ece', 'calibration_slope')
PREVALENCE = .1


def images_of(normal, ill, images, rng):
    "Return labels and patients, one an image."
    y = np.repeat([0, 1], [normal, ill])
    n = np.minimum(rng.geometric(.5, len(y)), 6) if images == 'uneven' else np.full(len(y), images)
    return y.repeat(n), np.arange(len(y)).repeat(n)


def probability(x, normal, ill, area, slope):
    "Return what the simulated network predicts for a score: true odds, bent by the slope."
    d = norm.ppf(area)*2**.5
    return expit((d*x - d*d/2 + math.log(ill/normal))/slope)


def draw(setting, rng):
    "Draw a test set: labels, probabilities, patients."
    normal, ill, images, area, between, slope = SETTINGS[setting]
    y, who = images_of(normal, ill, images, rng)
    x = norm.ppf(area)*2**.5*y
    x = x + between**.5*rng.normal(size=normal + ill)[who] + (1 - between)**.5*rng.normal(size=len(y))
    return y, probability(x, normal, ill, area, slope), who


def truths(setting):
    "Return what the statistics are in endlessly many images, by integration."
    normal, ill, _, area, _, slope = SETTINGS[setting]
    d, share = norm.ppf(area)*2**.5, ill/(normal + ill)
    x, step = np.linspace(-9, 9 + d, 40_001, retstep=True)
    p = probability(x, normal, ill, area, slope)
    f1, f0 = norm.pdf(x - d)*step, norm.pdf(x)*step
    bins = np.minimum((p*10).astype(int), 9)
    gap = np.bincount(bins, share*f1*(1 - p) - (1 - share)*f0*p, 10)
    se, sp = (f1*(p >= .5)).sum(), (f0*(p < .5)).sum()
    return dict(
        sensitivity=se, specificity=sp, roc_auc=area, calibration_slope=slope, ece=abs(gap).sum(),
        brier=share*(f1*(1 - p)**2).sum() + (1 - share)*(f0*p**2).sum(),
        log_loss=-share*(f1*np.log(p)).sum() - (1 - share)*(f0*np.log1p(-p)).sum(),
        balanced_accuracy=(se + sp)/2,
        ppv_at_prevalence=PREVALENCE*se/(PREVALENCE*se + (1 - PREVALENCE)*(1 - sp)))


def intervals(y, p, who, boot, seed):
    "Map (statistic, method) to its interval, or None where there is none."
    from cxr_nbdev.metrics import all_metrics
    from cxr_nbdev.stats import wilson_interval
    m = all_metrics(y, p, patients=who, n_boot=boot, seed=seed, prevalence=PREVALENCE)
    hits, n = int((p[y == 1] >= .5).sum()), int((y == 1).sum())
    out = {('sensitivity', 'Wilson, images'): wilson_interval(hits, n)}
    for name, method in FORMULAS: out[name, method] = m[name]['interval']
    for name in BOOTSTRAPPED: out[name, 'bootstrap'] = m[name]['bootstrap']
    return out


def count(row, interval, truth):
    "Add one interval to the counts of a row."
    if interval is None:
        row['none'] += 1
        return
    low, high = interval
    row['covered'] += low <= truth <= high
    row['below'] += high < truth
    row['above'] += low > truth
    row['width'] += high - low


def simulate(setting, sims, boot, seed):
    "Yield the rows of one setting."
    truth, rows = truths(setting), {}
    rng = np.random.default_rng([seed, 7, list(SETTINGS).index(setting)])
    for i in range(sims):
        for key, interval in intervals(*draw(setting, rng), boot, i).items():
            row = rows.setdefault(key, dict(covered=0, below=0, above=0, none=0, width=0.))
            count(row, interval, truth[key[0]])
    for (name, method), row in rows.items():
        n = max(1, sims - row['none'])
        shares = {k: round(row[k]/n, 4) for k in ('covered', 'below', 'above', 'width')}
        yield dict(setting=setting, statistic=name, interval=method, truth=round(truth[name], 4),
                   simulations=sims, **shares, none=row['none'])


def describe(row):
    "Return a row as one line of text."
    shares = f"{row['covered']:.1%} (below {row['below']:.1%}, above {row['above']:.1%}, none {row['none']})"
    return f"{row['setting']:9} {row['statistic']:18} {row['interval']:17} {shares}"


def make_parser():
    "Make the parser."
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--sims', type=int, default=500)
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--boot', type=int, default=400)
    p.add_argument('--settings', nargs='+', choices=SETTINGS, default=list(SETTINGS))
    p.add_argument('--out', type=Path, default=Path(__file__).parent/'results/coverage.csv')
    return p


def main():
    "Simulate every setting and write the CSV."
    from cxr_nbdev.core import atomic_path
    a = make_parser().parse_args()
    started, cpu, rows = time.perf_counter(), time.process_time(), []
    for setting in a.settings:
        for row in simulate(setting, a.sims, a.boot, a.seed):
            rows.append(row)
            print(describe(row), flush=True)
    print(f'{time.perf_counter()-started:.0f} s, of which {time.process_time()-cpu:.0f} s of processor time')
    a.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(a.out) as tmp, open(tmp, 'w', newline='') as f:
        writer = csv.DictWriter(f, rows[0], lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


if __name__ == '__main__': main()
