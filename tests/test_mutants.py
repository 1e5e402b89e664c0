"""tools.mutants: the list fits the present code, and the runner tells killed from survived."""

import pytest

from tools import mutants
from tools.mutants import KILLED, SURVIVED, Mutation, mutate, path_of, read_list, report

MUTATIONS = read_list()


@pytest.mark.parametrize("module", dict.fromkeys(mutation.module for mutation in MUTATIONS))
def test_every_old_text_stands_once_in_its_function(module):
    source = path_of(module).read_text()
    for mutation in MUTATIONS:
        if mutation.module == module:
            assert mutate(source, mutation) != source


def test_no_mutation_is_listed_twice_and_every_taught_module_has_some():
    assert len(set(MUTATIONS)) == len(MUTATIONS) >= 250
    listed = {mutation.module for mutation in MUTATIONS}
    for kind in ("attacks", "defenses"):
        taught = {
            f"{kind}.{p.stem}" for p in (mutants.ROOT / "course_utils" / kind).glob("[!_]*.py")
        }
        assert taught <= listed
    assert "cases.networks" in listed  # the one module of cases that builds and measures itself


@pytest.mark.parametrize("old", ["no such text", "images"])
def test_an_old_text_that_is_missing_or_ambiguous_is_refused(old):
    mutation = Mutation("attacks.crafting", "project", old, "")
    with pytest.raises(ValueError, match="the old text stands there"):
        mutate(path_of("attacks.crafting").read_text(), mutation)


def test_a_mistake_is_killed_and_a_change_without_effect_survives(monkeypatch):
    monkeypatch.setattr(mutants, "LIMIT", 60)
    source = path_of("attacks.crafting").read_text()
    for new, fate in (("base + 2 * epsilon)", KILLED), ("epsilon + base)", SURVIVED)):
        mutation = Mutation("attacks.crafting", "project", "base + epsilon)", new)
        files = ["tests/reference/test_crafting.py"]
        assert mutants.run_tests(files, mutation.module, mutate(source, mutation)) == fate


def test_the_report_names_what_is_not_as_listed():
    seen, unseen, harmless, dead = (
        Mutation("statistics", name, "a", "b", why)
        for name, why in (("f", ""), ("g", ""), ("h", "why"), ("i", "why"))
    )
    found = [(seen, KILLED), (unseen, SURVIVED), (harmless, SURVIVED), (dead, KILLED)]
    lines = report(found)
    assert lines[1].split() == ["statistics", "4", "2", "1", "1"]
    assert [line.split(":")[0] for line in lines[3:]] == [
        "survived",
        "killed, though listed as harmless",
    ]


def test_a_module_has_the_tests_of_its_name_and_those_that_are_listed():
    own = ["tests/reference/test_label_flipping.py", "tests/test_label_flipping.py"]
    assert mutants.tests_of("attacks.label_flipping") == own
    named, others = "tests/reference/test_patch_backdoors.py", "tests/test_backdoors.py"
    assert mutants.tests_of("attacks.patch_backdoors") == [named, others]
    listed = {f"tests/test_{name}.py" for names in mutants.TESTS.values() for name in names}
    assert all((mutants.ROOT / name).is_file() for name in listed)


def test_where_no_mutation_is_listed_the_message_says_where_to_list_one():
    with pytest.raises(SystemExit, match=r"tests/mutants\.toml lists no mutation"):
        mutants.chosen(MUTATIONS, "attacks.no_such_module", "")
