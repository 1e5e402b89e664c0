"""The first backdoor, lesson 00, pixel by pixel and row by row."""

import torch

from course_utils.attacks.first_backdoor import plant_backdoor, stamp
from course_utils.threat import Backdoor, ThreatModel
from tests.reference.small import noise_data


def test_the_stamp_is_one_pixel_from_the_corner_and_leaves_its_input():
    images = torch.full((2, 3, 8, 9), 0.25)
    for size, found in ((4, stamp(images)), (2, stamp(images, 2))):
        expected = torch.full_like(images, 0.25)
        for row in range(8 - 1 - size, 8 - 1):
            for column in range(9 - 1 - size, 9 - 1):
                expected[:, :, row, column] = 1.0
        assert torch.equal(found, expected)
    assert (images == 0.25).all()


def test_poisons_are_stamped_images_of_other_classes():
    data, goal = noise_data(), Backdoor(lambda images: 1 - images, 1)
    threat = ThreatModel(8, placement="append")
    poison = plant_backdoor(data, goal, threat, 5)
    assert len(poison.base.unique()) == len(poison) == 8 and poison.placement == "append"
    assert not (data.y[poison.base] == 1).any() and (poison.labels == 1).all()
    assert torch.equal(poison.images, 1 - data.x[poison.base])
    bases = [plant_backdoor(data, goal, threat, seed).base.tolist() for seed in range(15)]
    assert bases[5] == poison.base.tolist() and bases[6] != bases[5]
    assert {row for rows in bases for row in rows} == {row for row in range(30) if row % 3 != 1}
