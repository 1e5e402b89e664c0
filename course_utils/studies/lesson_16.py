"""Built in lesson 16, the grand comparison.

Generated from notebooks/16_the_grand_comparison.ipynb: edit it there, then run make notebooks.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import pandas as pd

from course_utils import fixed_trials, settings, statistics, stored, trials
from course_utils.cases import (
    backdoors,
    controls,
    filtering,
    from_scratch,
    hidden_triggers,
    knowing,
    label_flips,
    poisoning,
    robust,
    transfer,
    unrolled,
)
from course_utils.cases.every_defense import CLUSTERING, all_victims
from course_utils.cases.matrix import (
    DEEP_KNN,
    FILTERS,
    NOBODY,
    PLAIN_VICTIM,
    SPECTRAL,
    Victims,
    defended,
    every_victim,
    matrix_row,
)


def with_drops(rows: trials.Rows) -> trials.Rows:
    """Label flips achieve the relative drop from the same victim's accuracy on clean data."""
    clean = {row["defense"]: row["accuracy"] for row in rows if row["knowledge"] == NOBODY}
    drop = statistics.relative_accuracy_drop
    return [{**row, "achieved": drop(clean[row["defense"]], row["accuracy"])} for row in rows]


def flips_trial(seed: int, setting: settings.Setting) -> trials.Rows:
    """Worst flips of 300 of 3,000 labels, from one surrogate; achieved: the relative drop."""
    case = label_flips.worst_case(seed, setting)
    victims = every_victim(case, setting, 30)  # a tenth of each class
    return with_drops(matrix_row(case, victims, victims, defended(setting)))


def bullseye_trial(seed: int, setting: settings.Setting = settings.MLP) -> trials.Rows:
    """5 poisons at 32/255 for a head on frozen features, which the attacker has.

    Knowing the filters, the attacker bunches the poisons: see lesson 15.
    """
    case = knowing.bullseye(seed, setting)
    victims = every_victim(case, setting, 5)
    return matrix_row(case, victims, known={name: victims[name] for name in (SPECTRAL, DEEP_KNN)})


def metapoison_trial(seed: int, setting: settings.Setting) -> trials.Rows:
    """150 poisons at 32/255 from four surrogates, each at four ages, as in lesson 06.

    Without knowledge alone: with it there would be 16 surrogates to train for each defense.
    """
    case = unrolled.metapoison_case(unrolled.draw_scene(seed, setting), setting)
    return matrix_row(case, every_victim(case, setting, 150))


def badnets_trial(seed: int, setting: settings.Setting) -> trials.Rows:
    """30 of 3,000 images with a patch of 4 by 4 pixels: nothing is crafted."""
    case = backdoors.badnets_case(seed, setting)
    return matrix_row(case, every_victim(case, setting, 30))


def sleeper_trial(seed: int, setting: settings.Setting) -> trials.Rows:
    """Sleeper Agent: 30 poisons at 32/255 from two surrogates, a patch of 8 by 8 pixels."""
    case = hidden_triggers.sleeper_case(seed, setting)
    return matrix_row(case, every_victim(case, setting, 30), known=defended(setting))


def hidden_trial(seed: int, setting: settings.Setting) -> trials.Rows:
    """Hidden triggers: 50 of 1,000 images at 32/255, for a head on features the attacker has.

    The head trains with the recipe of lesson 04, as those of Bullseye Polytope do.
    """
    case = hidden_triggers.hidden_trigger_case(seed, setting)
    case = replace(case, recipe=setting.shortened(transfer.HEAD))
    return matrix_row(case, every_victim(case, setting, 50))


TRIALS = {
    "label flips": flips_trial,
    "Bullseye Polytope": bullseye_trial,
    "MetaPoison": metapoison_trial,
    "BadNets": badnets_trial,
    "Sleeper Agent": sleeper_trial,
    "hidden triggers": hidden_trial,
}
BENCHMARK = stored.Benchmark("grand_comparison", TRIALS, range(100, 140))


