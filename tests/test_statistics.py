"""course_utils.statistics: intervals and tests against closed forms, known values and coverage."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from course_utils.statistics import (
    Interval,
    against_controls,
    defended,
    holm,
    mcnemar,
    nearest_control,
    on_networks,
    paired,
    paired_difference,
    summary,
    t_interval,
    verdicts,
    wilson,
)

outcomes = st.lists(st.booleans(), min_size=1, max_size=60)
rates = st.lists(st.floats(0, 1), min_size=2, max_size=12)
pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60)


def successes(k: int, n: int) -> list[bool]:
    return [True] * k + [False] * (n - k)


def counts(both: int, only_first: int, only_second: int, neither: int) -> tuple[list, list]:
    """Two conditions with these numbers of pairs."""
    first = successes(both, both) + successes(only_first, only_first + only_second)
    second = successes(both, both) + [not value for value in first[both:]]
    return first + [False] * neither, second + [False] * neither


# Wilson


def wilson_by_hand(k: int, n: int) -> tuple[float, float]:
    """Wilson's interval as the two roots of (p - k/n)^2 = z^2 p (1 - p) / n."""
    z = 1.959963984540054
    a, b, c = 1 + z**2 / n, -(2 * k / n + z**2 / n), (k / n) ** 2
    root = math.sqrt(max(0.0, b**2 - 4 * a * c))
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 20), (7, 20), (20, 20), (33, 60)])
def test_wilson_solves_its_equation(k, n):
    interval = wilson(successes(k, n))
    assert interval.estimate == k / n
    assert (interval.low, interval.high) == pytest.approx(wilson_by_hand(k, n), abs=1e-9)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(1, 1, 0.207, 1), (0, 20, 0, 0.161), (10, 20, 0.299, 0.701), (30, 60, 0.377, 0.623)],
)
def test_wilson_gives_the_known_values(k, n, low, high):
    assert wilson(successes(k, n)) == pytest.approx((k / n, low, high), abs=5e-4)


def wilson_coverage(n: int, rate: float) -> float:
    """How often the interval holds the true rate, summed over every possible outcome."""
    intervals = [wilson(successes(k, n)) for k in range(n + 1)]
    chance = stats.binom(n, rate).pmf
    return sum(chance(k) for k, ends in enumerate(intervals) if ends.low <= rate <= ends.high)


def test_wilson_covers_the_truth_often_enough():
    coverage = [wilson_coverage(n, rate / 10) for n in (20, 30, 40) for rate in range(1, 10)]
    assert min(coverage) > 0.92
    assert np.mean(coverage) > 0.945


@given(outcomes)
def test_wilson_contains_its_estimate_and_stays_in_the_unit_interval(values):
    interval = wilson(values)
    assert -1e-12 <= interval.low <= interval.estimate + 1e-12
    assert interval.estimate - 1e-12 <= interval.high <= 1 + 1e-12


@given(outcomes, st.integers(2, 5))
def test_wilson_narrows_with_more_trials_at_the_same_rate(values, times):
    few, many = wilson(values), wilson(values * times)
    assert many.estimate == pytest.approx(few.estimate)
    assert many.high - many.low < few.high - few.low


@given(outcomes)
def test_wilson_is_the_same_for_success_and_failure(values):
    success, failure = wilson(values), wilson([not value for value in values])
    assert failure == pytest.approx((1 - success.estimate, 1 - success.high, 1 - success.low))


def test_wilson_is_for_yes_and_no_only():
    with pytest.raises(ValueError, match="use `t_interval` for shares"):
        wilson([0, 0.5, 1])


# Student's t


def test_the_t_interval_agrees_with_scipys_test():
    values = np.random.default_rng(0).beta(2, 3, size=20)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert t_interval(values) == pytest.approx((values.mean(), expected.low, expected.high))


