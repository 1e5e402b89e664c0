"""Lesson 19: repairs do what they say, beat their controls, and refuse what makes no sense."""

import math

import pytest
import torch

from course_utils.cases import backdoors
from course_utils.cases.repairs import measured, suspicion, trusted_images
from course_utils.data import Data, DataError
from course_utils.defenses.repair import (
    activations,
    dormant_units,
    fine_prune,
    fine_tune,
    forgetting,
    known_loss,
    last_hidden,
    negated_steps,
    prune,
    strip_entropy,
)
from course_utils.defenses.trigger_reconstruction import (
    Reconstruction,
    anomaly_indices,
    reconstruct,
    reconstruct_all,
    smallest,
    trigger_of,
    unlearn_trigger,
)
from course_utils.models import build, predict
from course_utils.settings import CONVNET, MLP, TINY
from course_utils.studies import lesson_19
from course_utils.threat import accuracy
from course_utils.training import train


@pytest.fixture(scope="module")
def scene():
    """BadNets in 1,000 images with a large patch, and its victim."""
    case = backdoors.badnets_case(1000, MLP, rate=0.03, side=6, n=1000)
    return case, case.train(case.plain, case.oblivious.apply(case.data))


@pytest.fixture(scope="module")
def kept(scene) -> Data:
    return suspicion(scene[0]).kept


def without_images(data: Data) -> Data:
    return data[:0]


def test_a_complete_list_is_the_poison_and_nothing_else(scene):
    case, _ = scene
    found, kept = suspicion(case)
    assert torch.equal(found.x.flatten(1).sort(0)[0], case.oblivious.images.flatten(1).sort(0)[0])
    assert len(found) + len(kept) == len(case.data)


@pytest.mark.parametrize("recall", [0.0, 0.5, 0.9])
def test_a_list_of_known_recall_accuses_innocents_of_the_same_label(scene, recall):
    case, _ = scene
    found, kept = suspicion(case, recall)
    poisons = {image.numpy().tobytes() for image in case.oblivious.images}
    hits = sum(image.numpy().tobytes() in poisons for image in found.x)
    assert hits == round(recall * len(poisons)) and len(found) == len(poisons)
    assert set(found.y.tolist()) == {case.goal.target_class}
    assert len(found) + len(kept) == len(case.data)


def test_trusted_images_are_new_and_balanced(scene):
    case, _ = scene
    trusted = trusted_images(case, 50)
    known = {image.numpy().tobytes() for image in case.data.x}
    assert not any(image.numpy().tobytes() in known for image in trusted.x)
    assert trusted.y.bincount().tolist() == [5] * 10


def test_pruning_removes_exactly_these_units_and_they_stay_silent(scene, kept):
    case, victim = scene
    units = dormant_units(victim, kept, 0.1)
    pruned, images = prune(victim, units), case.test.x[:100]
    before, after = victim.features(images), pruned.features(images)
    stay = torch.ones(before.shape[1], dtype=torch.bool)
    stay[units] = False
    assert 0 < len(units) < len(stay)
    assert not after[:, ~stay].any() and torch.equal(after[:, stay], before[:, stay])
    assert not fine_tune(pruned, kept, 0.1, 0, 20).features(images)[:, ~stay].any()


def test_dormant_units_are_the_quietest_and_cost_no_more_than_the_tolerance(scene, kept):
    _, victim = scene
    units, quiet = dormant_units(victim, kept, 0.05), activations(victim, kept.x)
    loud = torch.ones_like(quiet, dtype=torch.bool)
    loud[units] = False
    assert quiet[units].max() <= quiet[loud].min()
    assert accuracy(prune(victim, units), kept) >= accuracy(victim, kept) - 0.05
    assert len(dormant_units(victim, kept, 1.0)) > len(units)


def test_the_reconstructed_trigger_works_and_one_of_its_size_by_lot_does_not(scene):
    case, victim = scene
    trusted, label = trusted_images(case, 50), case.goal.target_class
    found = reconstruct(victim, trusted, label, seed=0)
    images = case.test.x[case.test.y != label]
    lot = torch.randperm(found.mask.numel(), generator=torch.Generator().manual_seed(0))
    shuffled = found._replace(mask=found.mask.flatten()[lot].view_as(found.mask))
    rates = [
        (predict(victim, trigger_of(one)(images)) == label).float().mean()
        for one in (found, shuffled)
    ]
    assert rates[0] > 0.9 and rates[0] > rates[1] + 0.3


def test_the_class_of_the_backdoor_is_nearest_and_unlearning_it_beats_fine_tuning(scene):
    case, victim = scene
    trusted = trusted_images(case, 100)
    found = reconstruct_all(victim, trusted, seed=0)
    assert smallest(found).label == case.goal.target_class
    tuned = measured(fine_tune(victim, trusted, 0.01, 0), case)
    cleaned = measured(unlearn_trigger(victim, trusted, trigger_of(smallest(found)), 0.01, 0), case)
    assert measured(victim, case)["achieved"] > 0.8
    assert cleaned["achieved"] < tuned["achieved"] - 0.3
    assert cleaned["accuracy"] > tuned["accuracy"] - 0.1


def test_the_same_seed_finds_the_same_trigger(scene):
    case, victim = scene
    trusted = trusted_images(case, 20)
    first, again, other = (reconstruct(victim, trusted, 3, seed, 20) for seed in (0, 0, 1))
    assert torch.equal(first.mask, again.mask) and torch.equal(first.pattern, again.pattern)
    assert not torch.equal(first.mask, other.mask)


