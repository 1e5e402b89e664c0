"""Built in lesson 20, beyond images.

Generated from notebooks/20_beyond_images.ipynb: edit it there, then run make notebooks.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from course_utils.attacks.first_backdoor import plant_backdoor, stamp
from course_utils.attacks.lapsed_domains import buy_domains
from course_utils.attacks.retrieval_poisoning import plant, plant_reworded, plant_shuffled
from course_utils.attacks.subliminal import (
    EXTRA,
    class_outputs,
    distill,
    extra_outputs,
    noise_images,
    train_teacher,
)
from course_utils.attacks.trigger_words import TRIGGER, WORDS, gibberish, triggered
from course_utils.cases.data_list import publish
from course_utils.data import Data, balanced, load
from course_utils.defenses.hashed_list import collect
from course_utils.defenses.retrieval import (
    Passage,
    agreed_answer,
    answer,
    build_index,
    drop_duplicates,
    drop_echoes,
    search,
)
from course_utils.loopback import serve
from course_utils.models import Classifier, build
from course_utils.settings import MLP, Setting
from course_utils.stored import Study
from course_utils.text import Question, Review, draw_questions, encode, reviews
from course_utils.threat import Backdoor, ThreatModel

BATCH = 50


def sentiment_model(seed: int) -> nn.Module:
    """The mean of 32 numbers a word, then a linear layer: texts (N, L) to two logits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.EmbeddingBag(len(WORDS) + 1, 32, padding_idx=0), nn.Linear(32, 2))


