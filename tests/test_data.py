"""course_utils.data and tools.build_data: good input, and the error for each kind of bad input."""

import gzip
import hashlib
import os
import pickle
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from course_utils import data
from course_utils.data import Data, DataError, balanced, load, only
from tools import build_data

CLASSES = ("ant", "bee", "cow")


def make(n: int = 6, shape: tuple[int, ...] = (1, 4, 4)) -> Data:
    """n random images, labels 0, 1, 2, 0, 1, 2, ..."""
    x = torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))
    return Data(x, torch.arange(n) % len(CLASSES), CLASSES)


def numbered(counts: list[int]) -> Data:
    """counts[k] images of class k in mixed order; each image's pixel is its own number / 1000."""
    y = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]
    x = torch.arange(len(y), dtype=torch.float32).div(1000)[:, None, None, None]
    return Data(x, y, tuple(f"class {label}" for label in range(len(counts))))


# Data


def test_data_has_length_rows_and_shape():
    full = make(6, (3, 4, 5))
    assert len(full) == 6
    assert full.shape == (3, 4, 5)
    for rows in (slice(1, 3), torch.tensor([1, 2]), torch.arange(6).eq(1) | torch.arange(6).eq(2)):
        part = full[rows]
        assert torch.equal(part.x, full.x[1:3])
        assert part.y.tolist() == [1, 2]
        assert part.classes == CLASSES
    assert torch.equal(full.to("cpu").x, full.x)


def test_data_may_be_empty():
    assert len(make()[:0]) == 0


def test_data_is_frozen():
    with pytest.raises(AttributeError):
        make().x = torch.zeros(1)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_in_another_order_in_memory_are_put_in_order(channels):
    pixels = torch.rand(6, 5, 4, channels, generator=torch.Generator().manual_seed(0))
    moved = pixels.permute(0, 3, 1, 2)
    ordered = Data(moved, make().y, CLASSES).x
    assert torch.equal(ordered, moved)
    assert ordered.stride() == (20 * channels, 20, 4, 1)
    assert Data(ordered, make().y, CLASSES).x is ordered


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.rand(2, 4, 4), torch.zeros(2).long(), r"shape \(2, 4, 4\), expected \(N, C, H, W\)"),
        (torch.rand(2, 1, 4, 4).double(), torch.zeros(2).long(), "torch.float64, expected"),
        (torch.zeros(2, 1, 4, 4).byte(), torch.zeros(2).long(), "divide by 255"),
        (torch.rand(2, 1, 4, 4), torch.zeros(3).long(), r"shape \(3,\), expected \(2,\)"),
        (torch.rand(2, 1, 4, 4), torch.zeros(2, 1).long(), r"shape \(2, 1\), expected \(2,\)"),
        (torch.rand(2, 1, 4, 4), torch.zeros(2), r"labels are torch.float32.*y.long\(\)"),
        (np.zeros((2, 1, 4, 4)), torch.zeros(2).long(), r"images are a ndarray.*torch.as_tensor"),
        (torch.rand(2, 1, 4, 4), [0, 1], r"labels are a list, expected a tensor"),
    ],
)
def test_data_refuses_wrong_shapes_and_dtypes(x, y, message):
    with pytest.raises(DataError, match=message):
        Data(x, y, CLASSES)


@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0, float("nan"), float("inf")])
def test_data_names_the_first_image_outside_the_pixel_box(value):
    x = make().x
    x[2, 0, 3, 1] = value
    x[4] = -7
    with pytest.raises(DataError, match=re.escape(f"image 2 has the pixel value {value:g}")):
        Data(x, make().y, CLASSES)


@pytest.mark.parametrize(
    "advice", ["divide by 255", "undo a normalisation", "clamp what an attack"]
)
def test_data_says_what_to_do_about_pixels_outside_the_box(advice):
    with pytest.raises(DataError, match=advice):
        Data(make().x * 4 - 2, make().y, CLASSES)


def test_data_refuses_a_class_name_that_comes_twice():
    with pytest.raises(DataError, match="a class name comes twice"):
        Data(make().x, make().y, ("ant", "bee", "ant"))


