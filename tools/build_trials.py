"""Build data/fixed_trials.csv, the targets that the studies share: python -m tools.build_trials.

For every ordered pair of neighbouring classes two trials to report and one to tune on. A target is
drawn at random, none twice, from the test images that clean models of both networks, ten MLPs and
five LeNets with other data and other weights each, all classify rightly. So no trial begins with a
target that the attacker is given, and no draw of a study depends on a trained model. About a minute
on one core. Another processor may draw other targets: the committed file is the one that counts.
"""

import csv
import hashlib
import io
from itertools import permutations

import torch
from tqdm.auto import tqdm

from course_utils.cases.goals import NEIGHBOURS
from course_utils.data import Data, balanced, load
from course_utils.fixed_trials import FILE, FixedTrial
from course_utils.journal import write
from course_utils.models import build, predict
from course_utils.settings import CONVNET, MLP
from course_utils.training import train

FIRST_SEED = 7000
MODELS = [(MLP, 10), (CONVNET, 5)]
PARTS = ("reporting", "reporting", "tuning")


def certain(train_all: Data, test: Data) -> torch.Tensor:
    """Which test images (N,) every clean model classifies rightly."""
    right = torch.ones_like(test.y, dtype=torch.bool)
    runs = [(setting, number) for setting, count in MODELS for number in range(count)]
    for number, (setting, model_number) in enumerate(tqdm(runs, desc="clean models")):
        data = balanced(train_all, 3000, FIRST_SEED + 1000 + number)
        model = build(setting.network, data.shape, len(data.classes))
        seed = FIRST_SEED + 1000 + model_number
        right &= predict(train(model, data, setting.recipe, seed=seed), test.x) == test.y
    return right


def draw(test: Data, right: torch.Tensor) -> list[FixedTrial]:
    """The trials, pair by pair, none with a target that another has."""
    generator = torch.Generator().manual_seed(FIRST_SEED)
    left, trials = right.clone(), []
    for group in NEIGHBOURS:
        for true_class, adversarial in permutations(map(test.classes.index, group), 2):
            rows = (left & (test.y == true_class)).nonzero()[:, 0]
            chosen = rows[torch.randperm(len(rows), generator=generator)[: len(PARTS)]]
            left[chosen] = False
            for part, image in zip(PARTS, chosen.tolist(), strict=True):
                seed = FIRST_SEED + len(trials)
                trials.append(FixedTrial(part, image, true_class, adversarial, seed))
    return trials


def main() -> None:
    """Write the file and say what was drawn from."""
    train_all, test = load("fashion_mnist")
    right = certain(train_all, test)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(FixedTrial._fields)
    rows.writerows(draw(test, right))
    write({FILE: text.getvalue()})
    shares = [right[test.y == number].float().mean().item() for number in range(len(test.classes))]
    for name, share in zip(test.classes, shares, strict=True):
        print(f"{name}: {share:.0%} of the test images are classified rightly by all")
    print(f"all: {right.float().mean().item():.0%}")
    print(f"sha256 {hashlib.sha256(text.getvalue().encode()).hexdigest()}")


if __name__ == "__main__":
    main()
