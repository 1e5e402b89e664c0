"""Built in lesson 17, certificates.

Generated from notebooks/17_certificates.ipynb: edit it there, then run make notebooks.
"""

import torch
from torch import Tensor

from course_utils.data import Data
from course_utils.defenses.certificates import (
    ENDLESS,
    Ensemble,
    fingerprint,
    part_of,
    partition,
    to_overtake,
    train_part,
)
from course_utils.models import predict
from course_utils.threat import Poison


def steer(image: Tensor, part: int, k: int, seed: int = 0) -> Tensor:
    """A copy of an image (C, H, W) that its content sends to this part of k.

    One random pixel after the other moves by at most one grey level, 1/255, until it does.
    Raises ValueError if there is no such part.
    """
    if not 0 <= part < k:
        raise ValueError(f"There is no part {part}: expected 0 to {k - 1}.")
    generator = torch.Generator().manual_seed(seed)
    steered = image.clone()
    pixels, old = steered.view(-1), image.flatten()
    while part_of(fingerprint(steered), k) != part:
        i = torch.randint(len(pixels), (1,), generator=generator).item()
        step = torch.rand(1, generator=generator).item() / 255
        pixels[i] = old[i] + step if old[i] < 0.5 else old[i] - step
    return steered


def weakest_first(ensemble: Ensemble, image: Tensor, predicted: int, rival: int) -> list[int]:
    """The parts that vote for `predicted`, those with the smallest margin over `rival` first."""
    logits = ensemble.logits(image[None])[:, 0]
    margin = logits[:, predicted] - logits[:, rival]
    voters = (logits.argmax(1) == predicted).nonzero()[:, 0]
    return voters[margin[voters].argsort()].tolist()


def vote_with(ensemble: Ensemble, part: int, poison: Tensor, label: int, image: Tensor) -> int:
    """What this part would vote for the image, had it trained on one poison (C, H, W) more."""
    old = ensemble.parts[part]
    y = torch.cat([old.y, torch.tensor([label], device=old.y.device)])
    # `partition` puts the new image where it belongs in the order of the part.
    (new,) = partition(Data(torch.cat([old.x, poison[None]]), y, old.classes), 1)
    return predict(train_part(ensemble.model, new, ensemble.recipe, part), image[None]).item()


def last_votes(ensemble: Ensemble, image: Tensor) -> Poison | None:
    """Change the prediction for one image (C, H, W), with as few inserted images as it can.

    It knows the data, the parts, the seeds and the recipe. The poisons are copies of the image with
    the label of the runner-up, at most one a part, and only where they move the vote of the part.
    None if there are not enough of these.
    """
    votes = ensemble(image[None])[0]
    predicted = votes.argmax().item()
    rival = to_overtake(votes[None], votes.argmax()[None])[0]
    rival[predicted] = ENDLESS
    rival, found = rival.argmin().item(), []
    for part in weakest_first(ensemble, image, predicted, rival):
        poison = steer(image, part, len(ensemble.parts))
        if vote_with(ensemble, part, poison, rival, image) == rival:
            found.append(poison)
            votes[predicted] -= 1
            votes[rival] += 1
        if votes.argmax() != predicted:
            labels = torch.full((len(found),), rival, device=image.device)
            return Poison(torch.stack(found), labels, base=None, placement="append")
    return None
