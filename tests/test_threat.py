"""course_utils.threat: what an attacker wants, may change and did change."""

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from course_utils.data import Data
from course_utils.threat import (
    TOLERANCE,
    Backdoor,
    Indiscriminate,
    Poison,
    Targeted,
    ThreatModel,
    ThreatModelError,
    accuracy,
    achieved,
)

CLASSES = ("ant", "bee", "cow")
EPSILON = 8 / 255


def make(n: int = 6, seed: int = 0) -> Data:
    """n random images, labels 0, 1, 2, 0, 1, 2, ..."""
    x = torch.rand(n, 1, 3, 3, generator=torch.Generator().manual_seed(seed))
    return Data(x, torch.arange(n) % len(CLASSES), CLASSES)


def poison_of(
    data: Data, base: list[int], change: float = 0.0, placement: str = "replace"
) -> Poison:
    """The base images, each moved by `change` towards grey, with their own labels."""
    rows = torch.tensor(base)
    clean = data.x[rows]
    images = clean + change * torch.where(clean < 0.5, 1.0, -1.0)
    return Poison(images, data.y[rows], rows, placement)


# The threat model


@pytest.mark.parametrize("budget", [0, -3, 0.1, 2.5, 9.0, float("nan"), None])
def test_a_budget_that_is_no_number_of_images_is_refused(budget):
    with pytest.raises(ThreatModelError, match="allow at least 1 image"):
        ThreatModel(budget=budget)


@pytest.mark.parametrize("epsilon", [0, -0.1, 1.01, 8, float("nan")])
def test_an_epsilon_outside_the_pixel_range_is_refused(epsilon):
    with pytest.raises(ThreatModelError, match="write 8/255 for eight grey levels"):
        ThreatModel(budget=1, epsilon=epsilon)


def test_an_unknown_placement_is_refused():
    with pytest.raises(ThreatModelError, match="'insert': use 'replace' or 'append'"):
        ThreatModel(budget=1, placement="insert")


def test_shares_are_of_the_data_and_of_the_adversarial_class():
    data = Data(torch.zeros(10, 1, 2, 2), torch.tensor([0] * 6 + [1] * 4), CLASSES)
    text = ThreatModel(budget=2).shares(data, adversarial_class=1)
    assert text == "2 images: 20.0% of the data, 50.0% of class bee"


def test_shares_of_a_class_without_images_are_refused():
    data = Data(torch.zeros(2, 1, 2, 2), torch.tensor([0, 0]), CLASSES)
    with pytest.raises(ThreatModelError, match="no image of class 1"):
        ThreatModel(budget=2).shares(data, adversarial_class=1)


# The goals, measured on models whose predictions are known


class Always(nn.Module):
    """Sees one class in every image."""

    def __init__(self, label: int) -> None:
        super().__init__()
        self.label = label

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(torch.full((len(x),), self.label), len(CLASSES)).float()


class Reads(nn.Module):
    """Sees the class that is written in the first pixel: 0.0, 0.1 or 0.2."""

    def forward(self, x: Tensor) -> Tensor:
        written = x[:, 0, 0, 0].mul(10).round().long()
        return nn.functional.one_hot(written, len(CLASSES)).float()


def written(labels: list[int]) -> Data:
    """Images that carry their own class in the first pixel."""
    y = torch.tensor(labels)
    x = torch.zeros(len(y), 1, 2, 2)
    x[:, 0, 0, 0] = y / 10
    return Data(x, y, CLASSES)


def write_zero_on_class_one(x: Tensor) -> Tensor:
    """A trigger that works on images of class 1 only, and leads to class 0."""
    x = x.clone()
    pixel = x[:, 0, 0, 0]
    pixel[pixel.mul(10).round() == 1] = 0
    return x


def test_accuracy_is_the_share_of_right_predictions():
    test = written([0, 0, 0, 1])
    assert accuracy(Reads(), test) == 1
    assert accuracy(Always(0), test) == 0.75


def test_the_accuracy_of_no_image_is_refused():
    with pytest.raises(ThreatModelError, match="test data is empty"):
        accuracy(Reads(), written([0])[:0])


