"""Trials: what reaches a victim and a control, with seeds that are not the default."""

import torch

from course_utils.defense import Defense
from course_utils.models import build
from course_utils.threat import Poison, Targeted
from course_utils.training import Recipe, train
from course_utils.trials import Case, Victim, columns, compare, fitted
from tests.reference.small import drawn, flat, noise_data

DATA = noise_data(48)
ROWS = torch.tensor([1, 4, 7, 10])
POISON = Poison(DATA.x[ROWS] * 0.8 + 0.1, torch.full_like(ROWS, 2), ROWS)
MODEL = build("mlp", DATA.shape, 3, seed=8, width=5)


def case(**changes) -> Case:
    goal = Targeted(DATA.x[0], 0, 2)
    given = dict(
        data=DATA, goal=goal, test=DATA, model=MODEL, recipe=Recipe(2, 8, 0.1), seed=6,
        craft=lambda victim: POISON, scenario="finetune",
    )  # fmt: skip
    return Case(**given | changes)


def test_the_noise_control_is_drawn_from_the_seed_of_the_case():
    for seed in (6, 7):
        expected = POISON.noise_control(DATA, drawn(seed))
        assert torch.equal(case(seed=seed).noise.images, expected.images)


def test_a_filtered_victim_trains_on_what_is_kept_and_is_counted():
    def keep(data, fit):
        kept = torch.ones(len(data), dtype=torch.bool)
        kept[[1, 4, 20, 21, 22]] = False  # two of the poisons, three others
        return kept

    victim, trained = Victim(Defense("thin", keep=keep), Recipe(3, 10, 0.05)), []
    (row,) = compare(
        case(), {"attack": POISON}, {"thin": victim}, also=lambda m, p: trained.append(m) or {}
    )
    assert (row["poisons removed"], row["clean removed"]) == (2, 3)
    seen = POISON.apply(DATA)
    expected = train(MODEL, seen[keep(seen, None)], victim.recipe, scenario="finetune", seed=6)
    assert torch.equal(flat(trained[0].parameters()), flat(expected.parameters()))
    assert row["fitted"] == fitted(expected, POISON)


def test_fitted_is_the_share_that_is_classified_as_labelled():
    model = build("logistic_regression", DATA.shape, 3)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
    mixed = Poison(POISON.images, torch.tensor([2, 0, 1, 0]), ROWS)
    assert fitted(model, mixed) == 0.25


def test_columns_take_new_names_first():
    rows = [{"attacker": "noise", "accuracy": 0.5, "seconds": 3}]
    assert columns(rows, "accuracy", condition="attacker") == [
        {"condition": "noise", "accuracy": 0.5}
    ]