def test_the_t_interval_covers_a_skewed_rate_better_than_the_percentile_bootstrap():
    """Twenty backdoors of a high and uneven success, as a stored study has them, over and over."""
    generator = np.random.default_rng(0)
    samples = generator.beta(6, 1, size=(400, 20))
    t = sum(low <= 6 / 7 <= high for _, low, high in map(t_interval, samples))
    resampled = stats.bootstrap(
        (samples,), np.mean, axis=1, n_resamples=2000, method="percentile", rng=generator
    ).confidence_interval
    percentile = np.sum((resampled.low <= 6 / 7) & (resampled.high >= 6 / 7))
    assert t > percentile
    assert t / 400 > 0.92


@given(rates)
def test_the_t_interval_lies_evenly_around_the_mean(values):
    interval = t_interval([value - 2 for value in values])
    assert interval.high - interval.estimate == pytest.approx(interval.estimate - interval.low)
    assert interval.estimate == pytest.approx(np.mean(values) - 2)


@given(rates)
def test_the_t_interval_of_shares_is_the_same_but_cut_at_0_and_1(values):
    moved, interval = t_interval([value - 2 for value in values]), t_interval(values)
    expected = (max(0, moved.low + 2), min(1, moved.high + 2))
    assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-9)


def test_the_t_interval_needs_two_trials():
    with pytest.raises(ValueError, match="One trial says nothing about the spread"):
        t_interval([0.5])


# Paired differences


def bonett_price(both: int, only_first: int, only_second: int, neither: int) -> tuple:
    """Bonett and Price (2012): Wald with one pair added to each cell that disagrees."""
    n = both + only_first + only_second + neither
    p, q = (only_first + 1) / (n + 2), (only_second + 1) / (n + 2)
    half = 1.959963984540054 * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return p - q - half, p - q + half


@pytest.mark.parametrize("table", [(10, 0, 0, 10), (5, 8, 2, 5), (0, 3, 3, 14), (1, 2, 17, 0)])
def test_the_difference_of_yes_and_no_is_bonett_and_price(table):
    n, (_, only_first, only_second, _) = sum(table), table
    interval = paired_difference(*counts(*table))
    low, high = bonett_price(*table)
    assert interval.estimate == pytest.approx((only_first - only_second) / n)
    assert (interval.low, interval.high) == pytest.approx((max(-1, low), min(1, high)))


def test_agreement_in_all_pairs_leaves_doubt():
    first, second = counts(10, 0, 0, 10)
    interval = paired_difference(first, second)
    assert interval.estimate == 0
    assert interval.high == -interval.low > 0.05


@pytest.mark.parametrize("n", [20, 40])
@pytest.mark.parametrize(("p", "q"), [(0.3, 0.3), (0.5, 0.1), (0.1, 0.05), (0.7, 0.1), (0.05, 0)])
def test_the_difference_of_yes_and_no_covers_the_truth_often_enough(n, p, q):
    covered = 0.0
    for only_first, only_second in product(range(n + 1), repeat=2):
        same = n - only_first - only_second
        if same >= 0:
            interval = paired_difference(*counts(0, only_first, only_second, same))
            if interval.low <= p - q <= interval.high:
                cells = [only_first, only_second, same]
                covered += stats.multinomial(n, [p, q, 1 - p - q]).pmf(cells)
    assert covered >= 0.93


@given(pairs)
def test_the_difference_of_yes_and_no_contains_its_estimate(values):
    interval = paired_difference(*zip(*values, strict=True))
    assert -1 <= interval.low <= interval.estimate <= interval.high <= 1


@given(pairs)
def test_the_difference_changes_sign_with_the_order(values):
    first, second = zip(*values, strict=True)
    there, back = paired_difference(first, second), paired_difference(second, first)
    assert back == pytest.approx((-there.estimate, -there.high, -there.low))


def test_the_difference_of_numbers_is_students_t_of_the_differences():
    generator = np.random.default_rng(0)
    first, second = generator.random(20), generator.random(20)
    test = stats.ttest_rel(first, second).confidence_interval(0.95)
    expected = (np.mean(first - second), test.low, test.high)
    assert paired_difference(first, second) == pytest.approx(expected)


