"""One training loop, written out: optimizers, seeds, sampling."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from course_utils.defense import Defense
from course_utils.models import build
from course_utils.training import Recipe, batch_rows, batches_in, make_optimizer, train
from tests.reference.small import drawn, flat, noise_data

DATA = noise_data()


@pytest.mark.parametrize("scenario", ["scratch", "finetune", "transfer"])
def test_a_victim_of_the_published_recipe_written_out(scenario):
    """Nesterov by hand, the one-cycle schedule from torch on its own optimizer."""
    model, seed = build("mlp", DATA.shape, 3, seed=8, width=5), 6
    recipe = Recipe(3, 8, 0.1, weight_decay=0.01)
    found = train(model, DATA, recipe, scenario=scenario, seed=seed)
    twin = build("mlp", DATA.shape, 3, seed=8, width=5)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if scenario == "scratch":
            for layer in (twin.features[1], twin.features[3], twin.head):
                layer.reset_parameters()
        if scenario == "transfer":
            twin.head.reset_parameters()
    weights = list((twin.head if scenario == "transfer" else twin).parameters())
    dummy = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        dummy, 0.1, total_steps=3 * 4 + 1, cycle_momentum=False
    )
    speed, generator = [torch.zeros_like(w) for w in weights], drawn(seed)
    for _ in range(3):
        for rows in torch.randperm(30, generator=generator).split(8):
            slopes = torch.autograd.grad(cross_entropy(twin(DATA.x[rows]), DATA.y[rows]), weights)
            (lr,) = cycle.get_last_lr()
            with torch.no_grad():
                for weight, moving, slope in zip(weights, speed, slopes, strict=True):
                    pull = slope + 0.01 * weight
                    moving.mul_(0.9).add_(pull)
                    weight -= lr * (pull + 0.9 * moving)
            dummy.step()
            cycle.step()
    torch.testing.assert_close(flat(found.parameters()), flat(twin.parameters()))


def test_adam_decays_weights_at_a_constant_rate():
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    adam, schedule = make_optimizer([weight], Recipe(2, 5, 0.01, 0.5, "adam"), 3)
    for step in range(1, 4):
        weight.grad = torch.zeros(1)
        adam.step()
        schedule.step()
        assert weight.item() == pytest.approx(2 - 0.01 * step, abs=1e-4)


def test_a_poisson_sample_takes_each_row_at_the_rate_of_the_batch_size():
    """101 images in batches of 100 are two batches an epoch, of a rate of 100 in 101."""
    assert batches_in(101, 100) == 2 and batches_in(100, 100) == 1
    generator = drawn(3)
    sizes = [len(rows) for _ in range(60) for rows in batch_rows(101, 100, True, generator)]
    assert len(sizes) == 120 and sum(sizes) / 120 == pytest.approx(100, abs=0.5)


def test_a_filter_looks_with_a_model_trained_as_the_victim():
    seen = {}

    def keep(data, fit):
        seen["model"] = fit(data)
        return torch.ones(len(data), dtype=torch.bool)

    recipe, model = Recipe(2, 10, 0.1), build("mlp", DATA.shape, 3, seed=8, width=5)
    for scenario in ("scratch", "finetune", "transfer"):
        train(model, DATA, recipe, scenario=scenario, seed=4, defense=Defense("look", keep=keep))
        plain = train(model, DATA, recipe, scenario=scenario, seed=4)
        assert torch.equal(flat(seen["model"].parameters()), flat(plain.parameters()))
