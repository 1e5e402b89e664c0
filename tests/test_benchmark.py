"""The benchmark: killed and resumed, the same rows wherever its trials run, and its command."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import joblib
import pytest
import torch
from distributed import Client, LocalCluster

import tools.benchmark
from course_utils.data import Data
from course_utils.journal import StudyError
from course_utils.models import build
from course_utils.settings import Setting
from course_utils.stored import Benchmark, load_study, load_unfinished, run_study
from course_utils.threat import accuracy
from course_utils.training import Recipe, train
from tools.lessons import ROOT

TESTS = Path(__file__).parent


def victim_trial(seed: int, setting: Setting, flipped: int) -> list[dict]:
    """A victim of flipped labels. Its weights come from torch's global random state."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(60) % 2
    x = 0.8 * torch.rand(60, 1, 4, 4, generator=generator) + 0.2 * y[:, None, None, None]
    seen = Data(x, torch.cat([1 - y[:flipped], y[flipped:]]), ("dark", "bright"))
    victim = train(build("mlp", seen.shape, 2, width=8), seen, Recipe(epochs=5), seed=seed)
    weights = sum(parameter.sum().item() for parameter in victim.parameters())
    rate = accuracy(victim, Data(x, y, seen.classes))
    return [{"condition": "attack", "accuracy": rate, "weights": weights}]


FEW = functools.partial(victim_trial, flipped=6)
MANY = functools.partial(victim_trial, flipped=30)
VICTIMS = Benchmark("victims", {"few flips": FEW, "many flips": MANY}, range(4))


def noted_trial(seed: int, setting: Setting, attack: str) -> list[dict]:
    """Takes a while, and leaves a line in a file when it has begun and when it has ended."""
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"begin {attack} {seed}\n")
    time.sleep(0.2)
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(f"end {attack} {seed}\n")
    return [{"condition": name, "rate": seed / 3 + len(attack)} for name in ("clean", "attack")]


ATTACKS = {name: functools.partial(noted_trial, attack=name) for name in ("flips", "collision")}
NOTED = Benchmark("noted", ATTACKS, range(8))


def test_the_units_alternate_between_the_attacks(tmp_path):
    frame = run_study(VICTIMS, folder=tmp_path)
    assert frame.attack.tolist() == ["few flips", "many flips"] * 4
    assert frame.trial.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert frame.columns[:2].tolist() == ["attack", "trial"]
    assert frame.weights.nunique() == 8
    manifest = json.loads((tmp_path / "victims.json").read_text())
    assert manifest["scale"] == "laptop"
    assert manifest["code"] == VICTIMS.code
    assert len(load_study(VICTIMS, tmp_path)) == 8


def test_other_code_is_found_out(tmp_path):
    run_study(VICTIMS, folder=tmp_path)
    other = Benchmark("victims", {"few flips": FEW, "many flips": accuracy}, range(4))
    with pytest.raises(StudyError, match=r"has changed. .* run `make benchmark SCALE=laptop`"):
        load_study(other, tmp_path)


