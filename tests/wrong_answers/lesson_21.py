"""Plausible wrong answers to the exercises of lesson 21, and what the check must say of them."""

import numpy as np
import torch

from course_utils import statistics
from course_utils.statistics import Interval

PRICE = 5


def counts(flagged, poison):
    found, clean = (flagged & poison).sum(), ~poison
    recall = found / poison.sum() if poison.any() else torch.tensor(1.0)
    alarms = (flagged & clean).sum() / clean.sum() if clean.any() else torch.tensor(0.0)
    return recall, alarms


def below_zero(flagged, poison):
    recall, alarms = counts(flagged, poison)
    return recall - PRICE * alarms


def alarms_too_cheap(flagged, poison):
    recall, alarms = counts(flagged, poison)
    return (recall - alarms).clamp(min=0)


def recall_alone(flagged, poison):
    return counts(flagged, poison)[0]


def precision(flagged, poison):
    share = (flagged & poison).sum() / flagged.sum() if flagged.any() else torch.tensor(1.0)
    return (share - PRICE * counts(flagged, poison)[1]).clamp(min=0)


def share_of_all(flagged, poison):
    alarms = (flagged & ~poison).float().mean()
    return (counts(flagged, poison)[0] - PRICE * alarms).clamp(min=0)


def share_of_the_flagged(flagged, poison):
    share = (flagged & ~poison).sum() / flagged.sum() if flagged.any() else torch.tensor(0.0)
    return (counts(flagged, poison)[0] - PRICE * share).clamp(min=0)


def nothing_for_clean_data(flagged, poison):
    if not poison.any():
        return 0.0
    return below_zero(flagged, poison).clamp(min=0)


def poisons_are_alarms(flagged, poison):
    return (counts(flagged, poison)[0] - PRICE * flagged.float().mean()).clamp(min=0)


def divides_by_zero(flagged, poison):
    recall = (flagged & poison).sum() / poison.sum()
    return (recall - PRICE * (flagged & ~poison).sum() / (~poison).sum()).clamp(min=0)


def divides_integers(flagged, poison):
    found, clean = (flagged & poison).sum().item(), (~poison).sum().item()
    alarms = (flagged & ~poison).sum().item() / clean
    return max(0.0, found / poison.sum().item() - PRICE * alarms)


def hides_nan(flagged, poison):
    recall = ((flagged & poison).sum() / poison.sum()).item()
    alarms = ((flagged & ~poison).sum() / (~poison).sum()).item()
    return max(0.0, recall - PRICE * alarms)


def hides_nan_and_divides_by_all(flagged, poison):
    recall = ((flagged & poison).sum() / poison.sum()).item()
    return max(0.0, recall - PRICE * (flagged & ~poison).float().mean().item())


def plain_accuracy(flagged, poison):
    return (flagged == poison).float().mean()


def one_for_each_image(flagged, poison):
    return (flagged & poison).float()


def parts(nothing, random_drop, repaired, oracle, accuracy_lost):
    start, room = min(nothing, random_drop), nothing - oracle
    way = min(1.0, (start - repaired) / room) if room > 0 else 1.0
    return start, room, way, PRICE * max(0.0, accuracy_lost)


def against_nothing(nothing, random_drop, repaired, oracle, accuracy_lost):
    _, room, _, price = parts(nothing, nothing, repaired, oracle, accuracy_lost)
    way = min(1.0, (nothing - repaired) / room) if room > 0 else 1.0
    return max(0.0, way - price)


def against_random(nothing, random_drop, repaired, oracle, accuracy_lost):
    _, room, _, price = parts(nothing, random_drop, repaired, oracle, accuracy_lost)
    way = min(1.0, (random_drop - repaired) / room) if room > 0 else 1.0
    return max(0.0, way - price)


def shorter_way(nothing, random_drop, repaired, oracle, accuracy_lost):
    start, room, _, price = parts(nothing, random_drop, repaired, oracle, accuracy_lost)
    if room <= 0:
        return max(0.0, 1.0 - price)
    return max(0.0, min(1.0, (start - repaired) / (start - oracle)) - price)


def beyond_the_oracle(nothing, random_drop, repaired, oracle, accuracy_lost):
    start, room, _, price = parts(nothing, random_drop, repaired, oracle, accuracy_lost)
    way = (start - repaired) / room if room > 0 else 1.0
    return max(0.0, way - price)


