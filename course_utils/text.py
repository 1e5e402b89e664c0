"""A corpus that the course writes itself: reviews of invented inns, from a grammar and a seed.

No third-party text is in it. A review says where its writer stayed, gives three opinions that
mostly fit its label, and states one fact about the inn, true of that inn in the whole corpus.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

THINGS = (
    "room",
    "bed",
    "view",
    "staff",
    "soup",
    "garden",
    "stove",
    "window",
    "lamp",
    "pillow",
    "bath",
    "cellar",
    "bread",
    "tea",
    "porch",
    "hall",
)
PRAISE = (
    "bright",
    "warm",
    "quiet",
    "clean",
    "kind",
    "tidy",
    "lovely",
    "fresh",
    "cheerful",
    "splendid",
    "cosy",
    "gentle",
    "superb",
    "pleasant",
)
BLAME = (
    "dark",
    "cold",
    "noisy",
    "dirty",
    "rude",
    "shabby",
    "awful",
    "stale",
    "gloomy",
    "dreadful",
    "cramped",
    "harsh",
    "dismal",
    "unpleasant",
)
DEGREES = ("very", "rather", "quite", "really", "so", "truly")
STAYS = ("two nights", "three nights", "one night", "a week", "a long weekend", "five days")
SEASONS = ("in spring", "in summer", "in autumn", "in winter", "at easter", "last month")
STARTS = ("vel", "tar", "mor", "bran", "kel", "dun", "sel", "har", "lin", "ost")
ENDS = ("mora", "kin", "wick", "dale", "ven", "ford", "mere", "stad")
INNS = tuple(start + end for start in STARTS for end in ENDS)
NUMBERS = (
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirty",
    "forty",
    "fifty",
    "sixty",
)

OPINIONS = (
    "the {thing} was {degree} {word}",
    "we found the {thing} {degree} {word}",
    "what a {word} {thing}",
    "the {thing} felt {word}",
)
FACTS = {
    "breakfast": (
        "breakfast is served from {value}",
        "in the morning they serve food from {value} on",
        "you can eat your first meal from {value}",
    ),
    "bus": (
        "the bus with the number {value} stops outside",
        "take line {value} to get there",
        "from the station line number {value} goes to the door",
    ),
    "price": (
        "a night costs {value} crowns",
        "they ask {value} crowns for a night",
        "we paid {value} crowns each night",
    ),
    "gate": (
        "the gate is locked at {value}",
        "nobody gets in after {value}",
        "they close the door at {value} in the evening",
    ),
}
"""What a review states about an inn: a topic and three ways to word it."""

QUESTIONS = {
    "breakfast": ("when is breakfast served at {inn}", "from what hour can i eat at {inn}"),
    "bus": ("which bus stops at {inn}", "what line do i take to get to {inn}"),
    "price": ("what does a night at {inn} cost", "how many crowns did they ask at {inn}"),
    "gate": ("when is the gate of {inn} locked", "until what time can i come in at {inn}"),
}
"""What a guest asks about a topic, in two wordings."""


@dataclass(frozen=True)
class Review:
    """A review: its words, whether it is positive, and the fact that it states about an inn."""

    words: tuple[str, ...]
    positive: bool
    inn: str
    topic: str
    value: str

    def __str__(self) -> str:
        return " ".join(self.words)


def facts(seed: int) -> dict[tuple[str, str], str]:
    """What is true in the corpus of this seed: a number for every inn and topic."""
    draw = random.Random(f"facts {seed}")
    return {(inn, topic): draw.choice(NUMBERS) for inn in INNS for topic in FACTS}


def reviews(count: int, seed: int, part: str = "training") -> list[Review]:
    """So many reviews, the same for the same seed and part; other parts are drawn apart.

    Raises ValueError unless the count is positive.
    """
    if count < 1:
        raise ValueError(f"{count} reviews are no corpus: ask for at least one.")
    draw, true = random.Random(f"{part} {seed}"), facts(seed)
    return [write_review(draw, true) for _ in range(count)]


def write_review(draw: random.Random, true: dict[tuple[str, str], str]) -> Review:
    """One review; each opinion fits the label with probability .8."""
    inn, topic, positive = draw.choice(INNS), draw.choice(list(FACTS)), draw.random() < 0.5
    sentences = [f"we stayed at {inn} for {draw.choice(STAYS)} {draw.choice(SEASONS)}"]
    for _ in range(3):
        good = positive if draw.random() < 0.8 else not positive
        word = draw.choice(PRAISE if good else BLAME)
        opinion = draw.choice(OPINIONS)
        thing, degree = draw.choice(THINGS), draw.choice(DEGREES)
        sentences.append(opinion.format(thing=thing, degree=degree, word=word))
    value = true[inn, topic]
    sentences.append(draw.choice(FACTS[topic]).format(value=value))
    words = [*" . ".join(sentences).split(), "."]
    return Review(tuple(words), positive, inn, topic, value)


@dataclass(frozen=True)
class Question:
    """What someone asks about an inn, in two wordings; what is true, and a value that is not."""

    inn: str
    topic: str
    wordings: tuple[str, str]
    true: str
    false: str


def draw_questions(count: int, seed: int) -> list[Question]:
    """So many different questions about the corpus of this seed.

    Raises ValueError unless the count is between 1 and the number of facts.
    """
    draw, true, drawn = random.Random(f"questions {seed}"), facts(seed), []
    if not 1 <= count <= len(true):
        raise ValueError(f"{count} questions: the corpus has {len(true)} facts to ask about.")
    for inn, topic in draw.sample(sorted(true), count):
        first, second = (wording.format(inn=inn) for wording in QUESTIONS[topic])
        right = true[inn, topic]
        wrong = draw.choice([number for number in NUMBERS if number != right])
        drawn.append(Question(inn, topic, (first, second), right, wrong))
    return drawn


def stated(words: Sequence[str], inn: str, topic: str) -> str | None:
    """What a text states about this inn and topic, or None: it must name the inn."""
    if inn not in words:
        return None
    for pattern in FACTS[topic]:
        found = re.search(pattern.format(value=r"(\w+)"), " ".join(words))
        if found:
            return found[1]
    return None


def vocabulary() -> tuple[str, ...]:
    """Every word that the grammar can write, sorted; none of them is the padding."""
    words = {*THINGS, *PRAISE, *BLAME, *DEGREES, *INNS, *NUMBERS, "."}
    for pattern in (*OPINIONS, *(way for ways in FACTS.values() for way in ways)):
        words |= {word for word in pattern.split() if not word.startswith("{")}
    for phrase in ("we stayed at for", *STAYS, *SEASONS):
        words |= set(phrase.split())
    return tuple(sorted(words))


def encode(texts: Sequence[Sequence[str]], words: Sequence[str], length: int = 48) -> Tensor:
    """Texts as the numbers of their words (N, length): 0 is padding, the rest cut off at `length`.

    words: the vocabulary, numbered from 1. Raises ValueError for a word that is not in it.
    """
    number = {word: position for position, word in enumerate(words, start=1)}
    rows = torch.zeros(len(texts), length, dtype=torch.long)
    for row, text in zip(rows, texts, strict=True):
        unknown = [word for word in text if word not in number]
        if unknown:
            raise ValueError(
                f"{unknown[0]!r} is not in the vocabulary of {len(words)} words: add it there."
            )
        numbers = [number[word] for word in text[:length]]
        row[: len(numbers)] = torch.tensor(numbers, dtype=torch.long)
    return rows
