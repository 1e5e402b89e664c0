"""Build data/fashion_mnist.npz, the course's subset of Fashion-MNIST.

    python -m tools.build_data            download the originals into data/downloads
    python -m tools.build_data FOLDER     read them from FOLDER or FOLDER/FashionMNIST/raw

The four original files may be plain or gzipped. The same originals give the same file, byte for
byte, wherever zlib compresses alike.
"""

import argparse
import hashlib
import os
from pathlib import Path

import numpy as np

from course_utils import data

SEED = 0
TRAIN_PER_CLASS = 2000
TEST_PER_CLASS = 400


def pick(labels: np.ndarray, per_class: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of `per_class` random images of every class, shuffled, as uint16.

    labels: (N,), at most 65,536 of them. Raises DataError when a class has too few images.
    """
    counts = np.bincount(labels)
    if counts.min() < per_class:
        raise data.DataError(
            f"class {counts.argmin()} has {counts.min()} images, expected at least {per_class}; "
            "use the complete originals"
        )
    rows = [
        rng.choice(np.flatnonzero(labels == label), per_class, replace=False)
        for label in range(len(counts))
    ]
    return rng.permutation(np.concatenate(rows)).astype(np.uint16)


def subset(folder: Path, train_per_class: int, test_per_class: int) -> dict[str, np.ndarray]:
    """Read the originals and pick a class-balanced subset of them.

    Returns x_train and x_test (N, 28, 28), y_train and y_test (N,), all uint8, and index_train and
    index_test (N,), their positions in the originals. Raises DataError for a bad original.
    """
    rng = np.random.default_rng(SEED)
    arrays = {}
    for name, original, per_class in (
        ("train", "train", train_per_class),
        ("test", "t10k", test_per_class),
    ):
        x = data.read_idx(folder, f"{original}-images-idx3-ubyte")
        y = data.read_idx(folder, f"{original}-labels-idx1-ubyte")
        rows = pick(y, per_class, rng)
        arrays |= {f"x_{name}": x[rows], f"y_{name}": y[rows], f"index_{name}": rows}
    return arrays


def save(arrays: dict[str, np.ndarray], path: Path) -> str:
    """Write the arrays to `path` as a compressed npz, whole or not at all; return its sha256."""
    unfinished = path.with_suffix(".tmp")
    try:
        with unfinished.open("wb") as file:
            np.savez_compressed(file, **arrays)
        sha256 = hashlib.sha256(unfinished.read_bytes()).hexdigest()
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return sha256


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Build data/fashion_mnist.npz.")
    parser.add_argument("folder", nargs="?", type=Path, help="folder with the four originals")
    folder = parser.parse_args(arguments).folder
    if folder is None:
        data.load("fashion_mnist_full", download=True)
        folder = data.DOWNLOADS
    path = data.FOLDER / "fashion_mnist.npz"
    sha256 = save(subset(folder, TRAIN_PER_CLASS, TEST_PER_CLASS), path)
    print(f"{path.name}: {path.stat().st_size:,} bytes, sha256 {sha256}")
    if sha256 != data.FASHION_SHA256:
        print(f"This is not the file that course_utils/data.py expects ({data.FASHION_SHA256}).")


if __name__ == "__main__":
    main()
