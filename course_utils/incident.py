"""The cases of lesson 21: loading them, checking reports, and scoring.

A set of cases is a folder with a manifest, one file a case and one file of answers. The answers
are obfuscated, so that nobody reads them by accident. They are not secret: the code that opens them
is below, and opening them is cheating yourself.
"""

import hashlib
import inspect
import io
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from course_utils import data as course_data
from course_utils import statistics
from course_utils.attacks.triggers import apply_trigger
from course_utils.cases.backdoors import AUGMENTED
from course_utils.cases.poisoning import cheap
from course_utils.data import Data
from course_utils.defense import PLAIN, Defense
from course_utils.defenses.filters import activation_clustering, deep_knn, spectral_signatures
from course_utils.defenses.gradient_shaping import gradient_shaping
from course_utils.defenses.mixing import cutmix, cutout, mixup
from course_utils.defenses.pgd_training import pgd_training
from course_utils.defenses.reporting import finding_score, repair_score
from course_utils.defenses.small_loss import small_loss
from course_utils.models import Classifier, build, predict
from course_utils.statistics import Interval
from course_utils.threat import Backdoor, accuracy
from course_utils.training import Recipe, Scenario, TrainingError, train

FOLDER = course_data.FOLDER / "incident"
ANSWERS = "ANSWERS-opening-it-is-cheating-yourself.bin"
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

WIDEST = {"rate": 0.45, "accuracy": 0.15}  # an interval that is wider says too little to count
TRAININGS = 6
MOST_EPOCHS = 60
POINTS = {"verdict": 20, "evidence": 50, "intervals": 30}
WRONG_FAMILY, WRONG_VERDICT = -10, -20
ENOUGH_EVIDENCE = 0.25  # below it, intervals do not count


class IncidentError(ValueError):
    """A set of cases that is missing or damaged, or a report that cannot be scored."""


@dataclass(frozen=True, eq=False)
class OpenCase:
    """All that is known of one case.

    data: the training data as they came. scenario, model, recipe: how the victim trains; in
    "transfer" the features of `model` stay as they are. question: what a report has to measure on
    `asked`: "rate", how often a victim gives these very images the classes `asked.y`; "accuracy",
    how often it is right on images of which `asked` is a sample. trusted: a few images that surely
    nobody has changed, or None. delivered: the model that came with the data, or None. domains,
    promised: for each training image the domain that it came from, and the SHA-256 of its 784 bytes
    when the list was made ("" where nobody noted it); or None.
    """

    name: str
    story: str
    data: Data
    model: Classifier
    recipe: Recipe
    question: Literal["rate", "accuracy"]
    asked: Data
    scenario: Scenario = "scratch"
    trusted: Data | None = None
    delivered: Classifier | None = None
    domains: tuple[str, ...] | None = None
    promised: tuple[str, ...] | None = None

    def train(
        self,
        data: Data | None = None,
        *,
        seed: int,
        defense: Defense = PLAIN,
        recipe: Recipe | None = None,
        after_epoch: Callable[[Classifier, int], None] | None = None,
    ) -> Classifier:
        """A victim as the story has it, on these images (by default on those that came).

        Where one image would be left for the last batch of an epoch, the last one is left out.
        """
        options = dict(scenario=self.scenario, defense=defense, seed=seed, after_epoch=after_epoch)
        data, recipe = self.data if data is None else data, recipe or self.recipe
        if len(data) % recipe.batch_size == 1:  # the step on a last batch of one costs accuracy
            data = data[torch.arange(len(data) - 1, device=data.y.device)]
        return train(self.model, data, recipe, **options)

    def outcomes(self, model: Classifier) -> Tensor:
        """For each image asked about (N,), whether the model gives it the class `asked.y`."""
        return predict(model, self.asked.x) == self.asked.y

    def fingerprints(self) -> tuple[str, ...]:
        """The SHA-256 of each training image as it came, to compare with `promised`."""
        pixels = (self.data.x[:, 0] * 255).round().byte().cpu().numpy()
        return tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in pixels)


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


def read_manifest(folder: Path = FOLDER) -> dict:
    """The manifest of a set. Raises IncidentError if there is none."""
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        raise IncidentError(
            f"There is no {path}: name the folder of a set, or make one with `make incident`."
        )
    return json.loads(path.read_text(encoding="utf-8"))


def case_names(folder: Path = FOLDER, practice: bool = False) -> list[str]:
    """The names of the cases that count, or of those that the lesson works through."""
    cases = read_manifest(folder)["cases"]
    return [name for name, entry in cases.items() if entry["practice"] == practice]


