"""The papers' size: gradient matching on CIFAR-10 with a residual network, on a GPU.

`make benchmark SCALE=paper` runs twenty trials of `matching_trial` in the setting RESNET, one after
the other, and goes on where it was stopped, also on another machine. SCALE=paper_knowing adds full
poisoning training and attackers who know the defense, SCALE=paper_resnet18 takes ResNet-18.

From Geiping and others (arXiv 2102.13624): CIFAR-10, training from scratch, 500 poisons (1% of the
data, 10% of the adversarial class) within 16/255, 250 steps of crafting; shifts by up to 4 pixels
and flips in training and in crafting; five steps in PGD training and in full poisoning training,
both at 16/255. Bases and targets are drawn at random, as in their code, so a surrogate may get a
target wrong; the clean victim shows how often that alone gives the attacker their wish.

Where it departs from them:

- The victim is a ResNet-9, unless RESNET18 is chosen.
- 12 epochs in batches of 512 instead of 40 in batches of 128. The learning rate rises to 0.4 and
  falls again in one cycle, instead of falling from 0.1 to a tenth three times.
- The steps of training, and the attacks that a defense simulates in them, are computed in bfloat16.
  Crafting, once a trial, is computed in float32.
- One restart of crafting instead of eight.
- The channels are not normalised, so crafting moves pixels by 0.025, their 0.1 over a deviation of
  about 1/4.
- Poisoning training is the cheap variant of lesson 14, two steps on the gradient of the head; the
  full one is in SCALE=paper_knowing.
- No gradient shaping: it needs the gradient of each example, and a network without BatchNorm.
- No noise control.

Measured on one NVIDIA H200 that did other work beside (PyTorch 2.11), a step of 512 images, in
milliseconds:

    training                     bfloat16   simulated attacks in float32   all in float32
    plain                            10                  -                      18
    cheap poisoning training         24                 26                      34
    PGD training                     35                 47                       -
    poisoning training              138                179                       -

So a trial of SCALE=paper took 130 seconds: 8 to 14 for a plain victim, 26 to 37 for surrogate and
crafting, 30 to 40 for cheap poisoning training, 40 to 42 for PGD training. On a GPU of its own,
five trials side by side (under NVIDIA's MPS) took 470 seconds together, 95 each: one trial nearly
fills the GPU. The steps are neither compiled nor captured, and we did not try it.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from course_utils import data as datasets
from course_utils.attacks import crafting
from course_utils.attacks.gradient_matching import (
    Gradient,
    alignment_loss,
    augment,
    gradient_matching,
)
from course_utils.cases import poisoning
from course_utils.cases.robust import PGD
from course_utils.data import CIFAR_CLASSES, Data, DataError, balanced, load
from course_utils.defense import PLAIN, Defense
from course_utils.defenses.pgd_training import pgd_training
from course_utils.models import Classifier, build
from course_utils.settings import RESNET, RESNET18, RESNET_FIFTH, Setting
from course_utils.stored import RESULTS, Benchmark, Trial, load_study, load_unfinished
from course_utils.threat import Poison, Targeted, ThreatModel
from course_utils.training import train
from course_utils.trials import Case, Rows, Victim, columns, compare, run_trials

EPSILON, PIXELS = 16 / 255, 4.0
ENOUGH = 20
JPEGS = "CIFAR-10, JPEG-recompressed"


@cache
def cifar10() -> tuple[Data, Data, str]:
    """CIFAR-10 to train and to test on, and what a row calls it.

    From data/downloads. Where only a copy recompressed as JPEG lies there, that one, under its own
    name. Raises DataError if there is neither.
    """
    copy = datasets.DOWNLOADS / "cifar10_jpeg.npz"
    try:
        return *load("cifar10"), "CIFAR-10"
    except DataError:
        if not copy.is_file():
            raise
    return *read_jpegs(copy), JPEGS


def read_jpegs(path: Path) -> tuple[Data, Data]:
    """Training and test images from an .npz file of JPEGs.

    It holds, for "train" and "test", the files end to end (`jpeg_train`), where each of them begins
    and the last one ends (`offset_train`), and the labels (`y_train`).
    """
    parts = []
    with np.load(path, allow_pickle=False) as arrays:
        for part in ("train", "test"):
            found, begins = arrays[f"jpeg_{part}"].tobytes(), arrays[f"offset_{part}"]
            files = [found[a:b] for a, b in pairwise(begins)]
            pixels = np.stack([np.asarray(Image.open(BytesIO(file))) for file in files])
            x = torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32).div_(255)
            y = torch.tensor(arrays[f"y_{part}"], dtype=torch.int64)
            parts.append(Data(x, y, CIFAR_CLASSES))
    return tuple(parts)


def moved(defense: Defense) -> Defense:
    """The same defense, on batches that are shifted and flipped first."""

    def batch(
        model: Classifier, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):  # the places of pixels need float32
            x = augment(x, generator, PIXELS).clamp(0, 1)
        return (x, y) if defense.batch is None else defense.batch(model, x, y, generator)

    return replace(defense, batch=batch)


def victims(setting: Setting) -> dict[str, Victim]:
    """Plain training and the defenses, all with shifts and flips, by name."""
    found = {
        PLAIN.name: PLAIN,
        poisoning.CHEAP: poisoning.cheap(EPSILON),
        PGD: pgd_training(EPSILON, steps=5),
        poisoning.POISONING: poisoning.full(EPSILON),
    }
    return {name: Victim(moved(defense), setting.recipe) for name, defense in found.items()}


def draw_target(data: Data, seed: int) -> Targeted:
    """Draw an image, and a class that is not its own."""
    generator = torch.Generator().manual_seed(seed)
    row = torch.randint(len(data), (1,), generator=generator).item()
    shift = torch.randint(1, len(data.classes), (1,), generator=generator).item()
    true_class = data.y[row].item()
    return Targeted(data.x[row], true_class, (true_class + shift) % len(data.classes))


def craft(
    surrogate: Classifier, data: Data, goal: Targeted, seed: int, setting: Setting
) -> Poison | None:
    """Poisons from bases drawn at random; None if the surrogate already grants the goal."""
    if crafting.granted([surrogate], goal):
        return None
    budget = setting.scaled(500)
    base = crafting.random_bases(data, goal.adversarial_class, budget, seed)
    generator = torch.Generator(data.x.device).manual_seed(seed)

    def loss(model: Classifier, images: Tensor, labels: Tensor, wanted: Gradient) -> Tensor:
        return alignment_loss(model, augment(images, generator, PIXELS), labels, wanted)

    threat = ThreatModel(budget, EPSILON, clean_label=True)
    options = {"base": base, "steps": setting.scaled(250), "lr": 0.025, "loss": loss}
    poison = gradient_matching([surrogate], data, goal, threat, seed, **options)
    poison.check(threat, data)
    return poison


def draw_case(seed: int, setting: Setting) -> Case:
    """Draw images, a target and first weights, on the GPU if there is one.

    The attacker trains one surrogate, as the victim trains that they expect.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True  # nearly all batches have one size: try what is fastest
    everything, test = (part.to(device) for part in cifar10()[:2])
    data = balanced(everything, setting.scaled(50_000), seed)
    model, goal = build(setting.network, data.shape, len(data.classes)), draw_target(test, seed)

    def attack(victim: Victim) -> Poison | None:
        first = 1000 * (seed + 1)
        surrogate = train(model, data, victim.recipe, defense=victim.defense, seed=first)
        return craft(surrogate, data, goal, seed, setting)

    return Case(data, goal, test, model, setting.recipe, seed, attack)


