"""One study as DICOM and as JPEG: are the probabilities the same?

    python benchmarks/dicom_pair.py --data-dir DATA --checkpoint FILE [--name NAME] [--n N]
        writes benchmarks/results/dicom_pair/dicom_pair.csv

Each image of the test split is taken for the 8-bit view of a detector of 12 bits. It is written to a temporary
folder as DICOM of several kinds and as what a viewer exports, a JPEG of quality 95 (and a PNG, to tell what the
JPEG adds). Every kind goes through the same `Predictor`. The table gives the AUC of each kind, and the largest
and the mean difference of its probabilities from those of the viewer's JPEG. `stretched` is how a reader that
ignores the window sees the study: stretched to each image's own extremes. `dicom_no_window` has lost its window.
"""
import argparse
import io
import tempfile
from pathlib import Path

RESULTS = Path(__file__).parent/'results'/'dicom_pair'
CENTRE, WIDTH = 2048, 3072 # of the window, 12-bit values


def as_dicom(pixels, syntax=None, frame=None, **tags):
    "Encode (h,w) values of 12 bits as DICOM; `frame` are the pixels compressed by `syntax`."
    import numpy as np
    import pydicom
    from pydicom.encaps import encapsulate
    from cxr_nbdev.testing.bad_images import dicom
    data = dicom(pixels.astype(np.uint16), **tags)
    if frame is None: return data
    ds, out = pydicom.dcmread(io.BytesIO(data)), io.BytesIO()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([frame])
    ds['PixelData'].VR, ds['PixelData'].is_undefined_length = 'OB', True
    ds.save_as(out, implicit_vr=False, little_endian=True)
    return out.getvalue()


def write_study(grey, folder):
    "Write one image (h,w) uint8 in every kind; return kind -> path."
    import imagecodecs
    import numpy as np
    from PIL import Image
    from pydicom.uid import JPEGLosslessSV1
    low = CENTRE - .5 - (WIDTH - 1)/2
    values = np.rint(low + grey/255*(WIDTH - 1)).astype(np.uint16) # the window shows them as `grey`
    window = dict(WindowCenter=CENTRE, WindowWidth=WIDTH)
    lossless = imagecodecs.jpeg8_encode(values, lossless=True, predictor=1, bitspersample=12)
    files = {'dicom_12bit_window.dcm': as_dicom(values, **window),
             'dicom_monochrome1.dcm': as_dicom(4095 - values, photometric='MONOCHROME1', WindowCenter=4096 - CENTRE,
                                               WindowWidth=WIDTH),
             'dicom_jpeg_lossless.dcm': as_dicom(values, JPEGLosslessSV1, lossless, **window),
             'dicom_no_window.dcm': as_dicom(values)}
    for name, data in files.items(): (folder/name).write_bytes(data)
    image = Image.fromarray(grey)
    image.save(folder/'viewer_jpeg.jpeg', quality=95)
    image.save(folder/'viewer_png.png')
    stretched = (grey - grey.min())/max(1, np.ptp(grey))*255
    Image.fromarray(np.rint(stretched).astype(np.uint8)).save(folder/'stretched.png')
    return {path.stem: path for path in sorted(folder.iterdir())}


def predict_all(predictor, rows, paths):
    "Predict every kind of every image; kind -> probabilities (n,)."
    import numpy as np
    from cxr_nbdev.images import read_image
    found = {}
    for i, path in enumerate(paths):
        with tempfile.TemporaryDirectory() as folder:
            kinds = write_study(read_image(path), Path(folder))
            p = predictor.predict_batch([read_image(file) for file in kinds.values()])
        for kind, value in zip(kinds, p): found.setdefault(kind, []).append(value)
        if i % 50 == 0: print(f'{i} of {len(paths)}', flush=True)
    return {kind: np.array(p) for kind, p in found.items()}


def main():
    "Write the table."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data-dir', required=True)
    parser.add_argument('--checkpoint', required=True)
    parser.add_argument('--name', help='of the network, for the table (default: the name of its folder)')
    parser.add_argument('--n', type=int, help='images, drawn by seed (default: all)')
    args = parser.parse_args()
    import numpy as np
    import pandas as pd
    from cxr_nbdev.dataset import DataSet, is_positive
    from cxr_nbdev.predict import Predictor
    from cxr_nbdev.stats import auc
    data = DataSet.scan(args.data_dir)
    rows = data.part('test')
    if args.n: rows = rows.groupby('label').sample(max(1, args.n//2), random_state=0)
    predictor = Predictor.load(args.checkpoint, guard=False)
    p = predict_all(predictor, rows, data.paths(rows))
    y, jpeg = is_positive(rows.label), p['viewer_jpeg']
    table = [dict(network=args.name or Path(args.checkpoint).parent.name, size=predictor.size, n=len(rows), kind=kind,
                  auc=round(auc(y, v), 5), largest_difference=round(float(np.abs(v - jpeg).max()), 5),
                  mean_difference=round(float(np.abs(v - jpeg).mean()), 5)) for kind, v in p.items()]
    RESULTS.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(table)
    table.to_csv(RESULTS/'dicom_pair.csv', index=False, lineterminator='\n')
    print(table.to_string(index=False))


if __name__ == '__main__': main()
