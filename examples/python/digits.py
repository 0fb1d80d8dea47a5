"""UCI's handwritten digits (Alpaydin and Kaynak 1998), the set that every build of Starling carries: `common/data/embedded`."""

import gzip
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[2] / "common" / "data" / "embedded"

# Features are counts from 0 to 16. A task with `scale = "unit"` divides by it, so whoever else runs the network does too.
LARGEST = 16.0


def training():
    return read("optdigits.tra.gz")


def test():
    return read("optdigits.tes.gz")


def read(name):
    """Features `[rows, 64]` from 0 to 1, and labels."""
    with gzip.open(FOLDER / name, "rt") as file:
        rows = np.loadtxt(file, delimiter=",", dtype=np.float32)
    return rows[:, :-1] / np.float32(LARGEST), rows[:, -1].astype(np.int64)
