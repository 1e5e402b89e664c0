"""The glossary, the references, links, and what each lesson offers a reader who studies alone."""

import re
from pathlib import Path

import pytest
import test_paths

from tools import lessons
from tools.lessons import ROOT, has_tag, lesson_files, read

NOTEBOOKS = ROOT / "notebooks"
GLOSSARY = (NOTEBOOKS / "GLOSSARY.md").read_text(encoding="utf-8")
REFERENCES = (NOTEBOOKS / "REFERENCES.md").read_text(encoding="utf-8")
LESSONS = lesson_files()
COPIES = sorted((NOTEBOOKS / "workshop").glob("*.ipynb"))
PAGES = [ROOT / "README.md", *sorted(NOTEBOOKS.glob("*.md"))]

ENTRY = re.compile(r"- \*\*(.+?)\*\* \(\[lesson (\d\d)\]\((\d\d_\w+\.ipynb)\)\): [A-Z(].+\.")
LINK = re.compile(r"\]\(([^)\s]+)\)")
ARXIV = re.compile(r"arXiv (\d{4}\.\d{5})")
YOU_ARE_HERE = "<sub>**You are here, lesson "
READ_ON = (
    "All papers, with links: [references](../notebooks/REFERENCES.md). "
    "All terms: [glossary](../notebooks/GLOSSARY.md)."
)
MAP = "([map](00_start_here.ipynb))"
STEPS = {
    0: "start here",
    1: "measuring poisoning",
    2: "label flipping",
    3: "the slab attack",
    4: "feature collision",
    5: "gradient matching",
    6: "MetaPoison",
    7: "backdoors",
    8: "hidden triggers",
    9: "anatomy of a poisoned gradient",
    10: "gradient shaping",
    11: "filtering",
    12: "mixing augmentations",
    13: "adversarial training",
    14: "adversarial poisoning",
    15: "adaptive attacks",
    16: "the grand comparison",
    17: "certificates",
    18: "forensics",
    19: "repair",
    20: "beyond images",
    21: "the incident",
}


