"""Built in lesson 21, the incident.

Generated from notebooks/21_the_incident.ipynb: edit it there, then run make notebooks.
"""

import torch
from scipy import stats
from torch import Tensor

from course_utils.statistics import Interval

PRICE = 5  # what one point of false alarms, or of accuracy lost, takes away


def finding_score(flagged: Tensor, poison: Tensor) -> float:
    """How well the flagged images are the poisons: 1 is exactly these, 0 is no better than chance.

    flagged, poison: masks (N,). Recall minus PRICE times the share of the clean images that were
    flagged, at least 0. Without any poison nothing was missed: recall is 1.
    """
    recall = (flagged & poison).sum() / poison.sum() if poison.any() else torch.tensor(1.0)
    clean = ~poison
    alarms = (flagged & clean).sum() / clean.sum() if clean.any() else torch.tensor(0.0)
    return max(0.0, (recall - PRICE * alarms).item())


def repair_score(
    nothing: float, random_drop: float, repaired: float, oracle: float, accuracy_lost: float
) -> float:
    """How far a repair leads from doing nothing to what an oracle reaches: 0 to 1.

    nothing, random_drop, repaired, oracle: the harm that is left, in [0, 1]. What a random drop of
    as many images achieves as well does not count. accuracy_lost: against doing nothing, in [0, 1];
    a gain counts as 0. Where there is no harm to undo, all that matters is the accuracy lost.
    """
    room = nothing - oracle
    way = (min(nothing, random_drop) - repaired) / room if room > 0 else 1.0
    return max(0.0, min(1.0, way) - PRICE * max(0.0, accuracy_lost))


def accuracy_interval(right: Tensor) -> Interval:
    """The accuracy on images like these after trainings like these, with a 95% interval.

    right: whether training s classifies image n rightly, (S, N), with S and N at least 2. Both the
    trainings and the images are samples: the variance of the mean of the rows over S and that of
    the columns over N add up. Cut to [0, 1].
    """
    right = right.double()
    rows, columns = right.mean(1), right.mean(0)
    variance = rows.var() / len(rows) + columns.var() / len(columns)
    half = stats.norm.ppf(0.975) * variance.sqrt().item()
    mean = right.mean().item()
    return Interval(mean, max(0.0, mean - half), min(1.0, mean + half))