def test_an_indiscriminate_goal_measures_accuracy_only():
    assert Indiscriminate().measure(Always(1), written([0, 0, 0, 1])) == {"accuracy": 0.25}


def test_a_targeted_goal_succeeds_only_with_the_adversarial_class():
    test = written([0, 1, 2, 2])
    goal = Targeted(test.x[0], true_class=0, adversarial_class=1)
    assert goal.measure(Always(1), test) == {"accuracy": 0.25, "success": True}
    assert goal.measure(Always(2), test) == {"accuracy": 0.5, "success": False}
    assert goal.measure(Reads(), test) == {"accuracy": 1.0, "success": False}


def test_what_is_achieved_is_a_number_for_each_kind_of_goal():
    test = written([0, 1, 2, 2])
    goals = Targeted(test.x[0], 0, 1), Backdoor(write_zero_on_class_one, 0, 1), Indiscriminate()
    found = [achieved(goal.measure(Reads(), test)) for goal in goals]
    assert found[:2] == [0.0, 1.0] and math.isnan(found[2])
    assert all(type(one) is float for one in found)


def test_a_target_of_the_adversarial_class_is_refused():
    with pytest.raises(ThreatModelError, match="already has class 1"):
        Targeted(torch.zeros(1, 2, 2), true_class=1, adversarial_class=1)


def test_a_target_must_be_a_single_image():
    with pytest.raises(ThreatModelError, match=r"got shape \(1, 1, 2, 2\)"):
        Targeted(torch.zeros(1, 1, 2, 2), true_class=0, adversarial_class=1)


NO_IMAGE = torch.zeros(1, 2, 2)


@pytest.mark.parametrize("label", [-1, 1.5, None, "ant"])
@pytest.mark.parametrize(
    "goal",
    [
        lambda label: Targeted(NO_IMAGE, label, 1),
        lambda label: Targeted(NO_IMAGE, 0, label),
        lambda label: Backdoor(lambda x: x, label),
        lambda label: Backdoor(lambda x: x, 0, source_class=label or 1.5),
    ],
)
def test_a_class_that_is_no_position_is_refused(goal, label):
    with pytest.raises(ThreatModelError, match=r"class is .*, expected a position in data\."):
        goal(label)


@pytest.mark.parametrize(
    "goal",
    [
        Targeted(NO_IMAGE, 0, 3),
        Targeted(NO_IMAGE, 3, 0),
        Backdoor(lambda x: x, 3),
        Backdoor(lambda x: x, 0, source_class=3),
    ],
)
def test_a_class_that_the_data_does_not_have_is_refused(goal):
    with pytest.raises(ThreatModelError, match=r"names class 3, but .* numbered 0 to 2"):
        goal.measure(Always(0), written([0, 1, 2]))
    with pytest.raises(ThreatModelError, match="names class 3"):
        ThreatModel(1).shares(written([0, 1, 2]), 3)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.full((1, 2, 2), 200.0), "pixel value 200, expected values in .* divide by 255"),
        (torch.full((1, 2, 2), -0.4), "pixel value -0.4, .* undo a normalisation"),
        (torch.full((1, 2, 2), float("nan")), "pixel value nan"),
        (torch.zeros(1, 2, 2, dtype=torch.uint8), "torch.uint8 pixels, expected torch.float32"),
        (torch.zeros(1, 2, 2).double(), "torch.float64 pixels, expected torch.float32"),
    ],
)
def test_a_target_that_is_no_image_is_refused(image, message):
    with pytest.raises(ThreatModelError, match=f"The target has .*{message}"):
        Targeted(image, 0, 1)


@pytest.mark.parametrize(
    ("trigger", "message"),
    [
        (lambda x: x[:-1], r"shape \(2, 1, 2, 2\) into \(1, 1, 2, 2\)"),
        (lambda x: torch.cat([x, x]), r"into \(4, 1, 2, 2\)"),
        (lambda x: x[..., :1], r"into \(2, 1, 2, 1\)"),
        (lambda x: x + 1, "pixel value 1.1"),
        (lambda x: x / 0, "pixel value inf"),
        (lambda x: x * float("nan"), "pixel value nan"),
        (lambda x: x.double(), "torch.float64 pixels"),
    ],
)
def test_a_trigger_that_gives_other_images_is_refused(trigger, message):
    with pytest.raises(ThreatModelError, match=message):
        Backdoor(trigger, 0).measure(Always(0), written([0, 1, 2]))


