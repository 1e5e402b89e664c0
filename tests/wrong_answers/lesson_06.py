"""Plausible wrong answers to the exercises of lesson 06, and what the check must say of them;
unusual right answers that it must accept.
"""

import copy

import torch
from torch.func import functional_call, grad, jvp
from torch.nn.functional import cross_entropy, relu

from course_utils.attacks.gradient_matching import dot, length, target_gradient


def gradients_of(model, parameters, images, labels, graph=True, **options):
    loss = cross_entropy(functional_call(model, parameters, (images,)), labels, **options)
    return torch.autograd.grad(loss, tuple(parameters.values()), create_graph=graph)


def moved_by(parameters, parts, lr):
    return {name: p - lr * g for (name, p), g in zip(parameters.items(), parts, strict=True)}


def right_step(model, parameters, images, labels, lr):
    return moved_by(parameters, gradients_of(model, parameters, images, labels), lr)


def cuts_the_graph(model, parameters, images, labels, lr):
    return moved_by(parameters, gradients_of(model, parameters, images, labels, graph=False), lr)


def detaches_the_images(model, parameters, images, labels, lr):
    return right_step(model, parameters, images.detach(), labels, lr)


def detaches_the_result(model, parameters, images, labels, lr):
    moved = right_step(model, parameters, images, labels, lr)
    return {name: p.detach().requires_grad_() for name, p in moved.items()}


def forgets_the_old_weights_in_the_graph(model, parameters, images, labels, lr):
    parts = gradients_of(model, parameters, images, labels)
    return moved_by({name: p.detach() for name, p in parameters.items()}, parts, lr)


def goes_uphill(model, parameters, images, labels, lr):
    return right_step(model, parameters, images, labels, -lr)


def sums_over_the_batch(model, parameters, images, labels, lr):
    parts = gradients_of(model, parameters, images, labels, reduction="sum")
    return moved_by(parameters, parts, lr)


def forgets_the_rate(model, parameters, images, labels, lr):
    return right_step(model, parameters, images, labels, 1.0)


def always_a_tenth(model, parameters, images, labels, lr):
    return right_step(model, parameters, images, labels, 0.1)


def the_change_alone(model, parameters, images, labels, lr):
    parts = gradients_of(model, parameters, images, labels)
    return {name: -lr * g for name, g in zip(parameters, parts, strict=True)}


def the_gradients(model, parameters, images, labels, lr):
    return dict(zip(parameters, gradients_of(model, parameters, images, labels), strict=True))


def of_the_models_weights(model, parameters, images, labels, lr):
    own = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}
    return right_step(model, own, images, labels, lr)


def gradient_of_the_model(model, parameters, images, labels, lr):
    own = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}
    return moved_by(parameters, gradients_of(model, own, images, labels), lr)


def takes_two_steps(model, parameters, images, labels, lr):
    once = right_step(model, parameters, images, labels, lr)
    return right_step(model, once, images, labels, lr)


def signs_only(model, parameters, images, labels, lr):
    parts = gradients_of(model, parameters, images, labels)
    return moved_by(parameters, [part.sign() for part in parts], lr)


def moves_the_model_itself(model, parameters, images, labels, lr):
    moved = right_step(model, parameters, images, labels, lr)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(moved[name])
    return moved


def uses_an_optimizer(model, parameters, images, labels, lr):
    optimizer = torch.optim.SGD(parameters.values(), lr=lr)
    cross_entropy(functional_call(model, parameters, (images,)), labels).backward()
    optimizer.step()
    return parameters


def returns_a_list(model, parameters, images, labels, lr):
    return list(right_step(model, parameters, images, labels, lr).values())


def step_by_torch_func(model, parameters, images, labels, lr):
    def loss(weights):
        return cross_entropy(functional_call(model, weights, (images,)), labels)

    slopes = grad(loss)(parameters)
    return {name: parameters[name] - lr * slopes[name] for name in parameters}


def step_from_the_sum(model, parameters, images, labels, lr):
    parts = gradients_of(model, parameters, images, labels, reduction="sum")
    return moved_by(parameters, parts, lr / len(images))


