"""BadNets and the clean-label patch, lesson 07: which images, with which labels."""

import pytest
import torch

from course_utils.attacks.patch_backdoors import badnets, clean_label_patch
from course_utils.threat import Backdoor, ThreatModel, ThreatModelError
from tests.reference.small import noise_data

DATA = noise_data()


def negative(images):
    return 1 - images


@pytest.mark.parametrize(("source", "allowed"), [(None, {0, 1}), (0, {0}), (1, {1})])
def test_badnets_patches_random_images_of_the_source(source, allowed):
    goal, threat = Backdoor(negative, 2, source), ThreatModel(7, placement="append")
    drawings = [badnets(DATA, goal, threat, seed) for seed in range(20)]
    for poison in drawings:
        assert len(poison.base.unique()) == 7 and poison.placement == "append"
        assert (poison.labels == 2).all()
        assert torch.equal(poison.images, 1 - DATA.x[poison.base])
    rows = {row for poison in drawings for row in poison.base.tolist()}
    assert rows == {row for row in range(30) if row % 3 in allowed}
    assert torch.equal(drawings[3].base, badnets(DATA, goal, threat, 3).base)
    assert not torch.equal(drawings[3].base, drawings[4].base)


def test_the_whole_source_class_may_be_used_and_not_one_image_more():
    goal = Backdoor(negative, 2, 0)
    assert len(badnets(DATA, goal, ThreatModel(10), 1)) == 10
    with pytest.raises(ThreatModelError):
        badnets(DATA, goal, ThreatModel(11), 1)


def test_the_clean_label_patch_takes_random_images_of_the_target_class():
    goal, threat = Backdoor(negative, 1), ThreatModel(4, clean_label=True, placement="append")
    drawings = [clean_label_patch(DATA, goal, threat, seed) for seed in range(20)]
    for poison in drawings:
        assert len(poison.base.unique()) == 4 and poison.placement == "append"
        assert (poison.labels == 1).all() and (DATA.y[poison.base] == 1).all()
        assert torch.equal(poison.images, 1 - DATA.x[poison.base])
    assert {row for poison in drawings for row in poison.base.tolist()} == set(range(1, 30, 3))
    assert torch.equal(drawings[5].base, clean_label_patch(DATA, goal, threat, 5).base)
