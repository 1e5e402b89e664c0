"""Built in lesson 03, the slab attack.

Generated from notebooks/03_the_slab_attack.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy import ndarray as Array
from scipy.optimize import brentq

from course_utils import guards
from course_utils.data import Data
from course_utils.models import Classifier
from course_utils.threat import Indiscriminate, Poison, ThreatModel, ThreatModelError
from course_utils.training import Recipe, train


def to_points(data: Data) -> tuple[Array, Array]:
    """Images as rows (N, pixels) of float64, and the labels 0 and 1 as -1 and +1."""
    if data.y.unique().tolist() != [0, 1]:
        raise ThreatModelError(
            f"The slab attack needs images of exactly two classes, found {data.y.unique().tolist()}"
            f" of {data.classes}: choose two with only()."
        )
    return data.x.flatten(1).double().cpu().numpy(), (2 * data.y - 1).cpu().numpy()


def to_poison(x: Array, y: Array, data: Data) -> Poison:
    """The way back: rows and labels -1 and +1 as poison that is appended to the data."""
    images = torch.tensor(x, dtype=torch.float32, device=data.x.device).view(-1, *data.shape)
    return Poison(images, torch.tensor((y + 1) // 2, device=data.y.device), None, "append")


def plane(model: Classifier) -> tuple[Array, float]:
    """The weights and the bias of a linear model: positive on the side of class 1."""
    if len(list(model.parameters())) != 2 or model.head.out_features != 2:
        raise ThreatModelError("Only a linear model with two classes is one plane.")
    weight, bias = (p.detach().double().cpu().numpy() for p in model.head.parameters())
    return weight[1] - weight[0], float(bias[1] - bias[0])


def corner_images(data: Data, threat: ThreatModel, surrogate: Classifier) -> Poison:
    """A naive attack: the corner of the pixel box with the largest loss, for each label in turn."""
    guards.check_budget(len(data), threat.budget)
    weight, _ = plane(surrogate)
    y = np.where(np.arange(threat.budget) % 2, 1, -1)
    return to_poison(np.where(-y[:, None] * weight > 0, 1.0, 0.0), y, data)


@dataclass(frozen=True)
class FeasibleSet:
    """What a sphere and a slab filter let pass for one label, inside the pixel box [0, 1].

    centre: the mean of the class (d,). radius: the largest distance from it.
    axis: the unit vector (d,) from the mean of class -1 to the mean of class +1.
    width: the largest distance from the centre along the axis, to either side.
    """

    centre: Array
    radius: float
    axis: Array
    width: float

    def excess(self, x: Array) -> float:
        """By how much a point (d,) breaks its worst limit; at most 0 inside the set."""
        step = x - self.centre
        sphere = np.linalg.norm(step) - self.radius
        slab = abs(step @ self.axis) - self.width
        return float(max(sphere, slab, -x.min(), x.max() - 1))


HAIR = 1e-5  # stay inside by this share of a limit: images are rounded to float32


def feasible_sets(x: Array, y: Array, quantile: float) -> dict[int, FeasibleSet]:
    """The feasible set of each label: the share `quantile` of its points keep each limit."""
    check_points(x, y, quantile)
    mean = {label: x[y == label].mean(0) for label in (-1, 1)}
    axis = mean[1] - mean[-1]
    if not axis.any():
        raise ThreatModelError("Both classes have the same mean: there is no line between them.")
    axis = axis / np.linalg.norm(axis)
    sets = {}
    for label in (-1, 1):
        steps = x[y == label] - mean[label]
        radius = np.quantile(np.linalg.norm(steps, axis=1), quantile) * (1 - HAIR)
        width = np.quantile(np.abs(steps @ axis), quantile) * (1 - HAIR)
        sets[label] = FeasibleSet(mean[label], float(radius), axis, float(width))
    return sets


def check_points(x: Array, y: Array, quantile: float) -> None:
    """Raise ThreatModelError where no feasible set can be estimated."""
    if not 0 < quantile <= 1:
        raise ThreatModelError(f"The quantile is {quantile}, expected more than 0 and at most 1.")
    if np.unique(y).tolist() != [-1, 1]:
        raise ThreatModelError(f"The labels are {np.unique(y)}, expected both -1 and +1.")
    bad = ~np.isfinite(x).all(1)
    if bad.any():
        raise ThreatModelError(f"Row {bad.argmax()} holds NaN or infinity: clean the data first.")


def walk(centre: Array, aim: Array, radius: float) -> Array:
    """The point of a ball and of the box [0, 1] that is furthest in the direction of the aim (d,).

    Every pixel leaves the centre with the speed that the aim gives it and stays at 0 or 1 once it
    is there. The walk ends at the distance `radius`, or when every pixel has stopped.
    """
    goal = np.where(aim > 0, 1.0, np.where(aim < 0, 0.0, centre))
    room, speed = np.abs(goal - centre), np.abs(aim)
    stopped = room == 0
    while not stopped.all():
        left = radius**2 - room**2 @ stopped
        t = np.sqrt(max(left, 0) / max(speed**2 @ ~stopped, 1e-300))
        arrived = ~stopped & (t * speed >= room)
        if not arrived.any():
            return np.where(stopped, goal, centre + t * aim)
        stopped |= arrived
    return goal


Best = Callable[[Array], Array]  # aim (d,) -> the point of a set that is furthest along it


def cut(best: Best, normal: Array, limit: float) -> Best:
    """The same search in what is left of the set after the cut <normal, x> <= limit."""
    size = np.linalg.norm(normal)
    normal, limit = normal / size, limit / size

    def best_after_cut(aim: Array) -> Array:
        straight = best(aim)
        if straight @ normal <= limit:
            return straight
        aim = aim / max(np.linalg.norm(aim), 1e-300)

        def turned(turn: float) -> Array:
            return best((1 - turn) * aim - turn * normal)

        return on_the_cut(turned, normal, limit)

    return best_after_cut


def on_the_cut(turned: Callable[[float], Array], normal: Array, limit: float) -> Array:
    """The point on the cut, between an aim that is not turned (0) and one that is (1)."""

    def over(turn: float) -> float:
        return turned(turn) @ normal - limit

    if over(1) > 1e-9:
        raise ThreatModelError("The feasible set is empty: no point keeps every limit. Loosen one.")
    turn = brentq(over, 0, 1, xtol=1e-6) if over(1) < 0 else 1.0
    before, after = turned(max(turn - 2e-6, 0)), turned(min(turn + 2e-6, 1))
    high, low = before @ normal - limit, after @ normal - limit
    if high <= 0 or low >= 0:
        return after
    return (high * after - low * before) / (high - low)


def maximiser(inside: FeasibleSet) -> Best:
    """The search for the point of a feasible set that is furthest along an aim."""

    def ball(aim: Array) -> Array:
        return walk(inside.centre, aim, inside.radius)

    middle = inside.axis @ inside.centre
    ahead = cut(ball, inside.axis, inside.width + middle)
    behind = cut(ball, -inside.axis, inside.width - middle)

    def best(aim: Array) -> Array:
        return ahead(aim) if ball(aim) @ inside.axis >= middle else behind(aim)

    return best


def hinge_gradient(x: Array, y: Array, theta: Array) -> Array:
    """The gradient of the mean hinge loss; theta is (d + 1,), its last entry the bias."""
    pulls = y * (x @ theta[:-1] + theta[-1]) < 1  # the other points have no loss
    slope = np.where(pulls, -y, 0).astype(x.dtype)
    return np.append(slope @ x, slope.sum()) / len(y)


def min_max(
    x: Array, y: Array, best: dict[int, Best], weight: float, rounds=120, keep=20, step=0.03
) -> tuple[Array, Array, Array]:
    """Learner and attacker take turns: the attacker's last `keep` pairs, labels, and theta."""
    x = x.astype(np.float32)  # half the time; the attacker keeps float64
    theta, seen, answers = np.zeros(x.shape[1] + 1), 1e-12, []
    for _ in range(rounds):
        pair = np.stack([best[label](-label * theta[:-1]) for label in (-1, 1)])
        answers.append(pair)
        gradient = hinge_gradient(x, y, theta.astype(np.float32))
        gradient = gradient + weight * hinge_gradient(pair, np.array([-1, 1]), theta)
        seen = seen + gradient**2
        theta = theta - step * gradient / np.sqrt(seen)
    return np.concatenate(answers[-keep:]), np.tile([-1, 1], keep), theta


