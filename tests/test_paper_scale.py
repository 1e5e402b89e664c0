"""course_utils.paper_scale: the whole configuration, scaled down, from images to rows."""

import io
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

import tools.benchmark
from course_utils import data as datasets
from course_utils import paper_scale
from course_utils.attacks import crafting
from course_utils.code_hash import code_hash
from course_utils.data import CIFAR_CLASSES, Data, DataError
from course_utils.defense import PLAIN, Defense
from course_utils.models import build, predict
from course_utils.paper_scale import BENCHMARK, KNOWING, ON_RESNET18, craft, draw_target, moved
from course_utils.settings import RESNET, RESNET_FIFTH
from course_utils.stored import RESULTS, load_unfinished, run_study
from course_utils.threat import Poison

RECIPE = replace(RESNET.recipe, epochs=1, batch_size=10, lr=0.01)
SMALL = replace(RESNET, name="SMALL", network="lenet", recipe=RECIPE, share=0.0004)
PLAIN_NAME, PGD = "plain", "PGD training"
CHEAP, FULL = "cheap poisoning training", "poisoning training"


def random_images(n: int = 20) -> Data:
    """Noise in the shape of CIFAR-10, equally many images of each class."""
    generator = torch.Generator().manual_seed(n)
    x = torch.rand(n, 3, 32, 32, generator=generator)
    return Data(x, torch.arange(n) % 10, CIFAR_CLASSES)


@pytest.fixture
def noise(monkeypatch) -> None:
    """Twenty images of noise in the place of CIFAR-10."""
    made = random_images(20), random_images(10), "noise"
    monkeypatch.setattr(paper_scale, "cifar10", lambda: made)


@pytest.mark.parametrize(
    ("chosen", "met"),
    [
        (BENCHMARK, [("clean", PLAIN_NAME), *[("without", n) for n in (PLAIN_NAME, CHEAP, PGD)]]),
        (KNOWING, [("without", FULL), *[("with", name) for name in (CHEAP, PGD, FULL)]]),
    ],
    ids=["paper", "paper_knowing"],
)
def test_the_whole_configuration_runs_from_images_to_rows(chosen, met, noise, tmp_path):
    small = replace(chosen, setting=SMALL, seeds=[0])
    rows = run_study(small, folder=tmp_path)
    assert list(rows[["knowledge", "victim"]].itertuples(index=False, name=None)) == met
    assert rows.success.dtype == bool and rows.accuracy.between(0, 1).all()
    assert (rows.seconds > 0).all() and (rows.data == "noise").all()
    assert ((rows.crafting_seconds > 0) == (rows.knowledge != "clean")).all()


def test_the_sizes_are_those_of_the_paper(monkeypatch):
    seen = {}

    def matching(surrogates, data, goal, threat, seed, *, base, **options):
        seen.update(options, base=base, threat=threat)
        return Poison(data.x[base], data.y[base], base)

    monkeypatch.setattr(paper_scale, "gradient_matching", matching)
    monkeypatch.setattr(crafting, "granted", lambda models, goal: False)
    data = Data(torch.zeros(6000, 3, 1, 1), torch.arange(6000) % 10, CIFAR_CLASSES)
    goal = draw_target(data, 0)
    craft(None, data, goal, 0, RESNET)
    assert RESNET.scaled(50_000) == 50_000 and RESNET_FIFTH.scaled(50_000) == 10_000
    assert len(seen["base"].unique()) == seen["threat"].budget == 0.01 * 50_000
    assert (data.y[seen["base"]] == goal.adversarial_class).all()
    assert seen["threat"].epsilon * 255 == pytest.approx(16) and seen["threat"].clean_label
    assert seen["steps"] == 250
    assert all(one.anywhere and len(one.seeds) == 20 for one in (BENCHMARK, KNOWING, ON_RESNET18))
    assert ON_RESNET18.setting.network == "resnet18"


def test_a_target_never_has_its_adversarial_class():
    test = random_images(30)
    goals = [draw_target(test, seed) for seed in range(200)]
    assert len({(goal.true_class, goal.adversarial_class) for goal in goals}) > 60
    for goal in goals:
        row = (test.x == goal.image).flatten(1).all(1)
        assert test.y[row].tolist() == [goal.true_class]


def test_nothing_is_crafted_where_the_surrogate_grants_the_goal():
    data, test = random_images(20), random_images(10)
    surrogate = build("lenet", data.shape, 10).eval()
    answer = predict(surrogate, test.x)
    for seed in range(50):
        goal = draw_target(test, seed)
        (row,) = (test.x == goal.image).flatten(1).all(1).nonzero()[:, 0].tolist()
        if answer[row].item() == goal.adversarial_class:
            assert craft(surrogate, data, goal, seed, SMALL) is None
            return
    pytest.fail("no goal of 50 was granted: the untrained model should answer one class only")