class NotANumber(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.full((len(x), 3), float("nan"))


@pytest.mark.parametrize(
    "goal", [Indiscriminate(), Targeted(NO_IMAGE, 1, 0), Backdoor(lambda x: x, 0)]
)
def test_a_model_that_gives_no_numbers_wins_nothing(goal):
    with pytest.raises(ValueError, match=r"logits for image 0 of \d are not numbers"):
        goal.measure(NotANumber(), written([0, 1, 2]))


def test_images_of_the_target_class_never_count_as_successes():
    test = written([0, 0, 0, 0, 1, 1, 2, 2])
    no_backdoor = Backdoor(trigger=lambda x: x, target_class=0).measure(Reads(), test)
    assert no_backdoor == {"accuracy": 1.0, "asr": 0.0}  # 0.5 if all images counted
    half = Backdoor(trigger=write_zero_on_class_one, target_class=0).measure(Reads(), test)
    assert half["asr"] == 0.5  # 0.75 if all images counted


def test_a_one_to_one_backdoor_counts_its_source_class_only():
    test = written([0, 1, 1, 2, 2, 2])
    for source, rate in ((1, 1.0), (2, 0.0)):
        goal = Backdoor(write_zero_on_class_one, target_class=0, source_class=source)
        assert goal.measure(Reads(), test)["asr"] == rate


def test_a_backdoor_measures_accuracy_without_the_trigger():
    test = written([1, 1, 2, 2])
    goal = Backdoor(write_zero_on_class_one, target_class=0)
    assert goal.measure(Reads(), test)["accuracy"] == 1


@pytest.mark.parametrize(("source", "rate"), [(None, 2 / 6), (1, 1 / 2), (2, 1 / 4)])
def test_the_rate_without_the_trigger_is_that_of_the_same_images(source, rate):
    seen, labels = written([0, 1, 0, 0, 2, 2, 2]), torch.tensor([0, 1, 1, 2, 2, 2, 2])
    test = Data(seen.x, labels, CLASSES)
    goal = Backdoor(lambda x: torch.zeros_like(x), target_class=0, source_class=source)
    assert goal.measure(Reads(), test)["asr"] == 1
    assert goal.by_itself(Reads(), test) == pytest.approx(rate)


def test_a_backdoor_from_a_class_to_itself_is_refused():
    with pytest.raises(ThreatModelError, match="both 2"):
        Backdoor(trigger=lambda x: x, target_class=2, source_class=2)


@pytest.mark.parametrize(("labels", "source"), [([0, 0], None), ([0, 2], 1)])
def test_a_backdoor_needs_test_images_to_try_the_trigger_on(labels, source):
    goal = Backdoor(trigger=lambda x: x, target_class=0, source_class=source)
    with pytest.raises(ThreatModelError, match="no image on which the trigger could be tried"):
        goal.measure(Reads(), written(labels))


# Poison.check: the rules, one by one


def test_an_honest_poison_passes():
    data = make()
    threat = ThreatModel(budget=2, epsilon=EPSILON, clean_label=True)
    poison_of(data, [4, 1], change=EPSILON).check(threat, data)


def test_more_poisons_than_the_budget_are_refused():
    data = make()
    with pytest.raises(ThreatModelError, match="3 poisons, but the budget is 2: drop 1"):
        poison_of(data, [0, 1, 2]).check(ThreatModel(budget=2), data)


def test_a_budget_larger_than_the_data_is_refused():
    data = make(6)
    poison_of(data, [0]).check(ThreatModel(budget=6), data)
    with pytest.raises(ThreatModelError, match=r"budget of 7 is larger than .* \(6 images\)"):
        poison_of(data, [0]).check(ThreatModel(budget=7), data)


def test_the_bound_error_names_the_first_offender_and_its_size():
    data = make()
    poison = poison_of(data, [0, 1, 2])
    for row, change in ((1, 20 / 255), (2, 40 / 255)):
        poison.images[row] = poison_of(data, [row], change).images[0]
    message = r"Poison 1 changes a pixel by 20\.00/255, more than epsilon = 8\.00/255"
    with pytest.raises(ThreatModelError, match=message):
        poison.check(ThreatModel(budget=3, epsilon=EPSILON), data)


def test_without_an_epsilon_any_change_inside_the_box_passes():
    data = make()
    poison = Poison(1 - data.x[:2], data.y[:2], torch.arange(2))
    poison.check(ThreatModel(budget=2), data)


@pytest.mark.parametrize("value", [-0.01, 1.01, 1 + 1e-6, float("nan"), float("inf")])
def test_pixels_outside_the_box_are_refused(value):
    data = make()
    poison = poison_of(data, [0, 1, 2])
    poison.images[1, 0, 2, 2] = value
    with pytest.raises(ThreatModelError, match=r"Poison 1 has pixels .* outside \[0, 1\]"):
        poison.check(ThreatModel(budget=3), data)


def test_a_changed_label_breaks_the_clean_label_promise_only():
    data = make()
    poison = poison_of(data, [0, 1, 2])
    poison.labels[1] = 2
    poison.check(ThreatModel(budget=3), data)
    with pytest.raises(ThreatModelError, match=r"Poison 1 is labelled cow, but its base .* bee"):
        poison.check(ThreatModel(budget=3, clean_label=True), data)


@pytest.mark.parametrize("label", [-1, 3])
@pytest.mark.parametrize("clean_label", [True, False])
def test_labels_outside_the_classes_are_refused(label, clean_label):
    data = make()
    poison = poison_of(data, [0, 1, 2])
    poison.labels[2] = label
    message = f"Poison 2 has label {label}, but the classes are numbered 0 to 2"
    with pytest.raises(ThreatModelError, match=message):
        poison.check(ThreatModel(budget=3, clean_label=clean_label), data)
    with pytest.raises(ThreatModelError, match=message):
        poison.apply(data)


def test_one_image_cannot_be_replaced_twice():
    data = make()
    with pytest.raises(ThreatModelError, match="Training image 4 is replaced more than once"):
        poison_of(data, [0, 4, 4]).check(ThreatModel(budget=3), data)


def test_one_image_may_be_the_base_of_two_appended_poisons():
    data = make()
    poison = poison_of(data, [4, 4], EPSILON, placement="append")
    poison.check(ThreatModel(budget=2, epsilon=EPSILON, placement="append"), data)


@pytest.mark.parametrize("row", [-1, 6])
def test_base_rows_outside_the_data_are_refused(row):
    data = make(6)
    poison = Poison(data.x[:2], data.y[:2], torch.tensor([0, row]))
    with pytest.raises(ThreatModelError, match=f"Poison 1 has base row {row}, .* rows 0 to 5"):
        poison.check(ThreatModel(budget=2), data)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((0, 0, 0), "holds no image"),
        ((2, 1, 2), r"2 poison images, but labels of shape \(1,\)"),
        ((2, 2, 1), r"2 poison images, but base rows of shape \(1,\)"),
    ],
)
def test_images_labels_and_base_rows_must_match_in_number(parts, message):
    data = make()
    images, labels, base = parts
    poison = Poison(data.x[:images], data.y[:labels], torch.arange(base))
    with pytest.raises(ThreatModelError, match=message):
        poison.check(ThreatModel(budget=2), data)


