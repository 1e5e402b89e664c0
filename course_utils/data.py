"""Datasets as tensors in [0, 1], with checksums and clear errors.

Every image set in the course is a `Data`: images, labels and class names in one frozen object that
checks itself. `load` reads one from disk, `balanced` and `only` cut smaller ones out of it.
"""

import gzip
import hashlib
import io
import math
import operator
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

FOLDER = Path(__file__).resolve().parents[1] / "data"
DOWNLOADS = FOLDER / "downloads"
NAMES = ("fashion_mnist", "fashion_mnist_full", "cifar10")

FASHION_CLASSES = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Boot",
)  # fmt: skip
CIFAR_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer",
    "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

# sha256 of data/fashion_mnist.npz
FASHION_SHA256 = "4dd121e02e9886bb5cb030a1ccf30d139e1ef10a17ce85a03a4d157954d6fedb"
# md5 of the four original Fashion-MNIST files, decompressed
FASHION_MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}


class DataError(ValueError):
    """Data that is missing, damaged or malformed. The message says what to do about it."""


@dataclass(frozen=True, eq=False)
class Data:
    """Labelled images.

    x: images (N, C, H, W), float32, values in [0, 1]
    y: labels (N,), int64, positions in `classes`
    classes: the class names, all different

    Images that lie in memory in another order, such as (N, H, W, C), are copied: convolutions
    would round them differently.

    Raises DataError when a shape, dtype, pixel value or label breaks these rules; for a pixel or
    a label it names the first image that does.
    """

    x: Tensor
    y: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        x, y = self.x, self.y
        for name, value in (("images", x), ("labels", y)):
            if not isinstance(value, Tensor):
                raise DataError(
                    f"{name} are a {type(value).__name__}, expected a tensor; "
                    "use torch.as_tensor(...)"
                )
        if len(set(self.classes)) < len(self.classes):
            raise DataError(f"a class name comes twice in {self.classes}, expected different names")
        if x.ndim != 4:
            raise DataError(
                f"images have shape {tuple(x.shape)}, expected (N, C, H, W); "
                "for a single image or channel add the missing axis, as in x[None] or x[:, None]"
            )
        if x.dtype != torch.float32:
            raise DataError(
                f"images are {x.dtype}, expected torch.float32 in [0, 1]; "
                "use x.float(), and divide by 255 if the values are 0 to 255"
            )
        if y.ndim != 1 or len(y) != len(x):
            raise DataError(
                f"labels have shape {tuple(y.shape)}, expected ({len(x)},); "
                f"give one label for each of the {len(x)} images"
            )
        if y.dtype != torch.int64:
            raise DataError(f"labels are {y.dtype}, expected torch.int64; use y.long()")
        if len(x) > 0:
            self._check_pixels()
            self._check_labels()
        if x.stride() != _plain_strides(x.shape):
            plain = torch.empty(x.shape, dtype=x.dtype, device=x.device).copy_(x)
            object.__setattr__(self, "x", plain)

    def _check_pixels(self) -> None:
        low, high = self.x.aminmax()  # NaN if any value is
        if low >= 0 and high <= 1:
            return
        bad = ~((self.x >= 0) & (self.x <= 1))
        where = bad.nonzero()[0]
        value = self.x[tuple(where)].item()
        raise DataError(
            f"image {where[0].item()} has the pixel value {value:g}, expected values in [0, 1]; "
            "divide by 255 if the values are 0 to 255, undo a normalisation by mean and deviation, "
            "or clamp what an attack has changed"
        )

    def _check_labels(self) -> None:
        low, high = self.y.aminmax()
        if low >= 0 and high < len(self.classes):
            return
        first = ((self.y < 0) | (self.y >= len(self.classes))).nonzero()[0].item()
        raise DataError(
            f"image {first} has the label {self.y[first].item()}, "
            f"expected 0 to {len(self.classes) - 1}; labels are positions in {self.classes}"
        )

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Tensor | slice | Sequence[int]) -> "Data":
        """The images in `rows`: positions, a boolean mask or a slice."""
        return Data(self.x[rows], self.y[rows], self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image: (C, H, W)."""
        return tuple(self.x.shape[1:])

    def to(self, device: torch.device | str) -> "Data":
        """The same data on `device`."""
        return Data(self.x.to(device), self.y.to(device), self.classes)


def _plain_strides(shape: torch.Size) -> tuple[int, ...]:
    """The strides of a tensor that lies row after row, image after image.

    With one channel `x.contiguous()` keeps others, and convolutions still look at them.
    """
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def load(
    name: str = "fashion_mnist", folder: str | Path | None = None, download: bool = False
) -> tuple[Data, Data]:
    """Load a dataset as (train, test).

    name: "fashion_mnist", the subset that comes with the course: 20,000 and 4,000 images
        (1, 28, 28), equally many of each class; "fashion_mnist_full": 60,000 and 10,000;
        "cifar10": 50,000 and 10,000 images (3, 32, 32)
    folder: where the files are; by default data/ for the subset, data/downloads for the others
    download: fetch the full Fashion-MNIST or CIFAR-10 into the folder where it is not there yet

    Raises DataError for an unknown name and for files that are missing, truncated or altered.
    """
    if name == "fashion_mnist":
        return _fashion_subset(Path(folder or FOLDER) / "fashion_mnist.npz")
    if name == "fashion_mnist_full":
        return _fashion_full(Path(folder or DOWNLOADS), download)
    if name == "cifar10":
        return _cifar10(Path(folder or DOWNLOADS), download)
    raise DataError(f"unknown dataset {name!r}; choose one of {', '.join(NAMES)}")


def balanced(data: Data, n: int, seed: int) -> Data:
    """A random subset of n images with equally many of each class, in random order.

    Where n is not a multiple of the number of classes, the first classes get one image more. The
    same data, n and seed give the same subset.

    Raises DataError when n is below the number of classes or a class has too few images.
    """
    if n < len(data.classes):
        raise DataError(f"n is {n}, expected at least one image for each of {data.classes}")
    generator = torch.Generator().manual_seed(operator.index(seed))
    share, rest = divmod(n, len(data.classes))
    labels = data.y.cpu()
    picked = []
    for label, name in enumerate(data.classes):
        rows = (labels == label).nonzero()[:, 0]
        wanted = share + (label < rest)
        if len(rows) < wanted:
            raise DataError(
                f"n is {n}, which takes {wanted} images of class {name!r}, but there are "
                f"{len(rows)}; choose a smaller n, or leave the class out with only()"
            )
        picked.append(rows[torch.randperm(len(rows), generator=generator)[:wanted]])
    rows = torch.cat(picked)
    return data[rows[torch.randperm(n, generator=generator)].to(data.y.device)]


def only(data: Data, classes: Sequence[str]) -> Data:
    """The images of these classes, in their old order, relabelled 0, 1, ... in the given order.

    Raises DataError for a class that is unknown or named twice, and for no classes at all.
    """
    known = ", ".join(map(str, data.classes))
    for name in classes:
        if name not in data.classes:
            raise DataError(f"unknown class {name!r}; choose from {known}")
    if not classes or len(set(classes)) < len(classes):
        raise DataError(f"classes are {list(classes)}, expected different names out of {known}")
    new = torch.full((len(data.classes),), -1, device=data.y.device)
    for label, name in enumerate(classes):
        new[data.classes.index(name)] = label
    y = new[data.y]
    keep = y >= 0
    return Data(data.x[keep], y[keep], tuple(classes))


def read_idx(folder: Path, name: str) -> np.ndarray:
    """Read one of the four original Fashion-MNIST files, plain or as name.gz.

    folder: the folder that holds it, or one that holds it in FashionMNIST/raw

    Returns uint8, images (N, 28, 28) or labels (N,). Raises DataError when the file is missing,
    or when its contents are not the published ones.
    """
    places = [
        folder / inside / f"{name}{ending}"
        for inside in ("", "FashionMNIST/raw")
        for ending in ("", ".gz")
    ]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise DataError(
            f"{name} is not in {folder}, nor in its FashionMNIST/raw, nor as {name}.gz; name a "
            'folder that holds it, or fetch it with load("fashion_mnist_full", download=True)'
        )
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); delete it and fetch it again") from error
    md5 = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    if md5 != FASHION_MD5[name]:
        raise DataError(
            f"{path} is truncated or altered: its contents have md5 {md5}, "
            f"expected {FASHION_MD5[name]}; delete it and fetch it again"
        )
    # IDX: two zero bytes, the type (8 for uint8), the number of axes, their lengths, the values
    axes = raw[3]
    shape = np.frombuffer(raw, ">i4", count=axes, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _fashion_subset(path: Path) -> tuple[Data, Data]:
    advice = (
        "restore it with `git checkout -- data/fashion_mnist.npz`, "
        "or rebuild it with `python -m tools.build_data`"
    )
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {advice}") from error
    sha256 = hashlib.sha256(raw).hexdigest()
    if sha256 != FASHION_SHA256:
        raise DataError(
            f"{path} is truncated or altered: it has {len(raw):,} bytes and sha256 {sha256}, "
            f"expected {FASHION_SHA256}; {advice}"
        )
    with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
        train = _data(arrays["x_train"][:, None], arrays["y_train"], FASHION_CLASSES)
        test = _data(arrays["x_test"][:, None], arrays["y_test"], FASHION_CLASSES)
    return train, test


def _fashion_full(folder: Path, download: bool) -> tuple[Data, Data]:
    if download:
        _torchvision(datasets.FashionMNIST, folder, train=True, download=True)
    parts = []
    for part in ("train", "t10k"):
        x = read_idx(folder, f"{part}-images-idx3-ubyte")
        y = read_idx(folder, f"{part}-labels-idx1-ubyte")
        parts.append(_data(x[:, None], y, FASHION_CLASSES))
    return tuple(parts)


def _cifar10(folder: Path, download: bool) -> tuple[Data, Data]:
    parts = []
    for train in (True, False):
        part = _torchvision(datasets.CIFAR10, folder, train=train, download=download)
        parts.append(_data(part.data.transpose(0, 3, 1, 2), part.targets, CIFAR_CLASSES))
    return tuple(parts)


def _torchvision(dataset: type, folder: Path, train: bool, download: bool):
    try:
        return dataset(folder, train=train, download=download)
    except (RuntimeError, OSError) as error:
        if download:
            advice = f"check the network connection, and that {folder} can be written"
        else:
            advice = "get it with load(..., download=True), or name a folder that holds it"
        raise DataError(
            f"{dataset.__name__} could not be loaded from {folder} ({error}); {advice}"
        ) from error


def _data(x: np.ndarray, y: np.ndarray | list[int], classes: tuple[str, ...]) -> Data:
    images = torch.tensor(x, dtype=torch.float32).contiguous().div_(255)
    return Data(images, torch.tensor(y, dtype=torch.int64), classes)
