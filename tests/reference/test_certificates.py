"""Certificates by hand-worked values, a search over votes, and training anew."""

import torch

from course_utils.data import Data
from course_utils.defenses import certificates
from course_utils.models import build
from course_utils.training import Recipe, train
from tests.reference.small import noise_data

RECIPE = Recipe(epochs=2, batch_size=10, lr=0.1)
DATA = noise_data(60)
MODEL = build("logistic_regression", DATA.shape, len(DATA.classes), seed=3)


def fewest_changes(votes: tuple[int, ...], winner: int, overtakers: int) -> int:
    """The fewest votes to move until so many classes have overtaken the winner, by search."""
    seen, steps = {votes}, 0
    while True:
        for state in seen:
            ahead = [
                (count, -number) > (state[winner], -winner) for number, count in enumerate(state)
            ]
            if sum(ahead) >= overtakers:
                return steps
        moved = set()
        for state in seen:
            for giver, count in enumerate(state):
                for taker in range(len(state)):
                    if count and taker != giver:
                        after = list(state)
                        after[giver] -= 1
                        after[taker] += 1
                        moved.add(tuple(after))
        seen, steps = seen | moved, steps + 1


VOTES = [(4, 2, 2), (9, 9, 0), (6, 5, 1), (3, 3, 3), (0, 5, 4), (1, 7, 0)]


def test_two_classes_overtake_a_winner_after_as_many_changes_as_a_search_finds():
    for votes in VOTES:
        winner = max(range(3), key=lambda number, v=votes: (v[number], -number))
        found = certificates.to_eliminate(torch.tensor([votes]), torch.tensor([winner])).item()
        assert found == fewest_changes(votes, winner, 2), votes


def test_one_class_overtakes_another_after_as_many_changes_as_worked_out():
    # 5 against 1: after two changes 3 against 3, which class 0 wins. Class 2 is ahead already.
    found = certificates.to_overtake(torch.tensor([[5, 1, 9]]), torch.tensor([0]))
    assert found.tolist() == [[0, 3, 0]]
    # Class 1 loses ties against class 0 and wins them against class 2.
    found = certificates.to_overtake(torch.tensor([[4, 6, 4]]), torch.tensor([1]))
    assert found.tolist() == [[1, 0, 2]]


def test_certified_accuracy_counts_right_predictions_that_stay():
    predicted, labels = torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 2, 1])
    radius = torch.tensor([3, 1, 0, 9])
    shares = [certificates.certified_accuracy(predicted, radius, labels, n) for n in (0, 1, 3, 4)]
    assert shares == [0.75, 0.5, 0.25, 0.0]


def test_the_model_of_a_part_trains_with_the_number_of_the_part():
    part = DATA[range(20)]
    found = certificates.train_part(MODEL, part, RECIPE, number=2)
    expected = train(MODEL, part, RECIPE, seed=2)
    assert torch.equal(found.head.weight, expected.head.weight)


def test_retraining_sees_one_changed_label():
    labels = DATA.y.clone()
    labels[0] = (labels[0] + 1) % len(DATA.classes)
    changed = Data(DATA.x, labels, DATA.classes)
    before = certificates.train_ensemble(MODEL, DATA, 3, RECIPE)
    again = certificates.retrain(before, changed).logits(DATA.x)
    assert torch.equal(again, certificates.train_ensemble(MODEL, changed, 3, RECIPE).logits(DATA.x))
    assert not torch.equal(again, before.logits(DATA.x))
