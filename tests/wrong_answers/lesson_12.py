"""Plausible wrong answers to the exercises of lesson 12, and what the check must say of them."""

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


WRONG = {
    "cutmix_box": [
        (not_clipped, "cut that off"),
        (no_square_root, "square root"),
        (share_of_the_box, "too large"),
        (axes_swapped, "Rows first"),
        (moved_inside, "too large"),
    ],
    "hardest": [
        (easiest, "easiest"),
        (mean, "a mean is not a maximum"),
        (one_for_all, "for each image by itself"),
        (published_order, "no candidate of image"),
        (largest_only, "one candidate of each image"),
        (label_of_the_first, "the same candidate"),
    ],
}
