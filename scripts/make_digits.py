"""Makes lotteryfw/std/digits.safetensors from scikit-learn's copy of the UCI handwritten digits.

    python scripts/make_digits.py [OUTPUT]

Pixels go from 0 … 16 to 0 … 255, rounded; 36 images of each class become the test part. The same bytes at every run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save
from sklearn.datasets import load_digits

OUTPUT = Path(__file__).resolve().parents[1] / "lotteryfw" / "std" / "digits.safetensors"
TEST_PER_CLASS = 36


def digits() -> dict[str, np.ndarray]:
    """Images [n, 1, 8, 8] and labels [n], all uint8, of both parts."""
    source = load_digits()
    images = np.rint(source.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = source.target.astype(np.uint8)
    is_test = np.zeros(len(labels), dtype=bool)
    rng = np.random.RandomState(0)  # its stream is frozen for good, unlike that of default_rng
    for label in range(10):
        is_test[rng.permutation(np.flatnonzero(labels == label))[:TEST_PER_CLASS]] = True
    return {
        "train_images": images[~is_test],
        "train_labels": labels[~is_test],
        "test_images": images[is_test],
        "test_labels": labels[is_test],
    }


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else OUTPUT).write_bytes(save(digits()))