def clean_label_trial(seed: int, setting: settings.Setting) -> trials.Rows:
    """The clean-label patch: 30 of 3,000 images, 7 by 7 pixels. Nothing is crafted."""
    case = backdoors.clean_label_case(seed, setting)
    return matrix_row(case, every_victim(case, setting, 30))


PATCH = stored.Study("clean_label_matrix", "16", clean_label_trial, BENCHMARK.seeds)


HEAD_RATES = (0.01, 0.003, 0.001, 0.0005)
NEAR_THE_DEFENSES = ("plain, learning rate 0.02", "plain, learning rate 0.008")


def curve_of(case: trials.Case, setting: settings.Setting) -> dict[str, trials.Victim]:
    """The learns-less curve: from scratch that of lesson 01, for a head four learning rates."""
    if case.scenario != "transfer":
        return controls.learns_less(setting)
    return controls.slower_plain(case.recipe, *HEAD_RATES)


def curve_row(
    case: trials.Case, setting: settings.Setting, clean: dict, known: Iterable[str] = ()
) -> trials.Rows:
    """The curve in one trial of one row: under the attacker who does not know the victim, and for
    the `known` points under one who does. clean: the victims to train on clean data as well."""
    curve = curve_of(case, setting)
    return matrix_row(case, curve, clean, {name: curve[name] for name in known})


def flips_curve(seed: int, setting: settings.Setting) -> trials.Rows:
    """The curve under worst flips; what they achieve is the relative drop."""
    case = label_flips.worst_case(seed, setting)
    rows = curve_row(case, setting, curve_of(case, setting), NEAR_THE_DEFENSES)
    return with_drops(rows)


def bullseye_curve(seed: int, setting: settings.Setting) -> trials.Rows:
    """Heads that learn less under Bullseye Polytope, and every head on clean data."""
    case = knowing.bullseye(seed, setting)
    every = every_victim(case, setting, 5)
    return curve_row(case, setting, every | curve_of(case, setting))


def metapoison_curve(seed: int, setting: settings.Setting) -> trials.Rows:
    """The curve under MetaPoison; filters told of 150 poisons on clean data."""
    case = unrolled.metapoison_case(unrolled.draw_scene(seed, setting), setting)
    every = every_victim(case, setting, 150)
    return curve_row(case, setting, {name: every[name] for name in FILTERS})


def hidden_curve(seed: int, setting: settings.Setting) -> trials.Rows:
    """Heads that learn less under hidden triggers, and every head on clean data."""
    case = hidden_triggers.hidden_trigger_case(seed, setting)
    case = replace(case, recipe=setting.shortened(transfer.HEAD))
    every = every_victim(case, setting, 50)
    return curve_row(case, setting, every | curve_of(case, setting))


def badnets_curve(seed: int, setting: settings.Setting) -> trials.Rows:
    """The curve under BadNets."""
    return curve_row(backdoors.badnets_case(seed, setting), setting, {})


def patch_curve(seed: int, setting: settings.Setting) -> trials.Rows:
    """The curve under the clean-label patch."""
    return curve_row(backdoors.clean_label_case(seed, setting), setting, {})


def sleeper_curve(seed: int, setting: settings.Setting) -> trials.Rows:
    """The curve under Sleeper Agent."""
    case = hidden_triggers.sleeper_case(seed, setting)
    return curve_row(case, setting, {}, NEAR_THE_DEFENSES)


CURVES = stored.Benchmark(
    "grand_comparison_controls",
    {
        "label flips": flips_curve,
        "Bullseye Polytope": bullseye_curve,
        "MetaPoison": metapoison_curve,
        "BadNets": badnets_curve,
        "clean-label patch": patch_curve,
        "Sleeper Agent": sleeper_curve,
        "hidden triggers": hidden_curve,
    },
    BENCHMARK.seeds,
    scale="controls",
)


