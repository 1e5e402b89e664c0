"""data/claims.csv: what summaries say is what the stored studies give, and a change is seen."""

import nbformat
import pandas as pd
import pytest

from tools import claims
from tools.claims import Claim, faults, read_claims
from tools.lessons import ROOT, lesson_files
from tools.results import studies

RULES_ONLY = {"01"}  # teaches how to measure, and says nothing of an attack in its summary


def test_every_claim_stands_and_is_what_its_study_gives():
    assert list(faults(read_claims())) == []


def test_every_lesson_with_a_study_makes_a_claim():
    files = {claim.file for claim in read_claims() if claim.kind == "claim"}
    with_study = {study.lesson for study in studies()} - RULES_ONLY
    silent = [path.name for path in lesson_files() if f"notebooks/{path.name}" not in files]
    assert not [name for name in silent if name[:2] in with_study]
    assert "README.md" in files


def test_settings_have_no_numbers_of_a_study():
    for claim in read_claims():
        if claim.kind != "claim":
            assert claim[3:] == ("",) * (len(Claim._fields) - 3)


# A small world in which everything is right, and what breaks it

TEXT = """# Course

A plain victim loses 9 of 10 targets. At 8/255 the shield
leaves 1 of 10, which is far less.

## What you will be able to do

Count to 7.
"""
PLAIN, SHIELD = "victim == 'plain'", "victim == 'shield'"
LOSES, LEAVES = (
    "A plain victim loses 9 of 10 targets.",
    "the shield leaves 1 of 10, which is far less.",
)
COUNT = "{count:.0f} of {trials}"
TABLE = [
    Claim("README.md", "claim", LOSES, "duel", PLAIN, "", "success", "rate", COUNT),
    Claim("README.md", "claim", LEAVES, "duel", SHIELD, "", "success", "rate", COUNT),
    Claim(
        "README.md", "claim", LEAVES, "duel", SHIELD, PLAIN, "success", "difference", "", "high < 0"
    ),
    Claim("README.md", "setting", "At 8/255"),
]


def rows(lost: int = 9, left: int = 1) -> pd.DataFrame:
    """Ten trials, of which so many are lost by each victim."""
    return pd.DataFrame(
        [
            {"trial": trial, "victim": name, "success": trial < wins, "accuracy": trial / 20}
            for name, wins in (("plain", lost), ("shield", left))
            for trial in range(10)
        ]
    )


@pytest.fixture
def world(tmp_path):
    """Files and a table of claims without a fault; returns what is wrong after a change."""
    (tmp_path / "notebooks").mkdir()

    def found(table=None, frame=None, text=TEXT):
        (tmp_path / "README.md").write_text(text, encoding="utf-8")
        (rows() if frame is None else frame).to_csv(tmp_path / "duel.csv", index=False)
        return list(faults(filled if table is None else table, tmp_path, tmp_path))

    rows().to_csv(tmp_path / "duel.csv", index=False)
    made = claims.compute(TABLE[:3], tmp_path)
    filled = [
        claim._replace(verdict=made[claim].verdict, numbers=made[claim].numbers)
        if claim in made
        else claim
        for claim in TABLE
    ]
    found.table = filled
    return found


def test_a_right_table_has_no_fault(world):
    assert world() == []
    assert [claim.verdict for claim in world.table] == ["", "", "lower", ""]
    assert world.table[0].numbers == "0.900 [0.596, 0.982], 10 trials"


def test_a_changed_study_is_seen(world):
    faults_found = "\n".join(world(frame=rows(lost=8)))
    assert "the study duel gives '0.800" in faults_found
    assert "should say '8 of 10'" in faults_found


def test_a_changed_verdict_is_seen(world):
    faults_found = "\n".join(world(frame=rows(lost=5)))
    assert "has verdict 'lower', the study duel gives 'undecided'" in faults_found
    assert "needs high < 0" not in "\n".join(world(frame=rows(lost=9)))
    assert "needs high < 0" in "\n".join(world(frame=rows(lost=2)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": "higher"}, "has verdict 'higher'"),
        ({"numbers": "0.100"}, "has numbers '0.100'"),
        ({"study": "dual"}, "cannot be computed: FileNotFoundError"),
        ({"rows": "victim == 'shild'"}, "cannot be computed: ValueError: no row where"),
        ({"rows": "trial >= 0"}, "more than one row a trial"),
        ({"measure": "sucess"}, "cannot be computed"),
        ({"quantity": "median"}, "cannot be computed: KeyError"),
        ({"quantity": "difference"}, "cannot be computed"),
        ({"written": "{count:.0f} out of {trials}"}, "should say '1 out of 10'"),
        ({"written": "{low:.2f} of"}, "should say"),
        ({"holds": "low > 0.5"}, "needs low > 0.5"),
        ({"sentence": "the shield leaves 2 of 10"}, "does not stand there"),
        ({"kind": "claims"}, "of kind 'claims'"),
    ],
)
def test_a_broken_line_is_seen(world, change, message):
    table = list(world.table)
    table[1] = table[1]._replace(**change)
    assert message in "\n".join(world(table))


def test_a_sentence_that_was_edited_is_seen(world):
    edited = TEXT.replace("loses 9 of 10", "loses 8 of 10")
    assert f"{LOSES!r} does not stand there" in "\n".join(world(text=edited))