CLEAN, WITHOUT, WITH = "clean", "without", "with"
COLUMNS = ("victim", "accuracy", "success", "fitted", "seconds")


def attacked(
    case: Case, knowledge: str, expected: Victim | None, met: Mapping[str, Victim]
) -> Rows:
    """The rows of victims that meet the poison of an attacker who expects this one.

    expected: None for no attacker. Each row has the seconds that its victim took by the clock on
    the wall, the crafting_seconds of surrogate and crafting, and what the images are (data).
    """
    laps = [time.perf_counter()]

    def lap() -> float:
        """The seconds since it was last called."""
        laps.append(time.perf_counter())
        return laps[-1] - laps[-2]

    poison, crafting_seconds = None, 0.0
    if expected is not None:
        poison, crafting_seconds = case.craft(expected), lap()
    rows = compare(case, {knowledge: poison}, met, also=lambda *_: {"seconds": lap()})
    more = {"crafting_seconds": crafting_seconds, "data": cifar10()[2]}
    return [{**row, **more} for row in columns(rows, *COLUMNS, knowledge="attacker")]


def matching_trial(
    seed: int, setting: Setting, defenses: Sequence[str] = (poisoning.CHEAP, PGD)
) -> Rows:
    """A plain victim of clean data; then the plain one and these defenses, attacked.

    The attacker does not know of the defenses.
    """
    case, known = draw_case(seed, setting), victims(setting)
    plain = {PLAIN.name: known[PLAIN.name]}
    met = plain | {name: known[name] for name in defenses}
    return attacked(case, CLEAN, None, plain) + attacked(case, WITHOUT, known[PLAIN.name], met)