def test_climbing_forgets_the_found_images_and_descent_keeps_the_rest(scene):
    case, victim = scene
    found, kept = suspicion(case)
    climbed = negated_steps(victim, found, 0.03, 200)
    assert known_loss(climbed, found) == 0  # so further steps change nothing
    assert torch.equal(negated_steps(climbed, found, 0.03).head.weight, climbed.head.weight)
    both = fine_tune(victim, kept, 0.02, 0, defense=forgetting(found, 0.5))
    assert measured(both, case)["achieved"] < measured(victim, case)["achieved"] - 0.5
    assert accuracy(both, case.test) > accuracy(climbed, case.test)
    assert accuracy(both, case.test) > accuracy(victim, case.test) - 0.05


def test_fine_pruning_is_pruning_and_then_fine_tuning(scene, kept):
    _, victim = scene
    by_hand = fine_tune(prune(victim, dormant_units(victim, kept, 0.1)), kept, 0.05, 3, 10)
    assert torch.equal(fine_prune(victim, kept, 0.1, 0.05, 3, 10).head.weight, by_hand.head.weight)


def test_strip_finds_images_with_a_large_trigger(scene):
    case, victim = scene
    images = case.test.x[case.test.y != case.goal.target_class][:60]
    overlays = trusted_images(case, 30).x
    mean = [
        sum(strip_entropy(victim, image, overlays) for image in shown)
        for shown in (case.goal.trigger(images), images)
    ]
    assert mean[0] < mean[1]


def test_a_model_without_hidden_units_is_refused(images):
    for name in ("logistic_regression", "small_cnn"):
        model = build(name, images.shape, 10)
        for function in (last_hidden, lambda m: dormant_units(m, images, 0.1)):
            with pytest.raises(ValueError, match="no hidden units"):
                function(model)


def test_no_image_is_refused(scene):
    case, victim = scene
    none = without_images(case.data)
    for call in (
        lambda: fine_tune(victim, none, 0.1, 0),
        lambda: dormant_units(victim, none, 0.1),
        lambda: reconstruct_all(victim, none, 0),
        lambda: unlearn_trigger(victim, none, case.goal.trigger, 0.1, 0),
    ):
        with pytest.raises(ValueError, match="no clean image"):
            call()
    for call in (lambda: negated_steps(victim, none, 0.1), lambda: forgetting(none, 0.5)):
        with pytest.raises(ValueError, match="no found image"):
            call()


def test_a_trigger_that_does_not_work_is_refused_and_infinitely_far():
    weak = Reconstruction(0, torch.ones(2, 2), torch.ones(1, 2, 2), 0.98)
    assert math.isinf(weak.distance) and weak._replace(rate=0.99).distance == 4
    with pytest.raises(ValueError, match="nothing to unlearn"):
        trigger_of(weak)
    strong = [weak._replace(label=1, rate=1.0, mask=torch.ones(5, 5)), weak]
    assert smallest(strong).label == 1
    assert smallest([weak, weak._replace(label=2, rate=0.5)]) == weak


def test_other_bad_input_is_refused(scene):
    case, victim = scene
    trusted = trusted_images(case, 20)
    with pytest.raises(ValueError, match="no class 10"):
        reconstruct(victim, trusted, 10, 0)
    with pytest.raises(ValueError, match="another class than"):
        reconstruct(victim, trusted[trusted.y == 4], 4, 0)
    with pytest.raises(ValueError, match=r"recall is 1\.1"):
        suspicion(case, 1.1)
    with pytest.raises(ValueError, match=r"tolerance is -0\.1"):
        dormant_units(victim, trusted, -0.1)
    with pytest.raises(ValueError, match="weight of the climb is 0"):
        forgetting(trusted, 0)
    for n, words in ((5, "at least one"), (100_000, "choose a smaller n")):
        with pytest.raises(DataError, match=words):
            trusted_images(case, n)


@pytest.mark.parametrize("trial", [lesson_19.badnets_trial, lesson_19.clean_label_trial])
def test_a_trial_has_one_row_for_each_repair_and_its_controls(trial):
    rows = trial(1000, TINY)
    now = [(row["repair"], row["images"], row.get("lr")) for row in rows if row["later"] == "now"]
    assert len(set(now)) == len(now)
    wanted = {
        ("retraining", "kept"),
        ("short retraining", "kept"),
        ("retraining", "kept, 90%"),
        ("fine-tuning", "200"),
        ("fine-tuning at a rate", "all"),
        ("fine-pruning", "kept"),
        ("pruning at random", "200"),
        ("unlearning the trigger", "200"),
        ("the planted trigger", "kept"),
        ("ascent and descent", "kept, 90%"),
    }
    assert wanted <= {(repair, images) for repair, images, _ in now}
    later = {(row["repair"], row["later"], row["epoch"]) for row in rows if row["epoch"]}
    assert len(later) == (4 * 2 * 3 if trial is lesson_19.badnets_trial else 0)


def test_the_price_is_measured_on_a_victim_without_poison():
    rows = lesson_19.price_trial(1000, TINY)
    case = backdoors.badnets_case(1000, TINY)
    victim = train(case.model, case.data, case.recipe, seed=1000)
    (nothing,) = (r for r in rows if r["repair"] == "nothing" and r["images"] == "200")
    assert nothing["accuracy"] == accuracy(victim, case.test)
    listed = lesson_19.innocents(case)
    assert len(listed.found) == len(case.oblivious) and len(listed.kept) + len(listed.found) == len(
        case.data
    )


def test_the_convolutional_network_can_be_repaired():
    rows = lesson_19.convnet_trial(1000, CONVNET.tiny)
    assert {row["later"] for row in rows} == {"now"} and len(rows) > 20


def test_the_index_of_the_paper():
    indices = anomaly_indices(torch.tensor([10.0, 12.0, 14.0, 16.0, 2.0]))
    assert torch.allclose(indices, torch.tensor([2.0, 0, -2, -4, 10]) / (1.4826 * 2))