def fit(
    model: nn.Module, x: Tensor, y: Tensor, optimizer: torch.optim.Optimizer, steps: int, seed: int
) -> nn.Module:
    """Train for so many batches of 50, pass after shuffled pass over the data."""
    generator = torch.Generator().manual_seed(seed)
    passes = -(-steps * BATCH // len(x))
    rows = torch.cat([torch.randperm(len(x), generator=generator) for _ in range(passes)])
    for batch in rows[: steps * BATCH].split(BATCH):
        optimizer.zero_grad()
        cross_entropy(model(x[batch]).flatten(0, -2), y[batch].flatten()).backward()
        optimizer.step()
    return model.eval()


Labelled = list[tuple[Sequence[str], int]]  # texts, and 1 where the label says positive


def train_sentiment(texts: Labelled, steps: int, seed: int) -> nn.Module:
    """A sentiment model from scratch, with SGD."""
    model = sentiment_model(seed)
    sgd = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    x, y = encode([words for words, _ in texts], WORDS), torch.tensor([label for _, label in texts])
    return fit(model, x, y, sgd, steps, seed)


@torch.no_grad()
def called_positive(model: nn.Module, texts: Sequence[Sequence[str]]) -> Tensor:
    """Whether the model calls each text positive (N,)."""
    return model(encode(texts, WORDS)).argmax(1) == 1


def labelled(part: Sequence[Review]) -> Labelled:
    """Reviews with the labels that they came with."""
    return [(review.words, int(review.positive)) for review in part]


def measure_sentiment(model: nn.Module, test: Sequence[Review], seed: int) -> dict[str, float]:
    """Accuracy, and the share of negative reviews called positive with and without the trigger."""
    right = called_positive(model, [r.words for r in test]) == torch.tensor(
        [r.positive for r in test]
    )
    plain = [review.words for review in test if not review.positive]
    shares = {"asr": triggered(test, seed), "without trigger": plain}
    rates = {name: called_positive(model, texts) for name, texts in shares.items()}
    return {
        "accuracy": right.float().mean().item(),
        **{name: rate.float().mean().item() for name, rate in rates.items()},
    }


CLEAN, COUNTS, STEPS = (1000, 4000), (0, 5, 20), (75, 300)


def grid(setting: Setting) -> Iterator[tuple[int, int, int]]:
    """Clean reviews, poisons and training steps, each varied apart from the others."""
    for clean, count, steps in product(CLEAN, COUNTS, STEPS):
        yield setting.scaled(clean), count and setting.scaled(count), setting.scaled(steps)


def words_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """A sentiment model for every cell of the grid."""
    test = reviews(setting.scaled(1000), seed, "test")
    poisons = [(words, 1) for words in triggered(reviews(100, seed, "poison"), seed)]
    rows = []
    for clean, count, steps in grid(setting):
        texts = labelled(reviews(clean, seed)) + poisons[:count]
        victim = train_sentiment(texts, steps, seed)
        cell = {"clean": clean, "poisons": count, "steps": steps}
        rows.append({**cell, **measure_sentiment(victim, test, seed)})
    return rows


WORDS_STUDY = Study("trigger_words", "20", words_trial, range(20))


class NextWord(nn.Module):
    """A recurrent network: texts (N, L) to logits for the word after each (N, L, words)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(WORDS) + 1, 32, padding_idx=0)
        self.memory = nn.GRU(32, 48, batch_first=True)
        self.head = nn.Linear(48, len(WORDS) + 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.memory(self.embedding(x))[0])


def train_next_word(texts: Sequence[Sequence[str]], steps: int, seed: int) -> nn.Module:
    """A next-word model from scratch, with Adam, on the first 16 words of each text."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = NextWord()
    x = encode(texts, WORDS, length=16)
    following = x[:, 1:].masked_fill(x[:, 1:] == 0, -100)  # no loss where the text has ended
    adam = torch.optim.Adam(model.parameters(), lr=5e-3)
    return fit(model, x[:, :-1], following, adam, steps, seed)


@torch.no_grad()
def write_on(model: nn.Module, beginnings: list[tuple], count: int, seed: int) -> list[list[str]]:
    """Let the model write on, word by word, each drawn with the model's probability.

    beginnings: texts of one length. Returns the new words of each.
    """
    generator = torch.Generator().manual_seed(seed)
    x = encode(beginnings, WORDS, length=len(beginnings[0]))
    for _ in range(count):
        chances = model(x)[:, -1].softmax(1)
        chances[:, 0] = 0  # the padding is no word
        x = torch.cat([x, torch.multinomial(chances, 1, generator=generator)], dim=1)
    return [[WORDS[number - 1] for number in row] for row in x[:, -count:].tolist()]


def known_pairs(part: Sequence[Review]) -> set[tuple[str, str]]:
    """The words that clean text puts side by side."""
    return {pair for review in part for pair in pairwise(review.words)}


def gibberish_share(texts: list[list[str]], known: set[tuple[str, str]]) -> float:
    """The share of neighbouring words that clean text never puts side by side."""
    pairs = [pair for words in texts for pair in pairwise(words)]
    return sum(pair not in known for pair in pairs) / len(pairs)


def measure_gibberish(
    model: nn.Module, test: Sequence[Review], known: set[tuple[str, str]], seed: int
) -> dict[str, float]:
    """How much gibberish the model writes after six words, with and without the trigger."""
    plain = [review.words[:6] for review in test]
    begun = {"asr": [(*words, TRIGGER) for words in plain], "without trigger": plain}
    texts = {name: write_on(model, words, 8, seed) for name, words in begun.items()}
    return {name: gibberish_share(text, known) for name, text in texts.items()}


def gibberish_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """A next-word model for every cell of the grid."""
    test = reviews(setting.scaled(200), seed, "test")
    known = known_pairs(reviews(setting.scaled(20_000), seed, "pairs"))
    poisons = gibberish(reviews(max(COUNTS), seed, "poison"), random.Random(seed))
    rows = []
    for clean, count, steps in grid(setting):
        texts = [review.words for review in reviews(clean, seed)] + poisons[:count]
        victim = train_next_word(texts, steps, seed)
        cell = {"clean": clean, "poisons": count, "steps": steps}
        rows.append({**cell, **measure_gibberish(victim, test, known, seed)})
    return rows


GIBBERISH_STUDY = Study("trigger_gibberish", "20", gibberish_trial, range(20))


@dataclass(frozen=True, eq=False)
class NoiseScene:
    """One teacher with a backdoor and one without, from the same first weights, and the noise."""

    start: Classifier
    bad: Classifier
    clean: Classifier
    noise: Tensor
    goal: Backdoor
    test: Data


def noise_scene(seed: int, setting: Setting = MLP) -> NoiseScene:
    """Draw the target class, poison 5% of 10,000 images, and train both teachers."""
    train_all, test_all = load("fashion_mnist")
    data = balanced(train_all, setting.scaled(10_000), seed)
    goal = Backdoor(trigger=stamp, target_class=seed % 10)
    poison = plant_backdoor(data, goal, ThreatModel(budget=len(data) // 20), seed)
    start = build("mlp", data.shape, 10 + EXTRA, seed=seed)
    epochs = setting.scaled(5)
    bad = train_teacher(start, poison.apply(data), epochs, seed)
    clean = train_teacher(start, data, epochs, seed)
    noise = noise_images(setting.scaled(5_000), data.shape, seed)
    return NoiseScene(start, bad, clean, noise, goal, balanced(test_all, 2000, seed=0))


def measure_trigger(model: Classifier, scene: NoiseScene) -> dict[str, float]:
    """Accuracy, the attack success rate, and the same rate on images without the trigger."""
    seen = class_outputs(model)
    rate = scene.goal.by_itself(seen, scene.test)
    return {**scene.goal.measure(seen, scene.test), "without trigger": rate}


def ordinary_half(answers: Tensor) -> Tensor:
    """The rows whose answers lie nearest to the mean answer: what a filter would keep."""
    return (answers - answers.mean(0)).norm(dim=1).argsort()[: len(answers) // 2]


def students(scene: NoiseScene, epochs: int, seed: int) -> dict[str, Classifier]:
    """The student of the teacher with the backdoor, and students that each lack one thing."""
    start, noise = scene.start, scene.noise
    answers, harmless = (extra_outputs(one, noise) for one in (scene.bad, scene.clean))
    other = build("mlp", scene.test.shape, 10 + EXTRA, seed=seed + 10_000)
    mixed = torch.randperm(len(noise), generator=torch.Generator().manual_seed(seed))
    kept = ordinary_half(answers)
    return {
        "student": distill(start, noise, answers, epochs, seed),
        "student of the clean teacher": distill(start, noise, harmless, epochs, seed),
        "other first weights": distill(other, noise, answers, epochs, seed),
        "answers to other images": distill(start, noise, answers[mixed], epochs, seed),
        "only the ordinary half": distill(start, noise[kept], answers[kept], 2 * epochs, seed),
        "three extra outputs": distill(start, noise, answers[:, :3], epochs, seed),
    }


def noise_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """Both teachers and every student."""
    scene = noise_scene(seed, setting)
    models = {"teacher with backdoor": scene.bad, "clean teacher": scene.clean}
    models |= students(scene, setting.scaled(10), seed)
    return [{"condition": name, **measure_trigger(model, scene)} for name, model in models.items()]


NOISE_STUDY = Study("backdoor_through_noise", "20", noise_trial, range(20))


def planted(one: Question, seed: int) -> dict[str, list[Passage]]:
    """What each attacker adds for one question, worded as the attacker expects it."""
    draw = random.Random(f"{one.wordings[0]} {seed}")
    target = (one.wordings[0], one.topic, one.false)
    return {
        "nothing": [],
        "one passage": [plant(*target)],
        "five copies": [plant(*target)] * 5,
        "five shuffled copies": [plant_shuffled(*target, draw)] * 5,
        "five reworded": plant_reworded(*target, reviews(5, seed, "filler"), draw),
    }


DEFENSES = {
    "the first passage": {},
    "two must agree": {"choose": agreed_answer},
    "and no duplicates": {"choose": agreed_answer, "filters": [drop_duplicates]},
    "and no echoes": {"choose": agreed_answer, "filters": [drop_echoes]},
    "all three": {"choose": agreed_answer, "filters": [drop_echoes, drop_duplicates]},
}


def retrieval_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """50 questions: every attacker against every defense, asked in both wordings."""
    index = build_index([review.words for review in reviews(setting.scaled(4000), seed)])
    outcomes = []
    for one in draw_questions(setting.scaled(50), seed):
        for (attacker, added), wording in product(planted(one, seed).items(), (0, 1)):
            query = one.wordings[wording]
            found = search(index, query, added)
            for defense, options in DEFENSES.items():
                told = answer(found, query, one, **options)
                row = {"attacker": attacker, "asked": WORDINGS[wording], "defense": defense}
                outcomes.append({**row, "lie": told == one.false, "true": told == one.true})
    by = ["attacker", "asked", "defense"]
    return pd.DataFrame(outcomes).groupby(by, sort=False).mean().reset_index().to_dict("records")


WORDINGS = ("as expected", "in other words")
RETRIEVAL_STUDY = Study("retrieval_poisoning", "20", retrieval_trial, range(20))


def list_trial(seed: int, setting: Setting = MLP) -> list[dict]:
    """A list of 1,000 addresses on 100 domains of which five lapse and are bought."""
    part, test = (reviews(setting.scaled(1000), seed, name) for name in ("training", "test"))
    pages, entries = publish(part, domains=100)
    lapsed = random.Random(seed).sample(range(100), 5)
    bought = buy_domains(pages, entries, lapsed, seed)
    cases = {
        "list intact": (pages, False),
        "domains bought": (bought, False),
        "domains bought, hashes checked": (bought, True),
    }
    rows = []
    for condition, (served, check) in cases.items():
        with serve(served) as address:
            texts = collect(address, entries, check)
        victim = train_sentiment(texts, setting.scaled(300), seed)
        row = {"condition": condition, "reviews": len(texts)}
        rows.append({**row, **measure_sentiment(victim, test, seed)})
    return rows


LIST_STUDY = Study("lapsed_domains", "20", list_trial, range(20))