def test_a_difference_of_shares_is_not_cut_at_0():
    """All first values are larger, but the truth may be a difference below 0."""
    assert paired_difference([0.9, 0.5, 0.5], [0.1, 0.49, 0.48]).low < 0


def test_pairing_removes_what_the_trials_share():
    shared = np.random.default_rng(0).random(30)
    interval = paired_difference(shared + 0.1, shared)
    assert interval == pytest.approx((0.1, 0.1, 0.1))


def test_a_difference_needs_two_pairs():
    with pytest.raises(ValueError, match="One pair says nothing about the spread"):
        paired_difference([True], [False])


# McNemar


def test_mcnemar_on_a_table_worked_by_hand():
    # 8 against 2 of 10 fair coins: 2 * (C(10,0) + C(10,1) + C(10,2)) / 2^10
    assert mcnemar(*counts(5, 8, 2, 5)) == pytest.approx(2 * (1 + 10 + 45) / 1024)


def test_mcnemar_without_a_pair_that_disagrees_is_one():
    assert mcnemar(*counts(5, 0, 0, 5)) == 1


@given(pairs)
def test_mcnemar_is_symmetric_and_a_probability(values):
    first, second = zip(*values, strict=True)
    assert mcnemar(first, second) == pytest.approx(mcnemar(second, first))
    assert 0 < mcnemar(first, second) <= 1


@given(pairs, st.integers(1, 20))
def test_mcnemar_ignores_pairs_that_agree(values, more):
    first, second = zip(*values, strict=True)
    agreeing = (True,) * more
    assert mcnemar(first + agreeing, second + agreeing) == mcnemar(first, second)


def test_mcnemar_rarely_sees_an_effect_where_there_is_none():
    n = 20
    alarms = sum(
        stats.binom(n, 0.5).pmf(k) for k in range(n + 1) if mcnemar(*counts(0, k, n - k, 0)) < 0.05
    )
    assert 0.01 < alarms <= 0.05


def test_mcnemar_is_for_yes_and_no_only():
    with pytest.raises(ValueError, match="use `paired_difference`"):
        mcnemar([0.5, 1], [0, 1])


# What all of them refuse


@pytest.mark.parametrize("function", [wilson, t_interval])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "at least one trial"),
        ([[0, 1], [1, 0]], r"got shape \(2, 2\)"),
        ([0, float("nan")], "missing or infinite"),
        ([0, None], "missing or infinite"),
        ([0, float("inf")], "missing or infinite"),
    ],
)
def test_values_that_are_not_one_number_a_trial_are_refused(function, values, message):
    with pytest.raises(ValueError, match=message):
        function(values)


@pytest.mark.parametrize("function", [paired_difference, mcnemar])
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([0, 1], [0, 1, 1], "2 trials against 3"),
        ([0, 1], [0, float("nan")], "missing or infinite"),
        ([], [], "at least one trial"),
    ],
)
def test_values_that_are_no_pairs_are_refused(function, first, second, message):
    with pytest.raises(ValueError, match=message):
        function(first, second)


def test_a_masked_value_is_refused():
    values = np.ma.array([1, 0, 1, 1], mask=[False, True, False, False])
    for call in (wilson, t_interval, lambda v: mcnemar(v, [0, 0, 0, 0])):
        with pytest.raises(ValueError, match="A value is masked"):
            call(values)
    assert wilson(np.ma.array([1, 0, 1, 1])) == wilson([1, 0, 1, 1])


def of_trials(values: list, trials: list, name: str | None = "trial") -> pd.Series:
    return pd.Series(values, index=pd.Index(trials, name=name))