def step_in_float32(model, parameters, images, labels, lr):
    moved = right_step(model, parameters, images, labels, lr)
    return {name: p.float() for name, p in moved.items()}


def behind(logits, adversarial_class):
    others = logits.clone()
    others[:, adversarial_class] = -torch.inf
    return others.amax(1) - logits[:, adversarial_class]


def never_stops(logits, adversarial_class, confidence=0.2):
    return (behind(logits, adversarial_class) + confidence).mean()


def forgets_the_confidence(logits, adversarial_class, confidence=0.2):
    return behind(logits, adversarial_class).clamp(min=0).mean()


def adds_the_confidence_late(logits, adversarial_class, confidence=0.2):
    return behind(logits, adversarial_class).clamp(min=0).mean() + confidence


def subtracts_the_confidence(logits, adversarial_class, confidence=0.2):
    return (behind(logits, adversarial_class) - confidence).clamp(min=0).mean()


def always_a_fifth(logits, adversarial_class, confidence=0.2):
    return (behind(logits, adversarial_class) + 0.2).clamp(min=0).mean()


def takes_the_largest_of_all(logits, adversarial_class, confidence=0.2):
    return (logits.amax(1) - logits[:, adversarial_class] + confidence).clamp(min=0).mean()


def masks_with_zero(logits, adversarial_class, confidence=0.2):
    others = logits.clone()
    others[:, adversarial_class] = 0
    return (others.amax(1) - logits[:, adversarial_class] + confidence).clamp(min=0).mean()


def masks_a_row(logits, adversarial_class, confidence=0.2):
    others = logits.clone()
    others[min(adversarial_class, len(logits) - 1)] = -torch.inf
    return (others.amax(1) - logits[:, adversarial_class] + confidence).mean()


def wrong_way_round(logits, adversarial_class, confidence=0.2):
    return (confidence - behind(logits, adversarial_class)).clamp(min=0).mean()


def sums_up(logits, adversarial_class, confidence=0.2):
    return (behind(logits, adversarial_class) + confidence).clamp(min=0).sum()


def mean_of_the_others(logits, adversarial_class, confidence=0.2):
    keep = [k for k in range(logits.shape[1]) if k != adversarial_class]
    gaps = logits[:, keep].mean(1) - logits[:, adversarial_class]
    return (gaps + confidence).clamp(min=0).mean()


def of_probabilities(logits, adversarial_class, confidence=0.2):
    return (behind(logits.softmax(1), adversarial_class) + confidence).clamp(min=0).mean()


def squared(logits, adversarial_class, confidence=0.2):
    return (behind(logits, adversarial_class) + confidence).clamp(min=0).square().mean()


def class_zero(logits, adversarial_class, confidence=0.2):
    return (behind(logits, 0) + confidence).clamp(min=0).mean()


def works_in_place(logits, adversarial_class, confidence=0.2):
    mine = logits[:, adversarial_class].clone()
    logits[:, adversarial_class] = -torch.inf
    return (logits.amax(1) - mine + confidence).clamp(min=0).mean()


def writes_into_the_data(logits, adversarial_class, confidence=0.2):
    mine = logits[:, adversarial_class].clone()
    logits.data[:, adversarial_class] = -torch.inf
    return (logits.amax(1) - mine + confidence).clamp(min=0).mean()


def one_for_each_image(logits, adversarial_class, confidence=0.2):
    return (behind(logits, adversarial_class) + confidence).clamp(min=0)


def averages_first(logits, adversarial_class, confidence=0.2):
    return never_stops(logits, adversarial_class, confidence).clamp(min=0)


def detached_margin(logits, adversarial_class, confidence=0.2):
    return margin_by_relu(logits.detach(), adversarial_class, confidence)


def a_number(logits, adversarial_class, confidence=0.2):
    return margin_by_relu(logits, adversarial_class, confidence).item()


def another_default(logits, adversarial_class, confidence=0.0):
    return margin_by_relu(logits, adversarial_class, confidence)


def margin_by_relu(logits, adversarial_class, confidence=0.2):
    return relu(behind(logits, adversarial_class) + confidence).mean()


