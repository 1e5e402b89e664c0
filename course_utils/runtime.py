"""The first call of every lesson: seeds, threads, device, plot style."""

import importlib.metadata
import os
import platform
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
import torch

# More threads sum in another order, and single live runs then end otherwise than in the lesson.
DEFAULT_THREADS = 1


def setup(seed: int = 0, minutes: int | None = None) -> torch.device:
    """Prepare a notebook and say what it runs on.

    Seeds Python, numpy and torch, limits torch to one thread (or to OMP_NUM_THREADS), sets the
    course's plot style and prints the versions, the device and the lesson's minutes.

    Returns the device that every lesson uses: a GPU where there is one, otherwise the CPU.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (libraries that a reader adds may still use it)
    torch.manual_seed(seed)
    threads = threads_asked_for()
    torch.set_num_threads(threads)
    plot_style()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    print(f"Python {platform.python_version()}, {versions}")
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU (no GPU needed)"
    print(f"Device: {where}, {threads} thread{'s' if threads > 1 else ''}, seed {seed}")
    if minutes is not None:
        print(f"This lesson takes about {minutes} minutes.")
    return device


def threads_asked_for() -> int:
    """The number in OMP_NUM_THREADS, of a list such as "4,2" the first; without one, one thread."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else DEFAULT_THREADS


def plot_style() -> None:
    """Colour-blind palette, legible at notebook width."""
    sns.set_theme(style="whitegrid", palette="colorblind")
    mpl.rcParams.update(
        {
            "figure.figsize": (7.0, 3.6),
            "figure.dpi": 100,
            "figure.constrained_layout.use": True,
            "axes.titlesize": 11,
            "axes.labelsize": 10,
            "legend.fontsize": 9,
            "image.cmap": "gray",
        }
    )


def package_versions() -> dict[str, str]:
    """The versions that numbers depend on."""
    names = ("torch", "torchvision", "numpy")
    return {name: importlib.metadata.version(name) for name in names}


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch in one thread inside the block: more threads sum in another order, so a trained
    model's weights would depend on the machine's core count."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def timed(call: Callable, /, *given: object, **options: object) -> tuple[Any, float]:
    """What `call(*given, **options)` gives, and the seconds of the processor that it took."""
    begin = time.process_time()
    found = call(*given, **options)
    return found, time.process_time() - begin