def test_class_names_may_be_numbers():
    digits = Data(make().x, make().y, (7, 8, 9))
    assert only(digits, [9, 7]).classes == (9, 7)
    assert len(balanced(digits, 3, seed=0)) == 3
    with pytest.raises(DataError, match="unknown class 3; choose from 7, 8, 9"):
        only(digits, [3])
    with pytest.raises(DataError, match="takes 3 images of class 7, but there are 2"):
        balanced(digits, 9, seed=0)


@pytest.mark.parametrize("label", [-1, 3])
def test_data_names_the_first_label_out_of_range(label):
    y = make().y
    y[3], y[5] = label, 99
    with pytest.raises(DataError, match=f"image 3 has the label {label}, expected 0 to 2"):
        Data(make().x, y, CLASSES)


# balanced


@given(
    counts=st.lists(st.integers(8, 12), min_size=1, max_size=5),
    share=st.integers(1, 7),
    rest=st.integers(0, 4),
    seed=st.integers(0, 2**32),
)
def test_balanced_takes_different_images_equally_from_each_class(counts, share, rest, seed):
    full = numbered(counts)
    n = share * len(counts) + rest % len(counts)
    part = balanced(full, n, seed)
    assert len(part) == n
    sizes = part.y.bincount(minlength=len(counts))
    assert sizes.max() - sizes.min() <= 1
    numbers = part.x.flatten().mul(1000).round().long()
    assert len(numbers.unique()) == n
    assert torch.equal(part.y, full.y[numbers])
    again = balanced(full, n, seed)
    assert torch.equal(part.x, again.x)
    assert torch.equal(part.y, again.y)


def test_balanced_depends_on_the_seed_and_shuffles():
    full = numbered([50, 50])
    parts = [balanced(full, 40, seed) for seed in (0, 1)]
    assert not torch.equal(parts[0].x, parts[1].x)
    assert not torch.equal(parts[0].y, parts[0].y.sort().values)


def test_balanced_takes_a_seed_of_numpy():
    full = numbered([9, 9])
    assert torch.equal(balanced(full, 6, np.int64(5)).x, balanced(full, 6, 5).x)


@pytest.mark.parametrize("n", [-5, 0, 1])
def test_balanced_refuses_too_few_images(n):
    with pytest.raises(DataError, match=f"n is {n}, expected at least one image for each"):
        balanced(numbered([4, 4]), n, seed=0)


def test_balanced_refuses_more_images_than_a_class_has():
    with pytest.raises(DataError, match="takes 4 images of class 'class 1', but there are 3"):
        balanced(numbered([9, 3]), 8, seed=0)


# only


@given(chosen=st.permutations(range(4)), k=st.integers(1, 4))
def test_only_keeps_and_relabels_in_the_given_order(chosen, k):
    full = numbered([3, 4, 5, 6])
    names = [full.classes[label] for label in chosen[:k]]
    part = only(full, names)
    assert part.classes == tuple(names)
    numbers = part.x.flatten().mul(1000).round().long()
    kept = [number for number in range(len(full)) if full.y[number] in chosen[:k]]
    assert numbers.tolist() == kept
    for number, label in zip(numbers, part.y, strict=True):
        assert names[label] == full.classes[full.y[number]]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["ant", "dog"], "unknown class 'dog'; choose from ant, bee, cow"),
        (["ant", "ant"], "expected different names out of ant, bee, cow"),
        ([], "expected different names"),
    ],
)
def test_only_refuses_bad_classes(classes, message):
    with pytest.raises(DataError, match=message):
        only(make(), classes)


# the subset that comes with the course


def test_the_subset_loads():
    train, test = load()
    assert train.shape == test.shape == (1, 28, 28)
    assert train.y.bincount().tolist() == [2000] * 10
    assert test.y.bincount().tolist() == [400] * 10
    assert train.classes == test.classes == data.FASHION_CLASSES
    assert train.x.max() == test.x.max() == 1
    assert (train.y[1:] < train.y[:-1]).any()