WEAK = f"{poisoning.CHEAP} 32/255"  # as strong as the attack
UNKNOWN = (PLAIN_VICTIM, CLUSTERING, poisoning.POISONING, WEAK)  # nobody knows more of these
UNFILTERED = {"poisons removed": 0, "clean removed": 0}


def facing(
    seed: int, setting: settings.Setting, faced: Callable, priced: bool = True
) -> trials.Rows:
    """Gradient matching on a fixed target: these victims under both attackers.

    The plain one, if among them, meets noise too. priced: whether all train on clean data as well.
    """
    scene = from_scratch.draw_scene(seed, setting=setting)
    goal = fixed_trials.fixed_target(seed, scene.test)
    case = knowing.matching(seed, setting, goal, scene)
    victims, oblivious = faced(case, setting), {"oblivious": case.oblivious}
    rows = trials.compare(case, {"noise": case.noise}) if PLAIN_VICTIM in victims else []
    rows += trials.compare(case, {"clean": None} | oblivious if priced else oblivious, victims)
    known = {name: victim for name, victim in victims.items() if name not in UNKNOWN}
    rows += trials.compare(case, {"knowing": case.craft}, known)
    return [UNFILTERED | row for row in rows]


def fixed_trial(seed: int, setting: settings.Setting) -> trials.Rows:
    """Gradient matching on a fixed target: every victim, clean, and under both attackers."""
    return facing(seed, setting, all_victims)


FIXED = stored.Study("matching_fixed", "16", fixed_trial, fixed_trials.seeds("reporting"))


STRONG = f"{robust.PGD} 32/255"
LEFT_OUT = ("clipping", "Mixup", "Cutout", "MaxUp", CLUSTERING, SPECTRAL, STRONG)


def fewer_victims(case: trials.Case, setting: settings.Setting) -> dict[str, trials.Victim]:
    """The defenses of the matrix but Spectral Signatures; PGD training at 8/255, poisoning training
    in full and with the bound of the attack; plain victims, three of them with a lower rate.

    Victims of a convolutional network take up to two and a half times as long.
    """
    found = all_victims(case, setting)
    left_out = [name for name in found if name in LEFT_OUT or name.endswith("epochs")]
    kept = {name: victim for name, victim in found.items() if name not in left_out}
    return kept | {WEAK: trials.Victim(poisoning.cheap(32 / 255), setting.recipe)}


def convnet_trial(
    seed: int, setting: settings.Setting, faced: Callable = fewer_victims
) -> trials.Rows:
    """Gradient matching on a fixed target; clean victims in the first trial of each pair."""
    return facing(seed, setting, faced, priced=seed in fixed_trials.first_of_pairs())


SLOW = ("plain, learning rate 0.008", "plain, learning rate 0.004")


def and_slower(case: trials.Case, setting: settings.Setting) -> dict[str, trials.Victim]:
    """The victims of the matrix, and two that learn still less; filters told of 30 poisons."""
    less = controls.learns_less(setting)
    return every_victim(case, setting, 30) | {name: less[name] for name in SLOW}


def badnets_convnet(seed: int, setting: settings.Setting) -> trials.Rows:
    """BadNets; all victims train on clean data too, which the other backdoors share."""
    case = backdoors.badnets_case(seed, setting)
    victims = and_slower(case, setting)
    return matrix_row(case, victims, clean=victims)


def patch_convnet(seed: int, setting: settings.Setting) -> trials.Rows:
    """The clean-label patch."""
    case = backdoors.clean_label_case(seed, setting)
    return matrix_row(case, and_slower(case, setting))


def sleeper_convnet(seed: int, setting: settings.Setting) -> trials.Rows:
    """Sleeper Agent, by both attackers."""
    less, case = controls.learns_less(setting), hidden_triggers.sleeper_case(seed, setting)
    known = defended(setting) | {name: less[name] for name in NEAR_THE_DEFENSES}
    return matrix_row(case, and_slower(case, setting), known=known)


BETWEEN, OUTSIDE = (0.015, 0.012, 0.0055), (0.03, 0.0015)