def prose(path: Path) -> str:
    """The text of a page, or of the markdown cells of a lesson."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    return lessons.prose(read(path))


def without_map(text: str) -> str:
    """Prose without the map line, which names every lesson."""
    return "\n".join(line for line in text.splitlines() if not line.startswith(YOU_ARE_HERE))


ENTRIES = ENTRY.findall(GLOSSARY)


def test_every_line_of_the_glossary_is_an_entry():
    lines = [line for line in GLOSSARY.splitlines() if line.startswith("-")]
    assert [line for line in lines if not ENTRY.fullmatch(line)] == []
    terms = [term for term, _, _ in ENTRIES]
    assert len(set(terms)) == len(terms) == len(lines)
    assert [term.lower() for term in terms] == sorted(term.lower() for term in terms)


@pytest.mark.parametrize(("term", "number", "name"), ENTRIES, ids=[term for term, _, _ in ENTRIES])
def test_a_term_is_in_the_lesson_that_it_names(term, number, name):
    assert name.startswith(f"{number}_")
    words = r"\s+".join(re.escape(word) for word in term.split())
    text = without_map(prose(NOTEBOOKS / name))
    assert re.search(rf"(?<!\w){words}s?(?!\w)", text, re.IGNORECASE)


# What a lesson shows or cites, and does not say in its own words.
ASIDE = re.compile(
    r"```.*?```|\*\*References\.\*\*.*|!\[[^\]]*\]\([^)]*\)|^<sub>.*?$|\$\$.*?\$\$|\$[^$\n]+\$",
    re.DOTALL | re.MULTILINE,
)
MARKED = re.compile(r"^#+ .*$|\*\*[^*]+\*\*|\*[^*\s][^*]*\*|`[^`\n]+`", re.MULTILINE)
BLOCK = re.compile(r"\n\s*\n|\n(?=[-|] |\d\. |\|)")
# Words of the field that a lesson may use before the one that gives them a further meaning.
KNOWN_BEFORE = {
    "by itself": "plain English outside of the tables of lesson 12",
    "Gaussian noise": "a standard term; lesson 13 makes a defense of it",
}
CORE = [int(number) for number in test_paths.CORE]


def own_words(path: Path) -> str:
    """The prose of a lesson without its map line, figures, code and references."""
    return ASIDE.sub("", without_map(prose(path)))


OWN_WORDS = {int(path.name[:2]): own_words(path) for path in LESSONS}


def stands_out(term: str, text: str) -> bool:
    """Whether a term stands in bold, in italics, as code or in a heading, in a short span."""
    words = r"\s+".join(re.escape(word) for word in term.split())
    marked = re.compile(rf"(?<!\w){words}(?:s|es|ed)?(?!\w)", re.IGNORECASE)
    spans = [span for span in MARKED.findall(text) if len(span) < 60 or span.startswith("#")]
    return any(marked.search(span) for span in spans)


def said_too_early(term: str, number: int, words: dict[int, str], core: list[int]) -> list[str]:
    """Blocks of earlier lessons that use a term without saying which lesson it is from.

    Before a lesson of the core path come those that stand before it there, else all lower numbers.
    A block that names a lesson, has a link, or makes the term stand out, introduces it.
    """
    before = core[: core.index(number)] if number in core else [n for n in words if n < number]
    use = re.compile(
        r"(?<![\w-])" + r"\s+".join(map(re.escape, term.split())) + r"s?(?![\w-])", re.I
    )
    blocks = [f"{n:02d}: {block}" for n in before for block in BLOCK.split(words[n])]
    return [
        block
        for block in blocks
        if use.search(block)
        and not re.search(r"lessons? \d\d|\]\(", block)
        and not stands_out(term, block)
    ]


@pytest.mark.parametrize(("term", "number"), [entry[:2] for entry in ENTRIES])
def test_a_term_stands_out_where_it_is_introduced(term, number):
    assert stands_out(term, OWN_WORDS[int(number)]), f"lesson {number}: write **{term}**"


# Common words, such as error or weight, mean something of their own before they become a term.
RARE = [
    (term, int(number))
    for term, number, _ in ENTRIES
    if term not in KNOWN_BEFORE and (" " in term or "-" in term or term != term.lower())
]


@pytest.mark.parametrize(("term", "number"), RARE)
def test_no_lesson_uses_a_term_before_it_is_introduced(term, number):
    assert said_too_early(term, number, OWN_WORDS, CORE) == []


@pytest.mark.parametrize(
    ("text", "early"),
    [
        ("We fear Sleeper Agent.", 1),
        ("We fear sleeper\nagents.", 1),
        ("We fear Sleeper Agent (lesson 08).", 0),
        ("**Sleeper Agent** is a backdoor.", 0),
        ("Lesson 08 is one.\n\nSleeper Agent is another.", 1),
        ("A sleeper is no agent.", 0),
        ("**Ours** differs: Sleeper Agent is **theirs**.", 1),
        ("**We attack as others do, namely with Sleeper Agent, and win every time.**", 1),
    ],
)
def test_a_term_that_comes_too_early_is_seen(text, early):
    found = said_too_early("Sleeper Agent", 8, {5: text, 8: "**Sleeper Agent**"}, [5])
    assert len(found) == early
    assert said_too_early("Sleeper Agent", 8, {8: "**Sleeper Agent**", 9: text}, [8]) == []


def test_each_paper_is_listed_once_with_its_lesson():
    papers = section("Papers")
    entries = [line for line in papers.splitlines() if line.startswith("- ")]
    assert [line for line in entries if "](https://" not in line or ".ipynb)" not in line] == []
    addresses = [link for link in LINK.findall(papers) if link.startswith("https://")]
    assert len(set(addresses)) == len(addresses)
    names = [line.split(":")[0] for line in entries]
    assert names == sorted(names, key=last_names)


def last_names(authors: str) -> list[str]:
    """The authors of an entry as a key for sorting, without their initials."""
    return [name.split()[-1] for name in authors.removeprefix("- ").split(",")]


def section(heading: str) -> str:
    """One section of the references."""
    return REFERENCES.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("heading", ["Attacks", "Defenses"])
def test_attacks_and_defenses_lead_to_listed_papers_and_techniques(heading):
    rows = [line for line in section(heading).splitlines() if line.startswith("|")][2:]
    papers, atlas = section("Papers"), section("MITRE ATLAS")
    for row in rows:
        name, lesson, source, techniques = (cell.strip() for cell in row.strip("|").split("|"))
        assert LINK.search(lesson), name
        assert source.startswith("none:") or LINK.search(source), name
        assert [link for link in LINK.findall(source) if f"({link})" not in papers] == [], name
        listed = [] if techniques == "none" else techniques.split(", ")
        assert [t for t in listed if f"[{t}](" not in atlas] == [], name


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_papers_of_a_lesson_are_among_the_references(path):
    assert path.name in REFERENCES, f"REFERENCES.md does not name {path.name}"
    cited = ARXIV.findall("\n".join(cell.source for cell in read(path).cells))
    assert [number for number in cited if f"arXiv {number}" not in section("Papers")] == []


@pytest.mark.parametrize(
    "path", [*LESSONS, *COPIES, *PAGES], ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_relative_links_lead_somewhere(path):
    links = [link.partition("#")[0] for link in LINK.findall(prose(path))]
    relative = [link for link in links if link and "://" not in link]
    assert [link for link in relative if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_says_where_it_stands(path):
    numbers, here = list(STEPS), int(path.name[:2])
    place = numbers.index(here)
    near = numbers[max(0, place - 1) : place + 2]
    steps = [f"**{STEPS[n]}**" if n == here else STEPS[n] for n in near]
    lines = [x for x in read(path).cells[0].source.splitlines() if x.startswith(YOU_ARE_HERE)]
    place = f"{here:02d} of {numbers[-1]}:** {' → '.join(steps)}"
    assert lines == [f"{YOU_ARE_HERE}{place} {MAP}</sub>"]


def test_every_lesson_is_a_step():
    assert list(STEPS) == [int(path.name[:2]) for path in LESSONS], "complete STEPS in this file"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_ends_with_both_pages_and_the_next_lesson(path):
    lines = read(path).cells[-1].source.strip().splitlines()
    assert READ_ON in lines, f"the last cell needs the line: {READ_ON}"
    number = int(path.name[:2])
    following = [other.name for other in LESSONS if int(other.name[:2]) > number][:1]
    if following:
        assert lines[-1].startswith("**Next:** "), f"the last line leads to {following[0]}"
        assert [name for name in following if f"({name})" not in lines[-1]] == []


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_each_exercise_has_a_hint_and_the_common_errors(path):
    text = ""
    for cell in read(path).cells:
        if cell.cell_type == "markdown" and "\n### Exercise " in f"\n{cell.source}":
            text = cell.source.partition("### Exercise ")[2]
        if has_tag(cell, "exercise"):
            assert "<summary>Hint" in text, cell.source
            assert "<summary>If it goes wrong</summary>" in text, cell.source
            text = ""
