"""What a meta-step costs beside an alignment step: measured and reported, never asserted."""

import pytest
import torch

from course_utils.attacks.gradient_matching import alignment_loss, target_gradient
from course_utils.attacks.metapoison import unrolled_loss, weights_of
from course_utils.data import balanced, load
from course_utils.models import build
from course_utils.runtime import one_thread

KINDS = {
    "alignment": None,
    "meta, 1 step": (1, False),
    "meta, 2 steps": (2, False),
    "meta, 2 steps, first order": (2, True),
    "meta, 5 steps": (5, False),
    "meta, 5 steps, first order": (5, True),
}
fastest = {}


@pytest.mark.benchmark(group="gradient for 150 images, MLP")
@pytest.mark.parametrize("kind", KINDS)
def test_one_gradient_for_150_images(benchmark, kind, capsys):
    """One surrogate, 150 images in the batch, one thread; the ratio to an alignment step."""
    data = balanced(load()[0], 160, seed=0)
    model, target, wrong = build("mlp", data.shape, 10), data.x[150:151], (data.y[150] + 1) % 10
    x, y = data.x[:150].clone().requires_grad_(), data.y[:150]
    wanted, weights = target_gradient(model, target, wrong[None]), weights_of(model)

    def gradient():
        if KINDS[kind] is None:
            loss = alignment_loss(model, x, y, wanted)
        else:
            steps, first_order = KINDS[kind]
            outer = target, wrong.item(), 0.1, steps
            loss = unrolled_loss(model, weights, x, y, *outer, first_order=first_order)
        return torch.autograd.grad(loss, x)

    with one_thread():
        benchmark.pedantic(gradient, rounds=20, warmup_rounds=3)
    if benchmark.disabled:
        return
    fastest[kind] = benchmark.stats.stats.min
    if "alignment" in fastest:
        ratio = fastest[kind] / fastest["alignment"]
        benchmark.extra_info["ratio to alignment"] = round(ratio, 2)
        with capsys.disabled():
            print(f"\n{kind}: {1000 * fastest[kind]:.1f} ms, {ratio:.2f} times an alignment step")
