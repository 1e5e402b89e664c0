"""Recompute the table of claims, data/claims.csv, and say what is wrong: python -m tools.claims.

A line is a sentence of the README or of a lesson's summary, with the rows of a stored study that it
rests on, and with what these rows give. A sentence has as many lines as it makes statements.
With --write the columns `verdict` and `numbers` are filled in; sentences stay yours to mend.
"""

import argparse
import csv
import functools
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import nbformat
import numpy as np
import pandas as pd

from course_utils import statistics
from course_utils.stored import RESULTS
from tools.lessons import ROOT, lesson_files, prose

CLAIMS = ROOT / "data" / "claims.csv"
NUMBER = re.compile(r"\d+(?:[.,/]\d+)*%?")
# Cross references and addresses are no statements of fact about a study.
NO_STATEMENT = re.compile(
    r"lessons? \d\d(?:(?:,| to| and|, and) \d\d)*|arXiv[ :]\d{4}\.\d{5}|\]\([^)]*\)"
)

# Where a summary begins and ends.
PAGE = (("# ", "## What you"),)
NOTEBOOK = (("## Summary", "**References"), ("## Which defense when", "## Your own data"))


class Claim(NamedTuple):
    """A line of the table.

    kind: "claim"; or "setting" for numbers that no study gives, such as an epsilon, a year, or the
        bound of a claim. Then `sentence` is the phrase with the number, and the rest is empty.
    study: a file of data/results. rows, against: queries for pandas that select one row a trial;
        `against` may begin with another study on the same trials: "STUDY where QUERY".
    measure: a column, or an expression of pandas. quantity: what is computed of it: see QUANTITIES.
    written: how the sentence writes it, a format such as "{count} of {trials}"; may be empty.
    holds: what a word such as 'most' needs, a query such as "low > 0.5"; may be empty.
    verdict, numbers: what the rows give; `make claims` fills them in.
    """

    file: str
    kind: str
    sentence: str
    study: str = ""
    rows: str = ""
    against: str = ""
    measure: str = ""
    quantity: str = ""
    written: str = ""
    holds: str = ""
    verdict: str = ""
    numbers: str = ""


class Found(NamedTuple):
    """What the stored rows give for a claim: fields for `written` and `holds`, and two columns."""

    fields: dict[str, float]
    verdict: str
    numbers: str


def read_claims(path: Path = CLAIMS) -> list[Claim]:
    """The lines of the table. Raises ValueError if its columns are not those of a Claim."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    if not lines or tuple(lines[0]) != Claim._fields:
        raise ValueError(f"{path} must begin with the columns {', '.join(Claim._fields)}.")
    for number, line in enumerate(lines, start=1):
        if len(line) != len(Claim._fields):
            raise ValueError(f"{path}, line {number}: {len(line)} columns, not {len(lines[0])}.")
    return [Claim(*line) for line in lines[1:]]


def write_claims(claims: Sequence[Claim], path: Path = CLAIMS) -> None:
    """Write the table."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([Claim._fields, *claims])


def split_study(against: str, study: str) -> tuple[str, str]:
    """The study and the query of a comparison."""
    other, found, query = against.partition(" where ")
    return (other, query) if found else (study, against)


def select(frame: pd.DataFrame, query: str, measure: str, several: bool) -> pd.Series:
    """The measure of the rows that a query selects, by trial; of `several` rows their mean.

    Raises ValueError if there is no row, or more than one a trial where several are not expected.
    """
    rows = frame.query(query)
    if rows.empty:
        raise ValueError(f"no row where {query}")
    if rows["trial"].duplicated().any() and not several:
        raise ValueError(f"more than one row a trial where {query}")
    values = rows[measure] if measure in rows else rows.eval(measure)
    if values.dtype == bool and not several:
        return values.set_axis(rows["trial"])  # yes/no stays yes/no
    return values.astype(float).groupby(rows["trial"]).mean()


def rate_of(first: pd.Series, second: None) -> dict[str, float]:
    """The share of trials that say yes. Raises ValueError for a measured quantity."""
    if first.dtype != bool:
        raise ValueError("a rate is of yes/no: write which value is a yes, as in `achieved > 0.5`")
    return mean_of(first, second)