def test_poison_images_must_have_the_shape_of_the_training_images():
    data = make()
    poison = Poison(torch.zeros(1, 3, 3, 3), data.y[:1], torch.tensor([0]))
    with pytest.raises(ThreatModelError, match=r"shape \(3, 3, 3\), the training .* \(1, 3, 3\)"):
        poison.check(ThreatModel(budget=1), data)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((torch.float64, torch.int64, torch.int64), "images are torch.float64, expected"),
        ((torch.float32, torch.float32, torch.int64), "labels are torch.float32, expected"),
        ((torch.float32, torch.int64, torch.bool), "base rows are torch.bool, expected"),
    ],
)
@pytest.mark.parametrize("placement", ["replace", "append"])
def test_wrong_dtypes_are_refused(parts, message, placement):
    data = make()
    images, labels, base = parts
    rows = torch.tensor([0, 1]).to(base)
    poison = Poison(data.x[:2].to(images), data.y[:2].to(labels), rows, placement)
    with pytest.raises(ThreatModelError, match=message):
        poison.apply(data)


def test_the_placement_must_be_the_one_of_the_threat_model():
    data = make()
    with pytest.raises(ThreatModelError, match=r"poisons append, .* says 'replace'"):
        poison_of(data, [0], placement="append").check(ThreatModel(budget=1), data)


