"""The cases of lesson 21: what is known of one, and the files that it comes from.

A set of cases is a folder with a manifest, one file a case and one file of answers. The answers
are obfuscated, so that nobody reads them by accident. They are not secret: the code that opens them
is below, and opening them is cheating yourself.
"""

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from course_utils import data as course_data
from course_utils.data import FASHION_CLASSES, Data
from course_utils.defense import PLAIN, Defense
from course_utils.models import Classifier, build, predict
from course_utils.training import Recipe, Scenario, train

FOLDER = course_data.FOLDER / "incident"
ANSWERS = "ANSWERS-opening-it-is-cheating-yourself.bin"


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


def load_case(name: str, folder: Path = FOLDER, device: torch.device | str = "cpu") -> OpenCase:
    """One case of a set, its file checked against the manifest.

    Raises IncidentError for an unknown name, and for files that are missing or altered.
    """
    entries = read_manifest(folder)["cases"]
    if name not in entries:
        raise IncidentError(f"There is no case {name!r}. There are: {', '.join(entries)}.")
    entry = entries[name]
    path = Path(folder) / entry["file"]
    if not path.is_file():
        raise IncidentError(f"{path} is missing: restore it, or make the set again.")
    content, promised = path.read_bytes(), entry["sha256"]
    if hashlib.sha256(content).hexdigest() != promised:
        raise IncidentError(f"{path} is damaged or altered: its SHA-256 is not {promised[:12]}...")
    arrays = unpack(content)
    delivered = delivered_model(entry["network"], arrays, device)
    untrained = build(entry["network"], (1, 28, 28), len(FASHION_CLASSES)).to(device)
    listed = {key: tuple(arrays[key].tolist()) for key in ("domains", "promised") if key in arrays}
    return OpenCase(
        name,
        entry["story"],
        images(arrays["x"], arrays["y"], device),
        delivered if entry["scenario"] == "transfer" else untrained,
        Recipe(**entry["recipe"]),
        entry["question"],
        images(arrays["asked_x"], arrays["asked_y"], device),
        entry["scenario"],
        images(arrays["trusted_x"], arrays["trusted_y"], device) if "trusted_x" in arrays else None,
        delivered,
        **listed,
    )


def unpack(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of an npz file, without running any code that it might hold."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def images(x: np.ndarray, y: np.ndarray, device: torch.device | str = "cpu") -> Data:
    """Data of images (N, 28, 28) and labels (N,), both uint8."""
    pixels = torch.tensor(x, dtype=torch.float32)[:, None] / 255
    return Data(pixels, torch.tensor(y, dtype=torch.int64), FASHION_CLASSES).to(device)


def delivered_model(
    network: str, arrays: dict[str, np.ndarray], device: torch.device | str
) -> Classifier | None:
    """A model of the course with the weights that came with a case; None if none came."""
    weights = {
        name.removeprefix("weight:"): torch.tensor(values, dtype=torch.float32)
        for name, values in arrays.items()
        if name.startswith("weight:")
    }
    if not weights:
        return None
    model = build(network, (1, 28, 28), len(FASHION_CLASSES))
    model.load_state_dict(weights)
    return model.to(device).eval()


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of a set: for each case a dictionary, its arrays, and the judge's own images."""

    cases: dict[str, dict]
    arrays: dict[str, np.ndarray]
    judge: Data


def pack_answers(cases: dict[str, dict], arrays: dict[str, np.ndarray]) -> bytes:
    """The bytes of an answer file. arrays: also judge_x (N, 28, 28) and judge_y (N,), uint8."""
    file = io.BytesIO()
    np.savez_compressed(file, cases=np.array(json.dumps(cases)), **arrays)
    return masked(file.getvalue())


def read_answers(path: Path, promised: str) -> Answers:
    """The answers of a set, for the judge alone.

    promised: their SHA-256, from the manifest. Raises IncidentError if they are missing or damaged.
    """
    if not Path(path).is_file():
        raise IncidentError(
            f"The answers are not in {path}: whoever made the set has them; give their file as key."
        )
    content = Path(path).read_bytes()
    if hashlib.sha256(content).hexdigest() != promised:
        raise IncidentError(f"{path} does not belong to this set, or is damaged.")
    arrays = unpack(masked(content))
    judge = images(arrays.pop("judge_x"), arrays.pop("judge_y"))
    return Answers(json.loads(str(arrays.pop("cases"))), arrays, judge)


def masked(content: bytes) -> bytes:
    """The bytes under a fixed stream; twice gives them back. This hides, it does not protect."""
    blocks = -(-len(content) // 32)
    stream = b"".join(
        hashlib.sha256(f"{ANSWERS}{block}".encode()).digest() for block in range(blocks)
    )
    return bytes(np.frombuffer(content, np.uint8) ^ np.frombuffer(stream, np.uint8)[: len(content)])