def slab_attack(
    data: Data,
    goal: Indiscriminate,
    threat: ThreatModel,
    quantile: float = 0.95,
    weight: float | None = None,
    decoy: Classifier | None = None,
    **game,
) -> Poison:
    """Poison that passes the sphere and the slab at this quantile; uses the whole budget.

    weight: what the learner in the game pays for the poison; by default the fraction, at most 0.1.
    decoy: a linear model under which the poison must look harmless. game: options of `min_max`.
    Source: Steinhardt, Koh and Liang, arXiv 1706.03691; Koh and others, arXiv 1811.00741.
    """
    x, y = to_points(data)
    weight = check_game(threat, len(data), weight)
    best = {label: maximiser(s) for label, s in feasible_sets(x, y, quantile).items()}
    if decoy is not None:
        best = {label: behind(best[label], decoy, label) for label in best}
    points, labels, _ = min_max(x, y, best, weight, **game)
    rows = repeats(len(labels), threat.budget)
    return to_poison(points[rows], labels[rows], data)


def repeats(n_points: int, n: int) -> Array:
    """Which point each of n poisons is: every point about equally often."""
    return np.arange(n) * n_points // n if n >= n_points else np.arange(n)


def check_game(threat: ThreatModel, n: int, weight: float | None) -> float:
    """The weight of the poison in the game. Raises ThreatModelError if there can be no game."""
    if threat.placement != "append" or threat.clean_label or threat.epsilon is not None:
        raise ThreatModelError(
            "The slab attack makes images of its own: use ThreatModel(budget, placement='append')."
        )
    fraction = threat.budget / n
    if fraction >= 1:
        raise ThreatModelError(f"The fraction is {fraction:g}, expected a value in (0, 1).")
    weight = min(fraction, 0.1) if weight is None else weight
    if not 0 < weight < np.inf:
        raise ThreatModelError(f"The weight is {weight}, expected a positive number.")
    return weight


def behind(best: Best, decoy: Classifier, label: int, most: float = 1.0) -> Best:
    """The same search among the points whose hinge loss under the decoy is `most` or less."""
    weight, bias = plane(decoy)
    return cut(best, -label * weight, most - 1 + label * bias)


def train_decoy(
    model: Classifier, data: Data, recipe: Recipe, seed: int, share: float = 0.1
) -> Classifier:
    """A model to hide behind: images near the boundary also come with the wrong label."""
    x, y = to_points(data)
    weight, bias = plane(train(model, data, recipe, seed=seed))
    nearest = np.argsort(y * (x @ weight + bias))[: round(share * len(data))]
    rows = torch.tensor(nearest, device=data.y.device)
    doubt = Poison(data.x[rows], 1 - data.y[rows], rows, "append")
    return train(model, doubt.apply(data), recipe, seed=seed)