def mean_of(first: pd.Series, second: None) -> dict[str, float]:
    """Mean over trials, for yes/no the rate; with the interval of the course."""
    frame = pd.DataFrame({"trial": first.index, "group": "", "measure": first.to_numpy()})
    row = statistics.summary(frame, "measure", by="group").iloc[0]
    return {"value": row["measure"], "low": row["low"], "high": row["high"], "count": first.sum()}


def geometric_mean_of(first: pd.Series, second: None) -> dict[str, float]:
    """Geometric mean over trials, with the interval of the mean logarithm; 0 counts as 1/1024."""
    found = mean_of(np.log2(first.clip(lower=2**-10)), second)
    return {name: 2 ** found[name] for name in ("value", "low", "high")}


def ratio_of(first: pd.Series, second: pd.Series) -> dict[str, float]:
    """The mean of the first divided by the mean of the second."""
    return {"value": first.mean() / second.mean()}


def difference_of(first: pd.Series, second: pd.Series) -> dict[str, float]:
    """The mean of the first minus the second, in pairs, with its interval."""
    found = statistics.paired_difference(first, second)
    return {"value": found.estimate, "low": found.low, "high": found.high}


QUANTITIES = {
    "mean": mean_of,
    "rate": rate_of,
    "mean within": mean_of,
    "geometric mean": geometric_mean_of,
    "difference": difference_of,
    "ratio": ratio_of,
}


def compute(claims: Sequence[Claim], results: Path = RESULTS) -> dict[Claim, Found | str]:
    """What the stored rows give for each claim, or what is wrong with its line.

    The comparisons of one measure that a sentence makes share Holm's correction.
    """
    found: dict[Claim, Found | str] = {}
    load = functools.cache(lambda study: pd.read_csv(results / f"{study}.csv"))
    pairs: dict[tuple, dict[Claim, tuple[pd.Series, pd.Series]]] = {}
    for claim in claims:
        try:
            first, second = (
                select(load(study), query, claim.measure, claim.quantity == "mean within")
                if query
                else None
                for study, query in (
                    (claim.study, claim.rows),
                    split_study(claim.against, claim.study),
                )
            )
            fields = QUANTITIES[claim.quantity](first, second) | {"trials": len(first)}
            fields |= {"percent": 100 * fields["value"], "points": abs(100 * fields["value"])}
        except Exception as error:  # whatever a line of the table holds
            found[claim] = f"{type(error).__name__}: {error}"
            continue
        if claim.quantity == "difference":
            yes_or_no = first.dtype == second.dtype == bool
            if same := statistics.SAME if yes_or_no else MARGINS.get(claim.measure):
                pairs.setdefault((claim.file, claim.sentence, same), {})[claim] = first, second
        found[claim] = Found(fields, word(claim, fields), shown(fields))
    for (_, _, same), compared in pairs.items():
        for claim, verdict in statistics.verdicts(compared, same).items():
            found[claim] = found[claim]._replace(verdict=verdict.word)
    return found


# Within this much two mean shares are the same; yes/no outcomes have the margin of `verdicts`.
MARGINS = {"accuracy": 0.01, "achieved": 0.05, "asr": 0.05}


def word(claim: Claim, fields: dict[str, float]) -> str:
    """On a difference of other numbers: whether its interval lies on one side of zero."""
    if claim.quantity != "difference":
        return ""
    return "lower" if fields["high"] < 0 else "higher" if fields["low"] > 0 else "undecided"


def shown(fields: dict[str, float]) -> str:
    """The numbers of a claim as a text."""
    interval = f" [{fields['low']:.3f}, {fields['high']:.3f}]" if "low" in fields else ""
    return f"{fields['value']:.3f}{interval}, {fields['trials']} trials"


def plain(text: str) -> str:
    """A text in one line, as a sentence is looked for in it."""
    return " ".join(text.split())


