"""The anatomy of a gradient, lesson 09: parts, controls and rows by hand."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from course_utils.data import Data
from course_utils.defenses import gradient_anatomy as taught
from course_utils.threat import Poison
from tests.reference.small import drawn, flat, models, noise_data

DATA, FRESH = noise_data(30), noise_data(30, seed=9)
(MODEL,) = models(DATA, 4)
POISON = Poison(DATA.x[[1, 4, 7]] * 0.5, torch.tensor([2, 2, 2]), torch.tensor([1, 4, 7]))
WHAT = taught.specimen(POISON, DATA, FRESH)
WEIGHTS = list(MODEL.parameters())


def one_by_one(x, y):
    rows = [
        torch.autograd.grad(cross_entropy(MODEL(a[None]), b[None]), WEIGHTS)
        for a, b in zip(x, y, strict=True)
    ]
    return torch.stack([flat(row) for row in rows])


def test_the_gradient_of_a_part_is_the_mean_of_clipped_ones():
    rows = one_by_one(DATA.x[:6], DATA.y[:6])
    norms = rows.norm(dim=1)
    for bound in (norms.median().item(), float("inf")):
        expected = (rows * (bound / norms).clamp(max=1)[:, None]).mean(0)
        found = taught.part_gradient(MODEL, DATA.x[:6], DATA.y[:6], bound)
        torch.testing.assert_close(flat(found), expected)


def test_cosines_by_hand():
    first, second = (
        (torch.tensor([3.0]), torch.tensor([4.0])),
        (torch.tensor([0.0]), torch.tensor([2.0])),
    )
    assert taught.cosine(first, second) == pytest.approx(0.8)
    gradients = (torch.tensor([[1.0], [5.0], [0.0]]), torch.tensor([[1.0], [3.0], [-2.0]]))
    groups = torch.tensor([True, True, False]), torch.tensor([False, False, True])
    assert taught.group_cosine(gradients, *groups) == pytest.approx(-2 / 13**0.5)


def test_controls_have_the_wanted_labels_and_come_once():
    free = torch.ones(30, dtype=torch.bool)
    free[:12] = False
    wanted = torch.tensor([2, 0, 2, 2, 1])
    seen = set()
    for seed in range(15):
        rows = taught.matched_rows(DATA, free, wanted, drawn(seed))
        assert torch.equal(DATA.y[rows], wanted) and rows.min() >= 12 and len(rows.unique()) == 5
        seen.update(rows.tolist())
    assert seen == set(range(12, 30))


def test_a_batch_is_cut_into_its_parts():
    rows = torch.tensor([1, 4, 8, 9, 10])
    parts = taught.cut(WHAT, rows, drawn(3))
    assert list(parts) == ["clean", "poison", "label", "class", "new"]
    assert torch.equal(parts["clean"].x, DATA.x[[8, 9, 10]])
    assert torch.equal(parts["poison"].x, POISON.images[:2])
    assert parts["label"].y.tolist() == [2, 2] and parts["class"].y.tolist() == [1, 1]
    for name in ("label", "class"):
        for image in parts[name].x:
            (row,) = (DATA.x == image).flatten(1).all(1).nonzero()[:, 0].tolist()
            assert row not in (1, 4, 7, 8, 9, 10)
    assert all(any(torch.equal(image, one) for one in FRESH.x) for image in parts["new"].x)


@pytest.mark.parametrize("shared", [True, False])
def test_noise_is_a_share_of_the_sum_of_each_part(shared):
    gradients = {"a": (torch.zeros(4),), "b": (torch.ones(4),)}
    found = taught.with_noise(gradients, {"a": 2, "b": 5}, 0.6, drawn(3), shared)
    generator = drawn(3)
    first = torch.randn(4, generator=generator)
    second = first if shared else torch.randn(4, generator=generator)
    torch.testing.assert_close(found["a"][0], 0.3 * first)
    torch.testing.assert_close(found["b"][0], 1 + 0.12 * second)


@pytest.mark.parametrize("bound", [0.5, float("inf")])
def test_a_look_counts_the_poisons_with_the_longer_gradient(bound):
    rows, plan = torch.tensor([1, 4, 7, 8, 9, 10, 11]), taught.Plan(bound=bound)
    (row,) = taught.look(MODEL, WHAT, rows, drawn(3), plan)
    parts = taught.cut(WHAT, rows, drawn(3))
    lengths = {k: one_by_one(p.x, p.y).norm(dim=1) for k, p in parts.items()}
    for name in ("label", "class", "new"):
        share = (lengths["poison"] > lengths[name]).float().mean().item()
        assert row[f"longer {name}"] == pytest.approx(share)
    clean = taught.part_gradient(MODEL, parts["clean"].x, parts["clean"].y, bound)
    assert row["all clean"] == pytest.approx(flat(clean).norm().item()) and row["poisons"] == 3
    kinds = [
        r["noise"]
        for r in taught.look(MODEL, WHAT, rows, drawn(3), taught.Plan(bound=0.5, noise=1.0))
    ]
    assert kinds == ["none", "independent", "shared"]
    noisy = taught.look(MODEL, WHAT, rows, drawn(3), taught.Plan(bound=0.5, noise=1e5))
    drawn_twice, drawn_once = (r["all cos poison"] for r in noisy[1:])
    assert drawn_once > 0.999 and abs(drawn_twice) < 0.8


@pytest.mark.parametrize(("every", "looks"), [(1, [0, 1, 2]), (2, [0, 2]), (3, [0])])
def test_a_plan_says_when_to_look_and_how_to_shape(every, looks):
    record, plan = [], taught.Plan(epochs=(2,), every=every, bound=0.3, noise=0.5)
    defense = taught.anatomy(WHAT, record, 10, plan, seed=4)
    batches = [torch.arange(10), torch.arange(10, 20), torch.arange(20, 30)]
    for epoch in (1, 2, 3):
        for number, rows in enumerate(batches):
            before = len(record)
            part = WHAT.seen[rows]
            found = defense.gradients(MODEL, part.x, part.y, drawn(number))
            looked = len(record) > before
            assert looked == (epoch == 2 and number in looks and bool(WHAT.is_poison[rows].any()))
            plain, generator = taught.part_gradient(MODEL, part.x, part.y, 0.3), drawn(number)
            noise = flat([torch.randn(p.shape, generator=generator) for p in plain])
            torch.testing.assert_close(flat(found), flat(plain) + 0.15 / 10 * noise)
    assert all(row["epoch"] == 2 for row in record) and isinstance(WHAT.seen, Data)
