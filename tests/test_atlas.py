"""Every page gives the techniques of MITRE ATLAS the names that one table has for them."""

import re

import pytest
from atlas import FORMER, NAMES

from tools.lessons import ROOT, lesson_files, prose, read

LESSONS = lesson_files()
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "notebooks").glob("*.md")), *LESSONS]
each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
IDENTIFIER = re.compile(r"AML\.[TM]\d{4}(?:\.\d{3})?")
CARD = re.compile(r"^\| MITRE ATLAS \| (.+) \|$", re.MULTILINE)
NAMED = re.compile(r"(AML\.[TM]\d{4}(?:\.\d{3})?), (?!AML\.)([A-Z][\w :-]*\w)")
ROW = re.compile(
    r"^\| \[(AML\.[^\]]+)\]\(https://atlas\.mitre\.org/(\w+)/(\S+)\) \| (.+?) \|", re.M
)


def text_of(path) -> str:
    """A page, or the markdown cells of a lesson."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    return prose(read(path))


@each_page
def test_identifiers_are_in_the_table(path):
    found = set(IDENTIFIER.findall(text_of(path)))
    assert sorted(found - NAMES.keys()) == []


@each_page
def test_names_are_those_of_the_table(path):
    """Wherever a name follows its identifier, as in the cards: 'AML.T0020, Training ...'."""
    wrong = [
        (identifier, name)
        for identifier, name in NAMED.findall(text_of(path))
        if not name.startswith(NAMES.get(identifier, "?"))
    ]
    assert wrong == []


@each_page
def test_no_former_name_is_left(path):
    assert [name for name in FORMER if name in text_of(path)] == []


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_card_gives_identifier_and_name(path):
    for line in CARD.findall(text_of(path)):
        first = NAMED.match(line)
        assert first and first[1] in NAMES, line


def test_the_references_list_every_name_once():
    page = text_of(ROOT / "notebooks" / "REFERENCES.md")
    rows = ROW.findall(page)
    assert [(identifier, name) for identifier, _, _, name in rows] == [
        (identifier, NAMES[identifier]) for identifier, _, _, _ in rows
    ]
    identifiers = [identifier for identifier, _, _, _ in rows]
    assert len(set(identifiers)) == len(identifiers)
    for identifier, kind, last, _ in rows:
        assert kind == ("mitigations" if ".M" in identifier else "techniques")
        assert last == identifier
    used = {i for path in PAGES for i in IDENTIFIER.findall(text_of(path))}
    assert sorted(used - set(identifiers)) == []
