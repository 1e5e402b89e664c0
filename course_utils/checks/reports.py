"""Lesson 21: what a report on a case says, and whether it is complete."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
from torch import Tensor

from course_utils.cases.backdoors import AUGMENTED
from course_utils.cases.poisoning import cheap
from course_utils.defense import PLAIN, Defense
from course_utils.defenses.filters import activation_clustering, deep_knn, spectral_signatures
from course_utils.defenses.gradient_shaping import gradient_shaping
from course_utils.defenses.mixing import cutmix, cutout, mixup
from course_utils.defenses.pgd_training import pgd_training
from course_utils.defenses.small_loss import small_loss
from course_utils.open_cases import IncidentError, OpenCase
from course_utils.training import Recipe

FAMILIES = (
    "random flips",
    "targeted flips",
    "BadNets",
    "clean-label patch",
    "gradient matching",
    "Bullseye Polytope",
    "Sleeper Agent",
    "lapsed domains",
)
DEFENSES: dict[str, Callable[..., Defense]] = {
    "small_loss": small_loss,
    "spectral_signatures": spectral_signatures,
    "activation_clustering": activation_clustering,
    "deep_knn": deep_knn,
    "augmentation": lambda: AUGMENTED,
    "mixup": mixup,
    "cutmix": cutmix,
    "cutout": cutout,
    "gradient_shaping": gradient_shaping,
    "pgd_training": pgd_training,
    "poisoning_training": cheap,
}
"""The defenses that a report may name; its `strengths` are their arguments."""

MOST_EPOCHS = 60


@dataclass(frozen=True)
class Report:
    """What a learner hands in for one case.

    verdict: "clean", "poisoned" or "undecided". families: of FAMILIES, the attacks that were used.
    flagged: the rows of the training images that are suspected; they count as found. They are
    dropped before the victim trains, unless `kept_anyway` is set: then they count as found, but the
    repair is the defense alone. relabelled: a new class for some rows, which then stay; such a row
    counts as found only if it is flagged as well. defense, strengths, recipe: the victim's defense,
    a name of DEFENSES with its arguments, and fields of Recipe that differ from the case's.
    before, control, after: (low, high), 95% intervals of what the case asks: for victims on the
    data as they came; on the data without as many images, drawn at random; and after your repair.
    method: a sentence on what you did.
    """

    case: str
    verdict: str
    families: Sequence[str] = ()
    flagged: Sequence[int] = ()
    kept_anyway: bool = False
    relabelled: Mapping[int, int] = field(default_factory=dict)
    defense: str | None = None
    strengths: Mapping[str, float] = field(default_factory=dict)
    recipe: Mapping[str, float] = field(default_factory=dict)
    before: Sequence[float] | None = None
    control: Sequence[float] | None = None
    after: Sequence[float] | None = None
    method: str = ""

    @property
    def dropped(self) -> list[int]:
        """The rows that the victim does not train on."""
        return [] if self.kept_anyway else sorted(set(self.flagged) - set(self.relabelled))

    @property
    def repairs(self) -> bool:
        """Whether anything differs from training on the data as they came."""
        return bool(self.dropped or self.relabelled or self.defense or self.recipe)

    @property
    def due(self) -> tuple[str, ...]:
        """The intervals that this report has to bring."""
        return ("before", *["control"] * bool(self.dropped), *["after"] * self.repairs)

    def fault(self, words: str) -> IncidentError:
        """The error to raise if the report has, names or does what these words say."""
        return IncidentError(f"The report on {self.case} {words}")


def to_json(reports: Sequence[Report]) -> str:
    """Reports as text, to hand in: `Path("reports.json").write_text(...)`."""
    rows = [vars(report) | {"relabelled": {**report.relabelled}} for report in reports]
    return json.dumps(rows, indent=1, default=list) + "\n"


def from_json(text: str) -> list[Report]:
    """Reports from text. Raises IncidentError for a field that is missing or unknown."""
    try:
        reports = []
        for row in json.loads(text):
            relabelled = {int(k): v for k, v in row.pop("relabelled", {}).items()}
            reports.append(Report(**row, relabelled=relabelled))
    except (TypeError, AttributeError, ValueError) as error:
        raise IncidentError(f"These are no reports: {error}") from error
    return reports


def check_report(report: Report, case: OpenCase) -> None:
    """Raise IncidentError that says what is wrong with a report, and what was expected."""
    if report.case != case.name:
        raise IncidentError(f"The report on {case.name} names the case {report.case!r}.")
    if report.verdict not in ("clean", "poisoned", "undecided"):
        raise report.fault(
            f"has the verdict {report.verdict!r}: write clean, poisoned or undecided."
        )
    if isinstance(report.families, str):
        raise report.fault(f"has one string as families: write ({report.families!r},).")
    if unknown := set(report.families) - set(FAMILIES):
        names = ", ".join(FAMILIES)
        raise report.fault(f"names {sorted(map(str, unknown))}: the families are {names}.")
    if report.families and report.verdict != "poisoned":
        raise report.fault(f"names a family, but its verdict is {report.verdict!r}.")
    classes = len(case.data.classes)
    check_rows(report, "flagged", report.flagged, len(case.data))
    check_rows(report, "relabelled", list(report.relabelled), len(case.data))
    check_rows(report, "new labels", list(set(report.relabelled.values())), classes)
    if len(report.dropped) > len(case.data) - 2 * classes:
        raise report.fault(f"drops {len(report.dropped)} of {len(case.data)} images.")
    defense_of(report)
    recipe_of(report, case)
    for name in report.due:
        check_interval(report, name)
    for name, needs in (("control", "drops no image"), ("after", "repairs nothing")):
        if name not in report.due and getattr(report, name) is not None:
            raise report.fault(
                f"has an interval `{name}`, but {needs}: is a part missing, or is the interval too "
                "much?"
            )


def check_rows(report: Report, what: str, rows: Sequence[int], count: int) -> None:
    """Raise IncidentError unless these are different whole numbers from 0 to count - 1."""
    if isinstance(rows, Tensor | np.ndarray):
        raise report.fault(
            f"has a {type(rows).__name__} as {what}: write a list of numbers, as from "
            "mask.nonzero()[:, 0].tolist()."
        )
    for row in rows:
        if isinstance(row, bool) or not isinstance(row, int):
            raise report.fault(f"has {row!r} among {what}, expected whole numbers.")
        if not 0 <= row < count:
            raise report.fault(f"has {row} among {what}, expected 0 to {count - 1}.")
    if len(set(rows)) < len(rows):
        raise report.fault(f"has a number twice among {what}.")


def check_interval(report: Report, name: str) -> None:
    """Raise IncidentError unless the interval of this name is one of shares."""
    interval = getattr(report, name)
    if interval is None:
        raise report.fault(
            f"has no interval `{name}`: a number without one cannot be judged. Give (low, high)."
        )
    ends = list(interval)
    good = len(ends) == 2 and all(isinstance(end, int | float) for end in ends)
    if not good or not 0 <= ends[0] <= ends[1] <= 1:  # NaN fails here, too
        raise report.fault(
            f"has {ends} as `{name}`, expected (low, high), shares from 0 to 1; of an Interval "
            "give (interval.low, interval.high)."
        )


def defense_of(report: Report) -> Defense:
    """The defense that a report names. Raises IncidentError for one that is not on the list."""
    name = report.defense
    if name is None:
        if report.strengths:
            raise report.fault("has strengths, but names no defense.")
        return PLAIN
    if name not in DEFENSES:
        raise report.fault(f"names the defense {name!r}: choose from {', '.join(DEFENSES)}.")
    try:
        return DEFENSES[name](**report.strengths)
    except (TypeError, ValueError) as error:
        known = ", ".join(inspect.signature(DEFENSES[name]).parameters) or "none"
        raise report.fault(
            f"has strengths that {name} does not take this way: {error}. Its strengths: {known}."
        ) from error


def recipe_of(report: Report, case: OpenCase) -> Recipe:
    """How the victim of a report trains. Raises IncidentError if it cannot, or takes too long."""
    try:
        recipe = replace(case.recipe, **report.recipe)
    except (TypeError, ValueError) as error:
        known = ", ".join(part.name for part in fields(Recipe))
        raise report.fault(f"changes the recipe (its fields are {known}): {error}") from error
    if recipe.epochs > MOST_EPOCHS:
        raise report.fault(f"asks for {recipe.epochs} epochs, at most {MOST_EPOCHS}.")
    return recipe