def between(case: trials.Case, setting: settings.Setting) -> Victims:
    """Plain victims of the second network whose accuracy lies between the points of its curve."""
    return controls.slower_plain(case.recipe, *BETWEEN)


def between_trial(seed: int, setting: settings.Setting) -> trials.Rows:
    """They meet gradient matching."""
    return convnet_trial(seed, setting, between)


def outside(case: trials.Case, setting: settings.Setting) -> Victims:
    """Spectral Signatures, the plain victim of its accuracy, and one just below plain."""
    filters = filtering.filters(case, setting.scaled(150))
    return controls.slower_plain(case.recipe, *OUTSIDE) | {SPECTRAL: filters[SPECTRAL]}


def outside_trial(seed: int, setting: settings.Setting) -> trials.Rows:
    """The same for these."""
    return convnet_trial(seed, setting, outside)


def between_backdoors(seed: int, setting: settings.Setting) -> trials.Rows:
    """The first ones meet three backdoors. For Sleeper Agent two of them, and the slowest of the
    curve, also meet an attacker who knows them."""
    cases = {
        "BadNets": backdoors.badnets_case(seed, setting),
        "clean-label patch": backdoors.clean_label_case(seed, setting),
        "Sleeper Agent": hidden_triggers.sleeper_case(seed, setting),
    }
    plain = between(cases["BadNets"], setting)
    clean = {"BadNets": plain}  # the others share its images
    known = {"Sleeper Agent": controls.slower_plain(setting.recipe, *BETWEEN[:2], 0.004)}
    return [
        {"attack": attack} | row
        for attack, case in cases.items()
        for row in matrix_row(case, plain, clean.get(attack, {}), known.get(attack))
    ]


def on_convnet(name: str, trial: stored.Trial, seeds: Sequence[int]) -> stored.Study:
    """A study of the second network."""
    return stored.Study(f"{name}_convnet", "16", trial, seeds, settings.CONVNET)


FIXED_CONVNET = on_convnet("matching_fixed", convnet_trial, fixed_trials.in_turn())
BETWEEN_CONVNET = on_convnet("matching_between", between_trial, fixed_trials.in_turn())
OUTSIDE_CONVNET = on_convnet("matching_outside", outside_trial, fixed_trials.in_turn())
BADNETS_CONVNET = on_convnet("badnets_matrix", badnets_convnet, BENCHMARK.seeds[:26])
PATCH_CONVNET = on_convnet("clean_label_matrix", patch_convnet, BENCHMARK.seeds[:26])
SLEEPER_CONVNET = on_convnet("sleeper_matrix", sleeper_convnet, BENCHMARK.seeds[:26])
BACKDOORS_BETWEEN = on_convnet("backdoors_between", between_backdoors, BENCHMARK.seeds[:26])


ON_MLP = {attack: (BENCHMARK, CURVES) for attack in TRIALS}
ON_MLP |= {"clean-label patch": (PATCH, CURVES), "gradient matching": (FIXED,)}
ON_LENET = {
    "gradient matching": (FIXED_CONVNET, BETWEEN_CONVNET, OUTSIDE_CONVNET),
    "BadNets": (BADNETS_CONVNET, BACKDOORS_BETWEEN),
    "clean-label patch": (PATCH_CONVNET, BACKDOORS_BETWEEN),
    "Sleeper Agent": (SLEEPER_CONVNET, BACKDOORS_BETWEEN),
}
NETWORKS = {"MLP": ON_MLP, "LeNet": ON_LENET}  # the studies that hold the rows of each attack


def rows_on(network: str, attack: str) -> pd.DataFrame:
    """The stored rows of an attack on a network of NETWORKS, with all its controls."""
    parts = map(stored.load_study, NETWORKS[network][attack])
    parts = [rows[rows["attack"] == attack] if "attack" in rows else rows for rows in parts]
    return pd.concat(parts, ignore_index=True).assign(attack=attack)
