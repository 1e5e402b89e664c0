"""Lesson 21: what a report on a case is worth. The judge trains victims and compares them."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from course_utils import statistics
from course_utils.attacks.triggers import apply_trigger
from course_utils.checks.reports import Report, check_report, defense_of, recipe_of, to_json
from course_utils.code_hash import short_hash
from course_utils.data import Data
from course_utils.defenses.reporting import finding_score, repair_score
from course_utils.models import Classifier, predict
from course_utils.open_cases import (
    ANSWERS,
    FOLDER,
    Answers,
    IncidentError,
    OpenCase,
    case_names,
    load_case,
    mask_of,
    random_rows,
    read_answers,
    read_manifest,
    without,
)
from course_utils.statistics import Interval
from course_utils.threat import Backdoor, accuracy
from course_utils.training import TrainingError

WIDEST = {"rate": 0.45, "accuracy": 0.15}  # an interval that is wider says too little to count
TRAININGS = 6
POINTS = {"verdict": 20, "evidence": 50, "intervals": 30}
WRONG_FAMILY, WRONG_VERDICT = -10, -20
ENOUGH_EVIDENCE = 0.25  # below it, intervals do not count


@dataclass(frozen=True)
class Score:
    """The points of one case, out of 100; how they came about; and what was measured on the way."""

    case: str
    points: float
    parts: dict[str, float]
    notes: tuple[str, ...]
    measured: dict[str, float]
    seconds: float

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {points:.0f}" for name, points in self.parts.items())
        return "\n- ".join([f"{self.points:.0f} points: {parts}", *self.notes])


def score(
    report: Report,
    folder: Path = FOLDER,
    key: Path | None = None,
    trainings: int = TRAININGS,
    device: torch.device | str = "cpu",
) -> Score:
    """The points of a report. It trains so many victims, and as many on randomly thinned data.

    key: the answers of the set, where they do not lie in its folder. trainings: at least 2. Raises
    IncidentError for a report that cannot be scored; nothing is lost by it.
    """
    if trainings < 2:
        raise IncidentError(f"trainings is {trainings}: one says nothing about the spread; take 2.")
    begin = time.perf_counter()
    case = load_case(report.case, folder, device)
    check_report(report, case)
    path = Path(folder) / ANSWERS if key is None else Path(key)
    answers = read_answers(path, read_manifest(folder)["answers"])
    truth = answers.cases[report.case]
    control, after = retrained(report, case, answers, truth["seeds"][:trainings])

    poison = mask_of(answers.arrays[f"{report.case}/poison"], len(case.data))
    flagged = mask_of(list(report.flagged), len(case.data))
    finding = finding_score(flagged, poison)
    repair = repair_of(truth, control, after)
    if truth["families"]:
        evidence = max(finding, repair)
    else:  # there is nothing to find, and only who says so has shown it
        evidence = min(finding, repair) if report.verdict == "clean" else 0.0
    enough = evidence >= ENOUGH_EVIDENCE
    intervals = covered(report, case, truth, control, after)
    agreeing = list(intervals.values()).count("agrees") / len(intervals)
    parts = {
        "verdict": verdict_points(report, truth["families"]),
        "evidence": POINTS["evidence"] * evidence,
        "intervals": POINTS["intervals"] * enough * agreeing,
    }
    measured = {
        "finding": finding,
        "repair": repair,
        "recall": (flagged & poison).sum().item() / poison.sum().item() if poison.any() else 1.0,
        "false alarms": (flagged & ~poison).sum().item() / max(1, (~poison).sum().item()),
        **means("nothing", truth["nothing"]),
        **means("oracle", truth["oracle"]),
        **means("random drop", control),
        **means("repaired", after),
    }
    notes = (
        *notes_of(parts, measured, enough),
        *(f"interval {name}: {said}" for name, said in intervals.items()),
    )
    seconds = time.perf_counter() - begin
    return Score(report.case, sum(parts.values()), parts, notes, measured, seconds)


def retrained(
    report: Report, case: OpenCase, answers: Answers, seeds: Sequence[int]
) -> tuple[list[dict], list[dict]]:
    """What is measured of victims on randomly thinned data, and of those of the report.

    Where these are plain victims on the data as they came, they are known already.
    """
    known = answers.cases[case.name]["nothing"][: len(seeds)]

    def victims(data: Callable[[int], Data], **options) -> list[dict]:
        models = (case.train(data(seed), seed=seed, **options) for seed in seeds)
        return [measure(model, case, answers) for model in models]

    def thinned(seed: int) -> Data:
        return without(case.data, random_rows(len(report.dropped), len(case.data), seed))

    y = case.data.y.clone()
    for row, label in report.relabelled.items():
        y[row] = label
    repaired = without(Data(case.data.x, y, case.data.classes), report.dropped)
    how = {"defense": defense_of(report), "recipe": recipe_of(report, case)}
    try:
        control = victims(thinned) if report.dropped else known
        after = victims(lambda seed: repaired, **how) if report.repairs else known
    except (TrainingError, ValueError) as error:
        raise IncidentError(f"The victim of this report on {case.name} fails: {error}") from error
    return control, after


def measure(model: Classifier, case: OpenCase, answers: Answers) -> dict:
    """All that is measured of one victim: the harms, accuracy, and the answer to the question."""
    right = accuracy(model, answers.judge.to(case.data.x.device))
    sample = case.outcomes(model).float().mean().item()
    asked = right if case.question == "accuracy" else sample
    found = {"accuracy": right, "asked": asked, "sample": sample}
    return {"harms": harms(model, case.name, answers), **found}


def harms(model: Classifier, name: str, answers: Answers) -> list[float]:
    """What each attack of a case achieves on a model, in [0, 1]; for a clean case nothing."""
    judge = answers.judge.to(next(model.parameters()).device)

    def hidden(part: str) -> Tensor:
        """An image of the answers, with values in [0, 1]."""
        pixels = torch.tensor(answers.arrays[f"{name}/{part}"], device=judge.x.device)
        return pixels.float() / 255

    def harm(goal: dict) -> float:
        match goal["kind"]:
            case "accuracy":
                return 1 - accuracy(model, judge)
            case "class":
                mine = judge.x[judge.y == goal["source"]]
                return (predict(model, mine) == goal["into"]).float().mean().item()
            case "target":
                image = hidden("target")[None, None]
                return float(predict(model, image).item() == goal["adversarial"])
            case "backdoor":
                mask, pattern = hidden("mask"), hidden("pattern")
                backdoor = Backdoor(
                    lambda x: apply_trigger(x, mask, pattern), goal["target"], goal["source"]
                )
                return backdoor.measure(model, judge)["asr"]

    return [harm(goal) for goal in answers.cases[name]["goals"]]


def mean(rows: Sequence[dict], key: str) -> float:
    """The mean over trainings of a measure."""
    return fmean(row[key] for row in rows)


def levels(rows: Sequence[dict]) -> list[float]:
    """The harm of each attack of a case, as a mean over trainings."""
    return [fmean(values) for values in zip(*(row["harms"] for row in rows), strict=True)]


def means(name: str, rows: Sequence[dict]) -> dict[str, float]:
    """Accuracy, and harm (the mean over the attacks of a case), over trainings, by name."""
    found = {f"{name}: accuracy": mean(rows, "accuracy")}
    return found | ({f"{name}: harm": fmean(levels(rows))} if levels(rows) else {})


def repair_of(truth: dict, control: list[dict], after: list[dict]) -> float:
    """The score of a repair: the mean over the attacks of a case."""
    nothing = truth["nothing"]
    lost = mean(nothing[: len(after)], "accuracy") - mean(after, "accuracy")  # on the same seeds
    ways = zip(*map(levels, (nothing, control, after, truth["oracle"])), strict=True)
    scores = [repair_score(*four, lost) for four in ways]
    return fmean(scores or [repair_score(0.0, 0.0, 0.0, 0.0, lost)])  # without an attack, no harm


def verdict_points(report: Report, families: Sequence[str]) -> float:
    """Points for the verdict: for the right family, for the right side only, or against."""
    if report.verdict == "undecided":
        return 0.0
    if (report.verdict == "poisoned") != bool(families):
        return WRONG_VERDICT
    if not families:
        return POINTS["verdict"]
    if not report.families:
        return 0.0
    both = set(report.families) & set(families)
    share = len(both) / len({*report.families, *families})
    return POINTS["verdict"] * share if both else WRONG_FAMILY


def covered(
    report: Report, case: OpenCase, truth: dict, control: list[dict], after: list[dict]
) -> dict[str, str]:
    """For each interval that is due "agrees", or why it does not count.

    An interval agrees if it overlaps with the judge's. For accuracy `before` has to hold the
    judge's mean: it is known well, from many trainings on many images.
    """
    found, judged = {}, {"before": truth["nothing"], "control": control, "after": after}
    widest = WIDEST[case.question]
    for name in report.due:
        low, high = getattr(report, name)
        own = judges_interval([row["asked"] for row in judged[name]])
        judges = f"interval [{own.low:.3f}, {own.high:.3f}]"
        if name == "before" and case.question == "accuracy":
            own, judges = Interval(own.estimate, *[own.estimate] * 2), f"mean {own.estimate:.3f}"
        if high < own.low or own.high < low:
            found[name] = f"misses the judge's {judges}"
        elif high - low > widest:
            found[name] = f"right, but too wide to count: {high - low:.3f}, at most {widest}"
        else:
            found[name] = "agrees"
    return found


def judges_interval(values: Sequence[float]) -> Interval:
    """The judge's own interval over trainings: Wilson for yes/no, else Student's t.

    Shares of several images count as yes/no where each training gives all of them or none: there
    Student's t may have no width, and no honest interval would overlap with it.
    """
    if set(values) <= {0.0, 1.0}:
        return statistics.wilson([value > 0.5 for value in values])
    return statistics.t_interval(values)


def notes_of(parts: dict, measured: dict, enough: bool) -> list[str]:
    """What the points of a case mean, in sentences."""
    verdict = {POINTS["verdict"]: "right", 0: "left open", WRONG_FAMILY: "the wrong family"}
    said = verdict.get(parts["verdict"], "wrong" if parts["verdict"] < 0 else "partly right")
    poisoned = "nothing: harm" in measured
    alarms = f"{measured['false alarms']:.1%} of the clean images"
    images = f"there are no poisons; {alarms} flagged"
    if poisoned:
        images = f"{measured['recall']:.0%} of the poisons flagged, and {alarms}"

    def compared(what: str, digits: int) -> str:
        names = ("nothing", "random drop", "repaired", "oracle")
        return ", ".join(f"{name} {measured[f'{name}: {what}']:.{digits}f}" for name in names)

    lines = [f"verdict: {said}", f"images: {images}: {measured['finding']:.2f}"]
    if poisoned:
        lines.append(f"harm: {compared('harm', 2)}: repair {measured['repair']:.2f}")
    lines.append(f"clean accuracy: {compared('accuracy', 3)}")
    if not enough:
        lines.append("intervals: not counted, since neither images nor repair show enough")
    return lines


def total(scores: Sequence[Score], folder: Path = FOLDER) -> float:
    """The mean points over all cases of a set that count; a case without a report has none.

    Raises IncidentError if a case comes twice.
    """
    names = case_names(folder)
    counted = [one for one in scores if one.case in names]
    if len({one.case for one in counted}) < len(counted):
        raise IncidentError("A case has two scores: hand in one report for each.")
    return math.fsum(one.points for one in counted) / len(names)


def summary(
    reports: Sequence[Report], scores: Sequence[Score], name: str, folder: Path = FOLDER
) -> str:
    """A page to hand in, in Markdown: the points of each case and a fingerprint of it all.

    The fingerprint belongs to these reports, this set and these points. It shows a slip, not fraud:
    whoever grades scores the reports again.
    """
    lines = [f"# The incident: {name}", "", "| case | verdict | points | evidence | intervals |"]
    lines.append("|---|---|---|---|---|")
    said = {report.case: report for report in reports}
    for one in scores:
        report = said[one.case]
        verdict = ", ".join(report.families) or report.verdict
        names = ("evidence", "intervals")
        parts = " | ".join(f"{one.parts[part]:.0f} of {POINTS[part]}" for part in names)
        lines.append(f"| {one.case} | {verdict} | {one.points:.0f} | {parts} |")
    lines += ["", f"**Total: {total(scores, folder):.1f} of 100**", ""]
    for one in scores:
        lines += [f"## {one.case}", "", said[one.case].method or "(no method given)", ""]
        lines += [*(f"- {note}" for note in one.notes), ""]
    text = "\n".join(lines)
    whole = f"{name}{to_json(reports)}{read_manifest(folder)['answers']}{text}"
    return f"{text}\nFingerprint: `{short_hash(whole)}`\n"
