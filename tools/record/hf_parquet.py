"""Writes the parquet file that the tests of adavit-data read, with the library `datasets`.

    pip install datasets pillow
    python tools/record/hf_parquet.py crates/adavit-data/tests/sets
"""

import io
import sys
from pathlib import Path

from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pillow


def png(i: int) -> dict:
    picture = Pillow.new("RGB", (5, 4), (i, 2 * i, 255 - i))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return {"bytes": out.getvalue(), "path": f"{i}.png"}


features = Features({"image": Image(), "label": ClassLabel(names=["zebra", "ant", "cow"])})
rows = {"image": [png(i) for i in range(24)], "label": [i % 3 for i in range(24)]}
folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
# Groups of 10 rows: the last one is smaller.
Dataset.from_dict(rows, features=features).to_parquet(
    folder / "train-00000-of-00001.parquet", batch_size=10
)
