"""Per-example gradients, lesson 09, by hand."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from course_utils.defenses import per_example
from tests.reference.small import drawn, flat, models, noise_data

DATA = noise_data(7)
(MODEL,) = models(DATA, 4)


def test_gradients_and_lengths_one_by_one():
    found = per_example.per_example_gradients(MODEL, DATA.x, DATA.y)
    lengths = []
    for row, (image, label) in enumerate(zip(DATA.x, DATA.y, strict=True)):
        loss = cross_entropy(MODEL(image[None]), label[None])
        expected = torch.autograd.grad(loss, list(MODEL.parameters()))
        torch.testing.assert_close(flat(part[row] for part in found), flat(expected))
        lengths.append(flat(expected).norm())
    torch.testing.assert_close(per_example.per_example_norms(found), torch.stack(lengths))
    torch.testing.assert_close(
        per_example.linear_norms(MODEL, DATA.x, DATA.y), torch.stack(lengths)
    )


def test_what_goes_into_a_layer_has_a_graph_only_where_it_is_asked_for():
    layers, x = per_example.linear_layers(MODEL), DATA.x.clone().requires_grad_()
    given = [per_example.record(MODEL, x, DATA.y, layers, graph=graph) for graph in (False, True)]
    for (loss, seen), graph in zip(given, (False, True), strict=True):
        assert loss.requires_grad
        assert [inputs.requires_grad for _, inputs, _ in seen] == [graph] * len(layers)
        torch.testing.assert_close(seen[0][1], DATA.x.flatten(1))


def test_clipping_and_noise_by_hand():
    gradients = (torch.tensor([[3.0], [0.3]]), torch.tensor([[4.0], [0.4]]))  # lengths 5 and 0.5
    for bound, first in ((1.0, 0.2), (10.0, 1.0)):
        clipped = per_example.clip(gradients, bound)
        assert clipped[0].flatten().tolist() == pytest.approx([3 * first, 0.3])
        assert clipped[1].flatten().tolist() == pytest.approx([4 * first, 0.4])
    draws = [torch.randn(1, generator=(generator := drawn(5))), torch.randn(1, generator=generator)]
    found = per_example.clip_and_noise(gradients, 2.0, 0.5, 4, drawn(5))
    # Clipped to 2: 1.2 and 1.6; the noise has the deviation 2 * 0.5.
    sums = (1.2 + 0.3, 1.6 + 0.4)
    for part, total, draw in zip(found, sums, draws, strict=True):
        assert part.item() == pytest.approx((total + 1.0 * draw.item()) / 4)
    assert per_example.deviation(3.0, 0.5) == 1.5
