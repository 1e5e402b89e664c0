"""Every stored study: of the code as it is now, complete, and found again by running it again."""

import io
import platform

import pandas as pd
import pytest

from course_utils.runtime import package_versions
from course_utils.stored import Study, load_manifest, load_study, machine
from course_utils.trials import run_trials
from tools.results import studies

STUDIES = [pytest.param(study, id=study.name) for study in studies()]


def as_stored(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame as it comes back from its file, without the seconds."""
    text = frame.to_csv(index=False, float_format="%.6g")
    return pd.read_csv(io.StringIO(text)).drop(columns="seconds", errors="ignore")


def same_machine(study: Study) -> bool:
    """Whether the study was stored on a machine, and with versions, like the present ones."""
    manifest = load_manifest(study)
    versions = {"python": platform.python_version(), **package_versions()}
    return manifest["machine"] == machine() and manifest["versions"] == versions


@pytest.mark.parametrize("study", STUDIES)
def test_a_stored_study_is_fresh_and_complete(study):
    frame = load_study(study)
    assert frame.trial.unique().tolist() == list(study.seeds)
    assert frame.notna().all(axis=None)


@pytest.mark.parametrize("study", STUDIES)
def test_the_first_two_trials_come_out_as_they_were_stored(study):
    seeds = list(study.seeds)[:2]
    stored = load_study(study)
    stored = stored[stored.trial.isin(seeds)].drop(columns="seconds", errors="ignore")
    again = as_stored(run_trials(study.trial, seeds))
    if same_machine(study):
        pd.testing.assert_frame_equal(again, stored, check_exact=True)
        return
    texts = stored.select_dtypes(exclude=["number", "bool"]).columns
    pd.testing.assert_frame_equal(again[["trial", *texts]], stored[["trial", *texts]])
    for name, values in stored.select_dtypes("float").items():
        if values.between(0, 1).all():  # a rate or an accuracy
            assert (again[name] - values).abs().max() <= 0.1, name
