"""The attacks of lesson 08: what the poison carries, what it does, and what is refused.

The functions one by one: test_hidden_trigger.py and test_sleeper_agent.py in tests/reference.
"""

import pytest
import torch
from torch import Tensor

from course_utils.attacks.gradient_matching import alignment_loss
from course_utils.attacks.hidden_trigger import (
    covered,
    faint_trigger,
    hidden_trigger,
    patched_sources,
)
from course_utils.attacks.sleeper_agent import patched_gradient, sleeper_agent
from course_utils.attacks.triggers import bernoulli_patch, blended_pattern, solid_patch
from course_utils.data import Data, balanced, load
from course_utils.models import build
from course_utils.threat import Backdoor, Poison, ThreatModel, ThreatModelError
from course_utils.training import Recipe, train

EPSILON = 32 / 255
SOURCE, TARGET = 0, 3  # T-shirt, Dress
GOAL = Backdoor(bernoulli_patch(8, seed=0), TARGET, SOURCE)
THREAT = ThreatModel(budget=40, epsilon=EPSILON, clean_label=True)
HEAD = Recipe(epochs=15, batch_size=50, lr=0.1)
SCRATCH = Recipe(epochs=15, batch_size=50, lr=0.05)
ATTACKS = {"hidden_trigger": hidden_trigger, "sleeper_agent": sleeper_agent}
each_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)


@pytest.fixture(scope="module")
def setting() -> tuple[Data, Data, list]:
    """800 training images, 1,000 test images, and an MLP trained on 3,000 others."""
    train_all, test_all = load()
    data, others = balanced(train_all[:9000], 800, seed=0), balanced(train_all[9000:], 3000, seed=0)
    model = train(build("mlp", data.shape, 10), others, Recipe(epochs=10), seed=1)
    return data, balanced(test_all, 1000, seed=0), [model]


@pytest.fixture(scope="module")
def poisons(setting) -> dict[str, Poison]:
    """One poison of each attack."""
    data, _, surrogates = setting
    return {name: attack(surrogates, data, GOAL, THREAT, 0) for name, attack in ATTACKS.items()}


@pytest.fixture
def few(images) -> tuple[Data, list]:
    """300 training images and an untrained linear model: enough to be refused."""
    return images, [build("logistic_regression", images.shape, 10)]


@pytest.mark.parametrize("name", ATTACKS)
def test_poisons_keep_to_the_threat_model_and_show_no_trigger(setting, poisons, name):
    data, poison = setting[0], poisons[name]
    poison.check(THREAT, data)
    assert len(poison) == THREAT.budget and (poison.labels == TARGET).all()
    base, mask = data.x[poison.base], covered(GOAL.trigger, data.x)
    assert (poison.images - base).abs().max() > 0.9 * EPSILON
    seen, clean, patched = (x[:, mask] for x in (poison.images, base, GOAL.trigger(base)))
    assert (seen - clean).abs().max() <= EPSILON + 1e-6
    # Wherever the patch moves a pixel by more than epsilon, the poison is not there.
    far = (patched - clean).abs() > EPSILON + 0.1
    assert ((seen - patched).abs()[far] > 0.09).all()
    assert (far.float().mean(1) > 0.2).all(), "each image must be far from carrying the patch"


@each_attack
def test_spared_pixels_stay_and_seeds_decide(setting, attack):
    data, _, surrogates = setting
    mask, threat = covered(GOAL.trigger, data.x), ThreatModel(5, EPSILON, clean_label=True)
    first, same = (attack(surrogates, data, GOAL, threat, 0, spare=mask, steps=3) for _ in "ab")
    other = attack(surrogates, data, GOAL, threat, 1, spare=mask, steps=3)
    first.check(threat, data)
    base = data.x[first.base]
    assert torch.equal(first.images[:, mask], base[:, mask])
    assert not torch.equal(first.images[:, ~mask], base[:, ~mask])
    assert torch.equal(first.images, same.images) and torch.equal(first.base, same.base)
    assert not torch.equal(first.images, other.images)


