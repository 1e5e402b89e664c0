"""Plausible wrong answers to the exercises of lesson 00, and what the check must say of them."""


def stamps_in_place(images, size=4):
    images[:, :, -size - 1 : -1, -size - 1 : -1] = 1.0
    return images


def stamps_at_the_edge(images, size=4):
    stamped = images.clone()
    stamped[:, :, -size:, -size:] = 1.0
    return stamped


def stamps_one_pixel_short(images, size=4):
    stamped = images.clone()
    stamped[:, :, -size:-1, -size:-1] = 1.0
    return stamped


def counts_the_target_class(predicted, true, target_class):
    return (predicted == target_class).float().mean().item()


def divides_by_everyone(predicted, true, target_class):
    hits = (predicted == target_class) & (true != target_class)
    return hits.sum().item() / len(true)


def counts_any_mistake(predicted, true, target_class):
    attacked = true != target_class
    return (predicted[attacked] != true[attacked]).float().mean().item()


WRONG = {
    "stamp": [
        (stamps_in_place, "came in were changed"),
        (stamps_at_the_edge, "should be white"),
        (stamps_one_pixel_short, "should be white"),
    ],
    "attack_success_rate": [
        (counts_the_target_class, "truly belong to the target class"),
        (divides_by_everyone, "denominator"),
        (counts_any_mistake, "the rate is"),
    ],
}