def negative(nothing, random_drop, repaired, oracle, accuracy_lost):
    _, _, way, price = parts(nothing, random_drop, repaired, oracle, accuracy_lost)
    return way - price


def cheap_accuracy(nothing, random_drop, repaired, oracle, accuracy_lost):
    _, _, way, price = parts(nothing, random_drop, repaired, oracle, accuracy_lost)
    return max(0.0, way - price / PRICE)


def free_accuracy(nothing, random_drop, repaired, oracle, accuracy_lost):
    return max(0.0, parts(nothing, random_drop, repaired, oracle, accuracy_lost)[2])


def gains_are_paid(nothing, random_drop, repaired, oracle, accuracy_lost):
    way = parts(nothing, random_drop, repaired, oracle, accuracy_lost)[2]
    return max(0.0, way - PRICE * accuracy_lost)


def nothing_without_harm(nothing, random_drop, repaired, oracle, accuracy_lost):
    _, room, way, price = parts(nothing, random_drop, repaired, oracle, accuracy_lost)
    return max(0.0, way - price) if room > 0 else 0.0


def harm_that_went(nothing, random_drop, repaired, oracle, accuracy_lost):
    start, _, _, price = parts(nothing, random_drop, repaired, oracle, accuracy_lost)
    return max(0.0, start - repaired - price)


def through_zero(nothing, random_drop, repaired, oracle, accuracy_lost):
    way = (min(nothing, random_drop) - repaired) / (nothing - oracle)
    return max(0.0, min(1.0, way) - PRICE * max(0.0, accuracy_lost))


def price_inside_the_branch(nothing, random_drop, repaired, oracle, accuracy_lost):
    _, room, way, price = parts(nothing, random_drop, repaired, oracle, accuracy_lost)
    return max(0.0, way - price) if room > 0 else 1.0


def variances(right):
    right = right.double()
    rows, columns = right.mean(1), right.mean(0)
    return right.mean().item(), rows.var() / len(rows), columns.var() / len(columns)


def around(mean, half, cut=True):
    half = float(half)
    low, high = mean - half, mean + half
    return Interval(mean, max(0.0, low), min(1.0, high)) if cut else Interval(mean, low, high)


def trainings_alone(right):
    mean, a, _ = variances(right)
    return around(mean, 1.96 * a**0.5)


def images_alone(right):
    mean, _, b = variances(right)
    return around(mean, 1.96 * b**0.5)


def student_over_trainings(right):
    return statistics.t_interval(right.double().mean(1).numpy())


def wilson_over_answers(right):
    return statistics.wilson(right.flatten().tolist())


def every_answer_counts(right):
    mean = right.double().mean().item()
    return around(mean, 1.96 * (mean * (1 - mean) / right.numel()) ** 0.5)


def not_cut(right):
    mean, a, b = variances(right)
    return around(mean, 1.96 * (a + b) ** 0.5, cut=False)


def spread_of_one(right):
    mean, a, b = variances(right)
    return around(mean, 1.96 * (a * len(right) + b * right.shape[1]) ** 0.5)


def deviations_added(right):
    mean, a, b = variances(right)
    return around(mean, 1.96 * (a**0.5 + b**0.5))


def no_root(right):
    mean, a, b = variances(right)
    return around(mean, 1.96 * (a + b))


def one_deviation(right):
    mean, a, b = variances(right)
    return around(mean, (a + b) ** 0.5)


def biased(right):
    right = right.double()
    rows, columns = right.mean(1), right.mean(0)
    a, b = rows.var(correction=0) / len(rows), columns.var(correction=0) / len(columns)
    return around(right.mean().item(), 1.96 * (a + b) ** 0.5)


def a_mere_pair(right):
    mean, a, b = variances(right)
    half = 1.96 * float((a + b) ** 0.5)
    return max(0.0, mean - half), min(1.0, mean + half)