def test_hidden_trigger_moves_its_poison_and_beats_its_controls(setting, poisons):
    data, test, (extractor,) = setting
    poison = poisons["hidden_trigger"]
    patched = GOAL.trigger(data.x[data.y == SOURCE])
    with torch.no_grad():
        places = [extractor.features(x) for x in (data.x[poison.base], poison.images, patched)]
    before, after = (torch.cdist(x, places[2]).amin(1).mean() for x in places[:2])
    assert after < 0.7 * before
    noise = poison.noise_control(data, torch.Generator().manual_seed(0))
    rates = []
    for seen in (data, noise.apply(data), poison.apply(data)):
        victim = train(extractor, seen, HEAD, scenario="transfer", seed=0)
        rates.append(GOAL.measure(victim, test)["asr"])
    assert rates[2] > max(rates[:2]) + 0.1, rates


def test_sleeper_agent_aligns_its_poison_and_beats_its_controls(setting, poisons):
    data, test, (surrogate,) = setting
    poison = poisons["sleeper_agent"]
    noise = poison.noise_control(data, torch.Generator().manual_seed(0))
    wanted = patched_gradient(surrogate, data.x, data.y, GOAL)
    losses = [
        alignment_loss(surrogate, x, poison.labels, wanted).item()
        for x in (poison.images, noise.images)
    ]
    assert losses[0] < 0.3 * losses[1]
    model, rates = build("mlp", data.shape, 10), []
    for seen in (data, noise.apply(data), poison.apply(data)):
        rates.append(GOAL.measure(train(model, seen, SCRATCH, seed=0), test)["asr"])
    assert rates[2] > max(rates[:2]) + 0.3, rates


def test_retraining_gets_the_poisoned_data_and_gives_the_next_surrogates(setting):
    data, _, surrogates = setting
    threat, calls = ThreatModel(5, EPSILON, clean_label=True), []

    def retrain(seen: Data, number: int) -> list:
        calls.append((number, int((seen.x != data.x).flatten(1).any(1).sum()), seen.y))
        return [train(surrogates[0], seen, Recipe(epochs=1), seed=number)]

    options = dict(retrain=retrain, rounds=3, steps=6)
    poison = sleeper_agent(surrogates, data, GOAL, threat, 0, **options)
    poison.check(threat, data)
    assert [call[:2] for call in calls] == [(1, 5), (2, 5)]
    assert all(torch.equal(call[2], data.y) for call in calls)


def test_the_patched_gradient_is_a_finite_difference(few):
    data, (model,) = few
    gradient = patched_gradient(model, data.x, data.y, GOAL)
    patched = GOAL.trigger(data.x[data.y == SOURCE])
    weight = model.head.weight.data

    def loss() -> Tensor:
        return -model(patched).log_softmax(1)[:, TARGET].mean()

    for row, column in ((TARGET, 400), (SOURCE, 300), (5, 620)):
        before = weight[row, column].item()
        weight[row, column] = before + 0.01
        above = loss().item()
        weight[row, column] = before - 0.01
        slope = (above - loss().item()) / 0.02
        weight[row, column] = before
        assert gradient[0][row, column].item() == pytest.approx(slope, abs=1e-4)


def test_covered_finds_the_pixels_of_an_opaque_trigger(images):
    mask = covered(solid_patch(8), images.x)
    assert mask.shape == images.shape and mask.sum() == 64 and mask[0, 19:27, 19:27].all()
    assert covered(bernoulli_patch(8, 0, corner="random"), images.x).sum() == 4 * 64
    assert not covered(blended_pattern(0.2, 0), images.x).any()