@pytest.mark.parametrize("kind", [bool, int, object, "boolean"])
def test_series_are_paired_by_the_trials_in_their_index(kind):
    first = of_trials([True, True, True, False, False], [0, 1, 2, 3, 4]).astype(kind)
    second = of_trials([False, False, False, False, True], [4, 3, 2, 1, 0]).astype(kind)
    expected = [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]
    assert paired_difference(first, second) == paired_difference(*expected)
    assert mcnemar(first, second) == mcnemar(*expected) == 0.5
    assert mcnemar(first.to_numpy(), second.to_numpy()) == 0.625


def test_numbers_are_paired_by_the_trials_in_their_index():
    first, second = of_trials([0.1, 0.5, 0.9], [7, 8, 9]), of_trials([0.8, 0.0, 0.4], [9, 7, 8])
    assert paired_difference(first, second) == pytest.approx((0.1, 0.1, 0.1))


@pytest.mark.parametrize(
    ("first", "second", "name", "message"),
    [
        ([0, 1, 2], [0, 1, 3], "trial", "indexes 'trial' of the two differ"),
        ([0, 1, 1], [0, 0, 1], "trial", "every trial once"),
        ([0, 1, 2], [2, 1, 0], None, r"same rows in another order.*set_index\('trial'\)"),
    ],
)
@pytest.mark.parametrize("function", [paired_difference, mcnemar])
def test_indexes_that_form_no_pairs_are_refused(function, first, second, name, message):
    values = [True, False, True]
    with pytest.raises(ValueError, match=message):
        function(of_trials(values, first, name), of_trials(values, second, name))


def test_row_numbers_of_a_table_name_no_trial():
    first, second = (of_trials([0.1, 0.5], rows, None) for rows in ([0, 2], [1, 3]))
    assert paired_difference(first, second) == (0, 0, 0)


def test_an_interval_prints_its_estimate_and_its_ends():
    assert str(Interval(0.5, 0.25, 0.75)) == "0.500 [0.250, 0.750]"


# Frames


def frame() -> pd.DataFrame:
    """Three trials of two conditions: the attack always succeeds, clean never."""
    return pd.DataFrame(
        [
            {"trial": trial, "condition": condition, "success": success, "accuracy": accuracy}
            for trial in (3, 1, 2)
            for condition, success, accuracy in (
                ("clean", False, 0.9 + trial / 100),
                ("attack", True, 0.8 + trial / 100),
            )
        ]
    )


def test_a_summary_of_yes_and_no_is_wilson():
    table = summary(frame(), "success")
    assert list(table.columns) == ["condition", "trials", "success", "low", "high"]
    assert table.condition.tolist() == ["clean", "attack"]
    assert table.trials.tolist() == [3, 3]
    rows = table[["success", "low", "high"]].itertuples(index=False, name=None)
    assert list(rows) == [wilson([False] * 3), wilson([True] * 3)]


@pytest.mark.parametrize("kind", [int, object, "boolean", "Int64", np.uint8])
def test_yes_and_no_in_any_type_are_wilson(kind):
    wins = pd.DataFrame({"trial": range(20), "condition": "attack", "success": True})
    table = summary(wins.astype({"success": kind}), "success")
    assert table[["success", "low", "high"]].iloc[0].tolist() == pytest.approx(
        (1, 0.839, 1), abs=1e-3
    )
    part = wins.assign(success=[True] * 7 + [False] * 13).astype({"success": kind})
    assert tuple(summary(part, "success")[["success", "low", "high"]].iloc[0]) == wilson(
        [True] * 7 + [False] * 13
    )


def test_a_share_is_no_yes_or_no_where_all_of_them_happen_to_be_0_or_1():
    shares, whole = [0.0, 1.0, 1.0, 1.0], [0, 1, 1, 1]
    rows = {"trial": range(4), "condition": "attack", "rate": shares}
    table = summary(pd.DataFrame(rows), "rate")
    assert tuple(table[["rate", "low", "high"]].iloc[0]) == t_interval(shares)
    difference = paired_difference(shares, [0.0] * 4)
    assert difference != paired_difference(whole, [0] * 4)
    assert difference.high - difference.low == pytest.approx(2 * 3.1824 * 0.25, abs=1e-3)  # t, 3
    for function in (wilson, lambda values: mcnemar(values, values)):
        function(whole)
        with pytest.raises(ValueError, match="say which share is a yes"):
            function(shares)


