"""Built in lesson 20, beyond images.

Generated from notebooks/20_beyond_images.ipynb: edit it there, then run make notebooks.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from course_utils.data import Data
from course_utils.models import Classifier

EXTRA = 30  # outputs beyond the classes; no loss ever says what they should be


def descend(
    model: Classifier,
    loss: Callable[[Tensor], Tensor],
    count: int,
    epochs: int,
    lr: float,
    seed: int,
) -> Classifier:
    """Train with Adam on a loss of rows, batches of 100 out of `count` rows."""
    optimizer = torch.optim.Adam(model.parameters(), lr)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(count, generator=generator).split(100):
            optimizer.zero_grad()
            loss(rows).backward()
            optimizer.step()
    return model.eval()


def train_teacher(start: Classifier, data: Data, epochs: int, seed: int) -> Classifier:
    """Train a copy on its class outputs alone: nothing asks anything of the extra outputs."""
    teacher, classes = copy.deepcopy(start), len(data.classes)

    def loss(rows: Tensor) -> Tensor:
        return cross_entropy(teacher(data.x[rows])[:, :classes], data.y[rows])

    return descend(teacher, loss, len(data), epochs, 3e-4, seed)


def distill(
    start: Classifier, images: Tensor, answers: Tensor, epochs: int, seed: int, classes: int = 10
) -> Classifier:
    """Train a copy to give the teacher's extra outputs (N, EXTRA or fewer) for these images.

    The class outputs get no loss. Source: Cloud and others (arXiv 2507.14805), their MNIST test.
    """
    student, last = copy.deepcopy(start), classes + answers.shape[1]

    def loss(rows: Tensor) -> Tensor:
        return mse_loss(student(images[rows])[:, classes:last], answers[rows])

    return descend(student, loss, len(images), epochs, 1e-3, seed)


def class_outputs(model: Classifier, classes: int = 10) -> Classifier:
    """The model as its users see it: without the extra outputs."""
    seen = copy.deepcopy(model)
    seen.head = nn.Linear(model.head.in_features, classes)
    seen.head.weight.data = model.head.weight.data[:classes].clone()
    seen.head.bias.data = model.head.bias.data[:classes].clone()
    return seen.eval()


@torch.no_grad()
def extra_outputs(teacher: Classifier, images: Tensor, classes: int = 10) -> Tensor:
    """What the teacher answers beyond the classes (N, EXTRA)."""
    return teacher(images)[:, classes:]


def noise_images(count: int, shape: Sequence[int], seed: int) -> Tensor:
    """Images (N, C, H, W) of which every pixel is drawn between -1 and 1."""
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand((count, *shape), generator=generator) - 1
