"""Which interval for which quantity: the statistics of every comparison in the course.

The unit is always the trial. One yes/no a trial: Wilson. A rate or an accuracy measured inside a
trial: Student's t over trials. Two conditions on the same trials: the paired difference, and for
yes/no the exact McNemar test. Lesson 01 shows how often these intervals contain the truth.

Yes/no is an outcome given as booleans, or as the whole numbers 0 and 1. Numbers with a point are
measured quantities, also where all of them happen to be 0.0 or 1.0.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats


class Interval(NamedTuple):
    """An estimate with its 95% confidence interval."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


def wilson(outcomes: Sequence[bool]) -> Interval:
    """Rate of one yes/no a trial, with its Wilson interval (Wilson 1927)."""
    values = _numbers(outcomes)
    if not _yes_or_no(outcomes):
        raise ValueError(
            "The Wilson interval is for yes/no outcomes, booleans or whole numbers 0 and 1: use "
            "`t_interval` for shares, or say which share is a yes, as in `values > 0.5`."
        )
    interval = stats.binomtest(int(values.sum()), len(values)).proportion_ci(method="wilson")
    return Interval(float(values.mean()), float(interval.low), float(interval.high))


def t_interval(values: Sequence[float]) -> Interval:
    """Mean over trials, with the interval of Student's t (Student 1908; chosen in lesson 01).

    Where all values are shares, between 0 and 1, its ends are cut there. Where all are equal it has
    no width: they show no spread, which does not mean that there is none. Raises ValueError for a
    single trial.
    """
    numbers = _numbers(values)
    interval = _student(numbers)
    if numbers.min() < 0 or numbers.max() > 1:
        return interval
    return Interval(interval.estimate, max(0.0, interval.low), min(1.0, interval.high))


def _student(numbers: np.ndarray) -> Interval:
    if len(numbers) < 2:
        raise ValueError("One trial says nothing about the spread: run at least 2, better 26.")
    mean = float(numbers.mean())
    half = float(stats.t.ppf(0.975, len(numbers) - 1) * stats.sem(numbers))
    return Interval(mean, mean - half, mean + half)


def relative_accuracy_drop(clean: np.ndarray, poisoned: np.ndarray) -> np.ndarray:
    """The share of its accuracy that each trial lost: (clean - poisoned) / clean (lesson 02).

    clean, poisoned: accuracies, one value a trial. Negative where the poison helped.
    """
    return (clean - poisoned) / clean


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Mean of first minus second over the same trials, with its interval.

    Two Series whose indexes have the same name, such as "trial", are paired by index; all else by
    position, so sort by trial first.

    For numbers, Student's t of the differences. For yes/no, the adjusted Wald interval of Bonett
    and Price (2012), which does not shrink to nothing when all pairs agree.
    """
    a, b = _pairs(first, second)
    if len(a) < 2:
        raise ValueError("One pair says nothing about the spread: run at least 2, better 40.")
    if not (_yes_or_no(first) and _yes_or_no(second)):
        return _student(a - b)
    only_first = (np.sum(a > b) + 1) / (len(a) + 2)
    only_second = (np.sum(a < b) + 1) / (len(a) + 2)
    centre = only_first - only_second
    error = np.sqrt((only_first + only_second - centre**2) / (len(a) + 2))
    half = stats.norm.ppf(0.975) * error
    estimate = float(np.mean(a - b))
    return Interval(estimate, float(max(-1, centre - half)), float(min(1, centre + half)))


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """p-value of the exact McNemar test: two conditions, yes/no, on the same trials.

    Only the pairs that disagree count; without an effect each is a fair coin. Pairs are formed as
    in `paired_difference`.
    """
    a, b = _pairs(first, second)
    if not (_yes_or_no(first) and _yes_or_no(second)):
        raise ValueError(
            "McNemar's test is for yes/no outcomes, booleans or whole numbers 0 and 1: use "
            "`paired_difference` for shares, or say which share is a yes, as in `values > 0.5`."
        )
    only_first, only_second = int(np.sum(a > b)), int(np.sum(a < b))
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)


class Verdict(NamedTuple):
    """What a paired comparison says in a word, with the numbers that it rests on."""

    word: str
    difference: Interval
    p_value: float


SAME = 0.15  # with 52 pairs; within 0.10 at most four pairs could disagree


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values of several tests, in their order (Holm 1979; lesson 16)."""
    order = np.argsort(p_values)
    steps = np.asarray(p_values, dtype=float)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def verdicts(
    pairs: Mapping[str, tuple[Sequence[float], Sequence[float]]], same: float = SAME
) -> dict[str, Verdict]:
    """The words for paired comparisons: the first of each pair is ...

    "lower" or "higher": the test rejects, after Holm's correction for all of these pairs: for
    yes/no outcomes the exact McNemar test, for shares the paired t-test. "the same": it does not,
    and the interval of the difference lies within `same` of zero. "undecided": neither. Pairs are
    formed as in `paired_difference`. Raises ValueError where there is nothing to compare, or `same`
    is not between 0 and 1.
    """
    if not pairs:
        raise ValueError("No comparison: give at least one pair of outcomes.")
    if not 0 < same < 1:
        raise ValueError(f"same is {same}, expected a difference between 0 and 1, such as {SAME}.")
    adjusted = holm([_p_value(first, second) for first, second in pairs.values()])
    found = {}
    for (name, (first, second)), p_value in zip(pairs.items(), adjusted, strict=True):
        difference = paired_difference(first, second)
        if p_value < 0.05:
            word = "lower" if difference.estimate < 0 else "higher"
        else:
            inside = -same < difference.low and difference.high < same
            word = "the same" if inside else "undecided"
        found[name] = Verdict(word, difference, float(p_value))
    return found


