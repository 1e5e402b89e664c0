"""Built in lesson 03, the slab attack.

Generated from notebooks/03_the_slab_attack.ipynb: edit it there, then run make notebooks.
"""

from course_utils.attacks import label_flipping
from course_utils.attacks.slab import slab_attack
from course_utils.cases import label_flips
from course_utils.data import Data, balanced, load, only
from course_utils.models import build
from course_utils.settings import MLP, Setting
from course_utils.threat import Indiscriminate, Poison, ThreatModel
from course_utils.training import Recipe
from course_utils.trials import Case, Victim

RECIPES = {"course": Recipe(), "paper": label_flips.PAPER}


def poisons(data: Data, fraction: float, seed: int) -> dict[str, Poison]:
    """The slab attack and its control, equally many poisons each."""
    threat = ThreatModel(label_flipping.budget_for(data, fraction), placement="append")
    given = data, Indiscriminate(), threat
    made = {
        "slab attack": slab_attack(*given),
        "random flips": label_flipping.random_flips(*given, seed),
    }
    for poison in made.values():
        poison.check(threat, data)
    return made


def slab_case(seed: int, setting: Setting = MLP, fraction: float = 0.1) -> Case:
    """The slab attack on 3,600 dresses and coats, against logistic regression."""
    train_all, test = (only(part, label_flips.PAIR) for part in load("fashion_mnist"))
    data = balanced(train_all, setting.scaled(3600), seed)
    model = build("logistic_regression", data.shape, len(data.classes))

    def craft(victim: Victim) -> Poison:
        return poisons(data, fraction, seed)["slab attack"]

    recipe = setting.shortened(RECIPES["course"])
    return Case(data, Indiscriminate(), test, model, recipe, seed, craft)
