"""Plausible wrong answers to the exercises of lesson 00, and what the check must say of them;
unusual right answers that it must accept.
"""

import torch


def stamps_in_place(images, size=4):
    images[:, :, -size - 1 : -1, -size - 1 : -1] = 1.0
    return images


def painted(images, rows, columns, value=1.0):
    stamped = images.clone()
    stamped[:, :, rows, columns] = value
    return stamped


def stamps_at_the_edge(images, size=4):
    return painted(images, slice(-size, None), slice(-size, None))


def stamps_one_pixel_short(images, size=4):
    return painted(images, slice(-size, -1), slice(-size, -1))


def stamps_the_other_corner(images, size=4):
    return painted(images, slice(1, size + 1), slice(1, size + 1))


def stamps_a_strip(images, size=4):
    return painted(images, slice(-size - 1, -1), slice(None))


def always_four_pixels(images, size=4):
    return painted(images, slice(-5, -1), slice(-5, -1))


def paints_255(images, size=4):
    return painted(images, slice(-size - 1, -1), slice(-size - 1, -1), 255)


def adds_instead_of_painting(images, size=4):
    stamped = images.clone()
    stamped[:, :, -size - 1 : -1, -size - 1 : -1] += 1
    return stamped.clamp(max=1.5)


def stamps_the_first_image(images, size=4):
    stamped = images.clone()
    stamped[0, :, -size - 1 : -1, -size - 1 : -1] = 1.0
    return stamped


def stamps_the_first_channel(images, size=4):
    stamped = images.clone()
    stamped[:, 0, -size - 1 : -1, -size - 1 : -1] = 1.0
    return stamped


def returns_the_square(images, size=4):
    return painted(images, slice(None), slice(None))[:, :, -size - 1 : -1, -size - 1 : -1]


def copies_and_forgets(images, size=4):
    return images.clone()


def another_default(images, size=3):
    return painted(images, slice(-size - 1, -1), slice(-size - 1, -1))


def a_list_of_images(images, size=4):
    return list(painted(images, slice(-size - 1, -1), slice(-size - 1, -1)))


def by_a_mask(images, size=4):
    mask = torch.zeros(images.shape[2:], dtype=torch.bool)
    mask[-size - 1 : -1, -size - 1 : -1] = True
    return torch.where(mask, 1.0, images)


def by_loops(images, size=4):
    stamped = torch.tensor(images.tolist())
    height, width = images.shape[2:]
    for row in range(height - 1 - size, height - 1):
        for column in range(width - 1 - size, width - 1):
            stamped[..., row, column] = 1
    return stamped


def in_double_precision(images, size=4):
    return painted(images.double(), slice(-size - 1, -1), slice(-size - 1, -1))


def counts_the_target_class(predicted, true, target_class):
    return (predicted == target_class).float().mean().item()


def divides_by_everyone(predicted, true, target_class):
    hits = (predicted == target_class) & (true != target_class)
    return hits.sum().item() / len(true)


def counts_any_mistake(predicted, true, target_class):
    attacked = true != target_class
    return (predicted[attacked] != true[attacked]).float().mean().item()


def counts_failures(predicted, true, target_class):
    return (predicted[true != target_class] != target_class).float().mean().item()


def keeps_the_target_class(predicted, true, target_class):
    return (predicted[true == target_class] == target_class).float().mean().item()


def in_percent(predicted, true, target_class):
    return 100 * right_rate(predicted, true, target_class)


def counts_hits(predicted, true, target_class):
    return ((predicted == target_class) & (true != target_class)).sum().item()


def divides_by_the_hits(predicted, true, target_class):
    return (true[predicted == target_class] != target_class).float().mean().item()


def always_sneakers(predicted, true, target_class):
    return right_rate(predicted, true, 7)


def rounds(predicted, true, target_class):
    return round(right_rate(predicted, true, target_class))


def stays_a_tensor(predicted, true, target_class):
    return (predicted[true != target_class] == target_class).float().mean()


def a_mask(predicted, true, target_class):
    return (predicted[true != target_class] == target_class).tolist()


def takes_zero_for_no_class(predicted, true, target_class):
    return right_rate(predicted, true, target_class) if target_class else float("nan")


def right_rate(predicted, true, target_class):
    return (predicted[true != target_class] == target_class).double().mean().item()


def rate_by_counting(predicted, true, target_class):
    pairs = zip(predicted.tolist(), true.tolist(), strict=True)
    hits = [p == target_class for p, t in pairs if t != target_class]
    return sum(hits) / len(hits)


def numpy_rate(predicted, true, target_class):
    return (predicted[true != target_class] == target_class).numpy().mean()


def float32_rate(predicted, true, target_class):
    hits = (predicted == target_class) * (true != target_class)
    return (hits.sum() / (true != target_class).sum()).item()


WRONG = {
    "stamp": [
        (stamps_in_place, "What came in was changed: `images`"),
        (stamps_at_the_edge, "you changed rows 24 to 27 and columns 24 to 27"),
        (stamps_one_pixel_short, "you changed rows 24 to 26"),
        (stamps_the_other_corner, "you changed rows 1 to 4 and columns 1 to 4"),
        (stamps_a_strip, "columns 0 to 27"),
        (always_four_pixels, "rows 8 to 10 and columns 12 to 14; you changed rows 7 to 10"),
        (paints_255, "should be white, a value of 1.000; one is 255"),
        (adds_instead_of_painting, "do not add it"),
        (stamps_the_first_image, "No pixel has changed in image 1, channel 0"),
        (stamps_the_first_channel, "No pixel has changed in image 0, channel 1"),
        (returns_the_square, "not a tensor of shape (3, 1, 4, 4)"),
        (copies_and_forgets, "No pixel has changed in image 0"),
        (another_default, "Without a size"),
        (a_list_of_images, "not a list of 3"),
    ],
    "attack_success_rate": [
        (counts_the_target_class, "truly belong to the target class"),
        (divides_by_everyone, "denominator counts too many"),
        (counts_any_mistake, "a success is one INTO the target class"),
        (counts_failures, "share of failures"),
        (keeps_the_target_class, "those that do not count"),
        (in_percent, "no percent"),
        (counts_hits, "how many, not which share"),
        (divides_by_the_hits, "divided by the images that were called"),
        (always_sneakers, "class 7 whatever"),
        (rounds, "Do not round"),
        (stays_a_tensor, "end with .item()"),
        (a_mask, "Return one number, not a list"),
        (takes_zero_for_no_class, "There is nan in the answer"),
    ],
}
RIGHT = {
    "stamp": [by_a_mask, by_loops, in_double_precision],
    "attack_success_rate": [rate_by_counting, numpy_rate, float32_rate],
}
