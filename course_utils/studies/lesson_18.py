"""Built in lesson 18, forensics.

Generated from notebooks/18_forensics.ipynb: edit it there, then run make notebooks.
"""

from course_utils import fixed_trials
from course_utils.cases import backdoors, hidden_triggers, label_flips, transfer
from course_utils.cases.incidents import (
    forensic_rows,
    matching_on_target,
    ridge_rows,
    transfer_on_target,
)
from course_utils.settings import CONVNET, MLP, Setting
from course_utils.stored import Study
from course_utils.trials import Rows


def labelled(rows: Rows, attack: str) -> Rows:
    """The rows with the name of the attack in front."""
    return [{"attack": attack, **row} for row in rows]


def backdoor_trial(seed: int, setting: Setting = MLP) -> Rows:
    """BadNets, the clean-label patch and Sleeper Agent: an incident of each."""
    cases = {
        "BadNets": backdoors.badnets_case,
        "clean-label patch": backdoors.clean_label_case,
        "Sleeper Agent": hidden_triggers.sleeper_case,
    }
    made = (labelled(forensic_rows(case(seed, setting)), name) for name, case in cases.items())
    return [row for rows in made for row in rows]


def flips_trial(seed: int, setting: Setting = MLP) -> Rows:
    """Worst-case label flips: any test image that the victim gets wrong."""
    return labelled(forensic_rows(label_flips.worst_case(seed, setting)), "label flips")


BACKDOORS = Study("forensics_backdoors", "18", backdoor_trial, range(26))
FLIPS = Study("forensics_flips", "18", flips_trial, range(26))


def matching_trial(seed: int, setting: Setting = MLP) -> Rows:
    """Gradient matching against the target of this fixed trial."""
    case = matching_on_target(seed, setting)
    return [] if case.oblivious is None else labelled(forensic_rows(case), "gradient matching")


def convnet_trial(seed: int, setting: Setting = CONVNET) -> Rows:
    """Gradient matching and BadNets on the convolutional network."""
    badnets = backdoors.badnets_case(seed, setting)
    return matching_trial(seed, setting) + labelled(forensic_rows(badnets), "BadNets")


MATCHING = Study("forensics_matching", "18", matching_trial, fixed_trials.seeds("reporting"))
CONVOLUTIONAL = Study(
    "forensics_convnet", "18", convnet_trial, fixed_trials.first_of_pairs(), CONVNET
)


BUDGETS = (5, 10, 20)


def spread_trial(seed: int, setting: Setting = MLP) -> Rows:
    """Bullseye Polytope with 5 poisons, and with more of them, so that each is needed less."""
    draw, rows = transfer_on_target(seed, setting), []
    for budget in BUDGETS:
        case = transfer.bullseye(seed, setting, budget, draw)
        if case.oblivious is not None:
            found = forensic_rows(case) + ridge_rows(case)
            rows += [{"budget": budget, **row} for row in found]
    return rows


SPREAD = Study("forensics_spread", "18", spread_trial, fixed_trials.seeds("reporting"))