@pytest.mark.parametrize("number", ["3", "0.31", "12%", "4/255"])
def test_a_number_without_a_claim_is_seen(world, number):
    edited = TEXT.replace("far less.", f"far less. Others lose {number}.")
    assert world(text=edited) == [f"README.md: the number {number} of the summary is in no claim"]
    assert world(text=TEXT + f"\n{number} more.") == []  # not in the summary
    assert world(text=edited.replace(number, f"{number} (lesson 03)"))[0].count("no claim") == 1


def test_the_same_number_in_another_sentence_needs_a_claim_of_its_own(world):
    edited = TEXT.replace("far less.", "far less. Others lose 9 of 10.")
    assert [fault.split(" of the summary")[0] for fault in world(text=edited)] == [
        "README.md: the number 9",
        "README.md: the number 10",
    ]


def test_a_sentence_may_break_over_lines_and_a_number_of_a_setting_may_come_again(world):
    assert world(text=TEXT.replace("far less.", "far less. At\n8/255 nothing else does.")) == []


def test_the_comparisons_of_one_sentence_share_holms_correction(world, tmp_path):
    frame = rows(lost=7, left=1)  # six pairs disagree, p = 0.031
    assert "has verdict" not in "\n".join(world(frame=frame))
    copy = frame[frame.victim == "shield"].assign(victim="sword")
    more = pd.concat([frame, copy])
    table = [*world.table, world.table[2]._replace(rows="victim == 'sword'")]
    assert "the study duel gives 'undecided'" in "\n".join(world(table, more))


def test_shares_are_compared_by_the_words_of_the_course(world, tmp_path):
    frame = rows()
    frame.loc[frame.victim == "shield", "accuracy"] += 0.01 + frame["trial"] / 1000
    frame.to_csv(tmp_path / "duel.csv", index=False)
    line = TABLE[2]._replace(measure="accuracy", holds="")
    there, back = line, line._replace(rows=PLAIN, against=SHIELD)
    same = line._replace(rows=PLAIN, against=PLAIN)
    other = line._replace(against=f"duel where {PLAIN}")
    found = claims.compute([there, back, same, other], tmp_path)
    assert [found[one].verdict for one in (there, back, same, other)] == [
        "higher",
        "lower",
        "the same",
        "higher",
    ]
    assert found[there].fields["points"] == pytest.approx(found[back].fields["points"])


def test_numbers_without_a_margin_are_compared_by_their_interval(world, tmp_path):
    frame = rows()
    frame.loc[frame.victim == "shield", "accuracy"] += 0.01 + frame["trial"] / 1000
    frame.to_csv(tmp_path / "duel.csv", index=False)
    there = TABLE[2]._replace(measure="accuracy * 2", holds="")
    back, same = there._replace(rows=PLAIN, against=SHIELD), there._replace(rows=PLAIN)
    found = claims.compute([there, back, same], tmp_path)
    words = [found[one].verdict for one in (there, back, same)]
    assert words == ["higher", "lower", "undecided"]


def test_quantities(tmp_path):
    frame = pd.DataFrame({"trial": [0, 1, 2], "a": [1.0, 2.0, 4.0], "b": [2.0, 2.0, 2.0]})
    frame.to_csv(tmp_path / "s.csv", index=False)
    pd.concat([frame, frame.assign(a=0)]).to_csv(tmp_path / "twice.csv", index=False)
    claim = Claim("README.md", "claim", "", "s", "trial >= 0", "trial >= 0", "a / b", "ratio")

    def value(**change):
        line = claim._replace(**change)
        return claims.compute([line], tmp_path)[line].fields["value"]

    assert value() == 1
    assert value(quantity="mean", against="") == pytest.approx(7 / 6)
    assert value(quantity="geometric mean", measure="a", against="") == pytest.approx(2)
    assert value(quantity="mean within", study="twice", measure="a", against="") == pytest.approx(
        7 / 6
    )


def test_a_table_of_another_form_is_refused(tmp_path):
    path = tmp_path / "claims.csv"
    path.write_text("file,sentence\n")
    with pytest.raises(ValueError, match="must begin with the columns file, kind"):
        read_claims(path)
    path.write_text(",".join(Claim._fields) + "\nREADME.md,claim\n")
    with pytest.raises(ValueError, match="line 2: 2 columns"):
        read_claims(path)
    claims.write_claims(TABLE, path)
    assert read_claims(path) == TABLE


def test_the_prose_of_a_notebook_is_its_markdown(tmp_path):
    cells = [
        nbformat.v4.new_markdown_cell("## Summary\n\n- Seven\n  targets.\n\n**References.** 1999"),
        nbformat.v4.new_code_cell("print(12)"),
    ]
    (tmp_path / "notebooks").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "notebooks/05_x.ipynb")
    text = claims.text_of("notebooks/05_x.ipynb", tmp_path)
    assert "- Seven targets." in text
    assert "12" not in text
    assert claims.summary_of("notebooks/05_x.ipynb", tmp_path).strip() == "- Seven targets."


def test_the_summaries_that_are_read_are_there():
    for file in claims.summarised():
        assert len(claims.summary_of(file, ROOT).split()) > 20, file