@pytest.mark.parametrize("kind", [object, "boolean", float])
def test_a_summary_with_an_empty_cell_is_refused(kind):
    broken = frame().astype({"success": kind})
    broken.loc[0, "success"] = None
    with pytest.raises(ValueError, match="missing or infinite"):
        summary(broken, "success")


def test_a_summary_of_numbers_is_students_t():
    table = summary(frame(), "accuracy")
    row = table[table.condition == "attack"][["accuracy", "low", "high"]].iloc[0]
    assert tuple(row) == pytest.approx(t_interval([0.83, 0.81, 0.82]))


def test_a_summary_groups_by_more_than_one_column():
    both = pd.concat([frame().assign(defense=name) for name in ("plain", "clip")])
    table = summary(both, "success", by=("condition", "defense"))
    assert table[["condition", "defense"]].to_numpy().tolist() == [
        ["clean", "plain"],
        ["attack", "plain"],
        ["clean", "clip"],
        ["attack", "clip"],
    ]
    assert table.trials.tolist() == [3] * 4


def test_a_summary_of_an_unknown_column_names_the_known_ones():
    with pytest.raises(ValueError, match="No column 'asr': the frame has trial, condition, succ"):
        summary(frame(), "asr")


def test_a_summary_with_a_missing_value_is_refused():
    broken = frame()
    broken.loc[0, "accuracy"] = float("nan")
    with pytest.raises(ValueError, match="missing or infinite"):
        summary(broken, "accuracy")


def test_paired_has_a_row_for_each_trial_and_a_column_for_each_condition():
    table = paired(frame().sample(frac=1, random_state=0), "accuracy")
    assert table.index.tolist() == [1, 2, 3]
    assert table["clean"].tolist() == pytest.approx([0.91, 0.92, 0.93])
    assert table["attack"].tolist() == pytest.approx([0.81, 0.82, 0.83])
    difference = paired_difference(table["clean"], table["attack"])
    assert difference == pytest.approx((0.1, 0.1, 0.1))


def test_paired_yes_and_no_go_into_mcnemar():
    table = paired(frame(), "success")
    assert mcnemar(table["attack"], table["clean"]) == pytest.approx(0.25)


def test_paired_refuses_a_trial_without_one_of_the_conditions():
    with pytest.raises(ValueError, match="Trial 1 lacks a condition"):
        paired(frame().drop(index=3), "accuracy")


@pytest.mark.parametrize("function", [summary, paired])
def test_a_trial_that_comes_twice_in_a_condition_is_refused(function):
    both = pd.concat([frame().assign(defense=name) for name in ("plain", "clip")])
    with pytest.raises(ValueError, match="Trial 3 has more than one row of clean"):
        function(both, "accuracy")


def test_a_column_may_be_named_without_a_list():
    assert summary(frame(), "success", by="condition").equals(summary(frame(), "success"))


def test_a_missing_group_name_is_a_group():
    unnamed = frame().replace({"condition": {"clean": None}})
    assert summary(unnamed, "success").trials.tolist() == [3, 3]


@pytest.mark.parametrize(("measure", "by"), [("asr", "condition"), ("success", "defense")])
def test_paired_names_the_known_columns(measure, by):
    with pytest.raises(ValueError, match=r"No column .*: the frame has trial, condition, succ"):
        paired(frame(), measure, by)


# Verdicts


