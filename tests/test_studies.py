"""Every stored study: of the code as it is now, complete, and its trial gives rows of this form.

`make verify` compares old and new code bit for bit. Here every trial runs once in a tenth of its
size, and the first trial of those studies in full that take a few seconds.
"""

import dataclasses
import io

import pandas as pd
import pytest

from course_utils.fixed_trials import SHA256
from course_utils.stored import RESULTS, load_manifest, load_study
from course_utils.trials import one_trial
from tools.benchmark import STORED, benchmark
from tools.results import studies

ALL = [*studies(), *map(benchmark, STORED)]
STUDIES = [pytest.param(study, id=study.name) for study in ALL]
# One study of each lesson whose trial took less than five processor seconds when last measured.
QUICK = (
    "first_backdoor",
    "label_flips_paper",
    "collision_far",
    "mixing_transfer",
    "certified_accuracy",
    "retrieval_poisoning",
)


def test_every_file_of_results_belongs_to_a_study():
    names = {path.stem for path in RESULTS.iterdir() if path.suffix in (".csv", ".json")}
    assert names == {study.name for study in ALL}


@pytest.mark.parametrize("study", STUDIES)
def test_a_stored_study_is_fresh_and_complete(study):
    frame = load_study(study)
    assert load_manifest(study)["fixed_trials"] == SHA256
    keys = list(frame[list(study.columns)].drop_duplicates().itertuples(index=False, name=None))
    assert keys == list(study.units)
    # What an indiscriminate attack achieves is seen against a clean victim, which one study lacks.
    open_columns = ["achieved"] if study.name == "forensics_flips" else []
    assert list(frame.columns[frame.isna().all()]) == open_columns


@pytest.mark.parametrize("study", STUDIES)
def test_a_trial_of_a_tenth_of_its_size_has_the_stored_form(study):
    small = dataclasses.replace(study, setting=study.setting.tiny, seeds=list(study.seeds)[:1])
    rows = [row for key, run in small.units.items() for row in one_trial(run, key, study.columns)]
    stored = load_study(study)
    stored = stored[stored.trial == study.seeds[0]].reset_index(drop=True)
    again = pd.DataFrame(rows)
    if study.name.startswith("forensics_"):
        conditions_are_stored(again, load_study(study))
        return
    assert list(again.columns) == list(stored.columns)
    labels = list(stored.select_dtypes(exclude=["number", "bool"]).columns)
    # In which order a trial gives its rows does not matter, as for `make verify`.
    first, second = (
        frame[labels].sort_values(labels, ignore_index=True) for frame in (again, stored)
    )
    pd.testing.assert_frame_equal(first, second, check_dtype=False)


def conditions_are_stored(again: pd.DataFrame, stored: pd.DataFrame) -> None:
    """Where the attack fails there is no incident, hence one row with fewer columns: what a trial
    has depends on its victim, which in a tenth of the size is another one."""
    assert len(again) > 0
    assert list(again.columns) == [name for name in stored.columns if name in again.columns]
    keys = [name for name in ("attack", "budget", "ranking") if name in stored.columns]
    assert set(again[keys].itertuples(index=False)) <= set(stored[keys].itertuples(index=False))


def as_stored(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame as it comes back from its file, without the seconds."""
    text = frame.to_csv(index=False, float_format="%.6g")
    return pd.read_csv(io.StringIO(text)).drop(columns="seconds", errors="ignore")


@pytest.mark.parametrize("name", QUICK)
def test_the_first_trial_comes_out_as_it_was_stored(name):
    """Another processor rounds differently, and training carries this far: an accuracy moves by a
    few points, a yes/no by its whole self. So shares are compared, and not success."""
    (study,) = (study for study in ALL if study.name == name)
    ((key, run),) = list(study.units.items())[:1]
    again = as_stored(pd.DataFrame(one_trial(run, key, study.columns)))
    stored = load_study(study)
    stored = stored[stored.trial == study.seeds[0]].reset_index(drop=True)
    floats = again.select_dtypes("float")
    shares = [column for column in floats if floats[column].between(0, 1).all()]
    assert shares, "nothing to compare"
    for share in shares:
        assert (again[share] - stored[share]).abs().mean() <= 0.1, share
