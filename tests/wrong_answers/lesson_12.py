"""Answers to the exercises of lesson 12: wrong ones, what the check must say, right ones."""

import math

import numpy as np
import torch


def not_clipped(height, width, share, row, column):
    tall, wide = (int(side * (1 - share) ** 0.5) for side in (height, width))
    top, left = row - tall // 2, column - wide // 2
    return top, top + tall, left, left + wide


def no_square_root(height, width, share, row, column):
    tall, wide = (int(side * (1 - share)) for side in (height, width))
    top, left = row - tall // 2, column - wide // 2
    return max(top, 0), min(top + tall, height), max(left, 0), min(left + wide, width)


def share_of_the_box(height, width, share, row, column):
    tall, wide = (int(side * share**0.5) for side in (height, width))
    top, left = row - tall // 2, column - wide // 2
    return max(top, 0), min(top + tall, height), max(left, 0), min(left + wide, width)


def axes_swapped(height, width, share, row, column):
    tall, wide = (int(side * (1 - share) ** 0.5) for side in (height, width))
    top, left = row - tall // 2, column - wide // 2
    return max(left, 0), min(left + wide, width), max(top, 0), min(top + tall, height)


def moved_inside(height, width, share, row, column):
    tall, wide = (int(side * (1 - share) ** 0.5) for side in (height, width))
    top = min(max(row - tall // 2, 0), height - tall)
    left = min(max(column - wide // 2, 0), width - wide)
    return top, top + tall, left, left + wide


def clipped(height, width, top, bottom, left, right):
    return max(top, 0), min(bottom, height), max(left, 0), min(right, width)


def rounded(height, width, share, row, column):
    tall, wide = (round(side * (1 - share) ** 0.5) for side in (height, width))
    top, left = row - tall // 2, column - wide // 2
    return clipped(height, width, top, top + tall, left, left + wide)


def rounded_up(height, width, share, row, column):
    tall, wide = (math.ceil(side * (1 - share) ** 0.5) for side in (height, width))
    top, left = row - tall // 2, column - wide // 2
    return clipped(height, width, top, top + tall, left, left + wide)


def corner_at_the_centre(height, width, share, row, column):
    tall, wide = (int(side * (1 - share) ** 0.5) for side in (height, width))
    return clipped(height, width, row, row + tall, column, column + wide)


def corners_as_points(height, width, share, row, column):
    tall, wide = (int(side * (1 - share) ** 0.5) for side in (height, width))
    top, left = row - tall // 2, column - wide // 2
    top, bottom, left, right = clipped(height, width, top, top + tall, left, left + wide)
    return top, left, bottom, right


def corner_and_size(height, width, share, row, column):
    tall, wide = (int(side * (1 - share) ** 0.5) for side in (height, width))
    top, left = row - tall // 2, column - wide // 2
    top, bottom, left, right = clipped(height, width, top, top + tall, left, left + wide)
    return top, bottom - top, left, right - left


def last_row_included(height, width, share, row, column):
    tall, wide = (int(side * (1 - share) ** 0.5) for side in (height, width))
    top, left = row - tall // 2, column - wide // 2
    return (
        max(top, 0),
        min(top + tall, height) - 1,
        max(left, 0),
        min(left + wide, width) - 1,
    )


def half_on_both_sides(height, width, share, row, column):
    tall, wide = (int(side * (1 - share) ** 0.5) // 2 for side in (height, width))
    return clipped(height, width, row - tall, row + tall, column - wide, column + wide)


def not_whole(height, width, share, row, column):
    tall, wide = (side * (1 - share) ** 0.5 for side in (height, width))
    top, left = row - tall / 2, column - wide / 2
    return clipped(height, width, top, top + tall, left, left + wide)


def cut_at_the_top_only(height, width, share, row, column):
    tall, wide = (int(side * (1 - share) ** 0.5) for side in (height, width))
    top, left = row - tall // 2, column - wide // 2
    return max(top, 0), top + tall, max(left, 0), left + wide


def one_side_for_both(height, width, share, row, column):
    side = int(min(height, width) * (1 - share) ** 0.5)
    top, left = row - side // 2, column - side // 2
    return clipped(height, width, top, top + side, left, left + side)


def always_in_the_middle(height, width, share, row, column):
    tall, wide = (int(side * (1 - share) ** 0.5) for side in (height, width))
    top, left = (height - tall) // 2, (width - wide) // 2
    return clipped(height, width, top, top + tall, left, left + wide)


def with_numpy(height, width, share, row, column):
    sizes, centre = np.array([height, width]), np.array([row, column])
    sides = np.floor(sizes * np.sqrt(1 - share)).astype(int)
    first = centre - sides // 2
    (top, left), (bottom, right) = first.clip(0), np.minimum(first + sides, sizes)
    return top, bottom, left, right


def as_a_list(height, width, share, row, column):
    ends = []
    for size, centre in ((height, row), (width, column)):
        side = math.floor(size * math.sqrt(1 - share))
        inside = [i for i in range(size) if 0 <= i - centre + side // 2 < side]
        ends += [inside[0], inside[-1] + 1] if inside else [centre, centre]
    return ends


def as_a_tensor(height, width, share, row, column):
    return torch.tensor(as_a_list(height, width, share, row, column))


def easiest(losses, images, labels):
    best = losses.argmin(0)
    columns = torch.arange(len(best))
    return images[best, columns], labels[best, columns]


def mean(losses, images, labels):
    return images.mean(0), labels[0]


def one_for_all(losses, images, labels):
    worst = losses.sum(1).argmax()
    return images[worst], labels[worst]


def published_order(losses, images, labels):
    count, n = losses.shape
    worst = losses.reshape(n, count).argmax(1)
    rows = torch.arange(n)
    mixed = images.reshape(n, count, *images.shape[2:])
    return mixed[rows, worst], labels.reshape(n, count, *labels.shape[2:])[rows, worst]


def largest_only(losses, images, labels):
    worst = losses.flatten().argmax()
    return images.flatten(0, 1)[worst], labels.flatten(0, 1)[worst]


def label_of_the_first(losses, images, labels):
    worst = losses.argmax(0)
    return images[worst, torch.arange(len(worst))], labels[0]


def along_the_other_axis(losses, images, labels):
    worst = losses.argmax(1)
    rows = torch.arange(len(worst))
    return images[rows, worst], labels[rows, worst]


def all_of_them(losses, images, labels):
    worst = losses.argmax(0)
    return images[worst], labels[worst]


def axis_kept(losses, images, labels):
    worst = losses.argmax(0)
    columns = torch.arange(len(worst))
    return images[worst, columns][None], labels[worst, columns][None]


def last_candidate(losses, images, labels):
    return images[-1], labels[-1]


def weighted_by_loss(losses, images, labels):
    weights = losses.softmax(0)[:, :, None, None, None]
    return (weights * images).sum(0), labels[losses.argmax(0), torch.arange(losses.shape[1])]


def losses_returned(losses, images, labels):
    return losses.amax(0), labels[losses.argmax(0), torch.arange(losses.shape[1])]


def images_only(losses, images, labels):
    return images[losses.argmax(0), torch.arange(losses.shape[1])]


def losses_overwritten(losses, images, labels):
    losses -= losses.amax(0)
    worst = (losses == 0).long().argmax(0)
    columns = torch.arange(len(worst))
    return images[worst, columns], labels[worst, columns]


def labels_as_numbers(losses, images, labels):
    worst = losses.argmax(0)
    columns = torch.arange(len(worst))
    return images[worst, columns], labels[worst, columns].float()


def classes_of_soft_labels(losses, images, labels):
    worst = losses.argmax(0)
    columns = torch.arange(len(worst))
    picked = labels[worst, columns]
    return images[worst, columns], picked if picked.ndim == 1 else picked.argmax(1)


def not_a_number(losses, images, labels):
    worst = losses.argmax(0)
    columns = torch.arange(len(worst))
    return images[worst, columns] * math.nan, labels[worst, columns]


def one_by_one(losses, images, labels):
    worst = [max(range(len(column)), key=column.__getitem__) for column in losses.T.tolist()]
    pairs = [(images[k, i], labels[k, i]) for i, k in enumerate(worst)]
    return [torch.stack(part) for part in zip(*pairs, strict=True)]


def by_a_mask(losses, images, labels):
    chosen = losses.amax(0)[:, None] == losses.T
    return images.transpose(0, 1)[chosen], labels.transpose(0, 1)[chosen]


def by_gather(losses, images, labels):
    def pick(values):
        index = losses.argmax(0).view(1, -1, *[1] * (values.ndim - 2))
        return torch.take_along_dim(values, index.expand(1, *values.shape[1:]), 0)[0]

    return pick(images), pick(labels)


WRONG = {
    "cutmix_box": [
        (not_clipped, "cut that off"),
        (cut_at_the_top_only, "cut that off"),
        (no_square_root, "square root"),
        (share_of_the_box, "share is that of the image that stays"),
        (axes_swapped, "Rows first"),
        (moved_inside, "moved it inside"),
        (rounded, "down to whole pixels"),
        (rounded_up, "down to whole pixels"),
        (corner_at_the_centre, "not its first corner"),
        (corners_as_points, "top and bottom before left and right"),
        (corner_and_size, "not the length"),
        (last_row_included, "one after the last"),
        (half_on_both_sides, "odd"),
        (not_whole, "whole numbers"),
        (one_side_for_both, "a side of its own"),
        (always_in_the_middle, "`row` and `column`"),
    ],
    "hardest": [
        (easiest, "easiest"),
        (mean, "a mean is not a maximum"),
        (one_for_all, "for each image by itself"),
        (published_order, "no candidate of image"),
        (largest_only, "one candidate of each image"),
        (label_of_the_first, "the same candidate"),
        (along_the_other_axis, "argmax(0)"),
        (all_of_them, "index with two lists"),
        (axis_kept, "one candidate of each image"),
        (last_candidate, "ignores the losses"),
        (weighted_by_loss, "a mean is not a maximum"),
        (losses_returned, "the losses themselves"),
        (images_only, "two tensors"),
        (losses_overwritten, "changed"),
        (labels_as_numbers, "came as torch.int64"),
        (classes_of_soft_labels, "soft"),
        (not_a_number, "nan"),
    ],
}
RIGHT = {
    "cutmix_box": [with_numpy, as_a_list, as_a_tensor],
    "hardest": [one_by_one, by_a_mask, by_gather],
}