def read_checked(path: Path, promised: str) -> bytes:
    """The bytes of a file whose SHA-256 is the promised one. Raises IncidentError otherwise."""
    if not path.is_file():
        raise IncidentError(f"{path} is missing: restore it, or make the set again.")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != promised:
        raise IncidentError(f"{path} is damaged or altered: its SHA-256 is not {promised[:12]}...")
    return content


def unpack(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of an npz file, without running any code that it might hold."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def images(x: np.ndarray, y: np.ndarray) -> Data:
    """Data of images (N, 28, 28) and labels (N,), both uint8."""
    pixels = torch.tensor(x, dtype=torch.float32)[:, None] / 255
    return Data(pixels, torch.tensor(y, dtype=torch.int64), course_data.FASHION_CLASSES)


def with_weights(network: str, arrays: dict[str, np.ndarray]) -> Classifier:
    """A model of the course with weights from plain arrays."""
    model = build(network, (1, 28, 28), len(course_data.FASHION_CLASSES))
    weights = {
        name.removeprefix("weight:"): torch.tensor(values, dtype=torch.float32)
        for name, values in arrays.items()
        if name.startswith("weight:")
    }
    model.load_state_dict(weights)
    return model.eval()


def load_case(name: str, folder: Path = FOLDER, device: torch.device | str = "cpu") -> OpenCase:
    """One case of a set, its file checked against the manifest.

    Raises IncidentError for an unknown name, and for files that are missing or altered.
    """
    entries = read_manifest(folder)["cases"]
    if name not in entries:
        raise IncidentError(f"There is no case {name!r}. There are: {', '.join(entries)}.")
    entry = entries[name]
    arrays = unpack(read_checked(Path(folder) / entry["file"], entry["sha256"]))
    trusted = images(arrays["trusted_x"], arrays["trusted_y"]) if "trusted_x" in arrays else None
    network, scenario = entry["network"], entry["scenario"]
    model, delivered = build(network, (1, 28, 28), len(course_data.FASHION_CLASSES)), None
    if any(key.startswith("weight:") for key in arrays):
        delivered = with_weights(network, arrays).to(device)
        model = delivered if scenario == "transfer" else model
    listed = {key: tuple(arrays[key].tolist()) for key in ("domains", "promised") if key in arrays}
    return OpenCase(
        name,
        entry["story"],
        images(arrays["x"], arrays["y"]).to(device),
        model.to(device),
        Recipe(**entry["recipe"]),
        entry["question"],
        images(arrays["asked_x"], arrays["asked_y"]).to(device),
        scenario,
        None if trusted is None else trusted.to(device),
        delivered,
        **listed,
    )


def masked(content: bytes) -> bytes:
    """The bytes under a fixed stream; twice gives them back. This hides, it does not protect."""
    blocks = -(-len(content) // 32)
    stream = b"".join(
        hashlib.sha256(f"{ANSWERS}{block}".encode()).digest() for block in range(blocks)
    )
    return bytes(np.frombuffer(content, np.uint8) ^ np.frombuffer(stream, np.uint8)[: len(content)])


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of a set: for each case a dictionary, its arrays, and the judge's own images."""

    cases: dict[str, dict]
    arrays: dict[str, np.ndarray]
    judge: Data
    sha256: str


def pack_answers(cases: dict[str, dict], arrays: dict[str, np.ndarray]) -> bytes:
    """The bytes of an answer file. arrays: also judge_x (N, 28, 28) and judge_y (N,), uint8."""
    file = io.BytesIO()
    np.savez_compressed(file, cases=np.array(json.dumps(cases)), **arrays)
    return masked(file.getvalue())


def read_answers(path: Path, promised: str | None = None) -> Answers:
    """The answers of a set, for the scorer alone. Raises IncidentError if they are damaged."""
    if not Path(path).is_file():
        raise IncidentError(
            f"The answers are not in {path}: whoever made the set has them; give their file as key."
        )
    content = Path(path).read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if promised not in (None, sha256):
        raise IncidentError(f"{path} does not belong to this set, or is damaged.")
    arrays = unpack(masked(content))
    judge = images(arrays.pop("judge_x"), arrays.pop("judge_y"))
    return Answers(json.loads(str(arrays.pop("cases"))), arrays, judge, sha256)


def check_report(report: Report, case: OpenCase) -> None:
    """Raise IncidentError that says what is wrong with a report, and what was expected."""
    where = f"The report on {case.name}"
    if report.case != case.name:
        raise IncidentError(f"{where} names the case {report.case!r}.")
    if report.verdict not in ("clean", "poisoned", "undecided"):
        raise IncidentError(
            f"{where} has the verdict {report.verdict!r}: write clean, poisoned or undecided."
        )
    if isinstance(report.families, str):
        raise IncidentError(f"{where} has one string as families: write ({report.families!r},).")
    if unknown := set(report.families) - set(FAMILIES):
        raise IncidentError(
            f"{where} names {sorted(map(str, unknown))}: the families are {', '.join(FAMILIES)}."
        )
    if report.families and report.verdict != "poisoned":
        raise IncidentError(f"{where} names a family, but its verdict is {report.verdict!r}.")
    check_rows(where, "flagged", report.flagged, len(case.data))
    check_rows(where, "relabelled", list(report.relabelled), len(case.data))
    classes = len(case.data.classes)
    check_rows(where, "new labels", [*set(report.relabelled.values())], classes)
    if len(report.dropped) > len(case.data) - 2 * classes:
        raise IncidentError(f"{where} drops {len(report.dropped)} of {len(case.data)} images.")
    defense_of(report, where)
    recipe_of(report, case)
    for name in report.due:
        check_interval(where, name, getattr(report, name))
    for name, needs in (("control", "drops no image"), ("after", "repairs nothing")):
        if name not in report.due and getattr(report, name) is not None:
            raise IncidentError(
                f"{where} has an interval `{name}`, but {needs}: is a part missing, or is the "
                "interval too much?"
            )


def check_rows(where: str, what: str, rows: Sequence[int], count: int) -> None:
    """Raise IncidentError unless these are different whole numbers from 0 to count - 1."""
    if isinstance(rows, Tensor | np.ndarray):
        raise IncidentError(
            f"{where}: {what} is a {type(rows).__name__}; write a list of numbers, as from "
            "mask.nonzero()[:, 0].tolist()."
        )
    wrong = [row for row in rows if isinstance(row, bool) or not isinstance(row, int)]
    if wrong:
        raise IncidentError(f"{where}: {what} has {wrong[0]!r}, expected whole numbers.")
    outside = [row for row in rows if not 0 <= row < count]
    if outside:
        raise IncidentError(f"{where}: {what} has {outside[0]}, expected 0 to {count - 1}.")
    if len(set(rows)) < len(rows):
        raise IncidentError(f"{where}: {what} has a number twice.")


def check_interval(where: str, name: str, interval: Sequence[float] | None) -> None:
    """Raise IncidentError unless this is an interval of shares."""
    if interval is None:
        raise IncidentError(
            f"{where} has no interval `{name}`: a number without one cannot be judged. "
            "Give (low, high)."
        )
    ends = list(interval)
    good = len(ends) == 2 and all(isinstance(end, int | float) for end in ends)
    if not good or not 0 <= ends[0] <= ends[1] <= 1:  # NaN fails here, too
        raise IncidentError(
            f"{where}: `{name}` is {ends}, expected (low, high), shares from 0 to 1; of an "
            "Interval give (interval.low, interval.high)."
        )


def defense_of(report: Report, where: str = "The report") -> Defense:
    """The defense that a report names. Raises IncidentError for one that is not on the list."""
    if report.defense is None:
        if report.strengths:
            raise IncidentError(f"{where} has strengths, but names no defense.")
        return PLAIN
    if report.defense not in DEFENSES:
        raise IncidentError(
            f"{where} names the defense {report.defense!r}: choose from {', '.join(DEFENSES)}."
        )
    try:
        inspect.signature(DEFENSES[report.defense]).bind(**report.strengths)
    except TypeError as error:
        known = ", ".join(inspect.signature(DEFENSES[report.defense]).parameters) or "none"
        raise IncidentError(
            f"{where}: {report.defense} does not take this, {error}. Its strengths: {known}."
        ) from error
    try:
        return DEFENSES[report.defense](**report.strengths)
    except (TypeError, ValueError) as error:
        raise IncidentError(f"{where}: {report.defense} does not take this: {error}") from error


def recipe_of(report: Report, case: OpenCase) -> Recipe:
    """How the victim of a report trains. Raises IncidentError if it cannot, or takes too long."""
    known = [part.name for part in fields(Recipe)]
    if unknown := sorted(set(report.recipe) - set(known)):
        raise IncidentError(
            f"The report on {case.name} changes {', '.join(unknown)} of the recipe: its fields are "
            f"{', '.join(known)}."
        )
    try:
        recipe = replace(case.recipe, **report.recipe)
    except (TypeError, ValueError) as error:
        raise IncidentError(f"The report on {case.name}: {error}") from error
    if recipe.epochs > MOST_EPOCHS:
        raise IncidentError(
            f"The report on {case.name} asks for {recipe.epochs} epochs, at most {MOST_EPOCHS}."
        )
    return recipe


def repaired_data(report: Report, case: OpenCase) -> Data:
    """The training data after what a report does to them."""
    y = case.data.y.clone()
    for row, label in report.relabelled.items():
        y[row] = label
    return without(Data(case.data.x, y, case.data.classes), report.dropped)


def without(data: Data, rows: Sequence[int]) -> Data:
    """The data without these rows."""
    return data[~mask_of(rows, len(data)).to(data.y.device)]


def mask_of(rows: Sequence[int], count: int) -> Tensor:
    """Of so many images those of the rows, as a mask (count,)."""
    mask = torch.zeros(count, dtype=torch.bool)
    mask[torch.tensor(rows, dtype=torch.int64)] = True
    return mask


def random_rows(count: int, of: int, seed: int) -> list[int]:
    """As many different rows, drawn at random."""
    return torch.randperm(of, generator=torch.Generator().manual_seed(seed))[:count].tolist()


def harms(model: Classifier, name: str, answers: Answers) -> list[float]:
    """What each attack of a case achieves on a model, in [0, 1]; for a clean case nothing."""
    found, judge = [], answers.judge.to(next(model.parameters()).device)
    for goal in answers.cases[name]["goals"]:
        if goal["kind"] == "accuracy":
            found.append(1 - accuracy(model, judge))
        elif goal["kind"] == "class":
            mine = judge.x[judge.y == goal["source"]]
            found.append((predict(model, mine) == goal["into"]).float().mean().item())
        elif goal["kind"] == "target":
            image = images(answers.arrays[f"{name}/target"][None], np.zeros(1)).x.to(judge.x.device)
            found.append(float(predict(model, image).item() == goal["adversarial"]))
        else:
            mask, pattern = (
                torch.tensor(answers.arrays[f"{name}/{part}"], device=judge.x.device).float() / 255
                for part in ("mask", "pattern")
            )
            backdoor = Backdoor(
                lambda x, m=mask, p=pattern: apply_trigger(x, m, p), goal["target"], goal["source"]
            )
            found.append(backdoor.measure(model, judge)["asr"])
    return found


def measure(model: Classifier, case: OpenCase, answers: Answers) -> dict:
    """All that is measured of one victim: the harms, accuracy, and the answer to the question."""
    right = accuracy(model, answers.judge.to(case.data.x.device))
    sample = case.outcomes(model).float().mean().item()
    asked = right if case.question == "accuracy" else sample
    found = {"accuracy": right, "asked": asked, "sample": sample}
    return {"harms": harms(model, case.name, answers), **found}


def poison_mask(name: str, answers: Answers, count: int) -> Tensor:
    """Which training images of a case are poison (N,)."""
    return mask_of(answers.arrays[f"{name}/poison"], count)


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
    begin, manifest = time.perf_counter(), read_manifest(folder)
    case = load_case(report.case, folder, device)
    check_report(report, case)
    path = Path(folder) / ANSWERS if key is None else Path(key)
    answers = read_answers(path, manifest["answers"])
    truth = answers.cases[report.case]
    seeds = truth["seeds"][:trainings]
    nothing = truth["nothing"][: len(seeds)]
    given = (report, case, answers, seeds)
    after = trained(*given, repaired_data(report, case)) if report.repairs else nothing
    control = nothing if not report.dropped else thinned(*given)
    poison = poison_mask(report.case, answers, len(case.data))
    flagged = mask_of(list(report.flagged), len(case.data))
    finding = finding_score(flagged, poison)
    repair = repair_of(truth, nothing, control, after)
    if truth["families"]:
        evidence = max(finding, repair)
    else:  # there is nothing to find, and only who says so has shown it
        evidence = min(finding, repair) if report.verdict == "clean" else 0.0
    verdict = verdict_points(report, truth["families"])
    good = covered(report, case, truth, control, after)
    enough = evidence >= ENOUGH_EVIDENCE
    parts = {
        "verdict": verdict,
        "evidence": POINTS["evidence"] * evidence,
        "intervals": POINTS["intervals"] * enough * list(good.values()).count("agrees") / len(good),
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
        *(f"interval {name}: {said}" for name, said in good.items()),
    )
    seconds = time.perf_counter() - begin
    return Score(report.case, sum(parts.values()), parts, notes, measured, seconds)


def trained(
    report: Report, case: OpenCase, answers: Answers, seeds: Sequence[int], data: Data
) -> list[dict]:
    """What is measured of the victims of a report, one for each seed."""
    options = {"defense": defense_of(report), "recipe": recipe_of(report, case)}
    try:
        return [measure(case.train(data, seed=s, **options), case, answers) for s in seeds]
    except (TrainingError, ValueError) as error:
        raise IncidentError(f"The victim of this report on {case.name} fails: {error}") from error


def thinned(report: Report, case: OpenCase, answers: Answers, seeds: Sequence[int]) -> list[dict]:
    """What is measured of plain victims that lack as many images, drawn at random."""
    found = []
    for seed in seeds:
        rows = random_rows(len(report.dropped), len(case.data), seed)
        model = case.train(without(case.data, rows), seed=seed)
        found.append(measure(model, case, answers))
    return found


def mean(rows: Sequence[dict], key: str) -> float:
    """The mean over trainings of a measure."""
    return math.fsum(row[key] for row in rows) / len(rows)


def means(name: str, rows: Sequence[dict]) -> dict[str, float]:
    """Harm (the mean over the attacks of a case) and accuracy over trainings, by name."""
    found = {f"{name}: accuracy": mean(rows, "accuracy")}
    if rows[0]["harms"]:
        every = [math.fsum(row["harms"]) / len(row["harms"]) for row in rows]
        found[f"{name}: harm"] = math.fsum(every) / len(every)
    return found


def repair_of(truth: dict, nothing: list, control: list, after: list) -> float:
    """The score of a repair: the mean over the attacks of a case."""
    lost = mean(nothing, "accuracy") - mean(after, "accuracy")
    levels = [
        [math.fsum(row["harms"][k] for row in rows) / len(rows) for k in range(len(truth["goals"]))]
        for rows in (truth["nothing"], control, after, truth["oracle"])
    ]
    if not truth["goals"]:
        return repair_score(0.0, 0.0, 0.0, 0.0, lost)
    scores = [repair_score(*four, lost) for four in zip(*levels, strict=True)]
    return math.fsum(scores) / len(scores)


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
    report: Report, case: OpenCase, truth: dict, control: list, after: list
) -> dict[str, str]:
    """For each interval that is due "agrees", or why it does not count.

    An interval agrees if it overlaps with the judge's. For accuracy `before` has to hold the
    judge's mean: it is known well, from many trainings on many images.
    """
    found, judged = {}, {"before": truth["nothing"], "control": control, "after": after}
    for name in report.due:
        low, high = getattr(report, name)
        own = judges_interval([row["asked"] for row in judged[name]])
        if name == "before" and case.question == "accuracy":
            agrees, judges = low <= own.estimate <= high, f"mean {own.estimate:.3f}"
        else:
            agrees = low <= own.high and own.low <= high
            judges = f"interval [{own.low:.3f}, {own.high:.3f}]"
        widest = WIDEST[case.question]
        if not agrees:
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
    lines = [f"verdict: {said}", f"images: {images}: {measured['finding']:.2f}"]
    names = ("nothing", "random drop", "repaired", "oracle")
    if poisoned:
        levels = ", ".join(f"{name} {measured[f'{name}: harm']:.2f}" for name in names)
        lines.append(f"harm: {levels}: repair {measured['repair']:.2f}")
    levels = ", ".join(f"{name} {measured[f'{name}: accuracy']:.3f}" for name in names)
    lines.append(f"clean accuracy: {levels}")
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


def to_json(reports: Sequence[Report]) -> str:
    """Reports as text, to hand in: `Path("reports.json").write_text(...)`."""
    rows = [vars(report) | {"relabelled": {**report.relabelled}} for report in reports]
    return json.dumps(rows, indent=1, default=list) + "\n"


def from_json(text: str) -> list[Report]:
    """Reports from text. Raises IncidentError for a field that is missing or unknown."""
    try:
        rows = json.loads(text)
        reports = []
        for row in rows:
            relabelled = {int(k): v for k, v in row.pop("relabelled", {}).items()}
            reports.append(Report(**row, relabelled=relabelled))
    except (json.JSONDecodeError, TypeError, AttributeError, ValueError) as error:
        raise IncidentError(f"These are no reports: {error}") from error
    return reports


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
    return f"{text}\nFingerprint: `{hashlib.sha256(whole.encode()).hexdigest()[:16]}`\n"
