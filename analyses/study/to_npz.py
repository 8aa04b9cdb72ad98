"""Write CIFAR-10's parquet files (columns ``img``, ``label``) as one ``.npz`` for ``--data npz``.

``cd analyses && python -m study.to_npz FOLDER cifar10.npz``, where FOLDER holds ``train.parquet``
and ``test.parquet``. Validation is cut by dimlab: the same rows as those of ``--data cifar10`` if
the images stand in the same order, which they do not in every copy.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np

from dimlab.io.files import replacing

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def convert(folder: Path, out: Path) -> Path:
    """Decode every image of both files and write images, labels, split and class names."""
    import pandas as pd
    from PIL import Image

    images, labels, splits = [], [], []
    for split in ("train", "test"):
        table = pd.read_parquet(folder / f"{split}.parquet")
        encoded = [each["bytes"] for each in table["img"]]
        images += [np.asarray(Image.open(io.BytesIO(each)).convert("RGB")) for each in encoded]
        labels += table["label"].tolist()
        splits += [split] * len(table)
    with replacing(out) as path:
        np.savez(
            path,
            images=np.stack(images).transpose(0, 3, 1, 2),
            labels=np.array(labels),
            split=np.array(splits),
            class_names=np.array(CLASSES),
        )
    return out


if __name__ == "__main__":
    print(f"wrote {convert(Path(sys.argv[1]), Path(sys.argv[2]))}")
