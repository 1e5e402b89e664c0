"""The fixed trials: who the targets are decides what an attack achieves, so they are in a file.

Each row names a test image of Fashion-MNIST, its class, the adversarial class, and the seed that
everything else of the trial is drawn from. Every ordered pair of neighbouring classes comes equally
often. No draw depends on a trained model, so a trial has the same target on every machine and for
every network.
"""

import csv
import hashlib
import io
from typing import Literal, NamedTuple

from course_utils.data import FOLDER, Data, DataError
from course_utils.threat import Targeted

FILE = FOLDER / "fixed_trials.csv"
SHA256 = "5dcf634ca8f70da3e77d6f77a41751de5936a3065a20352f1170fcee34ae6d4c"
Part = Literal["reporting", "tuning"]


class FixedTrial(NamedTuple):
    """One target. part: what its trials may be used for. image: its row among the test images."""

    part: Part
    image: int
    true_class: int
    adversarial_class: int
    seed: int


def fixed_trials(part: Part, pairs: int = 2) -> list[FixedTrial]:
    """The fixed trials of a part: `pairs` of each ordered pair of classes.

    "reporting" holds two of each of the 26 pairs, "tuning" one; settings are chosen on the second.
    Raises DataError if the file is missing or was changed, and ValueError for another part or for
    more of a pair than there are.
    """
    rows = [trial for trial in _read() if trial.part == part]
    found: dict[tuple[int, int], list[FixedTrial]] = {}
    for trial in rows:
        found.setdefault((trial.true_class, trial.adversarial_class), []).append(trial)
    most = min(map(len, found.values()), default=0)
    if not 1 <= pairs <= max(most, 1) or not found:
        raise ValueError(
            f"{pairs} trials of each pair in part {part!r}: choose 'reporting', with one or two of "
            "each, or 'tuning', with one."
        )
    return [trial for trials in found.values() for trial in trials[:pairs]]


def seeds(part: Part, pairs: int = 2) -> list[int]:
    """The seeds of these trials, by which a study names them."""
    return [trial.seed for trial in fixed_trials(part, pairs)]


def first_of_pairs() -> list[int]:
    """The seeds of one reporting trial of each pair, for studies that cannot run all."""
    return seeds("reporting", pairs=1)


def in_turn() -> list[int]:
    """The seeds of all reporting trials, one of each pair first: half of them is even, too."""
    first = first_of_pairs()
    return [*first, *(seed for seed in seeds("reporting") if seed not in first)]


def fixed_target(seed: int, held_out: Data) -> Targeted:
    """The target of the fixed trial with this seed.

    held_out: the test images of `load("fashion_mnist")`, in their order. Raises ValueError if no
    trial has the seed, and DataError if these are other images.
    """
    for trial in _read():
        if trial.seed == seed:
            break
    else:
        raise ValueError(f"No fixed trial has the seed {seed}: take one of fixed_trials.seeds().")
    if trial.image >= len(held_out) or held_out.y[trial.image] != trial.true_class:
        raise DataError(
            f"Test image {trial.image} is not of class {trial.true_class}: the fixed trials belong "
            'to the test images of load("fashion_mnist"), in their order.'
        )
    return Targeted(held_out.x[trial.image], trial.true_class, trial.adversarial_class)


def _read() -> list[FixedTrial]:
    """All fixed trials. The file is read at each call: it is short, and a change must be seen."""
    try:
        text = FILE.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"{FILE} cannot be read: restore it with `git checkout -- data`."
        ) from error
    # As text, so that line ends changed by git on Windows do not count as damage.
    if hashlib.sha256(text.encode()).hexdigest() != SHA256:
        raise DataError(f"{FILE} was changed: restore it with `git checkout -- data`.")
    rows = csv.reader(io.StringIO(text))
    next(rows)
    return [FixedTrial(part, *map(int, numbers)) for part, *numbers in rows]
