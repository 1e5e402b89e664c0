"""The attack on a vote, lesson 17: which parts first, and what each pixel may do."""

import torch

from course_utils.attacks.last_votes import last_votes, steer, vote_with, weakest_first
from course_utils.data import Data
from course_utils.defenses.certificates import (
    Ensemble,
    certified_radius,
    fingerprint,
    part_of,
    partition,
    train_ensemble,
    train_part,
)
from course_utils.models import build, predict
from course_utils.training import Recipe
from tests.reference.small import drawn, models, noise_data


def test_a_steered_image_moves_each_pixel_by_a_grey_level_at_most_and_inwards():
    image = torch.tensor([[[0.0, 1.0, 0.3], [0.8, 0.5, 0.1]]])
    found = {}
    for seed in (3, 4):
        for part in range(7):
            steered = steer(image, part, 7, seed)
            assert part_of(fingerprint(steered), 7) == part
            change = steered - image
            assert change.abs().max() <= 1 / 255 + 1e-6
            assert (change[image < 0.5] >= 0).all() and (change[image >= 0.5] <= 0).all()
            assert torch.equal(steered, steer(image, part, 7, seed))
            found[seed, part] = steered
    assert any(not torch.equal(found[3, part], found[4, part]) for part in range(7))
    far = max((steer(image, part, 50, 3) - image).abs().max().item() for part in range(20))
    assert far > 0.8 / 255


def test_the_parts_with_the_smallest_margin_come_first():
    data = noise_data()
    ensemble = Ensemble(models(data, 1)[0], Recipe(), [data] * 5, models(data, 3, 4, 5, 6, 7))
    image = data.x[2]
    with torch.no_grad():
        logits = [model(image[None])[0].tolist() for model in ensemble.models]
    votes = [max(range(3), key=row.__getitem__) for row in logits]
    predicted = max(set(votes), key=votes.count)
    for rival in {0, 1, 2} - {predicted}:
        mine = [number for number in range(5) if votes[number] == predicted]
        mine.sort(key=lambda number: logits[number][predicted] - logits[number][rival])
        assert weakest_first(ensemble, image, predicted, rival) == mine
        assert len(mine) > 1


def test_a_vote_with_a_poison_is_that_of_a_part_with_one_image_more():
    data, recipe = noise_data(24), Recipe(3, 4, 0.3)
    ensemble = train_ensemble(build("mlp", data.shape, 3, width=6), data, 3, recipe)
    image = torch.rand(data.shape, generator=drawn(5))
    answers = set()
    for part in range(3):
        for label in range(3):
            old = ensemble.parts[part]
            more = Data(
                torch.cat([old.x, image[None]]),
                torch.cat([old.y, torch.tensor([label])]),
                old.classes,
            )
            (ordered,) = partition(more, 1)
            model = train_part(ensemble.model, ordered, recipe, part)
            expected = predict(model, data.x[:1]).item()
            assert vote_with(ensemble, part, image, label, data.x[0]) == expected
            answers.add(expected)
    assert len(answers) > 1


def test_the_last_vote_is_the_first_that_changes_the_prediction():
    """Every poison goes to a part that then votes for the runner-up."""
    data, recipe = noise_data(40), Recipe(6, 4, 0.3)
    ensemble = train_ensemble(build("mlp", data.shape, 3, width=6), data, 5, recipe)
    fallen = 0
    for image in data.x[:8]:
        votes = ensemble(image[None])[0]
        predicted = votes.argmax().item()
        poison = last_votes(ensemble, image)
        if poison is None:
            continue
        fallen += 1
        assert poison.placement == "append" and poison.base is None
        assert len(poison) > certified_radius(votes[None]).item()
        (rival,) = poison.labels.unique().tolist()
        gaps = [votes[predicted].item() - votes[k].item() + (k > predicted) for k in range(3)]
        needed = {k: (gaps[k] + 1) // 2 for k in range(3) if k != predicted}
        assert needed[rival] == min(needed.values()) == len(poison)
        parts = [part_of(fingerprint(one), 5) for one in poison.images]
        assert len(set(parts)) == len(parts)
        order = weakest_first(ensemble, image, predicted, rival)
        moved = [
            part
            for part in order
            if vote_with(ensemble, part, steer(image, part, 5), rival, image) == rival
        ]
        assert parts == moved[: len(parts)]
    assert fallen >= 3


def test_poisons_are_those_that_move_a_vote_to_the_runner_up_until_it_wins(monkeypatch):
    class Votes:
        """Six votes for class 1, four for class 2 and one for class 0."""

        parts = range(4)

        def __call__(self, images):
            return torch.tensor([[1, 6, 4]])

    image = torch.full((1, 2, 2), 0.5)
    moved = {0: 0, 1: 2, 2: 2, 3: 2}  # the poison of part 0 moves its vote to a third class
    attack = "course_utils.attacks.last_votes"
    monkeypatch.setattr(f"{attack}.weakest_first", lambda *given: list(moved))
    monkeypatch.setattr(f"{attack}.steer", lambda image, part, k: image + part / 10)
    monkeypatch.setattr(f"{attack}.vote_with", lambda ensemble, part, *given: moved[part])
    poison = last_votes(Votes(), image)
    # After part 1 it is 5 against 5, which the smaller class wins; after part 2 it is 4 against 6.
    assert torch.equal(poison.images, torch.stack([image + 0.1, image + 0.2]))
    assert poison.labels.tolist() == [2, 2]
