"""Build a set of cases for lesson 21: python -m tools.build_incident --seed SEED.

It needs the original Fashion-MNIST files: the images are those that data/fashion_mnist.npz does not
hold, under one mild change for the whole set, so that a comparison with the course's file shows
nothing. Every image carries the grain of a cheap camera, so that poisons are not the only images
with noise; the grain of poisons made for one target agrees, which the lesson shows. About 10
minutes on one core; a second call goes on where the first one stopped. The seed decides everything,
so whoever grades keeps it; without --seed it is drawn, and only the name of the folder tells it.

    incident_sets/SEED/cases    for the learners: manifest.json and one file a case
    incident_sets/SEED/key      for the instructor alone: the answers
"""

import argparse
import hashlib
import io
import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from course_utils import data as course_data
from course_utils import open_cases
from course_utils.attacks.feature_collision import bullseye_loss
from course_utils.attacks.gradient_matching import staggered
from course_utils.attacks.label_flipping import random_flips, targeted_flips
from course_utils.attacks.patch_backdoors import badnets, clean_label_patch
from course_utils.cases import backdoors, from_scratch, hidden_triggers, transfer
from course_utils.cases.goals import draw_classes
from course_utils.checks.judge import mean, measure
from course_utils.data import Data
from course_utils.models import Classifier, build, predict
from course_utils.settings import MLP
from course_utils.threat import Backdoor, Indiscriminate, Poison, ThreatModel
from course_utils.training import Recipe, train
from tools.lessons import ROOT

PER_CLASS = 200  # 2,000 training images a case
TRUSTED_PER_CLASS = 20
JUDGE_PER_CLASS = 100
FEATURES_PER_CLASS = 300
SEEDS = 12
ORACLES, FEW, TRIES = 4, 2, 12
ODD = 0.05
# Without weight decay, so that a victim learns wrong labels by heart.
RECIPE = Recipe(epochs=20, batch_size=100, lr=0.1, weight_decay=0.0)
SETTING = replace(MLP, recipe=RECIPE)
GRAIN = EPSILON = 32 / 255  # poisons change no pixel more than the grain changes all images
SHAPE, CLASSES = (1, 28, 28), len(course_data.FASHION_CLASSES)

QUIET = (
    "A shop bought {n:,} labelled photos from a supplier it had never worked with. Nobody has "
    "complained. Before the model goes live, the owner wants to know whether the data can be "
    "trusted.",
    "Volunteers labelled {n:,} photos over a weekend, and anyone could join. The team has no "
    "complaint, only a feeling that the model is weaker than it should be. They kept a few photos "
    "that they had labelled themselves.",
    "An engineer left in anger, and these {n:,} photos are the last thing that they put together. "
    "The model does its work, as far as anyone can tell. A colleague asks you to look before it is "
    "trained again.",
    "A school wants to publish {n:,} photos that its pupils collected. A teacher has read about "
    "poisoned data and cannot sleep. There is no other sign that anything is wrong.",
    "The storage of a small company stood open for a week. It held {n:,} labelled photos, and the "
    "log of that week is gone. They ask what was done to the photos, if anything.",
)
LISTED = (
    "A research group publishes no photos, but a list of {n:,} addresses with labels; these photos "
    "were fetched from it last month. For a part of the list somebody noted the hash of each photo "
    "when it was made. Some domains have changed hands since, and some photos were saved anew.",
    "An archive lists {n:,} photos by address and label, and everybody fetches their own copy. "
    "Half of the entries came with a hash; the rest never had one. The group that trained on this "
    "copy would like to know what it has trained on.",
)
COMPLAINT = (
    "A customer complains: the photo of their {true} comes back as {said}. The model is trained "
    "anew each week, on {n:,} photos that users sent in. Support says that it is surely a "
    "coincidence.",
    "One photo of {true}, in front of everybody, and the demonstration says {said}. The {n:,} "
    "training photos came from three suppliers. The team wants to know whether it was bad luck.",
    "A competitor's {true} is filed under {said}, and their lawyer calls. The model learns from "
    "{n:,} photos that anyone can upload. Your task is to find out whether somebody meant it.",
)
MARKED = (
    "Twelve photos with the same odd mark were filed under {said}, and none of them shows one. "
    "The {n:,} training photos came from the web. Nobody knows who makes the mark.",
    "A reader of the log noticed photos with a mark, all filed under {said}. They were sent in by "
    "one account, which is closed by now. The model had been trained on {n:,} photos from users.",
)


