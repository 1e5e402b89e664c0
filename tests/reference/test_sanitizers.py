"""The sanitizers of lesson 03 by slow loops."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from course_utils.defenses import sanitizers
from tests.reference.small import models, noise_data

DATA = noise_data(60)
OTHERS = noise_data(45, seed=8)
(MODEL,) = models(DATA, 4)


def slow_score(name, seen, image, label, itself) -> float:
    """The score of one image, itself among what was seen or not."""
    groups = [seen.x[seen.y == k].flatten(1).double().numpy() for k in range(3)]
    means = np.stack([group.mean(0) for group in groups])
    point = image.flatten().double().numpy()
    if name == "sphere":
        return np.sqrt(((point - means[label]) ** 2).sum())
    if name == "slab":
        axis = np.delete(means, label, 0).mean(0) - means[label]
        return abs((point - means[label]) @ axis) / np.sqrt(axis @ axis)
    if name == "loss":
        return cross_entropy(MODEL(image[None]), torch.tensor([label])).item()
    return sorted(np.sqrt(((group := groups[label]) - point) ** 2 @ np.ones(group.shape[1])))[
        5 if itself else 4
    ]


@pytest.mark.parametrize("name", sanitizers.SCORES)
@pytest.mark.parametrize("seen", [DATA, OTHERS])
def test_each_score_is_that_of_a_slow_loop(name, seen):
    found = sanitizers.SCORES[name](seen, lambda data: MODEL)(DATA)
    for row in range(60):
        given = DATA.x[row], DATA.y[row].item()
        expected = slow_score(name, seen, *given, itself=seen is DATA)
        assert found[row].item() == pytest.approx(expected, abs=1e-4)


def test_limits_by_hand():
    scores = torch.tensor([1.0, 9.0, 2.0, 3.0, 5.0])
    limits = sanitizers.class_limits(scores, torch.tensor([0, 1, 0, 0, 1]), 2, 0.5)
    assert limits.tolist() == [2.0, 7.0]


@pytest.mark.parametrize("reference", [None, OTHERS])
@pytest.mark.parametrize("quantile", [0.7, 0.95, 1.0])
def test_what_passes_every_filter_is_kept(reference, quantile):
    names = ("sphere", "loss")
    kept = sanitizers.sanitizer(*names, quantile=quantile, reference=reference)
    kept = kept.keep(DATA, lambda data: MODEL)
    seen = DATA if reference is None else reference
    expected = torch.ones(60, dtype=torch.bool)
    for name in names:
        score = sanitizers.SCORES[name](seen, lambda data: MODEL)
        limits = [score(seen)[seen.y == k].quantile(quantile) for k in range(3)]
        expected &= score(DATA) <= torch.stack(limits)[DATA.y]
    assert torch.equal(kept, expected)
    assert reference is not None or quantile < 1 or kept.all()