def _p_value(first: Sequence[float], second: Sequence[float]) -> float:
    """Of two conditions on the same trials: the test that belongs to the kind of their outcomes."""
    if _yes_or_no(first) and _yes_or_no(second):
        return mcnemar(first, second)
    a, b = _pairs(first, second)
    differences = a - b
    if np.ptp(differences) == 0:  # no spread: the t-test would divide by it
        return float(differences[0] == 0)
    return float(stats.ttest_1samp(differences, 0).pvalue)


CLOSE = 0.005  # half a point of clean accuracy


def nearest_control(
    clean: pd.DataFrame, defense: str, controls: Iterable[str], by: str = "victim"
) -> str:
    """The undefended victim that a defense is compared with: the nearest in accuracy (lesson 01).

    clean: rows of victims of clean data, with the columns trial, accuracy and `by`. controls: the
    victims that learn less; the one called "plain" is always among them. A defense whose mean
    accuracy is at most half a point below that of "plain" is compared with "plain". Of two controls
    that are equally near it is the less accurate one, which is the harder to beat.

    Raises ValueError if a victim has no rows, a trial lacks a victim or has it twice, or the
    defense is itself a control.
    """
    names = list(dict.fromkeys(["plain", *controls]))
    if defense in names:
        raise ValueError(f"{defense!r} is itself a control: name a victim that is defended.")
    _require(clean, "trial", "accuracy", by)
    for name in [*names, defense]:
        if not (clean[by] == name).any():
            raise ValueError(f"No row of {name!r}: a control is chosen by the accuracy of each.")
    means = paired(clean[clean[by].isin([*names, defense])], "accuracy", by).mean()
    gaps = (means[names] - means[defense]).round(9)
    if gaps["plain"] <= CLOSE:
        return "plain"
    return gaps[gaps.abs() == gaps.abs().min()].idxmin()