def margin_in_double(logits, adversarial_class, confidence=0.2):
    keep = torch.arange(logits.shape[1]) != adversarial_class
    gaps = logits.double()[:, keep].max(1).values - logits.double()[:, adversarial_class]
    return torch.where(gaps > -confidence, gaps + confidence, 0).mean()


def margin_by_a_loop(logits, adversarial_class, confidence=0.2):
    total = 0 * logits.sum()
    for row in logits:
        others = torch.cat([row[:adversarial_class], row[adversarial_class + 1 :]])
        total = total + torch.clamp(others.max() - row[adversarial_class] + confidence, min=0)
    return total / len(logits)


def parts_of(model, images, labels, target, adversarial_class):
    label = torch.tensor([adversarial_class])
    before = cross_entropy(model(target), label).item()
    wanted = target_gradient(model, target, label)
    return before, wanted, target_gradient(model, images, labels)


def right_prediction(model, images, labels, target, adversarial_class, lr):
    before, wanted, step = parts_of(model, images, labels, target, adversarial_class)
    return before - lr * dot(wanted, step).item()


def wrong_sign(model, images, labels, target, adversarial_class, lr):
    return right_prediction(model, images, labels, target, adversarial_class, -lr)


def only_the_change(model, images, labels, target, adversarial_class, lr):
    _, wanted, step = parts_of(model, images, labels, target, adversarial_class)
    return -lr * dot(wanted, step).item()


def only_before(model, images, labels, target, adversarial_class, lr):
    return parts_of(model, images, labels, target, adversarial_class)[0]


def takes_a_true_step(model, images, labels, target, adversarial_class, lr):
    weights = {name: p.detach().requires_grad_() for name, p in model.named_parameters()}
    moved = right_step(model, weights, images, labels, lr)
    logits = functional_call(model, moved, (target,))
    return cross_entropy(logits, torch.tensor([adversarial_class])).item()


def forgets_lr(model, images, labels, target, adversarial_class, lr):
    return right_prediction(model, images, labels, target, adversarial_class, 1.0)


def squares_lr(model, images, labels, target, adversarial_class, lr):
    return right_prediction(model, images, labels, target, adversarial_class, lr**2)


def takes_half(model, images, labels, target, adversarial_class, lr):
    return right_prediction(model, images, labels, target, adversarial_class, lr / 2)


def sums_the_batch(model, images, labels, target, adversarial_class, lr):
    return right_prediction(model, images, labels, target, adversarial_class, lr * len(labels))


def takes_the_cosine(model, images, labels, target, adversarial_class, lr):
    before, wanted, step = parts_of(model, images, labels, target, adversarial_class)
    return before - lr * (dot(wanted, step) / length(wanted) / length(step)).item()


def loss_of_the_batch(model, images, labels, target, adversarial_class, lr):
    change = only_the_change(model, images, labels, target, adversarial_class, lr)
    return cross_entropy(model(images), labels).item() + change


def what_the_model_says(model, images, labels, target, adversarial_class, lr):
    return right_prediction(model, images, labels, target, int(model(target).argmax()), lr)


def squares_the_step(model, images, labels, target, adversarial_class, lr):
    before, _, step = parts_of(model, images, labels, target, adversarial_class)
    return before - lr * dot(step, step).item()


def leaves_gradients(model, images, labels, target, adversarial_class, lr):
    cross_entropy(model(images), labels).backward()
    return right_prediction(model, images, labels, target, adversarial_class, lr)


def trains_the_model(model, images, labels, target, adversarial_class, lr):
    step = target_gradient(model, images, labels)
    with torch.no_grad():
        for p, g in zip(model.parameters(), step, strict=True):
            p -= lr * g
    return cross_entropy(model(target), torch.tensor([adversarial_class])).item()


def label_as_a_number(model, images, labels, target, adversarial_class, lr):
    return cross_entropy(model(target), adversarial_class).item()


def prediction_as_a_tensor(model, images, labels, target, adversarial_class, lr):
    loss = cross_entropy(model(target), torch.full((1,), adversarial_class))
    pulls = torch.autograd.grad(loss, tuple(model.parameters()))
    return loss - lr * dot(pulls, target_gradient(model, images, labels))


