"""How often do the 95 % intervals of cxr_nbdev.metrics hold the truth? Simulated test sets, whose truth is known; no data needed.

    python benchmarks/coverage.py [--sims 500] [--seed 0] [--boot 400] [--out benchmarks/results/coverage.csv]

A test set has a fixed number of patients of each class, as the real one has; images of one patient share a part of their score. Scores are normal in both
classes with equal spread, so that AUC, sensitivity and Brier score have formulas or integrals, and the calibration slope is what we made it. One row of the CSV
is a setting and an interval: the share of test sets whose interval holds the truth, the shares with all of it below and above, and the mean width.
"""
import argparse, csv, math, time
from pathlib import Path
import numpy as np
from scipy.special import expit
from scipy.stats import norm

SETTINGS = dict( # patients NORMAL, PNEUMONIA, images of one (or 'uneven': geometric, at most 6), AUC, share of the spread between patients, slope
    official=(234, 390, 1, .95, 0, 1.), pairs=(117, 195, 2, .95, .5, .7), easy=(117, 195, 2, .99, .5, 1.), uneven=(80, 120, 'uneven', .95, .6, .8),
    few=(60, 40, 2, .90, .5, 1.3), rare=(270, 30, 1, .85, 0, 1.))

def images_of(normal, ill, images, rng):
    "Labels and patients, one an image."
    y = np.repeat([0, 1], [normal, ill])
    n = np.minimum(rng.geometric(.5, len(y)), 6) if images == 'uneven' else np.full(len(y), images)
    return y.repeat(n), np.arange(len(y)).repeat(n)

def probability(x, normal, ill, area, slope):
    "What the simulated network says of a score: true odds, bent by the slope."
    d = norm.ppf(area)*2**.5
    return expit((d*x - d*d/2 + math.log(ill/normal))/slope)

def draw(setting, rng):
    "Draw a test set: labels, probabilities, patients."
    normal, ill, images, area, between, slope = SETTINGS[setting]
    y, who = images_of(normal, ill, images, rng)
    x = norm.ppf(area)*2**.5*y + between**.5*rng.normal(size=normal+ill)[who] + (1-between)**.5*rng.normal(size=len(y))
    return y, probability(x, normal, ill, area, slope), who

def truths(setting):
    "What the statistics are in endlessly many images, by integration."
    normal, ill, _, area, _, slope = SETTINGS[setting]
    d, share = norm.ppf(area)*2**.5, ill/(normal+ill)
    x, step = np.linspace(-9, 9+d, 40_001, retstep=True)
    p = probability(x, normal, ill, area, slope)
    f1, f0 = (norm.pdf(x-m)*step for m in (d, 0))
    bins = np.minimum((p*10).astype(int), 9)
    gap = np.bincount(bins, share*f1*(1-p) - (1-share)*f0*p, 10)
    se, sp = (f1*(p >= .5)).sum(), (f0*(p < .5)).sum()
    return dict(sensitivity=se, specificity=sp, roc_auc=area, brier=share*(f1*(1-p)**2).sum() + (1-share)*(f0*p**2).sum(), calibration_slope=slope,
                log_loss=-share*(f1*np.log(p)).sum() - (1-share)*(f0*np.log1p(-p)).sum(), ece=abs(gap).sum(),
                balanced_accuracy=(se+sp)/2, ppv_at_prevalence=.1*se/(.1*se + .9*(1-sp)))

def intervals(y, p, who, boot, seed):
    "Pairs (statistic, method) with their interval or None."
    from cxr_nbdev.stats import wilson_interval
    from cxr_nbdev.metrics import all_metrics
    m = all_metrics(y, p, patients=who, n_boot=boot, seed=seed, prevalence=.1)
    k, n = int((p[y == 1] >= .5).sum()), int((y == 1).sum())
    out = {('sensitivity', 'Wilson, images'): wilson_interval(k, n)}
    for name, how in [('sensitivity', 'Wilson, patients'), ('balanced_accuracy', 'Wilson, patients'), ('ppv_at_prevalence', 'Wilson, patients'), ('roc_auc', 'DeLong')]:
        out[name, how] = m[name]['interval']
    for name in ('sensitivity', 'roc_auc', 'brier', 'log_loss', 'ece', 'calibration_slope'): out[name, 'bootstrap'] = m[name]['bootstrap']
    return out

def simulate(setting, sims, boot, seed):
    "Rows of one setting."
    truth, rng, rows = truths(setting), np.random.default_rng([seed, 7, list(SETTINGS).index(setting)]), {}
    for i in range(sims):
        for key, pair in intervals(*draw(setting, rng), boot, i).items():
            r = rows.setdefault(key, dict(covered=0, below=0, above=0, none=0, width=0.))
            if pair is None: r['none'] += 1; continue
            low, high = pair
            r['covered'] += low <= truth[key[0]] <= high; r['below'] += high < truth[key[0]]; r['above'] += low > truth[key[0]]; r['width'] += high-low
    for (name, how), r in rows.items():
        n = max(1, sims-r['none'])
        yield dict(setting=setting, statistic=name, interval=how, truth=round(truth[name], 4), simulations=sims, **{k: round(r[k]/n, 4) for k in ('covered', 'below', 'above', 'width')}, none=r['none'])

def main():
    from cxr_nbdev.core import atomic_path
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--sims', type=int, default=500)
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--boot', type=int, default=400)
    p.add_argument('--settings', nargs='+', choices=SETTINGS, default=list(SETTINGS))
    p.add_argument('--out', type=Path, default=Path(__file__).parent/'results/coverage.csv')
    a = p.parse_args()
    started, cpu, rows = time.perf_counter(), time.process_time(), []
    for setting in a.settings:
        for r in simulate(setting, a.sims, a.boot, a.seed):
            rows.append(r)
            print(f"{setting:9} {r['statistic']:18} {r['interval']:17} {r['covered']:.1%} (below {r['below']:.1%}, above {r['above']:.1%}, none {r['none']})", flush=True)
    print(f'{time.perf_counter()-started:.0f} s, of which {time.process_time()-cpu:.0f} s of processor time')
    a.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(a.out) as tmp, open(tmp, 'w', newline='') as f:
        w = csv.DictWriter(f, rows[0], lineterminator='\n'); w.writeheader(); w.writerows(rows)

if __name__ == '__main__': main()