@pytest.mark.parametrize(
    ("numbers", "word"),
    [
        ((20, 14, 2, 16), "higher"),
        ((20, 2, 14, 16), "lower"),
        ((30, 1, 1, 20), "the same"),
        ((20, 6, 4, 22), "undecided"),  # no test rejects, and 15 points are not ruled out
        ((10, 0, 5, 37), "undecided"),  # p is .0625 with five pairs that disagree
        ((10, 0, 6, 36), "lower"),  # and .031 with six
    ],
)
def test_a_verdict_is_the_word_of_the_test(numbers, word):
    assert verdicts({"a": counts(*numbers)})["a"].word == word


def test_the_same_needs_an_interval_inside_the_margin():
    pair = {"a": counts(20, 8, 8, 16)}
    assert verdicts(pair)["a"].word == "undecided"
    assert verdicts(pair, same=0.25)["a"].word == "the same"


def test_more_comparisons_need_more_evidence():
    weak = counts(10, 0, 6, 36)
    alone, among = verdicts({"a": weak}), verdicts({"a": weak, "b": weak})
    assert alone["a"].word == "lower"
    assert among["a"].word == "undecided"
    assert among["a"].p_value == pytest.approx(2 * alone["a"].p_value)


def test_holm_is_that_of_a_worked_example():
    # 3 x .01; the larger of that and 2 x .02; the larger of that and .04
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])


def test_verdicts_refuse_what_they_cannot_judge():
    with pytest.raises(ValueError, match="No comparison"):
        verdicts({})
    with pytest.raises(ValueError, match="between 0 and 1"):
        verdicts({"a": counts(1, 1, 1, 1)}, same=0)


def test_verdicts_on_shares_are_those_of_the_paired_t_test_after_holm():
    generator = np.random.default_rng(0)
    base = generator.random(40)
    shifts = {"much": -0.2, "little": 0.0, "more": 0.12}
    pairs = {
        name: (base + shift + generator.normal(0, 0.05, 40), base) for name, shift in shifts.items()
    }
    found = verdicts(pairs, same=0.05)
    assert [found[name].word for name in shifts] == ["lower", "the same", "higher"]
    raw = [stats.ttest_rel(first, second).pvalue for first, second in pairs.values()]
    assert [verdict.p_value for verdict in found.values()] == pytest.approx(holm(raw))
    noisy = {"wide": (generator.random(40), generator.random(40))}
    assert verdicts(noisy, same=0.05)["wide"].word == "undecided"
    assert verdicts({"a": ([0.5, 0.5], [0.5, 0.5])})["a"].p_value == 1  # nothing differs


# The nearest control


def clean_rows(**accuracy: float) -> pd.DataFrame:
    """Four trials, which differ by as much for all victims."""
    return pd.DataFrame(
        [
            {"trial": trial, "victim": name, "accuracy": mean + (trial - 1.5) / 50}
            for trial in range(4)
            for name, mean in accuracy.items()
        ]
    )


CURVE = {"plain": 0.83, "slow": 0.80, "slower": 0.70}


@pytest.mark.parametrize(
    ("accuracy", "control"),
    [
        (0.90, "plain"),  # nobody is compared with a control that is worse than need be
        (0.83, "plain"),
        (0.825, "plain"),  # half a point
        (0.824, "plain"),  # further, but plain is still the nearest
        (0.81, "slow"),
        (0.79, "slow"),
        (0.75, "slower"),  # halfway: the less accurate of the two
        (0.74, "slower"),
        (0.20, "slower"),
    ],
)
def test_a_defense_has_the_control_nearest_in_accuracy(accuracy, control):
    rows = clean_rows(**CURVE, shield=accuracy)
    assert nearest_control(rows, "shield", ["slow", "slower"]) == control
    assert nearest_control(rows.sample(frac=1), "shield", ["slower", "plain", "slow"]) == control


def test_a_control_that_beats_plain_is_not_taken_for_a_defense_as_good_as_plain():
    rows = clean_rows(plain=0.83, slow=0.84, shield=0.84)
    assert nearest_control(rows, "shield", ["slow"]) == "plain"
    rows = clean_rows(plain=0.83, slow=0.829, shield=0.826)
    assert nearest_control(rows, "shield", ["slow"]) == "plain"