def test_the_subset_is_the_same_at_each_load():
    for first, second in zip(load(), load(), strict=True):
        assert torch.equal(first.x, second.x)
        assert torch.equal(first.y, second.y)


def flip_one_byte(raw: bytes) -> bytes:
    middle = len(raw) // 2
    return raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]


@pytest.mark.parametrize("damage", [flip_one_byte, lambda raw: raw[:-1], lambda raw: b""])
def test_a_damaged_subset_is_refused(tmp_path, damage):
    raw = (data.FOLDER / "fashion_mnist.npz").read_bytes()
    (tmp_path / "fashion_mnist.npz").write_bytes(damage(raw))
    with pytest.raises(DataError, match=r"truncated or altered.*git checkout.*tools.build_data"):
        load(folder=tmp_path)


def test_a_missing_subset_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"cannot be read.*git checkout -- data/fashion_mnist.npz"):
        load(folder=tmp_path)


def test_an_unknown_dataset_is_refused():
    with pytest.raises(DataError, match=r"'mnist'.*fashion_mnist, fashion_mnist_full, cifar10"):
        load("mnist")


# the originals, in miniature


@pytest.fixture
def originals(tmp_path, monkeypatch):
    """Four small files in the format of the originals, two plain and two gzipped, with md5."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "originals"
    folder.mkdir()
    for part, n in (("train", 60), ("t10k", 30)):
        x = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        y = (np.arange(n) % 10).astype(np.uint8)
        images = struct.pack(">4B3i", 0, 0, 8, 3, n, 28, 28) + x.tobytes()
        labels = struct.pack(">4Bi", 0, 0, 8, 1, n) + y.tobytes()
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels)
        for name, raw in (("images-idx3", images), ("labels-idx1", labels)):
            md5 = hashlib.md5(raw).hexdigest()
            monkeypatch.setitem(data.FASHION_MD5, f"{part}-{name}-ubyte", md5)
    return folder


def test_the_full_set_loads_from_a_folder(originals):
    train, test = load("fashion_mnist_full", originals)
    assert (len(train), len(test)) == (60, 30)
    first = np.random.default_rng(0).integers(0, 256, (60, 28, 28), dtype=np.uint8)[0]
    assert np.array_equal(train.x[0, 0].mul(255).round().byte().numpy(), first)
    assert train.y[:12].tolist() == [*range(10), 0, 1]


def test_the_full_set_loads_from_torchvision_s_folder(originals, tmp_path):
    (tmp_path / "FashionMNIST").mkdir()
    originals.rename(tmp_path / "FashionMNIST" / "raw")
    train, _ = load("fashion_mnist_full", tmp_path)
    assert len(train) == 60


def test_a_missing_original_is_refused(originals):
    (originals / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte is not in.*download=True"):
        load("fashion_mnist_full", originals)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("train-labels-idx1-ubyte", flip_one_byte, "truncated or altered"),
        ("train-labels-idx1-ubyte", lambda raw: raw[:-1], "truncated or altered"),
        ("train-labels-idx1-ubyte", lambda raw: b"", "truncated or altered"),
        ("train-images-idx3-ubyte.gz", flip_one_byte, "fetch it again"),
        ("train-images-idx3-ubyte.gz", lambda raw: raw[:-1], "cannot be read"),
        ("train-images-idx3-ubyte.gz", lambda raw: b"not gzip", "cannot be read"),
    ],
)
def test_a_damaged_original_is_refused(originals, name, damage, message):
    path = originals / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        load("fashion_mnist_full", originals)


def test_a_failed_download_is_explained(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr(data.datasets, "FashionMNIST", type("FashionMNIST", (), {"__new__": fail}))
    with pytest.raises(DataError, match=r"Error downloading.*check the network"):
        load("fashion_mnist_full", tmp_path, download=True)


# the builder


def test_the_builder_picks_a_balanced_shuffled_subset(originals):
    arrays = build_data.subset(originals, train_per_class=4, test_per_class=2)
    full = load("fashion_mnist_full", originals)
    for name, per_class, original in (("train", 4, full[0]), ("test", 2, full[1])):
        x, y, rows = (arrays[f"{kind}_{name}"] for kind in ("x", "y", "index"))
        assert x.dtype == y.dtype == np.uint8
        assert np.bincount(y).tolist() == [per_class] * 10
        assert len(np.unique(rows)) == len(rows)
        assert (np.diff(y.astype(int)) < 0).any()
        part = original[rows.astype(np.int64)]
        assert np.array_equal(part.x[:, 0].mul(255).round().byte().numpy(), x)
        assert np.array_equal(part.y.numpy(), y)


def test_the_builder_gives_the_same_bytes_twice(originals, tmp_path):
    paths = [tmp_path / "a.npz", tmp_path / "b.npz"]
    sums = [build_data.save(build_data.subset(originals, 4, 2), path) for path in paths]
    assert sums[0] == sums[1] == hashlib.sha256(paths[1].read_bytes()).hexdigest()
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_builder_refuses_too_few_originals(originals):
    with pytest.raises(DataError, match="has 6 images, expected at least 7"):
        build_data.subset(originals, train_per_class=7, test_per_class=2)


def test_the_builder_leaves_nothing_half_written(tmp_path, monkeypatch):
    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("No space left on device")

    path = tmp_path / "subset.npz"
    path.write_bytes(b"old")
    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="No space"):
        build_data.save({}, path)
    assert [file.name for file in tmp_path.iterdir()] == ["subset.npz"]
    assert path.read_bytes() == b"old"


def test_the_builder_s_command(originals, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data, "FOLDER", tmp_path)
    monkeypatch.setattr(build_data, "TRAIN_PER_CLASS", 4)
    monkeypatch.setattr(build_data, "TEST_PER_CLASS", 2)
    build_data.main([str(originals)])
    sha256 = hashlib.sha256((tmp_path / "fashion_mnist.npz").read_bytes()).hexdigest()
    printed = capsys.readouterr().out
    assert sha256 in printed
    assert "This is not the file that course_utils/data.py expects" in printed

    monkeypatch.setattr(data, "FASHION_SHA256", sha256)
    build_data.main([str(originals)])
    assert "not the file" not in capsys.readouterr().out
    train, test = load(folder=tmp_path)
    assert (len(train), len(test)) == (40, 20)


@pytest.mark.skipif(
    "FASHION_MNIST_ORIGINALS" not in os.environ,
    reason="FASHION_MNIST_ORIGINALS does not name a folder with the original files",
)
def test_the_committed_subset_is_what_the_builder_makes():
    arrays = build_data.subset(
        Path(os.environ["FASHION_MNIST_ORIGINALS"]),
        build_data.TRAIN_PER_CLASS,
        build_data.TEST_PER_CLASS,
    )
    with np.load(data.FOLDER / "fashion_mnist.npz", allow_pickle=False) as committed:
        assert sorted(committed) == sorted(arrays)
        for name in committed:
            assert committed[name].dtype == arrays[name].dtype
            assert np.array_equal(committed[name], arrays[name])


# CIFAR-10


@pytest.fixture
def cifar_folder(tmp_path):
    """torchvision's folder with four synthetic images in each batch."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        pixels = rng.integers(0, 256, (4, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": [9, 0, 3, 1]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(data.CIFAR_CLASSES)}))
    return tmp_path


def test_cifar10_loads_from_torchvision_s_folder(cifar_folder, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *arguments: True)
    train, test = load("cifar10", cifar_folder)
    assert (len(train), len(test)) == (20, 4)
    assert train.shape == test.shape == (3, 32, 32)
    assert train.y[:4].tolist() == test.y.tolist() == [9, 0, 3, 1]
    assert train.classes == data.CIFAR_CLASSES
    assert train.x.is_contiguous()
    first = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)[0]
    assert np.array_equal(train.x[0].mul(255).round().byte().flatten().numpy(), first)


def test_an_altered_cifar10_is_refused(cifar_folder):
    with pytest.raises(DataError, match=r"CIFAR10.*corrupted.*load\(..., download=True\)"):
        load("cifar10", cifar_folder)


def test_a_missing_cifar10_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"CIFAR10.*not found.*load\(..., download=True\)"):
        load("cifar10", tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
