"""Intervals by formulas written out, and by scipy."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from course_utils.statistics import (
    mcnemar,
    paired_difference,
    relative_accuracy_drop,
    summary,
    t_interval,
    wilson,
)


def test_wilson_written_out():
    for k, n in ((3, 10), (20, 20), (0, 7)):
        z, p = stats.norm.ppf(0.975), k / n
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        found = wilson([True] * k + [False] * (n - k))
        assert found.estimate == p
        assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-9)


def test_students_interval_written_out():
    values = np.array([0.1, 0.1, 0.2, 0.6, 0.7, 0.3])
    spread = math.sqrt(sum((value - 1 / 3) ** 2 for value in values) / 5)
    half = 2.5705818 * spread / math.sqrt(6)  # the quantile for 5 degrees of freedom, from a table
    found = t_interval(values)
    assert tuple(found) == pytest.approx((1 / 3, 1 / 3 - half, 1 / 3 + half), abs=1e-6)
    assert tuple(t_interval([0.0, 1.0, 0.9])) == pytest.approx((1.9 / 3, 0, 1))


def test_differences_by_hand():
    first, second = [1, 1, 1, 0, 1], [0, 0, 1, 1, 0]  # three and one disagree, of five
    found = paired_difference(first, second)
    a, b = 4 / 7, 2 / 7
    half = stats.norm.ppf(0.975) * math.sqrt((a + b - (a - b) ** 2) / 7)
    assert found.estimate == pytest.approx(0.4)
    assert (found.low, found.high) == pytest.approx((a - b - half, min(1, a - b + half)))
    assert mcnemar(first, second) == pytest.approx(2 * (4 + 1) / 16)
    assert mcnemar([1, 0], [1, 0]) == 1
    numbers = paired_difference([0.9, 0.8, 0.7], [0.1, 0.2, 0.4])
    half = 4.3026527 * np.std([0.8, 0.6, 0.3], ddof=1) / math.sqrt(3)
    assert tuple(numbers) == pytest.approx((1.7 / 3, 1.7 / 3 - half, 1.7 / 3 + half))


def test_a_relative_drop_by_hand():
    found = relative_accuracy_drop(np.array([0.8, 0.5]), np.array([0.6, 0.75]))
    assert found.tolist() == pytest.approx([0.25, -0.5])


def test_series_are_put_in_the_order_of_their_trials():
    first = pd.Series([1, 1, 0], index=pd.Index([0, 1, 2], name="trial"))
    second = pd.Series([1, 0, 0], index=pd.Index([2, 1, 0], name="trial"))
    assert paired_difference(first, second).estimate == pytest.approx((1 + 1 - 1) / 3)


def test_a_summary_counts_the_trials_of_each_group():
    frame = pd.DataFrame(
        {"trial": [0, 1, 2, 0, 1], "condition": [*"aaa", None, None], "success": [1, 1, 0, 0, 1]}
    )
    table = summary(frame, "success")
    assert table["trials"].tolist() == [3, 2]
    assert table["low"].tolist() == [wilson([1, 1, 0]).low, wilson([0, 1]).low]
