"""Poisons: bounds written out, and noise that is drawn for each image anew."""

import pytest
import torch

from course_utils.threat import Poison, ThreatModel, ThreatModelError
from tests.reference.small import drawn, noise_data

DATA = noise_data()


@pytest.mark.parametrize("sign", [1, -1])
def test_a_bound_of_8_grey_levels_allows_8_and_no_half_more(sign):
    base = DATA.x.clone()
    base[3:5] = 0.5
    data = type(DATA)(base, DATA.y, DATA.classes)
    threat = ThreatModel(2, 8 / 255, clean_label=True)
    for levels, passes in ((8, True), (8.5, False), (12, False)):
        images = base[3:5].clone()
        images[1, 0, 2, 2] += sign * levels / 255
        poison = Poison(images, data.y[3:5], torch.tensor([3, 4]))
        if passes:
            poison.check(threat, data)
        else:
            with pytest.raises(ThreatModelError):
                poison.check(threat, data)


def test_the_noise_of_each_image_is_shuffled_on_its_own():
    rows = torch.arange(3)
    change = torch.linspace(0.01, 0.05, 30).view(1, 1, 6, 5)
    poison = Poison((DATA.x[:3] * 0.5 + change), DATA.y[:3], rows)
    data = type(DATA)(DATA.x * 0.5, DATA.y, DATA.classes)
    noise = poison.noise_control(data, drawn(5)).images - data.x[:3]
    for one in noise:
        torch.testing.assert_close(one.flatten().sort()[0], change.flatten(), atol=1e-6, rtol=0)
    assert (noise[0] - noise[1]).abs().max() > 0.01 and (noise[1] - noise[2]).abs().max() > 0.01