def test_a_control_is_chosen_by_the_mean_of_all_trials_and_the_column_that_is_named():
    rows = clean_rows(**CURVE, shield=0.83).rename(columns={"victim": "defense"})
    rows.loc[(rows.defense == "shield") & (rows.trial == 0), "accuracy"] = 0.3
    assert nearest_control(rows, "shield", CURVE, by="defense") == "slower"


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda rows: rows[rows.victim != "slow"], "No row of 'slow'"),
        (lambda rows: rows[rows.victim != "plain"], "No row of 'plain'"),
        (lambda rows: rows[rows.victim != "shield"], "No row of 'shield'"),
        (lambda rows: rows.drop(rows.index[-1]), "Trial 3 lacks a condition"),
        (lambda rows: pd.concat([rows, rows.tail(1)]), "more than one row"),
        (lambda rows: rows.drop(columns="accuracy"), "No column 'accuracy'"),
        (lambda rows: rows.replace({"accuracy": {rows.accuracy.iloc[0]: np.nan}}), "Trial 0 lacks"),
    ],
)
def test_a_control_is_not_chosen_from_rows_that_are_not_all_there(broken, message):
    rows = clean_rows(**CURVE, shield=0.8)
    with pytest.raises(ValueError, match=message):
        nearest_control(broken(rows), "shield", ["slow", "slower"])


def test_a_control_has_no_control():
    with pytest.raises(ValueError, match="'slow' is itself a control"):
        nearest_control(clean_rows(**CURVE), "slow", ["slow", "slower"])


# Defenses against their controls


def attacked_rows() -> pd.DataFrame:
    """Twelve trials: plain loses all, the slow control ten or twelve, the shield one or eleven."""
    accuracy = {"plain": 0.83, "plain, slow": 0.80, "shield": 0.801, "cloak": 0.829}
    lost = {
        "oblivious": {"plain": 12, "plain, slow": 10, "shield": 1, "cloak": 12},
        "knowing": {"plain, slow": 12, "shield": 11, "cloak": 2},
    }
    return pd.DataFrame(
        [
            {
                "trial": trial,
                "attacker": attacker,
                "victim": name,
                "accuracy": accuracy[name] + (trial - 5.5) / 1000,
                "success": trial < wins,
            }
            for attacker, victims in ({"clean": dict.fromkeys(accuracy, 0)} | lost).items()
            for name, wins in victims.items()
            for trial in range(12)
        ]
    )


def test_a_defense_is_compared_with_its_control_under_the_same_kind_of_attacker():
    rows = attacked_rows().sample(frac=1, random_state=0)
    oblivious = against_controls(rows, ["shield", "cloak"], "oblivious")
    knowing = against_controls(rows, ["shield", "cloak"], "knowing")
    assert oblivious["control"].tolist() == ["plain, slow", "plain"] == knowing["control"].tolist()
    assert oblivious.loc["shield", ["lost", "control_lost", "verdict"]].tolist() == [1, 10, "lower"]
    assert knowing.loc["shield", ["lost", "control_lost"]].tolist() == [11, 12]
    # who expects the plain victim knows it: both attackers of the plain victim are the same
    assert knowing.loc["cloak", ["lost", "control_lost", "verdict"]].tolist() == [2, 12, "lower"]
    pairs = {"shield": ([1] + [0] * 11, [1] * 10 + [0] * 2), "cloak": ([1] * 12, [1] * 12)}
    for name, verdict in verdicts(pairs).items():
        wanted = [*verdict.difference, verdict.p_value, verdict.word]
        numbers = ["estimate", "low", "high", "p", "verdict"]
        assert oblivious.loc[name, numbers].tolist() == wanted
    assert oblivious["accuracy"].tolist() == pytest.approx([0.801, 0.829])