def test_a_faint_trigger_keeps_the_bound_and_goes_the_right_way(images):
    faint = faint_trigger(images.x, GOAL.trigger, EPSILON)
    full, moved = GOAL.trigger(images.x) - images.x, faint - images.x
    assert moved.abs().max() <= EPSILON + 1e-6 and (moved * full >= 0).all()
    mask = covered(GOAL.trigger, images.x)
    assert torch.equal(faint[:, ~mask], images.x[:, ~mask])
    assert torch.allclose(faint_trigger(images.x, GOAL.trigger, 1.0), GOAL.trigger(images.x))


@each_attack
def test_what_cannot_work_is_refused(few, attack):
    data, surrogates = few
    with pytest.raises(ThreatModelError, match="one-to-one"):
        attack(surrogates, data, Backdoor(GOAL.trigger, TARGET), THREAT, 0)
    with pytest.raises(ThreatModelError, match="no image of the source class T-shirt"):
        attack(surrogates, data[data.y != SOURCE], GOAL, THREAT, 0)
    with pytest.raises(ThreatModelError, match="needs a bound"):
        attack(surrogates, data, GOAL, ThreatModel(5), 0)
    with pytest.raises(ThreatModelError, match="has 30 images of class Dress"):
        attack(surrogates, data, GOAL, ThreatModel(31, EPSILON), 0)
    with pytest.raises(ThreatModelError, match="No surrogate"):
        attack([], data, GOAL, THREAT, 0)
    with pytest.raises(ThreatModelError, match="has 4 classes"):
        attack([build("logistic_regression", data.shape, 4)], data, GOAL, THREAT, 0)
    with pytest.raises(ValueError, match="does not fit") as refused:
        attack(surrogates, data, Backdoor(solid_patch(28), TARGET, SOURCE), THREAT, 0)
    assert refused.type is ValueError, "a bad patch, not a bad threat model"


def test_surrogates_that_are_fooled_already_leave_nothing_to_attack(few):
    data, (model,) = few
    torch.nn.init.zeros_(model.head.weight)
    model.head.bias.data = torch.eye(10)[TARGET]
    with pytest.raises(ThreatModelError, match="nothing is left to attack"):
        patched_sources([model], data, GOAL, THREAT)


def test_goals_and_budgets_that_make_no_sense_are_refused():
    with pytest.raises(ThreatModelError, match="both 3"):
        Backdoor(GOAL.trigger, TARGET, TARGET)
    with pytest.raises(ThreatModelError, match="at least 1 image"):
        ThreatModel(0, EPSILON)


@each_attack
@pytest.mark.parametrize(
    ("trigger", "words"),
    [
        (lambda x: x[:-1], "one image of the same size for each"),
        (lambda x: x.repeat(2, 1, 1, 1), "one image of the same size for each"),
        (lambda x: 255 * x, "divide by 255"),
    ],
    ids=["drops one", "adds some", "leaves the box"],
)
def test_a_trigger_that_gives_other_images_is_refused(few, attack, trigger, words):
    data, surrogates = few
    with pytest.raises(ThreatModelError, match=words):
        attack(surrogates, data, Backdoor(trigger, TARGET, SOURCE), THREAT, 0)


@each_attack
def test_a_surrogate_of_nan_is_refused(few, attack):
    data, (surrogate,) = few
    with torch.no_grad():
        surrogate.head.weight[0] = torch.nan
    with pytest.raises(ThreatModelError, match=r"NaN or infinity in head.weight"):
        attack([surrogate], data, GOAL, THREAT, 0)


@each_attack
def test_a_surrogate_in_training_mode_is_left_alone(images, attack):
    surrogate = build("small_cnn", images.shape, 10, norm="batch").train()
    before = {name: value.clone() for name, value in surrogate.state_dict().items()}
    with pytest.raises(ThreatModelError, match=r"call surrogate.eval\(\)"):
        attack([surrogate], images, GOAL, THREAT, 0)
    assert all(torch.equal(v, before[name]) for name, v in surrogate.state_dict().items())
