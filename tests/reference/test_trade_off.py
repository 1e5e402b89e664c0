"""The trade-off, lesson 13, by hand."""

import numpy as np
import pandas as pd
import pytest

from course_utils.defenses.trade_off import trade_off_table, undominated
from course_utils.statistics import t_interval, wilson


def test_what_is_dominated_by_hand():
    accuracy, success = np.array([0.9, 0.8, 0.8, 0.7, 0.9]), np.array([0.5, 0.5, 0.2, 0.3, 0.5])
    assert undominated(accuracy, success).tolist() == [True, False, True, False, True]


def test_a_row_holds_both_intervals():
    frame = pd.DataFrame(
        {
            "trial": [0, 1, 2] * 2,
            "defense": ["none"] * 3 + ["filter"] * 3,
            "strength": ["none"] * 3 + ["0.1"] * 3,
            "accuracy": [0.8, 0.9, 0.85, 0.6, 0.7, 0.5],
            "success": [1, 1, 1, 0, 1, 0],
        }
    )
    table = trade_off_table(frame).set_index("defense")
    right, hits = t_interval([0.6, 0.7, 0.5]), wilson([0, 1, 0])
    row = table.loc["filter"]
    assert (row["accuracy low"], row["accuracy high"]) == pytest.approx((right.low, right.high))
    assert (row["low"], row["high"]) == pytest.approx((hits.low, hits.high))
    assert row["accuracy"] == pytest.approx(0.6) and row["success"] == pytest.approx(1 / 3)
    assert row["trials"] == 3 and table["undominated"].tolist() == [True, True]