def against_controls(
    rows: pd.DataFrame,
    defenses: Iterable[str],
    attacker: str,
    measure: str = "success",
    same: float = SAME,
) -> pd.DataFrame:
    """Each defense against its control, under the same kind of attacker: a row for each defense.

    rows: of `compare`, with the columns trial, attacker, victim, accuracy and `measure`. Clean
    victims stand under the attacker "clean", in all of the trials or in a part. Every victim whose
    name begins with "plain" may be a control (`nearest_control`). attacker: "oblivious" or
    "knowing". Who expects the plain victim knows it, so "plain" itself meets the oblivious attacker
    in both. measure: what the attack achieved in each trial, yes/no or a share. same: see
    `verdicts`.

    Columns: accuracy (clean), lost (trials in which the target fell; of shares the mean), control,
    control_lost, estimate, low and high of the paired difference, p (after Holm, over these
    defenses) and verdict. Raises ValueError where a victim did not meet this attacker once on every
    trial, or where a plain one has no clean victim of its name.
    """
    _require(rows, "trial", "attacker", "victim", "accuracy", measure)
    clean = rows[rows["attacker"] == "clean"]
    undefended = [name for name in clean["victim"].unique() if _undefended(name)]
    everywhere = set(rows.loc[rows["attacker"] != "clean", "trial"])
    met = rows.loc[rows["attacker"] == attacker, "victim"].unique()
    if unknown := {name for name in met if _undefended(name)} - set(undefended):
        raise ValueError(
            f"{', '.join(sorted(unknown))} met the attacker, but no clean victim has this name, so "
            "it could not be a control: give both the same name, or leave it out."
        )

    def fell(name: str) -> pd.Series:
        met = "oblivious" if name == "plain" else attacker
        its = rows[(rows["victim"] == name) & (rows["attacker"] == met)].set_index("trial")
        if its.index.has_duplicates or set(its.index) != everywhere:
            raise ValueError(f"{name!r} did not meet the attacker {met!r} once on every trial.")
        return its[measure].sort_index()

    chosen = {name: nearest_control(clean, name, undefended) for name in defenses}
    pairs = {name: (fell(name), fell(control)) for name, control in chosen.items()}
    means = clean.groupby("victim")["accuracy"].mean()
    found = {}
    for name, verdict in verdicts(pairs, same).items():
        lost, control_lost = (
            int(outcome.sum()) if _yes_or_no(outcome) else float(outcome.mean())
            for outcome in pairs[name]
        )
        counts = {"accuracy": means[name], "lost": lost, "control": chosen[name]}
        numbers = verdict.difference._asdict() | {"p": verdict.p_value, "verdict": verdict.word}
        found[name] = counts | {"control_lost": control_lost} | numbers
    return pd.DataFrame.from_dict(found, orient="index")


def defended(rows: pd.DataFrame, attacker: str) -> list[str]:
    """The defenses that met this attacker, in the order of the rows: the name of a victim that
    nobody defends begins with "plain". rows: as for `against_controls`."""
    _require(rows, "attacker", "victim")
    met = rows.loc[rows["attacker"] == attacker, "victim"].unique()
    return [name for name in met if not _undefended(name)]


def _undefended(victim: str) -> bool:
    return victim.startswith("plain")


def on_networks(networks: Mapping[str, pd.DataFrame], defenses: Sequence[str]) -> pd.DataFrame:
    """Each defense against its control on several networks: a row for each defense.

    networks: the rows of each, as for `against_controls`. Columns for each network: accuracy
    (clean), the control with its accuracy, and for each attacker the trials that the defense lost,
    those that its control lost, and the verdict, as in "5 / 32 lower". Holm's correction is over
    these defenses, for one network and attacker. A dash where a defense did not meet this attacker
    on this network. Raises ValueError for a defense that no network has.
    """
    known = {name for rows in networks.values() for name in rows["victim"].unique()}
    if missing := [name for name in defenses if name not in known]:
        raise ValueError(f"No network has {', '.join(missing)}: give names of its victims.")
    parts = {}
    for network, rows in networks.items():
        right = rows[rows["attacker"] == "clean"].groupby("victim")["accuracy"].mean()
        for attacker in ("oblivious", "knowing"):
            met = [name for name in defended(rows, attacker) if name in defenses]
            if met:
                found = against_controls(rows, met, attacker)
                parts.setdefault((network, "accuracy"), found["accuracy"].round(3))
                control = found["control"].map(lambda name, its=right: f"{name} ({its[name]:.3f})")
                parts.setdefault((network, "control"), control)
                lost = found["lost"].astype(str) + " / " + found["control_lost"].astype(str)
                parts[network, attacker] = lost + " " + found["verdict"]
    return pd.DataFrame(parts).reindex(defenses).fillna("–")


