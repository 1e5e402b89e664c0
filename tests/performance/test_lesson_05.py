"""How long gradient matching takes: measured and reported, never asserted."""

import pytest
import torch

from course_utils.attacks.crafting import signed_adam
from course_utils.attacks.gradient_matching import (
    alignment_loss,
    choose_bases,
    gradient_matching,
    matching_objective,
    staggered,
    target_gradient,
)
from course_utils.cases.goals import draw_goal
from course_utils.data import balanced, load
from course_utils.models import build
from course_utils.runtime import one_thread
from course_utils.threat import ThreatModel
from course_utils.training import Recipe

EPSILON = 32 / 255


@pytest.fixture(scope="module")
def scene():
    """3,000 images, four surrogate MLPs, a goal, 150 bases and the wanted gradients."""
    data, test = balanced(load()[0], 3000, seed=0), load()[1]
    model = build("mlp", data.shape, 10)
    surrogates = staggered(
        model, data, Recipe(epochs=20), seed=0, numbers=range(2), epochs=(10, 20)
    )
    goal = draw_goal(surrogates[1::2], test, seed=0)
    rows = (data.y == goal.adversarial_class).nonzero()[:, 0]
    base = choose_bases(surrogates[1:2], data, rows, 150)
    label = torch.tensor([goal.adversarial_class])
    wanted = [target_gradient(s, goal.image[None], label) for s in surrogates]
    return data, surrogates, goal, base, wanted


def naive_alignment_loss(model, images, labels, wanted):
    """The same loss on one long vector: everything is copied twice."""
    loss = torch.nn.functional.cross_entropy(model(images), labels)
    found = torch.autograd.grad(loss, tuple(model.parameters()), create_graph=True)
    vectors = (torch.cat([part.flatten() for part in g]) for g in (found, wanted))
    return 1 - torch.nn.functional.cosine_similarity(*vectors, dim=0)


@pytest.mark.benchmark(group="alignment")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("loss", "per_step"),
    [(alignment_loss, None), (alignment_loss, 1), (naive_alignment_loss, None)],
    ids=["four surrogates", "one of four", "four surrogates, one long vector"],
)
def test_one_step_over_150_poisons_and_4_mlps(benchmark, scene, loss, per_step, threads):
    """A pilot needed 15 ms with four surrogates on two threads (aim: less)."""
    data, surrogates, _, base, wanted = scene
    clean, labels = data.x[base], data.y[base]
    generator = torch.Generator().manual_seed(0)
    options = {"per_step": per_step, "loss": loss}
    objective = matching_objective(surrogates, wanted, labels, generator, **options)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        benchmark.pedantic(
            signed_adam,
            (objective, clean, clean, EPSILON),
            {"steps": 1, "lr": 0.1},
            rounds=50,
            warmup_rounds=5,
        )
    finally:
        torch.set_num_threads(before)


@pytest.mark.benchmark(group="alignment, whole crafting")
@pytest.mark.parametrize("per_step", [1, None], ids=["one of four", "four surrogates"])
def test_a_whole_crafting(benchmark, scene, per_step):
    """Choice of bases, 100 steps, in one thread as in every trial."""
    data, surrogates, goal, _, _ = scene
    threat = ThreatModel(150, EPSILON, clean_label=True)
    with one_thread():
        benchmark.pedantic(
            gradient_matching,
            (surrogates, data, goal, threat, 0),
            {"per_step": per_step},
            rounds=3,
        )
