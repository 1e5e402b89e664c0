"""The label-consistent attack, lesson 07, from its parts."""

import torch

from course_utils.attacks.label_consistent import label_consistent
from course_utils.attacks.patch_backdoors import clean_label_patch
from course_utils.attacks.pgd import pgd
from course_utils.threat import Backdoor, ThreatModel
from tests.reference.small import drawn, models, noise_data

DATA = noise_data()
SURROGATES = models(DATA, 3, 5)


def top_left(images):
    images = images.clone()
    images[..., 0, 0] = 1.0
    return images


def test_images_are_hard_for_the_mean_of_the_logits_and_carry_the_trigger():
    goal, threat = Backdoor(top_left, 1), ThreatModel(5, clean_label=True, placement="append")
    chosen = clean_label_patch(DATA, goal, threat, 4)
    base = DATA.x[chosen.base]

    def average(images):
        return (SURROGATES[0](images) + SURROGATES[1](images)) / 2

    for epsilon, steps in ((0.1, 3), (0.05, 6)):
        options = {"epsilon": epsilon, "steps": steps}
        poison = label_consistent(SURROGATES, DATA, goal, threat, 4, **options)
        hard = pgd(average, base, chosen.labels, epsilon, steps, drawn(4))
        torch.testing.assert_close(poison.images, top_left(hard))
        assert torch.equal(poison.base, chosen.base) and (poison.labels == 1).all()
        assert poison.placement == "append"
    other = label_consistent(SURROGATES, DATA, goal, threat, 5, epsilon=0.05)
    assert not torch.equal(other.base, chosen.base)
