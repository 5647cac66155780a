"""How fast does a network train and predict on this machine, in float32 and mixed precision? Random images, no data.

    python benchmarks/speed.py [--models custom_resnet18 tf_efficientnet_lite0] [--sizes 64 128 224] [--threads 1]

Prints and writes benchmarks/results/speed/DEVICE.csv: images a second, median of five rounds; a step is forward,
backward and AdamW on 32 images.
"""
import argparse
import time
from contextlib import nullcontext

import pandas as pd
import torch

from runs import RESULTS

def rate(model, size, half, train, device, batch=32, rounds=5):
    "Median images a second over `rounds`, after a warm-up round."
    x = torch.rand(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    y = torch.arange(batch, device=device) % 2
    opt = torch.optim.AdamW(model.parameters(), 1e-4)
    cast = torch.autocast(device.type, torch.bfloat16) if half else nullcontext()
    def step():
        with cast, nullcontext() if train else torch.inference_mode(): out = model(x)
        if train:
            torch.nn.functional.cross_entropy(out.float(), y).backward()
            opt.step()
            opt.zero_grad()
        if device.type == 'cuda': torch.cuda.synchronize()
    model.train(train)
    seconds = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return batch/sorted(seconds[1:])[rounds//2]

def main():
    from cxr_nbdev.core import atomic_path, pick_device
    from cxr_nbdev.zoo import create_model
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--models', nargs='+', default=['custom_resnet18', 'custom_resnet_cbam', 'tf_efficientnet_lite0'])
    p.add_argument('--sizes', type=int, nargs='+', default=[64, 128, 224])
    p.add_argument('--threads', type=int, default=1)
    p.add_argument('--device', default='auto')
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    device, rows = pick_device(a.device), []
    for name in a.models:
        model = create_model(name, pretrained=False).to(device, memory_format=torch.channels_last)
        for size in a.sizes:
            row = dict(model=name, pixels=size, threads=a.threads)
            for what in ('train', 'predict'):
                for how, half in (('float32', False), ('bfloat16', True)):
                    row[f'{what} {how}'] = round(rate(model, size, half, what == 'train', device), 1)
            rows.append(row)
            print(row, flush=True)
    out = RESULTS/'speed'
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out/f'{device.type}.csv') as tmp: pd.DataFrame(rows).to_csv(tmp, index=False, lineterminator='\n')

if __name__ == '__main__': main()
