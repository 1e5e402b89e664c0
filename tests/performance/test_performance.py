"""How long things take: measured and reported, never asserted."""

import os
import subprocess
import sys
import time

import pytest
import torch

from course_utils.data import Data, balanced, load
from course_utils.models import build
from course_utils.runtime import one_thread
from course_utils.threat import accuracy
from course_utils.training import Recipe, train
from course_utils.trials import run_trials
from tools.lessons import lesson_files, read
from tools.run import execute


def victim_trial(seed: int) -> list[dict]:
    """An MLP on 300 random images: half a second of training."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(300, 1, 28, 28, generator=generator)
    data = Data(x, torch.arange(300) % 2, ("even", "odd"))
    victim = train(build("mlp", data.shape, 2), data, Recipe(epochs=60), seed=seed)
    return [{"accuracy": accuracy(victim, data)}]


@pytest.mark.benchmark(group="start")
def test_import_and_setup(benchmark):
    """In a fresh process, as a lesson's first cell does it (aim: under 5 s)."""
    command = [sys.executable, "-c", "from course_utils import setup; setup()"]
    benchmark.pedantic(subprocess.run, (command,), {"check": True}, rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group="victim")
def test_an_mlp_on_3000_images_for_20_epochs(benchmark):
    """In one thread, as in every trial (aim: about a second)."""
    data = balanced(load()[0], 3000, seed=0)
    model = build("mlp", data.shape, 10)
    with one_thread():
        benchmark.pedantic(train, (model, data, Recipe(epochs=20)), rounds=5, warmup_rounds=1)


@pytest.mark.benchmark(group="trials")
def test_two_jobs_against_one_on_20_trials(benchmark, capsys):
    """The workers are started beforehand, as they are from a lesson's second call on."""
    run_trials(victim_trial, range(2), jobs=2)
    begin = time.perf_counter()
    run_trials(victim_trial, range(20), jobs=1)
    one_job = time.perf_counter() - begin
    benchmark.pedantic(run_trials, (victim_trial, range(20)), {"jobs": 2}, rounds=1)
    if benchmark.disabled:
        return
    ratio = one_job / benchmark.stats.stats.min
    benchmark.extra_info["one_job_seconds"] = round(one_job, 2)
    benchmark.extra_info["speedup"] = round(ratio, 2)
    with capsys.disabled():
        print(f"\n20 trials: {one_job:.1f} s with one job, {ratio:.2f} times as fast with two")


@pytest.mark.benchmark(group="lessons")
@pytest.mark.parametrize("path", lesson_files(), ids=lambda path: path.stem)
def test_a_lesson_from_its_first_cell_to_its_last(benchmark, path):
    """In one thread, the start of the kernel included, as under `make test`. Nothing is stored."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    benchmark.pedantic(execute, (read(path), path.parent), {"env": environment}, rounds=1)
