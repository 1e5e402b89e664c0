"""How long gradient shaping takes beside plain training: measured and reported, never asserted.

In processor time, one thread, one epoch: for the MLP 3,000 images, for the small CNN 600. Aim: our
ghost way takes at most 2.5 times as long as plain training of the MLP.
"""

import time
import warnings
from functools import partial

import pytest
from opacus import PrivacyEngine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from course_utils.data import balanced, load
from course_utils.defense import PLAIN, Defense
from course_utils.defenses.gradient_shaping import batch_shaping, gradient_shaping
from course_utils.defenses.per_example import clip_and_noise, per_example_gradients
from course_utils.models import build
from course_utils.runtime import one_thread
from course_utils.training import Recipe, make_optimizer, train

RECIPE = Recipe(epochs=1, batch_size=100, lr=0.1)
SIZES = {"mlp": 3000, "small_cnn": 600}
PLAIN_SECONDS = {}


def naive_gradients(model, x, y, generator):
    """Every example's gradient in full."""
    return clip_and_noise(per_example_gradients(model, x, y), 1.0, 0.5, 100, generator)


def ours(defense, model, data):
    """One epoch of the course's own training."""
    train(model, data, RECIPE, scenario="finetune", defense=defense)


def opacus(mode, model, data):
    """One epoch in Opacus's own loop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the modes warn of different things; here only time counts
        engine = PrivacyEngine(accountant="rdp")
        loader = DataLoader(TensorDataset(data.x, data.y), batch_size=RECIPE.batch_size)
        sgd, schedule = make_optimizer(list(model.parameters()), RECIPE, len(loader))
        wrapped, optimizer, *loss, batches = engine.make_private(
            module=model.train(),
            optimizer=sgd,
            data_loader=loader,
            noise_multiplier=0.5,
            max_grad_norm=1.0,
            grad_sample_mode=mode,
        )
        loss = loss[0] if loss else nn.CrossEntropyLoss()
        for x, y in batches:
            optimizer.zero_grad()
            loss(wrapped(x.requires_grad_()), y).backward()
            optimizer.step()
            schedule.step()


WAYS = {
    "plain": partial(ours, PLAIN),
    "ghost": partial(ours, gradient_shaping(1.0, 0.5)),
    "ghost, no noise": partial(ours, gradient_shaping(1.0, 0.0)),
    "batch shortcut": partial(ours, batch_shaping(1.0, 0.01)),
    "naive": partial(ours, Defense("naive", gradients=naive_gradients, poisson=True)),
    "Opacus, hooks": partial(opacus, "hooks"),
    "Opacus, functorch": partial(opacus, "functorch"),
    "Opacus, ghost": partial(opacus, "ghost"),
}


@pytest.mark.benchmark(group="gradient shaping, one epoch", timer=time.process_time)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SIZES)
def test_one_epoch(benchmark, name, way, capsys):
    """Plain comes first: the others are reported as multiples of it."""
    data = balanced(load()[0], SIZES[name], seed=0)
    slow = way in ("naive", "Opacus, hooks", "Opacus, functorch")

    def fresh():
        return (build(name, data.shape, 10), data), {}

    with one_thread():
        benchmark.pedantic(WAYS[way], setup=fresh, rounds=2 if slow else 5)
    if benchmark.disabled:
        return
    seconds = benchmark.stats.stats.min
    if way == "plain":
        PLAIN_SECONDS[name] = seconds
    if name in PLAIN_SECONDS:
        ratio = seconds / PLAIN_SECONDS[name]
        benchmark.extra_info["times_plain"] = round(ratio, 2)
        with capsys.disabled():
            print(f"\n{name}, {way}: {seconds:.2f} s, {ratio:.1f} times plain")