def test_shares_are_compared_with_the_control_as_well_and_their_mean_is_shown():
    rows = attacked_rows().sort_values(["victim", "attacker", "trial"], ignore_index=True)
    noise = np.random.default_rng(1).uniform(0, 0.1, len(rows))
    rows["asr"] = 0.9 * rows["success"] + noise
    found = against_controls(rows, ["shield"], "oblivious", measure="asr").loc["shield"]
    met = rows[rows.attacker == "oblivious"].pivot(index="trial", columns="victim", values="asr")
    assert found["lost"] == pytest.approx(met["shield"].mean())
    assert found["control_lost"] == pytest.approx(met["plain, slow"].mean())
    assert found["p"] == pytest.approx(stats.ttest_rel(met["shield"], met["plain, slow"]).pvalue)
    assert found["verdict"] == "lower"


def test_all_defenses_that_met_an_attacker_are_found_and_no_control():
    rows = attacked_rows()
    knowing = rows[~((rows.attacker == "knowing") & (rows.victim == "cloak"))]
    assert defended(knowing, "oblivious") == ["shield", "cloak"]
    assert defended(knowing, "knowing") == ["shield"] and defended(knowing, "adaptive") == []


def test_networks_stand_side_by_side_with_a_dash_where_nothing_was_tried():
    rows = attacked_rows()
    partly = rows[~((rows.attacker == "knowing") & (rows.victim == "cloak"))]
    table = on_networks({"first": rows, "second": partly}, ["cloak", "shield"])
    assert table.index.tolist() == ["cloak", "shield"]
    assert table["first", "accuracy"].tolist() == [0.829, 0.801]
    assert table["first", "control"].tolist() == ["plain (0.830)", "plain, slow (0.800)"]
    assert table["first", "oblivious"].tolist() == ["12 / 12 undecided", "1 / 10 lower"]
    assert table["first", "knowing"].tolist() == ["2 / 12 lower", "11 / 12 undecided"]
    alone = against_controls(partly, ["shield"], "knowing").loc["shield", "verdict"]
    assert table["second", "knowing"].tolist() == ["–", f"11 / 12 {alone}"]
    with pytest.raises(ValueError, match="No network has cloke: give names"):
        on_networks({"first": rows, "second": partly}, ["cloke", "shield"])


def test_clean_victims_of_a_part_of_the_trials_are_enough_to_choose_a_control():
    rows = attacked_rows()
    half = rows[(rows.attacker != "clean") | (rows.trial < 6)]
    whole, part = (against_controls(frame, ["shield"], "oblivious") for frame in (rows, half))
    same = ["lost", "control", "control_lost", "estimate", "verdict"]
    assert part.loc["shield", same].tolist() == whole.loc["shield", same].tolist()


def test_a_verdict_needs_every_trial_and_an_attacker_that_was_met():
    rows = attacked_rows()
    with pytest.raises(ValueError, match="'shield' did not meet the attacker 'adaptive'"):
        against_controls(rows, ["shield"], "adaptive")
    gone = (rows.attacker == "oblivious") & (rows.victim == "plain, slow") & (rows.trial == 3)
    with pytest.raises(ValueError, match="'plain, slow' did not meet the attacker 'oblivious'"):
        against_controls(rows[~gone], ["shield"], "oblivious")
    twice = pd.concat([rows, rows[rows.attacker == "oblivious"]])
    with pytest.raises(ValueError, match="'shield' did not meet the attacker 'oblivious' once"):
        against_controls(twice, ["shield"], "oblivious")
    renamed = rows.replace({"victim": {"plain, slow": "plain, slower"}})
    renamed = pd.concat([renamed[renamed.attacker == "clean"], rows[rows.attacker != "clean"]])
    with pytest.raises(ValueError, match="plain, slow met the attacker, but no clean victim has"):
        against_controls(renamed, ["shield"], "oblivious")
    with pytest.raises(ValueError, match="No column 'success'"):
        against_controls(rows.drop(columns="success"), ["shield"], "oblivious")