@pytest.mark.parametrize("half", [False, True])
def test_images_are_moved_before_the_defense_sees_them(half):
    seen = {}

    def batch(model, x, y, generator):
        seen["x"] = x
        return x, y

    x, y = torch.ones(4, 3, 32, 32), torch.arange(4)
    with torch.autocast("cpu", enabled=half):
        images, labels = moved(PLAIN).batch(None, x, y, torch.Generator().manual_seed(0))
        moved(Defense("note", batch=batch)).batch(None, x, y, torch.Generator().manual_seed(0))
    assert labels is y and not torch.equal(images, x)
    assert (images >= 0).all() and (images <= 1).all() and torch.equal(seen["x"], images)
    dark = (images[:, 0] == 0).float().mean(0)
    assert dark[4:-4, 4:-4].max() == 0  # no shift by more than 4 pixels
    alone = moved(PLAIN).batch(None, x, y, torch.Generator().manual_seed(0))[0]
    assert torch.equal(alone, images), "half precision must not move pixels"


def jpeg(grey: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), grey, np.uint8)).save(file, "JPEG", quality=95)
    return file.getvalue()


def test_recompressed_images_go_by_their_name(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "DOWNLOADS", tmp_path)
    with pytest.raises(DataError, match=r"CIFAR10 could not be loaded .* download=True"):
        paper_scale.cifar10.__wrapped__()
    arrays = {}
    for part, greys in (("train", (0, 51, 255)), ("test", (102,))):
        files = [jpeg(grey) for grey in greys]
        arrays[f"jpeg_{part}"] = np.frombuffer(b"".join(files), np.uint8)
        arrays[f"offset_{part}"] = np.cumsum([0, *map(len, files)])
        arrays[f"y_{part}"] = np.arange(len(files))
    np.savez(tmp_path / "cifar10_jpeg.npz", **arrays)
    train, test, name = paper_scale.cifar10.__wrapped__()
    assert name == "CIFAR-10, JPEG-recompressed"
    assert train.x.mean((1, 2, 3)).tolist() == pytest.approx([0, 0.2, 1], abs=0.01)
    assert train.y.tolist() == [0, 1, 2] and test.shape == (3, 32, 32)


def test_without_a_gpu_the_stored_rows_are_shown_with_their_number(
    noise, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    small = replace(BENCHMARK, setting=SMALL, seeds=range(2))
    monkeypatch.setattr(paper_scale, "BENCHMARK", small)
    shown = partial(paper_scale.at_scale, folder=tmp_path)
    assert shown(run=True) is None
    assert "No trial at the papers' size is stored yet" in capsys.readouterr().out
    monkeypatch.setattr(paper_scale, "draw_case", stopping_at(1))
    with pytest.raises(RuntimeError, match="lent no longer"):
        run_study(small, folder=tmp_path)
    table = shown()
    assert "1 of 20 trials. Fewer than 20" in capsys.readouterr().out
    assert table.trials.tolist() == [1] * 4
    found = load_unfinished(small, tmp_path)
    assert table.accuracy.tolist() == pytest.approx(found.accuracy.tolist(), abs=0.001)


def stopping_at(number: int):
    """`draw_case`, but the run is interrupted at this seed."""
    whole = paper_scale.draw_case

    def draw(seed, setting):
        if seed == number:
            raise RuntimeError("the machine is lent no longer")
        return whole(seed, setting)

    return draw


def test_the_stored_rows_belong_to_the_benchmark_and_name_their_images():
    rows = paper_scale.stored_rows(RESULTS)
    assert set(rows.trial) <= set(BENCHMARK.seeds)
    assert set(rows.data) <= {"CIFAR-10", paper_scale.JPEGS}
    assert len(rows) == 4 * rows.trial.nunique() > 0


def test_its_own_code_counts():
    assert BENCHMARK.code == code_hash(paper_scale.matching_trial) != code_hash(predict)


def test_missing_data_ends_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "DOWNLOADS", tmp_path)
    monkeypatch.setattr(tools.benchmark, "run_study", partial(run_study, folder=tmp_path))
    monkeypatch.setattr(sys, "argv", ["benchmark", "--scale", "paper"])
    paper_scale.cifar10.cache_clear()
    with pytest.raises(SystemExit, match=r"CIFAR10 could not be loaded .* download=True"):
        tools.benchmark.main()