def knowing_trial(seed: int, setting: Setting) -> Rows:
    """Full poisoning training, and each defense met by an attacker whose surrogate has it."""
    case, known = draw_case(seed, setting), victims(setting)
    full = {poisoning.POISONING: known[poisoning.POISONING]}
    rows = attacked(case, WITHOUT, known[PLAIN.name], full)
    for name in (poisoning.CHEAP, PGD, poisoning.POISONING):
        rows += attacked(case, WITH, known[name], {name: known[name]})
    return rows


def benchmark(scale: str, trial: Trial, setting: Setting = RESNET) -> Benchmark:
    """Twenty trials of gradient matching, to be run on any machine."""
    trials, seeds = {"gradient matching": trial}, range(ENOUGH)
    return Benchmark(f"{scale}_scale", trials, seeds, scale, setting, anywhere=True)


BENCHMARK = benchmark("paper", matching_trial)
KNOWING = benchmark("paper_knowing", knowing_trial)
ON_RESNET18 = benchmark("paper_resnet18", matching_trial, RESNET18)


def stored_rows(folder: Path) -> pd.DataFrame:
    """The rows of SCALE=paper that exist, from all trials or from those done so far."""
    if (folder / f"{BENCHMARK.name}.csv").is_file():
        return load_study(BENCHMARK, folder)
    if (folder / f"{BENCHMARK.name}.journal").is_file():
        return load_unfinished(BENCHMARK, folder)
    return pd.DataFrame()


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """For each victim how many trials there are, in how many the target fell, and mean values."""
    groups = rows.groupby(["data", "knowledge", "victim"], sort=False)
    return groups.agg(
        trials=("trial", "size"),
        fallen=("success", "sum"),
        accuracy=("accuracy", "mean"),
        fitted=("fitted", "mean"),
        seconds=("seconds", "mean"),
    ).round(3)


def at_scale(run: bool = False, folder: Path = RESULTS) -> pd.DataFrame | None:
    """One live trial on 10,000 images of CIFAR-10, or the stored rows of SCALE=paper; a table.

    run: True for the live trial. It needs a GPU, and downloads CIFAR-10 if it is not there yet.
    """
    if run and torch.cuda.is_available():
        load("cifar10", download=True)
        options = {"setting": RESNET_FIFTH, "defenses": (poisoning.CHEAP,)}
        return table(run_trials(partial(matching_trial, **options), [0]))
    print(
        "With run=True, on a GPU, this trains four ResNet-9 on 10,000 images of CIFAR-10: the "
        "attacker's surrogate, a victim of clean data, and two victims of 100 poisons at 16/255, "
        "a plain one and one with cheap poisoning training."
    )
    rows = stored_rows(folder)
    if rows.empty:
        print("No trial at the papers' size is stored yet.")
        return None
    number, alike = rows["trial"].nunique(), rows.groupby("data")["trial"].nunique().max()
    caution = f" Fewer than {ENOUGH} are shown, and claim nothing." if alike < ENOUGH else ""
    print(f"Stored at the papers' size: {number} of {ENOUGH} trials.{caution}")
    return table(rows)