@pytest.mark.parametrize("promise", [{"epsilon": EPSILON}, {"clean_label": True}])
def test_without_base_images_no_bound_and_no_clean_label_can_be_kept(promise):
    data = make()
    poison = Poison(data.x[:1], data.y[:1], None, "append")
    poison.check(ThreatModel(budget=1, placement="append"), data)
    with pytest.raises(ThreatModelError, match="Poisons without base images cannot keep"):
        poison.check(ThreatModel(budget=1, placement="append", **promise), data)


@pytest.mark.parametrize("use", [Poison.apply, Poison.mask])
def test_replacing_needs_base_rows(use):
    data = make()
    with pytest.raises(ThreatModelError, match="must say which: give `base`"):
        use(Poison(data.x[:1], data.y[:1], None), data)


# Poison.apply and Poison.mask


def test_replacing_keeps_the_order_and_touches_only_the_base_rows():
    data = make(6)
    before = data.x.clone()
    poison = Poison(torch.zeros(2, 1, 3, 3), torch.tensor([2, 2]), torch.tensor([4, 1]))
    applied = poison.apply(data)
    assert applied.y.tolist() == [0, 2, 2, 0, 2, 2]
    assert applied.x.flatten(1).sum(1).eq(0).nonzero()[:, 0].tolist() == [1, 4]
    assert poison.mask(data).nonzero()[:, 0].tolist() == [1, 4]
    assert torch.equal(data.x, before)


def test_appending_puts_the_poisons_last():
    data = make(6)
    poison = Poison(torch.zeros(2, 1, 3, 3), torch.tensor([2, 1]), None, "append")
    applied = poison.apply(data)
    assert torch.equal(applied.x[:6], data.x)
    assert applied.y.tolist() == [0, 1, 2, 0, 1, 2, 2, 1]
    assert poison.mask(data).nonzero()[:, 0].tolist() == [6, 7]


# Poison.noise_control


def test_a_noise_control_needs_base_images():
    data = make()
    poison = Poison(data.x[:1], data.y[:1], None, "append")
    with pytest.raises(ThreatModelError, match="no perturbation to shuffle"):
        poison.noise_control(data, torch.Generator())


