"""The learns-less curve: plain victims that nobody defends, each weaker than the plain one."""

import dataclasses
from itertools import pairwise

import pytest

from course_utils.cases.controls import learns_less
from course_utils.data import balanced, load
from course_utils.defense import PLAIN
from course_utils.models import build
from course_utils.settings import CONVNET, MLP, TINY
from course_utils.threat import accuracy
from course_utils.training import train


@pytest.mark.parametrize("setting", [MLP, CONVNET], ids=lambda setting: setting.name)
def test_six_undefended_victims_learn_less_than_the_plain_one(setting):
    curve = learns_less(setting)
    assert len(curve) == 6
    assert all(victim.defense is PLAIN for victim in curve.values())
    plain = dataclasses.asdict(setting.recipe)
    for victim in curve.values():
        recipe = dataclasses.asdict(victim.recipe)
        changed = [name for name in plain if recipe[name] != plain[name]]
        assert changed in (["lr"], ["epochs"]), "one thing at a time"
        assert recipe[changed[0]] < plain[changed[0]]


def test_the_names_say_what_was_changed():
    for name, victim in learns_less(MLP).items():
        wanted = victim.recipe.lr if "rate" in name else victim.recipe.epochs
        assert [float(word) for word in name.split() if word[0].isdigit()] == [wanted]


def test_a_small_setting_shortens_the_schedules():
    epochs = [victim.recipe.epochs for victim in learns_less(TINY).values()]
    assert max(epochs) <= TINY.recipe.epochs


def test_the_curve_falls_from_point_to_point():
    """The weakest of each kind is clearly less accurate than the plain victim."""
    train_all, test_all = load("fashion_mnist")
    data, test = balanced(train_all, 1000, 0), balanced(test_all, 1000, 0)
    model, curve = build("mlp", data.shape, len(data.classes)), learns_less(MLP)

    def learnt(recipe):
        return accuracy(train(model, data, recipe, seed=0), test)

    plain = learnt(MLP.recipe)
    for kind in ("rate", "epochs"):
        found = [learnt(victim.recipe) for name, victim in curve.items() if kind in name]
        assert plain > found[-1] + 0.02
        assert all(stronger > weaker - 0.01 for stronger, weaker in pairwise(found))
