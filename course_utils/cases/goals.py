"""Built in lesson 04, feature collision.

Generated from notebooks/04_feature_collision.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Sequence

import torch

from course_utils.data import Data
from course_utils.models import Classifier, predict
from course_utils.threat import Targeted, ThreatModelError

NEIGHBOURS = (("T-shirt", "Pullover", "Dress", "Coat", "Shirt"), ("Sandal", "Sneaker", "Boot"))


def draw_classes(classes: Sequence[str], seed: int, near: bool = True) -> tuple[int, int]:
    """Draw a true and an adversarial class of Fashion-MNIST, each pair equally likely.

    near: whether the two are neighbours, both upper garments or both shoes, or are not.
    """
    group = {name: number for number, names in enumerate(NEIGHBOURS) for name in names}
    pairs = [
        (a, b)
        for a, first in enumerate(classes)
        for b, second in enumerate(classes)
        if a != b and first in group and (group[first] == group.get(second)) == near
    ]
    generator = torch.Generator().manual_seed(seed)
    return pairs[torch.randint(len(pairs), (1,), generator=generator).item()]


def draw_goal(
    surrogates: Sequence[Classifier], held_out: Data, seed: int, near: bool = True
) -> Targeted:
    """Draw a target from images that nobody trains on, and an adversarial class.

    The target is one that every surrogate classifies correctly. The victim is never asked.
    """
    true_class, adversarial_class = draw_classes(held_out.classes, seed, near)
    known = held_out.y == true_class
    for surrogate in surrogates:
        known &= predict(surrogate, held_out.x) == true_class
    rows = known.nonzero()[:, 0]
    if len(rows) == 0:
        raise ThreatModelError(
            f"No image of class {held_out.classes[true_class]} is classified correctly by every "
            "surrogate: train the surrogates longer, or hold out more images."
        )
    generator = torch.Generator().manual_seed(seed)
    row = rows[torch.randint(len(rows), (1,), generator=generator).item()]
    return Targeted(held_out.x[row], true_class, adversarial_class)