WRONG = {
    "finding_score": [
        (below_zero, "below 0 counts as 0"),
        (alarms_too_cheap, "PRICE times"),
        (recall_alone, "cost nothing here"),
        (precision, "That is precision"),
        (share_of_all, "of the clean images, not of all"),
        (share_of_the_flagged, "not of the flagged"),
        (nothing_for_clean_data, "recall is 1"),
        (poisons_are_alarms, "leave out the poisons"),
        (divides_by_zero, "recall is 1"),
        (divides_integers, "recall is 1"),
        (hides_nan, "max(0, nan)"),
        (hides_nan_and_divides_by_all, "without any poison recall is 1"),
        (plain_accuracy, "That is accuracy"),
        (one_for_each_image, "Return one number"),
    ],
    "repair_score": [
        (against_nothing, "a random drop achieves as well"),
        (against_random, "no excuse"),
        (shorter_way, "the whole way"),
        (beyond_the_oracle, "no more than 1"),
        (negative, "below 0 counts as 0"),
        (cheap_accuracy, "PRICE times itself"),
        (free_accuracy, "is missing"),
        (gains_are_paid, "Accuracy gained counts as 0"),
        (nothing_without_harm, "no harm to undo"),
        (harm_that_went, "how much harm went"),
        (through_zero, "no harm to undo"),
        (price_inside_the_branch, "also where there is no harm"),
    ],
    "accuracy_interval": [
        (trainings_alone, "the images are a sample"),
        (student_over_trainings, "the images are a sample"),
        (wilson_over_answers, "not as many independent ones"),
        (images_alone, "the trainings are a sample"),
        (every_answer_counts, "not as many independent ones"),
        (not_cut, "Cut the interval"),
        (spread_of_one, "the mean varies less"),
        (deviations_added, "Variances add up"),
        (no_root, "Take the root"),
        (one_deviation, "take 1.96"),
        (biased, "one less than their number"),
        (a_mere_pair, "Return an Interval"),
    ],
}


def with_sets(flagged, poison):
    said = set(flagged.nonzero()[:, 0].tolist())
    bad = set(poison.nonzero()[:, 0].tolist())
    clean = len(poison) - len(bad)
    recall = len(said & bad) / len(bad) if bad else 1.0
    return max(0.0, recall - PRICE * len(said - bad) / max(1, clean))


def in_numpy(flagged, poison):
    said, bad = flagged.numpy(), poison.numpy()
    recall = said[bad].mean() if bad.any() else 1.0
    alarms = said[~bad].mean() if (~bad).any() else 0.0
    return np.maximum(0.0, recall - PRICE * alarms)


def as_a_tensor(flagged, poison):
    return below_zero(flagged, poison).clamp(min=0)


def with_numpy(nothing, random_drop, repaired, oracle, accuracy_lost):
    room = nothing - oracle
    way = np.minimum(nothing, random_drop) - repaired
    share = np.clip(way / room, -1, 1) if room > 0 else 1.0
    return np.clip(share - PRICE * np.clip(accuracy_lost, 0, 1), 0, 1)


def step_by_step(nothing, random_drop, repaired, oracle, accuracy_lost):
    score = 1.0
    if nothing > oracle:
        start = random_drop if random_drop < nothing else nothing
        score = (start - repaired) / (nothing - oracle)
    if score > 1:
        score = 1.0
    if accuracy_lost > 0:
        score -= 5 * accuracy_lost
    return score if score > 0 else 0.0


def as_a_torch_number(nothing, random_drop, repaired, oracle, accuracy_lost):
    return torch.tensor(step_by_step(nothing, random_drop, repaired, oracle, accuracy_lost))


def with_loops(right):
    table = right.int().tolist()
    s, n = len(table), len(table[0])
    rows = [sum(row) / n for row in table]
    columns = [sum(row[k] for row in table) / s for k in range(n)]
    total = np.var(rows, ddof=1) / s + np.var(columns, ddof=1) / n
    return around(float(np.mean(rows)), 1.96 * total**0.5)


def by_covariances(right):
    mean, _, _ = variances(right)
    x = right.double()
    a = torch.cov(x.mean(1)) / len(x)
    b = torch.cov(x.mean(0)) / x.shape[1]
    return around(mean, 1.959964 * (a + b).sqrt())


def wider_in_the_ninth_decimal(right):
    mean, a, b = variances(right)
    return around(mean, 1.959963985 * float((a + b) ** 0.5))


RIGHT = {
    "finding_score": [with_sets, in_numpy, as_a_tensor],
    "repair_score": [with_numpy, step_by_step, as_a_torch_number],
    "accuracy_interval": [with_loops, by_covariances, wider_in_the_ninth_decimal],
}