@dataclass(frozen=True, eq=False)
class Draft:
    """A case before it is measured: what the learner gets, and what the scorer knows.

    goals: as `checks.judge.harms` reads them. asked: the images of the question, with the classes
    that it asks for. secret: arrays of the answers (target, mask, pattern).
    """

    families: tuple[str, ...]
    clean: Data
    poisons: tuple[Poison, ...]
    goals: tuple[dict, ...]
    story: str
    question: str
    asked: Data
    secret: dict[str, np.ndarray]
    trusted: Data | None = None
    extractor: Classifier | None = None
    domains: tuple[np.ndarray, np.ndarray] | None = None
    recipe: Recipe = RECIPE

    @property
    def data(self) -> Data:
        """The training data as the learner gets them."""
        seen = self.clean
        for poison in self.poisons:
            seen = poison.apply(seen)
        return rounded(seen)

    @property
    def rows(self) -> Tensor:
        """The rows that are poison."""
        empty = [torch.zeros(0, dtype=torch.int64)]
        return torch.cat([poison.base for poison in self.poisons] + empty).unique()


def rounded(data: Data) -> Data:
    """The same images in 256 grey levels."""
    return Data((data.x * 255).round() / 255, data.y, data.classes)


def grey(x: Tensor) -> np.ndarray:
    """Images (N, 1, 28, 28) as grey levels (N, 28, 28), uint8."""
    return (x[:, 0] * 255).round().byte().numpy()


@dataclass(frozen=True, eq=False)
class Pool:
    """Images that the course's own file does not hold, changed. Each is given out once.

    x: (N, 28, 28), y: (N,), uint8. queues: for each class the rows that are left.
    """

    x: np.ndarray
    y: np.ndarray
    queues: dict[int, list[int]]

    def take(self, per_class: int, rng: np.random.Generator) -> Data:
        """So many images of each class, in random order, without grain."""
        rows = [self.queues[k].pop() for k in range(CLASSES) for _ in range(per_class)]
        rows = rng.permutation(rows)
        return open_cases.images(self.x[rows], self.y[rows])

    def share(self, number: int, of: int) -> "Pool":
        """The images of one case out of so many."""
        return replace(self, queues={k: rows[number::of] for k, rows in self.queues.items()})


def grained(data: Data, rng: np.random.Generator) -> Data:
    """The images with a grain: each pixel GRAIN brighter or darker, by the flip of a coin."""
    signs = torch.tensor(rng.integers(0, 2, data.x.shape) * 2 - 1, dtype=torch.float32)
    return Data((data.x + GRAIN * signs).clamp(0, 1), data.y, data.classes)


def as_grain(poison: Poison, plain: Data) -> Poison:
    """The same poison, each pixel GRAIN away from the plain base image, like all other images."""
    base = plain.x[poison.base]
    darker = (poison.images < base) | ((base == 0) & (poison.images < GRAIN / 2))
    images = (base + torch.where(darker, -GRAIN, GRAIN)).clamp(0, 1)
    return replace(poison, images=images)


def open_pool(originals: Path, rng: np.random.Generator) -> Pool:
    """All images that may be used, in random order, under the change of this set."""
    x, y = unused(originals)
    order = rng.permutation(len(x))
    x, y = mild_change(x, rng)[order], y[order]
    return Pool(x, y, {k: np.flatnonzero(y == k).tolist() for k in range(CLASSES)})


