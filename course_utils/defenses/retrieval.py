"""Built in lesson 20, beyond images.

Generated from notebooks/20_beyond_images.ipynb: edit it there, then run make notebooks.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_matrix, vstack
from sklearn.feature_extraction.text import TfidfVectorizer

from course_utils.text import Question, stated

Passage = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Index:
    """Passages as rows of a table, one column a word: the rarer a word, the more it counts."""

    passages: Sequence[Passage]
    words: TfidfVectorizer
    table: csr_matrix


def build_index(passages: Sequence[Passage]) -> Index:
    """An index by TF-IDF (scikit-learn). Raises ValueError if there is no passage."""
    if not passages:
        raise ValueError("There is nothing to search: give at least one passage.")
    words = TfidfVectorizer(sublinear_tf=True, analyzer=str.split)
    return Index(passages, words, words.fit_transform(" ".join(words) for words in passages))


def search(index: Index, query: str, added: Sequence[Passage] = (), top: int = 10) -> list[Passage]:
    """The passages most alike to a query, by the cosine of their rows, the best one first.

    added: passages that came after the index was built; the weights of the words stay.
    """
    rows = index.words.transform([query, *(" ".join(words) for words in added)])
    scores = (vstack([index.table, rows[1:]]) @ rows[0].T).toarray()[:, 0]
    passages = [*index.passages, *added]
    return [passages[place] for place in np.argsort(-scores, kind="stable")[:top]]


def likeness(a: Passage, b: Passage) -> float:
    """The share of the words of either passage that both have."""
    return len(set(a) & set(b)) / len(set(a) | set(b))


def drop_duplicates(found: Sequence[Passage], query: str, limit: float = 0.7) -> list[Passage]:
    """Keep a passage only if it is not much like a better one."""
    kept: list[Passage] = []
    for passage in found:
        if all(likeness(passage, other) <= limit for other in kept):
            kept.append(passage)
    return kept


def drop_echoes(found: Sequence[Passage], query: str, limit: float = 0.5) -> list[Passage]:
    """Drop the passages that repeat the query: more than half of its neighbouring words."""
    asked = set(pairwise(query.split()))
    return [p for p in found if len(asked & set(pairwise(p))) <= limit * len(asked)]


def agreed_answer(values: Sequence[str], needed: int) -> str | None:
    """The value that most sources state, if at least `needed` do; None otherwise.

    values: what each passage states, the best passage first. Of values that equally many sources
    state, the one that comes first.
    """
    counts = Counter(values)
    best = max(counts, key=lambda value: counts[value], default=None)
    return best if counts[best] >= needed else None


Filter = Callable[[Sequence[Passage], str], list[Passage]]


def first_answer(values: Sequence[str], needed: int) -> str | None:
    """What the best passage states."""
    return values[0] if values else None


def answer(
    found: Sequence[Passage],
    query: str,
    question: Question,
    filters: Sequence[Filter] = (),
    choose: Callable[[Sequence[str], int], str | None] = first_answer,
) -> str | None:
    """What the reader says after the filters: from the best five passages that state anything."""
    for keep in filters:
        found = keep(found, query)
    values = [stated(passage, question.inn, question.topic) for passage in found]
    return choose([value for value in values if value is not None][:5], 2)