def text_of(file: str, root: Path = ROOT) -> str:
    """The prose of a file: of a notebook its markdown cells."""
    path = root / file
    if path.suffix != ".ipynb":
        return plain(path.read_text(encoding="utf-8"))
    return plain(prose(nbformat.read(path, as_version=4)))


def summary_of(file: str, root: Path = ROOT) -> str:
    """The parts of a file where every number belongs to a claim."""
    text, marks = text_of(file, root), NOTEBOOK if file.endswith(".ipynb") else PAGE
    return "\n".join(text.partition(begin)[2].partition(end)[0] for begin, end in marks)


def summarised(root: Path = ROOT) -> list[str]:
    """The files that have such a part."""
    return ["README.md", *(path.relative_to(root).as_posix() for path in lesson_files(root))]


def rendered(claim: Claim, found: Found | str) -> str:
    """The numbers as the sentence should write them."""
    return claim.written.format(**found.fields) if isinstance(found, Found) else ""


def faults(claims: Sequence[Claim], results: Path = RESULTS, root: Path = ROOT) -> Iterator[str]:
    """All that is wrong with the table, or with what the sentences say."""
    found = compute([claim for claim in claims if claim.kind == "claim"], results)
    texts = {file: text_of(file, root) for file in {claim.file for claim in claims}}
    for claim in claims:
        where = f"{claim.file}: {claim.sentence!r}"
        if claim.kind not in ("claim", "setting"):
            yield f"{where} is of kind {claim.kind!r}: claim or setting"
        if plain(claim.sentence) not in texts[claim.file]:
            yield f"{where} does not stand there"
        if claim.kind == "claim":
            yield from (f"{where} {fault}" for fault in faults_of(claim, found[claim]))
    for file in summarised(root):
        left = summary_of(file, root)
        for claim in claims:
            if claim.file == file:
                left = blanked(left, claim, found.get(claim))
        for number in NUMBER.findall(NO_STATEMENT.sub("", left)):
            yield f"{file}: the number {number} of the summary is in no claim"


def faults_of(claim: Claim, found: Found | str) -> Iterator[str]:
    """What is wrong with one claim."""
    if isinstance(found, str):
        yield f"cannot be computed: {found}"
        return
    for name in ("verdict", "numbers"):
        said, gives = getattr(claim, name), getattr(found, name)
        if said != gives:
            yield f"has {name} {said!r}, the study {claim.study} gives {gives!r}"
    if rendered(claim, found) not in plain(claim.sentence):
        yield f"should say {rendered(claim, found)!r}"
    if claim.holds and pd.DataFrame([found.fields]).query(claim.holds).empty:
        yield f"needs {claim.holds}, the study {claim.study} gives {found.numbers}"


def blanked(text: str, claim: Claim, found: Found | str | None) -> str:
    """A text in which the numbers that a line of the table stands for are blank: one number where
    the sentence writes it, or all numbers of a phrase of another kind.
    """
    sentence = plain(claim.sentence)
    said = rendered(claim, found) if claim.kind == "claim" else sentence
    place = sentence.find(said) if said else -1
    if place < 0:
        return text
    # Digits that another line has blanked still belong to the sentence.
    as_it_stands = re.sub(r"\d", r"[\g<0>_]", re.escape(sentence))
    for where in re.finditer(as_it_stands, text):
        begin = where.start() + place
        end = begin + len(said)
        text = text[:begin] + re.sub(r"\d", "_", text[begin:end]) + text[end:]
    return text


def main() -> None:
    """Say what is wrong, or fill in what the studies give."""
    parser = argparse.ArgumentParser(description="Recompute the table of claims.")
    parser.add_argument("--write", action="store_true", help="fill in verdict and numbers")
    claims = read_claims()
    if parser.parse_args().write:
        found = compute([claim for claim in claims if claim.kind == "claim"])
        done = {claim: one for claim, one in found.items() if isinstance(one, Found)}
        claims = [
            claim._replace(verdict=done[claim].verdict, numbers=done[claim].numbers)
            if claim in done
            else claim
            for claim in claims
        ]
        write_claims(claims)
    sys.exit("\n".join(faults(claims)) or None)


if __name__ == "__main__":
    main()
