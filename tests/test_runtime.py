"""course_utils.runtime: what the first call of every lesson does."""

import platform
import random
import time

import matplotlib as mpl
import numpy as np
import pytest
import seaborn as sns
import torch

from course_utils import setup
from course_utils.runtime import one_thread, package_versions, timed


@pytest.fixture(autouse=True)
def settings_restored():
    threads = torch.get_num_threads()
    with mpl.rc_context(), torch.random.fork_rng():
        yield
    torch.set_num_threads(threads)


def draws() -> tuple[float, float, float]:
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


def test_setup_returns_a_device_that_tensors_live_on():
    device = setup()
    assert torch.zeros(1, device=device).device.type == device.type
    assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_setup_seeds_python_numpy_and_torch():
    runs = []
    for seed in (1, 1, 2):
        setup(seed)
        runs.append(draws())
    assert runs[0] == runs[1]
    assert all(a != b for a, b in zip(runs[0], runs[2], strict=True))


def test_setup_prints_versions_device_seed_and_minutes(capsys):
    setup(seed=3, minutes=12)
    text = capsys.readouterr().out
    assert f"Python {platform.python_version()}, torch {torch.__version__.split('+')[0]}" in text
    assert f"numpy {np.__version__}" in text
    assert "Device: " in text
    assert "seed 3" in text
    assert "about 12 minutes" in text


def test_setup_without_minutes_says_nothing_about_them(capsys):
    setup()
    assert "minutes" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("threads", "text"),
    [("1", "1 thread,"), ("3", "3 threads,"), ("4,2", "4 threads,"), (" 2 ", "2 threads,")],
)
def test_setup_keeps_to_the_threads_of_the_environment(threads, text, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    setup()
    assert torch.get_num_threads() == int(text[0])
    assert text in capsys.readouterr().out


@pytest.mark.parametrize("threads", [None, "", " ", "0", "-2", "all", "1.5"])
def test_setup_takes_one_thread_by_itself(threads, monkeypatch, capsys):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    torch.set_num_threads(2)
    setup()
    assert torch.get_num_threads() == 1
    assert "1 thread," in capsys.readouterr().out


def test_figures_come_in_the_colour_blind_palette():
    setup()
    cycle = [entry["color"] for entry in mpl.rcParams["axes.prop_cycle"]]
    assert cycle == [tuple(color) for color in sns.color_palette("colorblind", len(cycle))]


def test_one_thread_holds_inside_the_block_and_ends_with_it():
    torch.set_num_threads(2)
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_one_thread_ends_with_an_error_too():
    torch.set_num_threads(2)
    with pytest.raises(RuntimeError, match="inside"), one_thread():
        raise RuntimeError("inside")
    assert torch.get_num_threads() == 2


def test_package_versions_are_those_that_run():
    assert package_versions()["numpy"] == np.__version__
    assert set(package_versions()) == {"torch", "torchvision", "numpy"}


def test_the_seconds_of_a_call_are_those_of_the_processor():
    def power(base: int, exponent: int) -> int:
        time.sleep(0.2)  # which takes none
        return sum(range(300_000)) and base**exponent

    found, seconds = timed(power, 2, exponent=5)
    assert found == 32 and 0 < seconds < 0.2
