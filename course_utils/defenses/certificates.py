"""Built in lesson 17, certificates.

Generated from notebooks/17_certificates.ipynb: edit it there, then run make notebooks.
"""

import copy
import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import one_hot
from tqdm.auto import tqdm

from course_utils.data import Data
from course_utils.models import Classifier
from course_utils.training import Recipe, train


def fingerprint(image: Tensor) -> bytes:
    """The SHA-256 of the pixels of one image (C, H, W), 32 bytes: its content and nothing else."""
    return hashlib.sha256(image.cpu().numpy().tobytes()).digest()


def part_of(mark: bytes, k: int) -> int:
    """The part, from 0 to k - 1, of an image with this fingerprint."""
    return int.from_bytes(mark, "big") % k


def partition(data: Data, k: int) -> list[Data]:
    """The k parts of the data, each in an order that depends on its content alone.

    Raises ValueError for k below 1 or above the number of images. A part may be empty.
    Source: Levine and Feizi (arXiv 2006.14768), section 3.
    """
    if not 1 <= k <= len(data):
        raise ValueError(
            f"{k} parts for {len(data)} images: expected 1 to {len(data)}, and far fewer than "
            "that, so that each part can teach a model something."
        )
    marks = [fingerprint(image) for image in data.x.cpu()]
    contents = list(zip(marks, data.y.tolist(), strict=True))
    parts: list[list[int]] = [[] for _ in range(k)]
    for row in sorted(range(len(data)), key=contents.__getitem__):
        parts[part_of(marks[row], k)].append(row)
    return [data[rows] for rows in parts]


class Ensemble(nn.Module):
    """One model for each part of the data, and their votes.

    Input: images (N, C, H, W), values in [0, 1]. Output: the votes for each class, (N, classes).
    Their argmax, the smaller class where two have the same number, is the prediction.
    """

    def __init__(
        self, model: Classifier, recipe: Recipe, parts: list[Data], models: Sequence[Classifier]
    ) -> None:
        super().__init__()
        self.model, self.recipe, self.parts = model, recipe, parts
        self.models = nn.ModuleList(models)

    def forward(self, x: Tensor) -> Tensor:
        return count_votes(self.logits(x))

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """What every model says: (k, N, classes)."""
        return torch.stack([torch.cat([m(few) for few in x.split(1000)]) for m in self.models])


def count_votes(logits: Tensor) -> Tensor:
    """The votes (N, classes) of k models, from their logits (k, N, classes)."""
    return one_hot(logits.argmax(2), logits.shape[2]).sum(0)


def train_part(model: Classifier, part: Data, recipe: Recipe, number: int) -> Classifier:
    """The model of one part. Its seed is the number of the part.

    An empty part, too, must depend on nothing but itself: it keeps the weights of `model`.
    """
    if len(part) == 0:
        return copy.deepcopy(model).to(part.x.device).eval()
    return train(model, part, recipe, seed=number)


def train_ensemble(model: Classifier, data: Data, k: int, recipe: Recipe) -> Ensemble:
    """Deep Partition Aggregation: k parts, and a model trained from scratch on each.

    Raises ValueError as `partition` does. Source: Levine and Feizi (arXiv 2006.14768), section 3.
    """
    parts = partition(data, k)
    bar = tqdm(parts, desc="parts", leave=False)
    models = [train_part(model, part, recipe, number) for number, part in enumerate(bar)]
    return Ensemble(model, recipe, parts, models)


def to_overtake(votes: Tensor, leader: Tensor) -> Tensor:
    """How many models must change their vote before each class has overtaken another: (N, classes).

    votes: (N, classes). leader: (N,), the class to be overtaken; its own entry is 0.
    """
    gap = votes.gather(1, leader[:, None]) - votes
    loses_ties = torch.arange(votes.shape[1], device=votes.device) > leader[:, None]
    missing = gap + loses_ties.long()  # a class that loses ties needs one vote more
    return missing.add(1).div(2, rounding_mode="floor").clamp(min=0)  # half of it, rounded up


ENDLESS = 10**9  # more models than there can be


def certified_radius(votes: Tensor) -> Tensor:
    """For how many inserted or removed images each prediction surely stays: (N,), from 0 on.

    votes: (N, classes), whole numbers. The prediction is the class with the most votes; of classes
    with the same number, the smallest. Source: Levine and Feizi (arXiv 2006.14768), theorem 1.
    """
    predicted = votes.argmax(1)
    changes = to_overtake(votes, predicted).scatter(1, predicted[:, None], ENDLESS)
    return changes.amin(1) - 1


def certified_accuracy(predicted: Tensor, radius: Tensor, labels: Tensor, n: int) -> float:
    """The share of images that are classified rightly, and still are after any n poisons.

    predicted, radius, labels: (N,). n: inserted or removed images, and images with a new label;
    an image whose pixels change counts twice. Raises ValueError for n below 0.
    """
    if n < 0:
        raise ValueError(f"n is {n}: a number of poisons is 0 or more.")
    return ((predicted == labels) & (radius >= n)).float().mean().item()


