"""Store the alternative text of every figure with it: python -m tools.figures [--lesson 05].

A sentence in the markdown cell under a figure says what to see. Screen readers get the same one
from the output's metadata, where nbconvert and the reading edition look for it. Nothing is
executed; make notebooks does the same after a run.
"""

import argparse
import re
from collections.abc import Iterator

from nbformat import NotebookNode

from tools.lessons import lesson_files, read, to_text, write

SHORTEST = 80
STOP = re.compile(r"^(#|<|```|\||\$\$|\*\*Predict)", re.MULTILINE)
SENTENCE = re.compile(r"(?<=[.!?])\s+|\n\n|\n(?=- )")
PLAIN = (
    (re.compile(r"!?\[([^]]*)\]\([^)]*\)"), r"\1"),  # links
    (re.compile(r"^- "), ""),
    (re.compile(r"\\(text|mathrm|mathcal|operatorname)\b"), ""),
    (re.compile(r"\\[,;!]"), " "),
    (re.compile(r"\\([A-Za-z]+)"), r" \1 "),  # \beta
    (re.compile(r"[*`${}]"), ""),
    (re.compile(r"\s+"), " "),
)


def alternatives(nb: NotebookNode) -> Iterator[tuple[int, NotebookNode, str]]:
    """Each figure: its cell's number, counted from 1, its output, and its alternative text."""
    for number, cell in enumerate(nb.cells, start=1):
        figures = [out for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
        below = nb.cells[number : number + 1]
        text = first_sentences(below[0].source) if below else ""
        for place, figure in enumerate(figures, start=1):
            count = f"Figure {place} of {len(figures)}. " if len(figures) > 1 else ""
            yield number, figure, f"{count}{text}"


def first_sentences(source: str) -> str:
    """As many sentences from the start of a markdown text as make a description, without markup."""
    chosen = ""
    for sentence in SENTENCE.split(STOP.split(source.strip(), maxsplit=1)[0]):
        for pattern, plain in PLAIN:
            sentence = pattern.sub(plain, sentence)
        chosen = f"{chosen} {sentence.strip()}".strip()
        if len(chosen) >= SHORTEST:
            break
    return chosen


def describe(nb: NotebookNode) -> NotebookNode:
    """Store the alternative text of every figure of a lesson."""
    for _, figure, text in alternatives(nb):
        figure.metadata.setdefault("image/png", {})["alt"] = text
    return nb


def stored(figure: NotebookNode) -> str:
    """The alternative text that is stored with a figure, or nothing."""
    return figure.get("metadata", {}).get("image/png", {}).get("alt", "")


def main() -> None:
    """Refresh the chosen lessons."""
    parser = argparse.ArgumentParser(description="Store the alternative text of every figure.")
    parser.add_argument("--lesson", help="only this one, like 05")
    for path in lesson_files(lesson=parser.parse_args().lesson):
        write(path, to_text(describe(read(path))))


if __name__ == "__main__":
    main()
