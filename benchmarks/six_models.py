"""Train, evaluate and compare models on the real data set by the package's own commands, and keep the figures.

    python benchmarks/six_models.py --data-dir DATA --work WORK --preset cpu

WORK gets checkpoints and evaluations (large, not for the repository). benchmarks/results/PRESET gets what pages show: histories,
metrics, ROC points and the comparison table. A model that has its result.json is not trained again, one that was stopped is resumed.

Presets:
  cpu    the two models written from scratch, 128 px, 8 epochs: about an hour on two cores
  proof  the other four from random weights, 64 px, 1 epoch: shows that they train, about ten minutes on two cores
  gpu    all six at 224 px with the reference's batch sizes and rates; pretrained weights come from the network
"""
import argparse, json, shutil, subprocess, sys
from pathlib import Path
import pandas as pd
from sklearn.metrics import roc_curve

COMMON = ['--batch-size', '32', '--class-weights', '--seed', '42']
SCRATCH = ['custom_resnet_cbam', 'custom_resnet18']
OTHERS = ['alexnet', 'vgg16', 'plain_resnet18', 'resnet_cbam']
PRESETS = dict(
    cpu={m: ['--img-size', '128', '--epochs', '8', '--lr', '0.001', '--save-freq', '4'] for m in SCRATCH},
    proof={m: ['--img-size', '64', '--epochs', '1', '--lr', '0.0001' if m in ('alexnet', 'vgg16') else '0.001', '--no-pretrained', '--save-freq', '0'] for m in OTHERS},
    gpu={**{m: ['--img-size', '224', '--epochs', '12', '--lr', '0.001', '--save-freq', '0'] for m in SCRATCH},
         **{m: ['--img-size', '224', '--epochs', '8', '--lr', '0.0001' if m in ('alexnet', 'vgg16') else '0.001', '--save-freq', '0'] for m in OTHERS}})

def command(name, *flags):
    "Run one of the package's commands; its output goes to the terminal."
    print('$', name, *flags, flush=True)
    subprocess.run([str(Path(sys.executable).parent/name), *map(str, flags)], check=True)

def run_model(model, flags, data, work):
    "Train and evaluate a model, unless that was done before."
    ck, ev = work/'checkpoints'/model, work/'evaluation'/model
    resume = ['--resume'] if (ck/'last_model.pth').exists() else []
    if not (ck/'result.json').exists(): command('cxr_train', '--data-dir', data, '--model', model, *flags, *COMMON, '--output-dir', ck, *resume)
    if not (ev/'report_test.html').exists():
        command('cxr_evaluate', '--data-dir', data, '--checkpoint', ck/'best_model.pth', '--manifest', ck/'split.csv', '--generate-grad-cam', '--output-dir', ev, '--force')

def collect(models, work, results):
    "Copy the figures that pages show: no file name, no patient and no pixel of the data set."
    results.mkdir(parents=True, exist_ok=True)
    rows = []
    for m in models:
        ck, ev = work/'checkpoints'/m, work/'evaluation'/m
        shutil.copy(ck/'history.csv', results/f'{m}_history.csv')
        metrics = json.loads((ev/'metrics_test.json').read_text())
        for k in ("excluded", "ignored"): metrics[k] = len(metrics[k])
        (results/f'{m}_metrics_test.json').write_text(json.dumps(metrics, indent=1) + '\n')
        t = pd.read_csv(ev/'predictions_test.csv')
        fpr, tpr, thr = roc_curve(t.label == 'PNEUMONIA', t.probability)
        pd.DataFrame(dict(fpr=fpr, tpr=tpr)).round(5).to_csv(results/f'{m}_roc.csv', index=False)
        run, cfg = json.loads((ck/'result.json').read_text()), json.loads((ck/'config.json').read_text())
        rows.append(dict(model=m, pixels=cfg['config']['img_size'], epochs=run['epochs'], device=cfg['device'], minutes=round(run['seconds']/60, 1),
                         peak_memory_mb=round(run['peak_memory_mb'] or 0), best_epoch=run['best']['epoch']+1, validation_auc=round(run['best']['roc_auc'], 4),
                         test_auc=round(metrics['roc_auc'], 4), test_accuracy=round(metrics['accuracy'], 4), sensitivity=round(metrics['sensitivity'], 4),
                         specificity=round(metrics['specificity'], 4), torch=cfg['versions']['torch'], fastai=cfg['versions']['fastai']))
    table = pd.DataFrame(rows)
    table.to_csv(results/'summary.csv', index=False)
    print(table.to_string(index=False))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data-dir', default='data/chest_xray')
    p.add_argument('--work', type=Path, default=Path('runs'))
    p.add_argument('--preset', choices=PRESETS, default='cpu')
    args = p.parse_args()
    models, results = PRESETS[args.preset], Path(__file__).parent/'results'/args.preset
    for m, flags in models.items(): run_model(m, flags, args.data_dir, args.work/args.preset)
    command('cxr_compare', '--evaluation-dir', args.work/args.preset/'evaluation', '--output', args.work/args.preset/'model_comparison.csv', '--force')
    collect(models, args.work/args.preset, results)
    for suffix in ('.csv', '.txt'): shutil.copy((args.work/args.preset/'model_comparison').with_suffix(suffix), results)

if __name__ == '__main__': main()