def run_off(logits: Tensor) -> Tensor:
    """The winner (N,) of two rounds, from the logits (k, N, classes) of k models.

    First round: every model votes for its largest logit; the two classes with the most votes go
    on. Second round: every model votes for the one of the two with the larger logit. Of two equal
    numbers, votes or logits, the smaller class counts as the larger number.
    Source: Rezaei and others (arXiv 2302.02300), section 3.
    """
    votes, n_classes = count_votes(logits), logits.shape[2]
    ranked = votes * n_classes - torch.arange(n_classes, device=votes.device)
    low, high = ranked.topk(2, 1).indices.sort(1)[0].T  # the two classes, the smaller first
    everyone = torch.arange(logits.shape[1], device=logits.device)
    for_low = (logits[:, everyone, low] >= logits[:, everyone, high]).sum(0)
    return torch.where(2 * for_low >= len(logits), low, high)


def to_win_the_duel(logits: Tensor, winner: Tensor) -> Tensor:
    """How many models must change before each class beats `winner` in round two: (N, classes)."""
    own = logits.gather(2, winner[None, :, None].expand(len(logits), -1, -1))
    smaller = torch.arange(logits.shape[2], device=logits.device) < winner[:, None]
    against = ((logits > own) | ((logits == own) & smaller)).sum(0)
    # A change moves one vote across: k - against - against is the gap of this duel.
    missing = len(logits) - 2 * against + (~smaller).long()
    return missing.add(1).div(2, rounding_mode="floor").clamp(min=0)


def to_eliminate(votes: Tensor, winner: Tensor) -> Tensor:
    """How many models must change before two classes overtake `winner` in round one: (N,).

    A change lowers the gap to one class by at most 2, and the gaps to two by at most 3 together.
    """
    gap = votes.gather(1, winner[:, None]) - votes
    loses_ties = torch.arange(votes.shape[1], device=votes.device) > winner[:, None]
    missing = (gap + loses_ties.long()).clamp(min=0).scatter(1, winner[:, None], ENDLESS)
    first, second = missing.topk(2, 1, largest=False)[0].T
    return torch.maximum((second + 1) // 2, (first + second + 2) // 3)


def run_off_radius(logits: Tensor) -> Tensor:
    """For how many inserted or removed images each winner of `run_off` surely stays: (N,).

    logits: (k, N, classes). Source: Rezaei and others (arXiv 2302.02300), section 4.
    """
    votes, winner, n_classes = count_votes(logits), run_off(logits), logits.shape[2]
    ranked = votes * n_classes - torch.arange(n_classes, device=votes.device)
    finalists = ranked.topk(2, 1).indices
    entering = [to_overtake(votes, finalist) for finalist in finalists.T]
    to_enter = torch.minimum(*entering).scatter(1, finalists, 0)
    rivals = torch.maximum(to_enter, to_win_the_duel(logits, winner))
    rivals = rivals.scatter(1, winner[:, None], ENDLESS).amin(1)
    return torch.minimum(rivals, to_eliminate(votes, winner)) - 1


def retrain(ensemble: Ensemble, data: Data) -> Ensemble:
    """The ensemble that `train_ensemble` would give on `data`: only parts that differ are trained.

    Raises ValueError as `partition` does.
    """
    parts, models = partition(data, len(ensemble.parts)), []
    for number, (part, old) in enumerate(zip(parts, ensemble.parts, strict=True)):
        if torch.equal(part.x, old.x) and torch.equal(part.y, old.y):
            models.append(ensemble.models[number])
        else:
            models.append(train_part(ensemble.model, part, ensemble.recipe, number))
    return Ensemble(ensemble.model, ensemble.recipe, parts, models)


def privacy_promise(accuracy: float, epsilon: float, n: int, delta: float = 1e-5) -> float:
    """The accuracy that differential privacy promises after n inserted or removed images.

    accuracy: without poison, the mean over trainings. epsilon, delta: of the training, for one
    image. Raises ValueError for n below 0 or an epsilon that is not positive.
    Source: Ma, Zhu and Hsu (arXiv 1903.09860), for a cost between 0 and 1.
    """
    if n < 0 or not epsilon > 0:
        raise ValueError(f"n is {n}, epsilon {epsilon}: expected n of 0 or more, and epsilon > 0.")
    together = min(n * epsilon, 700.0) if n else 0.0  # beyond, e to this is no longer a number
    slack = delta * math.expm1(together) / math.expm1(min(epsilon, 700.0))
    right = math.exp(-together) * (accuracy - slack)
    wrong = math.exp(together) * (1 - accuracy) + slack
    return max(0.0, right, 1 - wrong)


def bagging_radius(votes: Tensor, size: int, n_images: int, alpha: float = 0.001) -> Tensor:
    """For how many changed images the vote of all possible bags stays: (N,); -1 abstains.

    votes: (N, classes), of models that each trained on `size` images, drawn at random and with
    replacement from n_images. alpha: the chance that the promise for an image is wrong, shared
    equally by the exact intervals of all classes.
    Source: after Jia, Cao and Gong (arXiv 2008.04495); theirs is tighter.
    """
    k, n_classes = int(votes[0].sum()), votes.shape[1]
    counts, error = np.arange(k + 1), alpha / n_classes
    low = np.nan_to_num(stats.beta.ppf(error / 2, counts, k - counts + 1), nan=0.0)
    high = np.nan_to_num(stats.beta.ppf(1 - error / 2, counts + 1, k - counts), nan=1.0)
    top, second = votes.cpu().topk(2, 1)[0].T.numpy()
    gap = low[top] - high[second]
    untouched = 1 - gap / 2  # more than this share of the bags must hold no changed image
    radius = np.ceil(n_images * (1 - untouched ** (1 / size))) - 1
    return torch.from_numpy(np.where(gap > 0, radius, -1)).long()
