"""Small loss, lesson 01."""

import torch
from torch.nn.functional import cross_entropy

from course_utils.defenses.small_loss import small_loss
from tests.reference.small import models, noise_data


def test_the_images_with_the_largest_loss_are_dropped():
    data = noise_data(40)
    (model,) = models(data, 4)
    losses = [
        cross_entropy(model(x[None]), y[None]).item() for x, y in zip(data.x, data.y, strict=True)
    ]
    for share, count in ((0.1, 4), (0.25, 10)):
        kept = small_loss(share).keep(data, lambda seen: model)
        order = sorted(range(40), key=losses.__getitem__)
        assert sorted(kept.nonzero()[:, 0].tolist()) == sorted(order[: 40 - count])
        assert kept.dtype == torch.bool