def summary(frame: pd.DataFrame, measure: str, by: Sequence[str] = ("condition",)) -> pd.DataFrame:
    """One row a group: trials, mean and 95% interval of a measure (Wilson for yes/no).

    Raises ValueError for an unknown column, and if a trial comes twice in a group.
    """
    by = [by] if isinstance(by, str) else list(by)
    _require(frame, "trial", measure, *by)
    _once_a_trial(frame, by)
    interval = wilson if _yes_or_no(frame[measure]) else t_interval
    rows = [
        {**dict(zip(by, keys, strict=True)), "trials": len(group)}
        | interval(group[measure])._asdict()
        for keys, group in frame.groupby(by, sort=False, dropna=False)
    ]
    return pd.DataFrame(rows).rename(columns={"estimate": measure})


def paired(frame: pd.DataFrame, measure: str, by: str = "condition") -> pd.DataFrame:
    """One row a trial, one column a condition.

    Raises ValueError if a trial lacks a condition or has it twice, and for an unknown column.
    """
    _require(frame, "trial", measure, by)
    _once_a_trial(frame, [by])
    table = frame.pivot(index="trial", columns=by, values=measure)
    missing = table.isna().any(axis=1)
    if missing.any():
        raise ValueError(
            f"Trial {table.index[missing][0]} lacks a condition: paired comparisons need "
            "every condition on every trial."
        )
    return table


def _require(frame: pd.DataFrame, *columns: str) -> None:
    for name in columns:
        if name not in frame:
            raise ValueError(f"No column {name!r}: the frame has {', '.join(frame.columns)}.")


def _once_a_trial(frame: pd.DataFrame, by: list[str]) -> None:
    """Counting a trial twice would narrow every interval."""
    twice = frame.duplicated(["trial", *by])
    if twice.any():
        row = frame[twice].iloc[0]
        group = ", ".join(str(row[name]) for name in by)
        raise ValueError(
            f"Trial {row['trial']} has more than one row of {group}: choose one of them first, or "
            "group `by` the column that tells them apart."
        )


def _numbers(values: Sequence[float]) -> np.ndarray:
    if isinstance(values, pd.Series):
        values = values.to_numpy(dtype=object, na_value=np.nan)
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        raise ValueError("A value is masked: every trial must be counted, so drop none by a mask.")
    numbers = np.asarray(values, dtype=float)
    if numbers.ndim != 1 or len(numbers) == 0:
        raise ValueError(
            f"Expected one value a trial and at least one trial, got shape {numbers.shape}."
        )
    if not np.isfinite(numbers).all():
        raise ValueError("A value is missing or infinite: every trial must be counted.")
    return numbers


def _yes_or_no(values: Sequence[float]) -> bool:
    """Whether these are outcomes and no measured quantities: a matter of their type."""
    array = np.asarray(values)
    if array.dtype == object:
        array = np.array(array.tolist())
    return array.dtype.kind in "biu" and bool(np.isin(array, (0, 1)).all())


def _pairs(first: Sequence[float], second: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    if len(first) != len(second):
        raise ValueError(
            f"{len(first)} trials against {len(second)}: a pair needs both from one trial."
        )
    if isinstance(first, pd.Series) and isinstance(second, pd.Series):
        second = _in_order_of(first, second)
    return _numbers(first), _numbers(second)


def _in_order_of(first: pd.Series, second: pd.Series) -> pd.Series:
    """The second Series, with its values in the order of the first one's trials."""
    a, b = first.index, second.index
    if a.equals(b):
        return second
    same = a.is_unique and b.is_unique and not len(a.difference(b))
    if a.name is None or a.name != b.name:
        if same:
            raise ValueError(
                "The two indexes name the same rows in another order: give both the trials as "
                "index, with set_index('trial'), or arrays that are sorted alike."
            )
        return second  # row numbers of a table, which name no trial
    if not same:
        raise ValueError(
            f"The indexes {a.name!r} of the two differ: a pair needs both from one trial, and "
            "every trial once."
        )
    return second.loc[a]
