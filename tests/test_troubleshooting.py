"""The page for attacks that fail: its code runs, and each check sees the fault that it is for."""

import re
from dataclasses import replace

import pytest
import torch
from sklearn.datasets import load_sample_images

from course_utils.attacks import crafting
from course_utils.settings import TINY
from course_utils.threat import Poison
from tools.lessons import ROOT, anchor

PAGE = (ROOT / "notebooks" / "TROUBLESHOOTING.md").read_text(encoding="utf-8")
CAUSES, _, OWN = PAGE.partition("\n## Plug in your own\n")
FULL = "from_scratch.draw_scene(seed=200)"


def blocks(text: str) -> dict[str, str]:
    """The code of each section by the section's heading, in order."""
    parts = re.split(r"^#{2,3} (.+)$", text, flags=re.MULTILINE)
    found = {}
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        if code := re.findall(r"^```python\n(.*?)^```", body, re.DOTALL | re.MULTILINE):
            found[heading] = "\n".join(code)
    return found


CHECKS, EXAMPLES = blocks(CAUSES), blocks(f"\n{OWN}")
CASE, *NUMBERED = CHECKS


def run(code: str, names: dict) -> dict:
    """The names after this code has run."""
    exec(compile(code, "TROUBLESHOOTING.md", "exec"), names)
    return names


@pytest.fixture(scope="module")
def case() -> dict:
    """The names after the case of the page has run, in a small size."""
    code = CHECKS[CASE].replace(FULL, "from_scratch.draw_scene(seed=200, setting=TINY)")
    small = code.replace("seed=200, scene=scene)", "seed=200, setting=TINY, scene=scene)")
    assert small.count("TINY") == 2
    return run(small, {"TINY": TINY})


def checked(number: int, names: dict, **broken) -> dict:
    """The names after check NUMBER has run, with something broken before."""
    code = next(CHECKS[name] for name in NUMBERED if name.startswith(f"{number}. "))
    return run(code.replace("scene=scene", "setting=TINY, scene=scene"), names | broken)


def test_each_cause_has_a_check_and_a_lesson():
    rows = re.findall(r"^\| (\d) \| .*\]\(#([\w-]+)\) \|$", CAUSES, re.MULTILINE)
    assert [link for _, link in rows] == [anchor(name) for name in NUMBERED]
    assert [number for number, _ in rows] == [name[0] for name in NUMBERED]
    for name in NUMBERED:
        section = CAUSES.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert re.search(r"\]\(\d\d_\w+\.ipynb\)", section), name


def test_what_arrived(case):
    right = checked(1, case)
    assert int(right["changed"].sum()) == len(case["poison"])
    assert int(checked(1, case, poison=untouched(case))["changed"].sum()) == 0


def untouched(case: dict) -> Poison:
    """A poison that changes nothing: its images are the base images."""
    poison = case["poison"]
    return replace(poison, images=case["data"].x[poison.base])


def test_the_range_of_pixels(case):
    found = checked(2, case)
    assert (found["low"], found["high"]) == (0, 1)


def test_whether_the_target_was_granted(case):
    said = checked(3, case)["said"]
    assert len(said) == len(case["surrogates"])
    true, adversarial = case["goal"].true_class, case["goal"].adversarial_class
    swapped = replace(case["goal"], true_class=adversarial, adversarial_class=true)
    granted = checked(3, case, goal=swapped)["said"]
    assert said == granted and crafting.granted(case["scene"].adults, swapped)


def test_how_far_apart_the_classes_are(case):
    near = checked(4, case)["confused"]
    boot = case["data"].classes.index("Boot")
    far = replace(case["goal"], adversarial_class=boot)
    assert near > checked(4, case, goal=far)["confused"]


def test_whether_crafting_got_anywhere(case):
    found = checked(5, case)
    assert all(a < b for a, b in zip(found["after"], found["before"], strict=True))
    stuck = checked(5, case, poison=untouched(case))
    assert stuck["after"] == pytest.approx(stuck["before"])


def test_whether_it_carries_over(case):
    names = checked(5, case)
    carried = checked(6, names)["carried"]
    noise = checked(6, checked(5, case, poison=case["case"].noise))["carried"]
    last = max(carried)
    assert carried[last] > noise[last]


def test_what_the_victim_fits(case, capsys):
    checked(7, case)
    assert re.search(r"classifies \d+% of its poisons", capsys.readouterr().out)


def test_more_room_is_more_room(case):
    wide = checked(8, case)["wide"].oblivious
    moved = (wide.images - case["data"].x[wide.base]).abs().amax().item()
    assert 32 / 255 < moved <= 128 / 255 + 1e-6


def test_the_victims_that_learn_less(case):
    slower = checked(9, case)["slower"]
    assert len(slower) == 6 and min(row["accuracy"] for row in slower) > 0.1


def test_what_one_brings_along_runs_and_does_something(capsys):
    assert list(EXAMPLES) == [
        "Data", "A network", "An attack", "A defense", "Gradient matching on it",
    ]  # fmt: skip
    names = run("\n".join(EXAMPLES.values()), {})
    assert names["mine"].shape == (3, 16, 16)
    blue = names["blue_square"](torch.zeros(1, 3, 16, 16))
    assert blue[0, 2].sum() == 16 and blue[0, :2].sum() == 0
    rate = {(row["victim"], row["attacker"]): row["asr"] for row in names["found"]}
    assert rate["plain", "attack"] > rate["plain", "clean"] + 0.3
    printed = capsys.readouterr().out
    assert re.findall(r"^(\w+) success: ", printed, re.MULTILINE) == ["clean", "noise", "attack"]


def test_the_pieces_of_the_photographs_are_whole():
    """What unfold and reshape give are squares of the photograph, not rows of mixed pixels."""
    names = run(EXAMPLES["Data"], {})
    photo = torch.tensor(load_sample_images().images[0])
    assert torch.equal(names["tiles"][0][1], photo[:16, 16:32].permute(2, 0, 1))