def test_a_noise_control_depends_on_its_generator_only():
    data = make()
    poison = poison_of(data, [0, 1], EPSILON)
    poison.images[:, :, 0] = data.x[:2, :, 0]
    first, again, other = (
        poison.noise_control(data, torch.Generator().manual_seed(seed)).images for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_noise_control_keeps_the_labels_of_a_dirty_label_attack():
    data = make()
    poison = Poison(data.x[:2], torch.tensor([2, 2]), torch.arange(2))
    assert poison.noise_control(data, torch.Generator()).labels.tolist() == [2, 2]


def test_a_noise_control_moves_the_pattern():
    data = Data(torch.full((1, 1, 8, 8), 0.5), torch.tensor([0]), CLASSES)
    images = data.x.clone()
    images[:, :, :4] += EPSILON
    poison = Poison(images, data.y, torch.tensor([0]))
    noise = poison.noise_control(data, torch.Generator().manual_seed(0)).images - data.x
    upper, lower = noise[:, :, :4].gt(0).sum().item(), noise[:, :, 4:].gt(0).sum().item()
    assert upper + lower == 32
    assert min(upper, lower) > 8


# Properties


@st.composite
def honest(draw) -> tuple[Data, Poison, ThreatModel]:
    """Random data, and a random poison that keeps to a random threat model."""
    seed = draw(st.integers(0, 2**32))
    generator = torch.Generator().manual_seed(seed)
    data = make(draw(st.integers(3, 8)), seed)
    placement = draw(st.sampled_from(["replace", "append"]))
    rows = st.integers(0, len(data) - 1)
    unique = placement == "replace"
    base = torch.tensor(draw(st.lists(rows, min_size=1, max_size=len(data), unique=unique)))
    epsilon = draw(st.floats(1 / 255, 1))
    clean = data.x[base]
    delta = epsilon * (2 * torch.rand(clean.shape, generator=generator) - 1)
    poison = Poison((clean + delta).clamp(0, 1), data.y[base], base, placement)
    return data, poison, ThreatModel(len(base), epsilon, clean_label=True, placement=placement)


@given(honest())
def test_every_poison_inside_the_bound_passes(case):
    data, poison, threat = case
    poison.check(threat, data)


@given(honest(), st.data())
def test_the_first_pixel_beyond_the_bound_is_found_and_named(case, draw):
    data, poison, threat = case
    epsilon = min(threat.epsilon, 0.4)
    offenders = draw.draw(st.sets(st.integers(0, len(poison) - 1), min_size=1))
    excess = draw.draw(st.floats(2 * TOLERANCE, 0.05))
    images = data.x[poison.base].clone()
    for row in offenders:
        channel, y, x = (draw.draw(st.integers(0, size - 1)) for size in data.shape)
        pixel = images[row, channel, y, x]
        images[row, channel, y, x] += (epsilon + excess) * (1 if pixel < 0.5 else -1)
    cheat = Poison(images, poison.labels, poison.base, poison.placement)
    with pytest.raises(ThreatModelError) as error:
        cheat.check(ThreatModel(threat.budget, epsilon, True, threat.placement), data)
    row, size = re.match(r"Poison (\d+) changes a pixel by ([\d.]+)/255", str(error.value)).groups()
    assert int(row) == min(offenders)
    assert float(size) == pytest.approx(255 * (epsilon + excess), abs=0.01)


@given(honest())
def test_the_mask_finds_the_poisons_in_the_applied_data_and_nothing_else(case):
    data, poison, _ = case
    applied, mask = poison.apply(data), poison.mask(data)
    if poison.placement == "append":
        order, untouched = torch.arange(len(poison)), torch.arange(len(data))
    else:
        order = poison.base.argsort()
        untouched = torch.tensor([row for row in range(len(data)) if row not in poison.base])
    assert len(mask) == len(applied)
    assert torch.equal(applied.x[mask], poison.images[order])
    assert torch.equal(applied.y[mask], poison.labels[order])
    assert torch.equal(applied.x[~mask], data.x[untouched.long()])
    assert torch.equal(applied.y[~mask], data.y[untouched.long()])


@given(honest(), st.integers(0, 2**32))
def test_a_noise_control_keeps_to_the_threat_model_with_the_same_images_and_labels(case, seed):
    data, poison, threat = case
    noise = poison.noise_control(data, torch.Generator().manual_seed(seed))
    noise.check(threat, data)
    assert torch.equal(noise.base, poison.base)
    assert torch.equal(noise.labels, poison.labels)
    assert noise.placement == poison.placement


@given(honest(), st.integers(0, 2**32))
def test_a_noise_control_has_the_perturbation_sizes_of_its_attack_unless_cut_off(case, seed):
    data, poison, _ = case
    noise = poison.noise_control(data, torch.Generator().manual_seed(seed))
    before, after = (
        (images - data.x[poison.base]).abs().flatten(1).sort(1).values
        for images in (poison.images, noise.images)
    )
    assert (after <= before + 1e-6).all()
    uncut = before.amax(1) <= 0.5  # up to half the box there is always room on one side
    torch.testing.assert_close(after[uncut], before[uncut], atol=1e-6, rtol=0)
