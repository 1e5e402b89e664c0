"""Where a defense can act. `train()` knows nothing else about defenses, attacks know nothing of it.

So every attack of the course can be run against every defense. Only an attack that was made against
a defense imports it, and only a defense that simulates an attack imports that.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Defense:
    """A defense acts in at most three places of `train()`.

    keep: (data, fit) -> mask of the rows to train on. `fit(data)` trains a model to look with, in
        the same way as the victim but undefended.
    batch: (model, x, y, generator) -> x, y. Rewrites a batch of images (B, C, H, W) and labels;
        the labels may come back soft, as rows of probabilities (B, classes).
    gradients: (model, x, y, generator) -> one gradient for each trainable parameter, in the order
        of `model.parameters()`. Replaces the plain gradient of the mean loss.
    poisson: sample each batch by one coin flip per image, as differential privacy asks. Batches
        then vary in size and can be empty; `gradients` must cope with an empty batch.
    batch_size: the one for which `gradients` is made, such as the number that a sum is divided by;
        `train()` refuses a recipe with another. None for any.
    """

    name: str
    keep: Callable | None = None
    batch: Callable | None = None
    gradients: Callable | None = None
    poisson: bool = False
    batch_size: int | None = None


PLAIN = Defense("plain")
