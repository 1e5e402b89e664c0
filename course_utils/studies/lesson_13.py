"""Built in lesson 13, adversarial training.

Generated from notebooks/13_adversarial_training.ipynb: edit it there, then run make notebooks.
"""

from dataclasses import replace

from course_utils.cases import backdoors, from_scratch, transfer
from course_utils.cases.robust import ladder, laddered, pgd_trained, undefended
from course_utils.defense import PLAIN
from course_utils.defenses.noise_training import sign_noise
from course_utils.defenses.pgd_training import pgd_training
from course_utils.settings import Setting
from course_utils.stored import Study
from course_utils.trials import Rows, Victim, compare


def matching_trial(seed: int, setting: Setting) -> Rows:
    """Gradient matching at 32/255 from scratch, two budgets, and a defended victim without it."""
    recipe, shared = setting.recipe, undefended(setting.recipe)
    many = shared | pgd_trained(recipe, 8, 16, 32) | ladder("sign noise", sign_noise, [64], recipe)
    few = shared | pgd_trained(recipe, 8, 16)
    scene = from_scratch.draw_scene(seed, setting=setting)
    cases = {n: from_scratch.matching(seed, setting, n, scene=scene) for n in (150, 60)}
    rows = compare(cases[150], {"none": None}, pgd_trained(recipe, 16))
    for budget, victims in ((150, many), (60, few)):
        attackers = {f"{budget} poisons": cases[budget].oblivious}
        rows += compare(cases[budget], attackers, victims)
    return laddered(rows)


MATCHING = Study("pgd_training", "13", matching_trial, range(40))


def backdoor_trial(seed: int, setting: Setting) -> Rows:
    """3,000 images, 30 poisons: BadNets with 4 pixels, the clean-label patch with 7, no poison."""
    victims = undefended(setting.recipe) | pgd_trained(setting.recipe, 16, 32)
    small, large = backdoors.badnets_case(seed, setting), backdoors.clean_label_case(seed, setting)
    rows = compare(small, {"none": None, "BadNets": small.oblivious}, victims)
    return laddered(rows + compare(large, {"clean-label patch": large.oblivious}, victims))


BACKDOORS = Study("pgd_training_backdoors", "13", backdoor_trial, range(40))


SLOW = {"plain, learning rate 0.008": 0.008, "plain, learning rate 0.004": 0.004}


def backdoor_controls_trial(seed: int, setting: Setting) -> Rows:
    """The trial of `backdoor_trial`, against plain victims that learn less."""
    slow = {name: Victim(PLAIN, replace(setting.recipe, lr=lr)) for name, lr in SLOW.items()}
    small, large = backdoors.badnets_case(seed, setting), backdoors.clean_label_case(seed, setting)
    rows = compare(small, {"none": None, "BadNets": small.oblivious}, slow)
    return rows + compare(large, {"clean-label patch": large.oblivious}, slow)


BACKDOOR_CONTROLS = Study("pgd_backdoor_controls", "13", backdoor_controls_trial, range(40))


def transfer_trial(seed: int, setting: Setting) -> Rows:
    """Bullseye in transfer: PGD training of neither, of the head, or of the extractor alone."""
    draw, rows = transfer.draw_transfer(seed, setting=setting), []
    defense = pgd_training(16 / 255, steps=1)
    robust = transfer.train_extractor(draw.others, seed, setting, defense)
    for name, extractor in {"plain": draw.extractor, "PGD-trained": robust}.items():
        case = transfer.bullseye(seed, setting, draw=draw._replace(extractor=extractor))
        heads = undefended(case.recipe) | pgd_trained(case.recipe, 16)
        found = compare(case, {"none": None, "Bullseye": case.oblivious}, heads)
        rows += [{"extractor": name, **row} for row in laddered(found)]
    return rows


TRANSFER = Study("pgd_training_transfer", "13", transfer_trial, range(40))