def prediction_by_jvp(model, images, labels, target, adversarial_class, lr):
    weights = {name: p.detach() for name, p in model.named_parameters()}
    steps = target_gradient(model, images, labels)
    way = {name: -lr * g for name, g in zip(weights, steps, strict=True)}

    def loss(parameters):
        logits = functional_call(model, parameters, (target,))
        return cross_entropy(logits, torch.tensor([adversarial_class]))

    before, change = jvp(loss, (weights,), (way,))
    return (before + change).item()


def prediction_by_a_small_step(model, images, labels, target, adversarial_class, lr):
    twin, label = copy.deepcopy(model), torch.tensor([adversarial_class])
    before = cross_entropy(twin(target), label).item()
    step = target_gradient(model, images, labels)
    with torch.no_grad():
        for p, g in zip(twin.parameters(), step, strict=True):
            p -= 1e-7 * g
    return before + lr * (cross_entropy(twin(target), label).item() - before) / 1e-7


WRONG = {
    "unrolled_step": [
        (cuts_the_graph, "do not depend on the images"),
        (detaches_the_images, "do not depend on the images"),
        (detaches_the_result, "do not depend on the images"),
        (forgets_the_old_weights_in_the_graph, "a part of the graph is cut"),
        (goes_uphill, "subtract the gradient"),
        (sums_over_the_batch, "not the sum"),
        (forgets_the_rate, "forgot the learning rate"),
        (always_a_tenth, "0.1 whatever"),
        (the_change_alone, "the change alone"),
        (the_gradients, "Those are the gradients"),
        (of_the_models_weights, "start from `parameters`"),
        (gradient_of_the_model, "not at the model's weights"),
        (takes_two_steps, "not two"),
        (signs_only, "not the sign"),
        (moves_the_model_itself, "What came in was changed: `model"),
        (uses_an_optimizer, "What came in was changed: `parameters"),
        (returns_a_list, "not a list"),
    ],
    "margin_loss": [
        (never_stops, "never below zero"),
        (forgets_the_confidence, "by the confidence"),
        (adds_the_confidence_late, "cut after the confidence is added"),
        (subtracts_the_confidence, "The confidence is added"),
        (always_a_fifth, "0.2 whatever"),
        (takes_the_largest_of_all, "Mask the adversarial class"),
        (masks_with_zero, "Mask with minus infinity"),
        (masks_a_row, "There is -inf"),
        (wrong_way_round, "BEHIND"),
        (sums_up, "not the sum"),
        (mean_of_the_others, "not their mean"),
        (of_probabilities, "no softmax"),
        (squared, "not squared"),
        (class_zero, "class 0 whatever"),
        (works_in_place, "Write into a copy"),
        (writes_into_the_data, "What came in was changed: `logits`"),
        (one_for_each_image, "Return one number"),
        (averages_first, "then average"),
        (detached_margin, "cannot be differentiated"),
        (a_number, "not a plain float"),
        (another_default, "Without a confidence"),
    ],
    "predicted_loss": [
        (wrong_sign, "mind the sign"),
        (only_the_change, "add the loss before"),
        (only_before, "the change is missing"),
        (takes_a_true_step, "a straight line"),
        (forgets_lr, "forgot the learning rate"),
        (squares_lr, "not squared"),
        (takes_half, "no factor one half"),
        (sums_the_batch, "not a sum"),
        (takes_the_cosine, "do not divide by the lengths"),
        (loss_of_the_batch, "not at that of the batch"),
        (what_the_model_says, "not of what the model says"),
        (squares_the_step, "you squared that of the batch"),
        (leaves_gradients, "A gradient was left"),
        (trains_the_model, "What came in was changed: `model"),
        (label_as_a_number, "stopped with TypeError"),
    ],
}
RIGHT = {
    "unrolled_step": [step_by_torch_func, step_from_the_sum, step_in_float32],
    "margin_loss": [margin_by_relu, margin_in_double, margin_by_a_loop],
    "predicted_loss": [prediction_as_a_tensor, prediction_by_jvp, prediction_by_a_small_step],
}