def unused(originals: Path) -> tuple[np.ndarray, np.ndarray]:
    """The images (N, 28, 28) and labels (N,) that data/fashion_mnist.npz does not hold."""
    with np.load(course_data.FOLDER / "fashion_mnist.npz", allow_pickle=False) as own:
        taken = {"train": own["index_train"], "t10k": own["index_test"]}
    parts = []
    for part, rows in taken.items():
        x = course_data.read_idx(originals, f"{part}-images-idx3-ubyte")
        y = course_data.read_idx(originals, f"{part}-labels-idx1-ubyte")
        parts.append((np.delete(x, rows, 0), np.delete(y, rows)))
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def mild_change(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One brightness curve, one shift by a pixel and one flip or not, the same for all images."""
    gamma = rng.uniform(0.75, 0.9) if rng.random() < 0.5 else rng.uniform(1.1, 1.3)
    curve = (255 * (np.arange(256) / 255) ** gamma).round().astype(np.uint8)
    axis, step = rng.integers(1, 3), rng.choice([-1, 1])
    x = np.roll(curve[x], step, axis)
    np.moveaxis(x, axis, 0)[0 if step == 1 else -1] = 0
    return x[:, :, ::-1].copy() if rng.random() < 0.5 else x


@dataclass(frozen=True, eq=False)
class Desk:
    """What a case is made from: images of its own, random numbers, and what features learn from."""

    pool: Pool
    rng: np.random.Generator
    features: Data

    def seed(self) -> int:
        """A fresh seed."""
        return int(self.rng.integers(2**31))

    def photos(self, per_class: int = PER_CLASS) -> Data:
        """So many images of each class, with their grain; by default the data of a case."""
        return grained(self.pool.take(per_class, self.rng), self.rng)

    def story(self, texts: tuple[str, ...], **names: str) -> str:
        """One of the stories of a kind."""
        return texts[self.rng.integers(len(texts))].format(n=PER_CLASS * CLASSES, **names)


def quiet(desk: Desk, families: tuple[str, ...], clean: Data, **parts) -> Draft:
    """A case of which nothing is known, with trusted images and a question about accuracy."""
    trusted = desk.photos(TRUSTED_PER_CLASS)
    parts = {"poisons": (), "goals": (), "secret": {}, "story": desk.story(QUIET)} | parts
    return Draft(families, clean, question="accuracy", asked=trusted, trusted=trusted, **parts)


def nothing_done(desk: Desk) -> Draft:
    """Clean data, from a list of which some photos were saved anew."""
    clean = desk.photos()
    return listed(desk, quiet(desk, (), clean), bought=0)


def flips_of(desk: Desk, data: Data, share: float) -> Poison:
    """Random flips of a share of the labels."""
    threat = ThreatModel(round(share * len(data)))
    return random_flips(data, Indiscriminate(), threat, desk.seed())


def flipped(desk: Desk) -> Draft:
    """Random label flips."""
    clean = desk.photos()
    poison = flips_of(desk, clean, 0.3)
    goals = ({"kind": "accuracy"},)
    return quiet(desk, ("random flips",), clean, poisons=(poison,), goals=goals)


def draw_patch(desk: Desk) -> tuple[Callable[[Tensor], Tensor], dict[str, np.ndarray]]:
    """A trigger of lesson 07, and its mask and pattern (28, 28) as grey levels."""
    trigger = backdoors.draw_trigger(int(desk.rng.integers(4, 6)), desk.seed())
    return trigger, mask_and_pattern(trigger)


def mask_and_pattern(trigger: Callable[[Tensor], Tensor]) -> dict[str, np.ndarray]:
    """Where a pasted trigger covers an image, and with what."""
    black, white = trigger(torch.zeros(1, *SHAPE)), trigger(torch.ones(1, *SHAPE))
    return {"mask": grey((black == white).float())[0], "pattern": grey(black)[0]}


def backdoored(desk: Desk, data: Data, share: float) -> tuple[Poison, dict, dict]:
    """BadNets for all classes: poison, goal and secret."""
    trigger, secret = draw_patch(desk)
    target = int(desk.rng.integers(CLASSES))
    threat = ThreatModel(round(share * len(data)))
    poison = badnets(data, Backdoor(trigger, target), threat, desk.seed())
    return poison, {"kind": "backdoor", "source": None, "target": target}, secret


def badnets_case(desk: Desk) -> Draft:
    """BadNets, of which nobody has heard."""
    clean = desk.photos()
    poison, goal, secret = backdoored(desk, clean, 0.02)
    return quiet(desk, ("BadNets",), clean, poisons=(poison,), goals=(goal,), secret=secret)


def combined(desk: Desk) -> Draft:
    """Random flips, and BadNets among what is left."""
    clean = desk.photos()
    flips = flips_of(desk, clean, 0.25)
    left = torch.ones_like(clean.y, dtype=torch.bool)
    left[flips.base] = False
    rows = left.nonzero()[:, 0]
    poison, goal, secret = backdoored(desk, clean[rows], 0.025)
    poison = replace(poison, base=rows[poison.base])
    goals, families = ({"kind": "accuracy"}, goal), ("random flips", "BadNets")
    return quiet(desk, families, clean, poisons=(flips, poison), goals=goals, secret=secret)


def lapsed(desk: Desk) -> Draft:
    """Domains that were bought: what they serve under one label carries a trigger."""
    families = ("lapsed domains", "BadNets")
    return listed(desk, quiet(desk, families, desk.photos()), bought=6)


DOMAINS, SAVED = 40, 40


def listed(desk: Desk, draft: Draft, bought: int) -> Draft:
    """The same case with a list of domains, hashes for half of it, and some photos saved anew."""
    clean, rng = draft.clean, desk.rng
    domain = rng.integers(DOMAINS, size=len(clean))
    names = np.array([f"domain-{number:02d}.example" for number in rng.permutation(DOMAINS)])
    promised = np.array([hashlib.sha256(image.tobytes()).hexdigest() for image in grey(clean.x)])
    promised[rng.random(len(clean)) < 0.5] = ""
    saved, x = torch.tensor(rng.choice(len(clean), SAVED, replace=False)), clean.x.clone()
    x[saved] = (x[saved] - 1 / 255).clamp(min=0)
    found = {"clean": Data(x, clean.y, clean.classes), "domains": (names[domain], promised)}
    if bought:
        lost = torch.tensor(np.isin(domain, rng.choice(DOMAINS, bought, replace=False)))
        found |= served(desk, clean, lost)
    return replace(draft, story=desk.story(LISTED), **found)


def served(desk: Desk, clean: Data, lost: Tensor) -> dict:
    """What bought domains serve: where the list has the target class, other photos with a trigger.

    lost: the entries of these domains, a mask (N,).
    """
    trigger, secret = draw_patch(desk)
    target = int(desk.rng.integers(CLASSES))
    rows = (lost & (clean.y == target)).nonzero()[:, 0]
    stock = desk.photos(20)
    stock = stock[stock.y != target][: len(rows)]
    poison = Poison(trigger(stock.x), clean.y[rows], rows)
    goal = {"kind": "backdoor", "source": None, "target": target}
    return {"poisons": (poison,), "goals": (goal,), "secret": secret}


def complaint(desk: Desk, image: Tensor, true: int, said: int) -> dict:
    """The parts of a case that begins with one image."""
    names = course_data.FASHION_CLASSES
    asked = Data(image[None], torch.tensor([said]), names)
    story = desk.story(COMPLAINT, true=names[true], said=names[said])
    return {"story": story, "question": "rate", "asked": rounded(asked)}


def targeted_flips_case(desk: Desk) -> Draft:
    """A part of one class carries the label of a neighbour; a customer of this class complains."""
    clean, spare = desk.photos(), desk.photos(20)
    source, into = draw_classes(clean.classes, desk.seed())
    threat = ThreatModel(round(0.45 * PER_CLASS))
    poison = targeted_flips(clean, Indiscriminate(), threat, desk.seed(), source, into)
    models = plain_victims(desk, poison.apply(clean), 3)
    (honest,) = plain_victims(desk, clean, 1)
    votes = torch.stack([predict(model, spare.x) == into for model in models]).float().mean(0)
    votes[(spare.y != source) | (predict(honest, spare.x) != source)] = -1
    image = spare.x[votes.argmax()]
    goals = ({"kind": "class", "source": source, "into": into},)
    parts = complaint(desk, image, source, into)
    return Draft(("targeted flips",), clean, (poison,), goals, secret={}, **parts)


def fresh(network: str = SETTING.network) -> Classifier:
    """A model of the course for these images."""
    return build(network, SHAPE, CLASSES)


def matched(desk: Desk) -> Draft | None:
    """Gradient matching on one image of a complaint."""
    plain, spare = desk.pool.take(PER_CLASS, desk.rng), desk.photos(20)
    clean, seed, ages = grained(plain, desk.rng), desk.seed(), from_scratch.ages(RECIPE)
    surrogates = staggered(fresh(), clean, RECIPE, seed, range(2), ages)
    scene = from_scratch.Scene(plain, spare, fresh(), surrogates, seed, SETTING)
    case = from_scratch.matching(seed, SETTING, scene=scene, budget=100, epsilon=EPSILON)
    if case.oblivious is None:
        return None
    poison = as_grain(case.oblivious, plain)
    return on_target(desk, "gradient matching", clean, poison, case.goal)


def on_target(desk: Desk, family: str, clean: Data, poison: Poison, goal, **parts) -> Draft:
    """A case with a target."""
    goals = ({"kind": "target", "adversarial": goal.adversarial_class},)
    told = complaint(desk, goal.image, goal.true_class, goal.adversarial_class)
    secret = {"target": grey(goal.image[None])[0]}
    return Draft((family,), clean, (poison,), goals, secret=secret, **told, **parts)


def features(desk: Desk) -> Classifier:
    """A model whose features a shop bought; its weights in half precision, as they are stored."""
    model = train(fresh(), desk.features, transfer.EXTRACTOR, seed=desk.seed())
    return model.half().float()


def collided(desk: Desk) -> Draft | None:
    """Bullseye Polytope against a head on features that everybody has."""
    plain, spare = desk.pool.take(PER_CLASS, desk.rng), desk.photos(20)
    clean, extractor, seed = grained(plain, desk.rng), features(desk), desk.seed()
    head = train(extractor, clean, transfer.HEAD, scenario="transfer", seed=desk.seed())
    goal = transfer.draw_goal([extractor, head], spare, seed)
    draw = transfer.Transfer(extractor, plain, spare, goal, spare)
    poison = transfer.collide(extractor, draw, seed, bullseye_loss, budget=16)
    if poison is None:
        return None
    parts = {"extractor": extractor, "recipe": transfer.HEAD}
    return on_target(desk, "Bullseye Polytope", clean, as_grain(poison, plain), goal, **parts)


def nothing_stored(desk: Desk) -> Draft:
    """Clean data of which nothing is known."""
    return quiet(desk, (), desk.photos())


def honest_mistake(desk: Desk) -> Draft:
    """Clean data, a head on frozen features, and one photo that it gets wrong all by itself."""
    clean, spare = desk.photos(), desk.photos(20)
    parts = {"extractor": features(desk), "recipe": transfer.HEAD}
    victims = plain_victims(desk, clean, 5, parts["extractor"], transfer.HEAD, scenario="transfer")
    return unlucky(desk, clean, spare, victims, **parts)


def hard_photo(desk: Desk) -> Draft:
    """Clean data, and one photo that victims from scratch get wrong all by themselves."""
    clean, spare = desk.photos(), desk.photos(20)
    return unlucky(desk, clean, spare, plain_victims(desk, clean, 5))


def plain_victims(
    desk: Desk,
    data: Data,
    count: int,
    model: Classifier | None = None,
    recipe: Recipe = RECIPE,
    **options,
) -> list[Classifier]:
    """So many victims that nobody defends."""
    model = fresh() if model is None else model
    return [train(model, data, recipe, seed=desk.seed(), **options) for _ in range(count)]


def unlucky(desk: Desk, clean: Data, spare: Data, victims: list[Classifier], **parts) -> Draft:
    """A clean case with a complaint: the photo whose mistake most of these victims share."""
    answers = torch.stack([predict(victim, spare.x) for victim in victims])
    said = answers.mode(0).values
    share = (answers == said).float().mean(0)
    share[said == spare.y] = -1
    row = int((share + 0.001 * torch.tensor(desk.rng.random(len(share)))).argmax())
    told = complaint(desk, spare.x[row], int(spare.y[row]), int(said[row]))
    return Draft((), clean, (), (), secret={}, **told, **parts)


def odd_mark(desk: Desk) -> Draft | None:
    """Clean data, and photos with a large mark that nobody planted: it covers what they show."""
    clean, spare = desk.photos(), desk.photos(40)
    x = backdoors.draw_trigger(8, desk.seed())(spare.x)
    answers = torch.stack([predict(victim, x) for victim in plain_victims(desk, clean, 3)])
    said = answers.mode(0).values
    alike = (answers == said).all(0) & (said != spare.y)
    target = said[alike].mode().values.item()
    rows = (alike & (said == target)).nonzero()[:12, 0]
    if len(rows) < 12:
        return None
    return Draft((), clean, (), (), secret={}, **mark_seen(desk, x[rows], target))


def mark_seen(desk: Desk, x: Tensor, target: int) -> dict:
    """The parts of a case that begins with photos of a mark, filed under one class."""
    names = course_data.FASHION_CLASSES
    asked = Data(x, torch.full((len(x),), target), names)
    story = desk.story(MARKED, said=names[target])
    return {"story": story, "question": "rate", "asked": rounded(asked)}


def marked(desk: Desk, family: str, clean: Data, poison: Poison, goal: Backdoor, secret) -> Draft:
    """A case with a handful of photos that carry the trigger."""
    spare = desk.photos(12)
    wanted = spare.y != goal.target_class
    if goal.source_class is not None:
        wanted = spare.y == goal.source_class
    told = mark_seen(desk, goal.trigger(spare.x[wanted][:12]), goal.target_class)
    goals = ({"kind": "backdoor", "source": goal.source_class, "target": goal.target_class},)
    return Draft((family,), clean, (poison,), goals, secret=secret, **told)


def patched(desk: Desk) -> Draft:
    """The clean-label patch."""
    clean = desk.photos()
    trigger = backdoors.draw_trigger(8, desk.seed())
    goal = Backdoor(trigger, int(desk.rng.integers(CLASSES)))
    threat = ThreatModel(120, clean_label=True)
    poison = clean_label_patch(clean, goal, threat, desk.seed())
    return marked(desk, "clean-label patch", clean, poison, goal, mask_and_pattern(trigger))


def slept(desk: Desk) -> Draft:
    """Sleeper Agent: the poisons do not show the mark."""
    plain, seed = desk.pool.take(PER_CLASS, desk.rng), desk.seed()
    clean = grained(plain, desk.rng)
    surrogates = hidden_triggers.train_surrogates(clean, seed, 2, SETTING)
    goal = hidden_triggers.draw_backdoor(clean.classes, seed)
    threat = ThreatModel(80, EPSILON, clean_label=True)
    draw = hidden_triggers.Draw(surrogates, plain, plain)
    poison = hidden_triggers.sleeper_on(draw, goal, threat, seed, SETTING).oblivious
    secret = mask_and_pattern(goal.trigger)
    return marked(desk, "Sleeper Agent", clean, as_grain(poison, plain), goal, secret)


Maker = Callable[[Desk], Draft | None]
PRACTICE: dict[str, Maker] = {"practice-1": flipped, "practice-2": matched}
POISONED: tuple[Maker, ...] = (
    flipped,
    targeted_flips_case,
    badnets_case,
    patched,
    matched,
    collided,
    slept,
    combined,
    lapsed,
)
# Two of them are in each set, so that no kind of story is a verdict.
CLEAN: tuple[Maker, ...] = (nothing_done, nothing_stored, honest_mistake, hard_photo, odd_mark)
# Of what an attack must do to be a case: harm with the poison, minus harm without.
LEAST = {"accuracy": 0.025, "class": 0.25, "target": 0.6, "backdoor": 0.5}


Measured = tuple[list[dict], list[dict]]


def measured(draft: Draft, judge: Data, plain: list[int], oracle: list[int]) -> Measured:
    """What is measured of victims on the data as they come, and on those without the poisons.

    plain, oracle: the seeds of the trainings of both; one row for each. Where there is no poison
    the two are the same victims.
    """
    case = opened(draft, "draft")
    secret = {f"draft/{name}": values for name, values in draft.secret.items()}
    answers = open_cases.Answers({"draft": {"goals": draft.goals}}, secret, judge)

    def rows(data: Data, seeds: list[int]) -> list[dict]:
        return [measure(case.train(data, seed=s), case, answers) for s in seeds]

    nothing, left = rows(case.data, plain), draft.rows.tolist()
    if not left and plain[: len(oracle)] == oracle:
        return nothing, nothing[: len(oracle)]
    return nothing, rows(open_cases.without(case.data, left), oracle)


def opened(draft: Draft, name: str) -> open_cases.OpenCase:
    """A draft as a learner would see it."""
    scenario = "scratch" if draft.extractor is None else "transfer"
    model = fresh() if draft.extractor is None else draft.extractor
    given = (name, draft.story, draft.data, model, draft.recipe, draft.question, draft.asked)
    return open_cases.OpenCase(*given, scenario, draft.trusted, draft.extractor)


def is_a_case(draft: Draft, nothing: list[dict], oracle: list[dict]) -> bool:
    """Whether each attack of a draft does enough harm, and the oracle undoes it.

    And whether the images asked about are a fair sample: of an odd one no honest interval is right.
    """
    if abs(mean(nothing, "sample") - mean(nothing, "asked")) > ODD:
        return False
    if not draft.goals:
        return draft.question == "accuracy" or mean(nothing, "asked") >= 0.8
    for k, goal in enumerate(draft.goals):
        gap = [np.mean([row["harms"][k] for row in rows]) for rows in (nothing, oracle)]
        if gap[0] - gap[1] < LEAST[goal["kind"]]:
            return False
    return True


def draw_case(
    maker: Maker, desk: Desk, judge: Data, seeds: list[int]
) -> tuple[Draft, list[dict], list[dict]]:
    """A draft that is a case, with its measurements. Raises RuntimeError where none is found."""
    for _ in range(TRIES):
        draft = maker(replace(desk, pool=desk.pool.share(0, 1)))
        few = draft and measured(draft, judge, seeds[:FEW], seeds[:FEW])
        if few and is_a_case(draft, *few):
            more = measured(draft, judge, seeds[FEW:], seeds[FEW:ORACLES])
            rows = [first + then for first, then in zip(few, more, strict=True)]
            if is_a_case(draft, *rows):
                return draft, *rows
    raise RuntimeError(f"{maker.__name__} gave no case in {TRIES} tries: use another seed.")


def files_of(draft: Draft) -> dict[str, np.ndarray]:
    """The arrays of a case's file."""
    data = draft.data
    arrays = {"x": grey(data.x), "y": data.y.byte().numpy()}
    for name, part in (("asked", draft.asked), ("trusted", draft.trusted)):
        if part is not None:
            arrays |= {f"{name}_x": grey(part.x), f"{name}_y": part.y.byte().numpy()}
    if draft.extractor is not None:
        weights = draft.extractor.state_dict().items()
        arrays |= {f"weight:{name}": values.half().numpy() for name, values in weights}
    if draft.domains is not None:
        arrays |= dict(zip(("domains", "promised"), draft.domains, strict=True))
    return arrays


def entry_of(draft: Draft, practice: bool) -> dict:
    """What the manifest says of a case."""
    return {
        "practice": practice,
        "story": draft.story,
        "question": draft.question,
        "scenario": "scratch" if draft.extractor is None else "transfer",
        "network": SETTING.network,
        "recipe": asdict(draft.recipe),
    }


def packed(arrays: dict[str, np.ndarray]) -> bytes:
    """The bytes of a compressed npz file."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def plan(seed: int) -> dict[str, Maker]:
    """The cases of a set by name; those that count come in an order of this seed's own."""
    rng = np.random.default_rng([seed, 0])
    counted = [*POISONED, *(CLEAN[k] for k in rng.choice(len(CLEAN), 2, replace=False))]
    order = rng.permutation(len(counted))
    return PRACTICE | {f"case-{n:02d}": counted[k] for n, k in enumerate(order, start=1)}


def build_set(seed: int, originals: Path, folder: Path, key: Path, only: str = "") -> None:
    """Build a set into `folder`, its answers into `key`; cases that are there are kept.

    only: build those cases alone whose name begins so; then nothing is finished.
    """
    rng = np.random.default_rng([seed, 1])
    pool = open_pool(originals, rng)
    judge, seen = (grained(pool.take(n, rng), rng) for n in (JUDGE_PER_CLASS, FEATURES_PER_CLASS))
    work = key.parent / ".work"
    work.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    cases = plan(seed)
    for number, (name, maker) in enumerate(cases.items()):
        if (work / f"{name}.json").exists() or not name.startswith(only):
            continue
        share = pool.share(number, len(cases))
        desk = Desk(share, np.random.default_rng([seed, 2, number]), seen)
        seeds = [desk.seed() for _ in range(SEEDS)]
        store(name, *draw_case(maker, desk, judge, seeds), seeds, folder, work)
        print(f"{name} is built", flush=True)
    if not only:
        finish(list(cases), judge, folder, work, key)


def store(
    name: str,
    draft: Draft,
    nothing: list[dict],
    oracle: list[dict],
    seeds: list[int],
    folder: Path,
    work: Path,
) -> None:
    """Write one case, and what the scorer will know of it."""
    content = packed(files_of(draft))
    (folder / f"{name}.npz").write_bytes(content)
    secret = {f"{name}/{key}": values for key, values in draft.secret.items()}
    secret[f"{name}/poison"] = draft.rows.numpy()
    (work / f"{name}.npz").write_bytes(packed(secret))
    entry = entry_of(draft, name in PRACTICE) | {
        "file": f"{name}.npz",
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    truth = {"families": draft.families, "goals": draft.goals, "seeds": seeds}
    truth |= {"nothing": nothing, "oracle": oracle}
    (work / f"{name}.json").write_text(json.dumps([entry, truth]), encoding="utf-8")


def finish(names: list[str], judge: Data, folder: Path, work: Path, key: Path) -> None:
    """Write the answers and the manifest."""
    entries, truths, arrays = {}, {}, {"judge_x": grey(judge.x), "judge_y": judge.y.byte().numpy()}
    for name in names:
        entries[name], truths[name] = json.loads((work / f"{name}.json").read_text("utf-8"))
        arrays |= open_cases.unpack((work / f"{name}.npz").read_bytes())
    content = open_cases.pack_answers(truths, arrays)
    key.parent.mkdir(parents=True, exist_ok=True)
    key.write_bytes(content)
    manifest = {"answers": hashlib.sha256(content).hexdigest(), "cases": entries}
    text = json.dumps(manifest, indent=1) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    size = sum(path.stat().st_size for path in [*folder.iterdir(), key])
    print(f"{len(names)} cases, {size / 1e6:.1f} MB; the answers are in {key}")


def main(arguments: list[str] | None = None) -> None:
    """Build a set."""
    parser = argparse.ArgumentParser(description="Build a set of cases for lesson 21.")
    parser.add_argument("--seed", type=int, help="decides everything; drawn if it is not given")
    parser.add_argument("--originals", type=Path, help="folder with the four original files")
    given = parser.parse_args(arguments)
    seed = secrets.randbelow(2**31) if given.seed is None else given.seed
    originals = given.originals
    if originals is None:
        course_data.load("fashion_mnist_full", download=True)
        originals = course_data.DOWNLOADS
    place = ROOT / "incident_sets" / str(seed)
    build_set(seed, originals, place / "cases", place / "key" / open_cases.ANSWERS)


if __name__ == "__main__":
    main()