def test_an_empty_benchmark_is_refused(tmp_path):
    with pytest.raises(ValueError, match="No trial to run"):
        run_study(Benchmark("none", {"few flips": FEW}, []), folder=tmp_path)
    with pytest.raises(ValueError, match="no attack"):
        run_study(Benchmark("none", {}, range(4)), folder=tmp_path)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="this system has no SIGKILL")
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_benchmark_goes_on_where_it_stopped(jobs, tmp_path, monkeypatch):
    """Killed in the middle of a trial by a signal that no program can catch."""
    notes, killed, whole = tmp_path / "notes", tmp_path / "killed", tmp_path / "whole"
    monkeypatch.setenv("NOTES", str(notes))
    code = (
        "import pathlib, sys\n"
        f"sys.path[:0] = {[str(ROOT), str(TESTS)]!r}\n"
        "from test_benchmark import NOTED, run_study\n"
        f"run_study(NOTED, jobs={jobs}, folder=pathlib.Path({str(killed)!r}))\n"
    )
    running = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    journal = killed / "noted.journal"
    try:
        deadline = time.monotonic() + 120
        while not journal.is_file() or journal.read_bytes().count(b"\n") < 4:
            assert running.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()

    finished = set(load_unfinished(NOTED, killed)[["attack", "trial"]].itertuples(index=False))
    assert 3 <= len(finished) < len(NOTED.units)
    with pytest.raises(StudyError, match=rf"not finished: {len(finished)} of 16 trials are done"):
        load_study(NOTED, killed)
    ended = notes.read_text().count("end")
    assert ended - len(finished) <= jobs  # ended, but not yet on the disk

    run_study(NOTED, folder=killed)
    begun = Counter(line[6:] for line in notes.read_text().splitlines() if line[:5] == "begin")
    assert all(begun[f"{attack} {trial}"] == 1 for attack, trial in finished)
    assert len(begun) == 16 and sum(begun.values()) <= 16 + 2 * jobs

    run_study(NOTED, folder=whole)
    assert (killed / "noted.csv").read_bytes() == (whole / "noted.csv").read_bytes()
    manifests = [json.loads((folder / "noted.json").read_text()) for folder in (killed, whole)]
    for manifest in manifests:
        del manifest["minutes"], manifest["date"]
    assert manifests[0] == manifests[1]
    assert {path.suffix for path in killed.iterdir()} == {".csv", ".json", ".lock"}


# Wherever the trials run


def stored_rows(folder: Path, jobs: int | None = None) -> bytes:
    run_study(VICTIMS, jobs=jobs, folder=folder)
    return (folder / "victims.csv").read_bytes()


def failing_trial(seed: int, setting: Setting) -> list[dict]:
    raise RuntimeError(f"trial {seed} failed")


def test_one_job_two_jobs_threads_and_a_cluster_give_the_same_rows(tmp_path):
    rows = {"one job": stored_rows(tmp_path / "1"), "two jobs": stored_rows(tmp_path / "2", jobs=2)}
    with joblib.parallel_config(backend="threading", n_jobs=3):
        rows["threads"] = stored_rows(tmp_path / "threads")
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        rows["cluster"] = stored_rows(tmp_path / "cluster")
        failing = Benchmark("failing", {"few flips": FEW, "fails": failing_trial}, range(4))
        with pytest.raises(RuntimeError, match="trial 0 failed"):
            run_study(failing, folder=tmp_path)
    assert len(set(rows.values())) == 1, rows


# The command


def test_an_unknown_scale_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark", "--scale", "huge"])
    with pytest.raises(SystemExit):
        tools.benchmark.main()
    assert "invalid choice: 'huge' (choose from" in capsys.readouterr().err


def test_the_command_runs_the_benchmark_and_stores_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tools.benchmark, "benchmark", lambda scale: VICTIMS)
    here = functools.partial(run_study, folder=tmp_path)
    monkeypatch.setattr(tools.benchmark, "run_study", here)
    monkeypatch.setattr(sys, "argv", ["benchmark", "--jobs", "1"])
    tools.benchmark.main()
    assert "victims: 4 trials each of few flips, many flips" in capsys.readouterr().out
    assert len(load_study(VICTIMS, tmp_path)) == 8


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_passes_the_scale_and_the_jobs_on(tmp_path):
    (tmp_path / ".installed").touch()
    command = ["make", "-n", "benchmark", f"VENV={tmp_path}", "SCALE=paper", "JOBS=2"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8").stdout
    assert "-m tools.benchmark --scale paper --jobs 2" in text


@pytest.mark.parametrize("scale", tools.benchmark.STORED)
def test_a_stored_benchmark_is_fresh_and_complete(scale):
    benchmark = tools.benchmark.benchmark(scale)
    frame = load_study(benchmark)
    units = frame[["attack", "trial"]].drop_duplicates().itertuples(index=False, name=None)
    assert list(units) == list(benchmark.units)
