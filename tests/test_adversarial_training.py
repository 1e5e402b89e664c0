"""Adversarial training and noise as poison defenses, and the trade-off figure of lesson 13."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_utils.attacks.pgd import pgd
from course_utils.cases.robust import ladder, laddered
from course_utils.data import balanced, load
from course_utils.defense import PLAIN
from course_utils.defenses.noise_training import gaussian_noise, random_signs, sign_noise
from course_utils.defenses.pgd_training import pgd_training
from course_utils.defenses.trade_off import plot_trade_off, trade_off_table, undominated
from course_utils.models import build, predict
from course_utils.threat import ThreatModelError
from course_utils.training import Recipe, train

RECIPE = Recipe(epochs=15, batch_size=50, lr=0.05)


def generator(seed: int = 0) -> torch.Generator:
    """A generator of its own for each call."""
    return torch.Generator().manual_seed(seed)


# Noise


@given(epsilon=st.floats(0.001, 1.0), seed=st.integers(0, 50))
def test_noise_keeps_the_bound_and_the_box(epsilon, seed):
    x = torch.rand(6, 1, 5, 5, generator=generator(seed))
    y = torch.zeros(6, dtype=torch.int64)
    before = x.clone()
    for defense in (sign_noise(epsilon), gaussian_noise(epsilon)):
        noisy, labels = defense.batch(None, x, y, generator(seed))
        assert (noisy - x).abs().max() <= epsilon + 1e-6
        assert noisy.min() >= 0 and noisy.max() <= 1
        assert labels is y and torch.equal(x, before)


def test_sign_noise_is_as_large_as_the_bound_allows():
    grey = torch.full((10, 1, 8, 8), 0.5)
    assert torch.allclose((random_signs(grey, 0.2, generator()) - grey).abs(), torch.tensor(0.2))
    black = random_signs(torch.zeros(10, 1, 8, 8), 0.2, generator())
    assert torch.allclose(black.unique(), torch.tensor([0.0, 0.2]))


def test_gaussian_noise_has_the_deviation_until_it_is_cut():
    grey = torch.full((100, 1, 20, 20), 0.5)
    noisy, _ = gaussian_noise(0.1).batch(None, grey, None, generator())
    inside = (noisy - grey).abs() < 0.0999
    assert inside.float().mean().item() == pytest.approx(0.683, abs=0.02)  # one deviation


@pytest.mark.parametrize("make", [sign_noise, gaussian_noise])
@pytest.mark.parametrize("epsilon", [0, -0.1, 1.01, 16, float("nan")])
def test_noise_of_a_senseless_size_is_refused(make, epsilon):
    with pytest.raises(ThreatModelError, match=r"expected a value in \(0, 1\]"):
        make(epsilon)


@pytest.mark.parametrize("epsilon", [0, -0.1, 16])
def test_pgd_training_with_a_senseless_bound_is_refused(images, epsilon):
    with pytest.raises(ThreatModelError, match=r"expected a value in \(0, 1\]"):
        train(build("mlp", images.shape, 10), images, RECIPE, defense=pgd_training(epsilon, 1))


# Training with them


@pytest.mark.parametrize(
    "defense",
    [sign_noise(0.1), gaussian_noise(0.1), pgd_training(0.1, 1)],
    ids=["sign", "Gaussian", "PGD"],
)
@pytest.mark.parametrize("scenario", ["scratch", "finetune", "transfer"])
def test_the_same_seed_gives_the_same_victim_in_every_scenario(images, defense, scenario):
    model, brief = build("small_cnn", images.shape, 10), Recipe(epochs=1, batch_size=64, lr=0.05)
    first, again = (
        train(model, images, brief, scenario=scenario, seed=3, defense=defense) for _ in range(2)
    )
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b) and torch.isfinite(a).all()


def test_training_against_pgd_resists_it_and_noise_does_not():
    train_all, test_all = load()
    data, test = balanced(train_all, 1000, seed=0), balanced(test_all, 500, seed=0)
    model, right = build("mlp", data.shape, 10), {}
    bound = 16 / 255
    for defense in (PLAIN, sign_noise(bound), pgd_training(bound, 1)):
        victim = train(model, data, RECIPE, defense=defense)
        moved = pgd(victim, test.x, test.y, bound, 10, generator())
        right[defense.name] = (predict(victim, moved) == test.y).float().mean().item()
    assert right["PGD training"] > right["plain"] + 0.2
    assert right["PGD training"] > right["sign noise"] + 0.1


def test_a_ladder_names_its_strengths():
    rungs = ladder("noise", sign_noise, [8, 32], RECIPE)
    assert list(rungs) == [("noise", "8/255"), ("noise", "32/255")]
    assert all(victim.defense.name == "sign noise" for victim in rungs.values())
    assert all(victim.recipe == RECIPE for victim in rungs.values())


def test_rows_of_a_ladder_say_defense_and_strength():
    row = {"attacker": "five", "victim": ("noise", "8/255"), "accuracy": 0.8, "success": True}
    assert laddered([row]) == [
        {
            "attack": "five",
            "defense": "noise",
            "strength": "8/255",
            "accuracy": 0.8,
            "success": True,
        }
    ]
    assert "attacker" in row  # it is left as it was


# The trade-off


def frame() -> pd.DataFrame:
    """Three defenses on four trials: plain, one that is dominated and one that is not."""
    kinds = {
        ("plain", "none"): (0.8, [True, True, True, False]),
        ("good", "8/255"): (0.78, [False, False, True, False]),
        ("bad", "8/255"): (0.7, [True, True, True, False]),
    }
    return pd.DataFrame(
        [
            {"trial": t, "defense": d, "strength": s, "accuracy": a + t / 1000, "success": hit}
            for (d, s), (a, hits) in kinds.items()
            for t, hit in enumerate(hits)
        ]
    )


def test_the_table_of_a_trade_off():
    table = trade_off_table(frame()).set_index("defense")
    assert table["undominated"].to_dict() == {"plain": True, "good": True, "bad": False}
    assert table.loc["good", "success"] == 0.25
    assert (table["low"] <= table["success"]).all() and (table["success"] <= table["high"]).all()
    assert (table["accuracy low"] <= table["accuracy"]).all()


def test_the_figure_of_a_trade_off_shows_every_defense_once():
    axis = plot_trade_off(frame())
    names = [text.get_text() for text in axis.get_legend().get_texts()]
    assert names == ["plain", "good", "bad"]
    assert [note.get_text() for note in axis.texts] == ["8/255", "8/255"]
    plt.close(axis.figure)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_what_is_dominated_has_an_undominated_rival(points):
    accuracy, success = (np.array(values, float) for values in zip(*points, strict=True))
    kept = undominated(accuracy, success)
    assert kept.any()
    for i in np.flatnonzero(~kept):
        rivals = kept & (accuracy >= accuracy[i]) & (success <= success[i])
        assert (rivals & ((accuracy > accuracy[i]) | (success < success[i]))).any()
