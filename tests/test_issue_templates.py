"""The forms for issues: they ask for what an answer needs, and point to pages that exist."""

import re

import pytest

from tools.lessons import ROOT

FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def test_there_is_a_form_for_each_kind():
    names = {path.stem for path in FORMS}
    assert names == {"lesson_is_wrong", "check_rejects_right_answer", "my_attack_failed"}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_asks_for_lesson_and_machine_and_points_to_what_exists(path):
    text = path.read_text(encoding="utf-8")
    assert re.search(r"^name: .+\ndescription: .+\nbody:\n", text)
    assert "label: Lesson" in text and "label: What the first code cell printed" in text
    links = re.findall(r"\.\./blob/main/([\w./]+)", text)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_who_has_a_failed_attack_is_sent_to_the_troubleshooting_page():
    (form,) = [path for path in FORMS if path.stem == "my_attack_failed"]
    assert "notebooks/TROUBLESHOOTING.md" in form.read_text(encoding="utf-8")
