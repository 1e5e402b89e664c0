"""Checks of lesson 20, beyond images."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from numbers import Real

import numpy as np

from course_utils.checks import attempt, passed, require
from course_utils.record import recorded


@recorded
def check_times_seen(times_seen: Callable) -> None:
    """Counts the poisons in batches that are really drawn. Raises CheckFailed."""
    random = np.random.default_rng(0)
    for count, clean, steps, batch in (
        (5, 95, 40, 20),
        (20, 180, 32, 50),
        (1, 9, 30, 5),
        (30, 70, 7, 100),
        (0, 50, 10, 10),
    ):
        size = count + clean
        rows = np.concatenate([random.permutation(size) for _ in range(steps * batch // size)])
        expected = int((rows < count).sum())
        case = f"{count} poisons, {clean} clean texts, {steps} steps with batches of {batch}"
        found = attempt(times_seen, count, clean, steps, batch)
        require(
            isinstance(found, Real) and not isinstance(found, bool),
            f"Return one number, for {case}: you returned {found!r}.",
        )
        if abs(found - expected) > 1e-6 * max(1, expected):
            hint = _seen_hint(float(found), count, clean, steps, batch)
            require(False, f"With {case}, poisons are seen {expected} times, not {found}.{hint}")
    passed(times_seen)


def _seen_hint(found: float, count: int, clean: int, steps: int, batch: int) -> str:
    """What probably went wrong."""
    size, drawn = count + clean, steps * batch
    causes = {
        Fraction(count * drawn, clean): "The poisons are part of the data: divide by all texts.",
        Fraction(count * steps): "This counts each poison once a step, not once a pass.",
        Fraction(drawn, size): "This is the number of passes: each shows every poison once.",
        Fraction(count, size): "This is the share of the data: multiply by the texts drawn.",
        Fraction(count * steps, size): "A step draws a whole batch, not one text.",
        Fraction(count * batch, size): "This is one step: there are more.",
        Fraction(count): "This is the count: a training goes over the data more than once.",
        Fraction(drawn): "These are all texts drawn, clean ones too.",
        Fraction(clean * drawn, size): "You counted the clean texts.",
    }
    for value, hint in causes.items():
        if abs(found - float(value)) < 1e-6 * max(1.0, float(value)):
            return f" {hint}"
    return ""


@recorded
def check_agreed_answer(agreed_answer: Callable) -> None:
    """Compares with votes counted by hand. Raises CheckFailed."""
    cases = [
        (("six", "six", "ten"), 2, "six"),
        (("ten", "six", "six"), 2, "six"),
        (("ten", "six", "two"), 2, None),
        ((), 2, None),
        (("six",), 1, "six"),
        (("ten", "six", "six", "ten"), 2, "ten"),
        (("six", "ten", "ten", "six"), 2, "six"),
        (("ten", "ten", "six", "six"), 2, "ten"),
        (("two", "ten", "two", "ten", "two"), 3, "two"),
        (("two", "ten", "two", "ten", "six"), 3, None),
        (("ten", "ten", "six", "six", "six"), 2, "six"),
        (("six", "six"), 2, "six"),
        (("two", "six", "ten", "ten"), 1, "ten"),
    ]
    for values, needed, expected in cases:
        kept = list(values)
        found = attempt(agreed_answer, kept, needed, none=True)
        case = f"the values {values} with {needed} needed"
        if found == expected and (found is None) == (expected is None):
            continue
        hint = _vote_hint(found, values, needed, expected)
        require(False, f"For {case} the answer is {expected!r}, you gave {found!r}.{hint}")
    passed(agreed_answer)


def _vote_hint(found: object, values: tuple, needed: int, expected: object) -> str:
    """What probably went wrong."""
    if expected is None and not values:
        return " Without any source there is no answer: return None."
    if isinstance(found, tuple | list | dict):
        return " Return the value alone."
    if isinstance(found, int) and not isinstance(found, bool):
        return " You returned a count: return the value."
    if isinstance(found, bool):
        return " Return the value, not whether there is one."
    if expected is None and found is not None:
        most = max(values.count(value) for value in values)
        return f" No value has {needed} sources; the most is {most}."
    if found is None:
        enough = values.count(expected)
        more = " exactly enough is enough" if enough == needed else " that is more than enough"
        return f" {expected!r} has {enough} sources:{more}, whatever else was found."
    if found in values and values.count(found) < values.count(expected):
        return " Take the value that most sources state, not the first one with enough."
    if found in values and values.count(found) == values.count(expected):
        return " Equally many sources: the value that was found first wins."
    return ""


@recorded
def check_is_promised(is_promised: Callable) -> None:
    """Compares with hashes that are known from elsewhere. Raises CheckFailed."""
    # The two test vectors are published in FIPS 180-4's examples; the third is computed by another
    # process, so that nothing the reader replaced in hashlib can agree with itself.
    known = {
        b"abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        b"": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        b"the room was quiet \xff\n": _other_process(b"the room was quiet \xff\n"),
    }
    for content, promised in known.items():
        for told, how in (
            (promised, "the digits as they are"),
            (promised.upper(), "the digits in capitals"),
            (f" {promised}\n", "spaces and a line end around the digits"),
        ):
            found = attempt(is_promised, content, told)
            _yes_or_no(found, content)
            require(
                bool(found),
                f"{content!r} has the hash that was promised ({how}), you said no."
                f"{_no_hint(content, promised, how, is_promised)}",
            )
        for told, how in _wrong_promises(content, promised):
            found = attempt(is_promised, content, told)
            _yes_or_no(found, content)
            require(not found, f"{content!r} does not have the promised hash, you said yes. {how}")
    passed(is_promised)


def _yes_or_no(found: object, content: bytes) -> None:
    require(
        isinstance(found, bool | np.bool_),
        f"Return True or False; for {content!r} you returned {found!r}.",
    )


def _other_process(content: bytes) -> str:
    """The hash as another Python gives it."""
    code = "import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
    done = subprocess.run([sys.executable, "-c", code], input=content, capture_output=True)
    return done.stdout.decode().strip()


def _wrong_promises(content: bytes, promised: str) -> list[tuple[str, str]]:
    """Promises that are not kept, and what each tests."""
    last = "1" if promised[-1] == "0" else "0"
    return [
        (promised[:-1] + last, "The last digit differs: compare all 64."),
        (promised[:16], "Only the first digits were promised: that is no hash."),
        ("", "Nothing was promised: an empty promise is no hash."),
        (last + promised[1:], "The first digit differs."),
        (promised + "0", "A digit too many: the digits must be the same, not a part."),
        (promised[::-1], "The digits are in another order."),
    ]


def _no_hint(content: bytes, promised: str, how: str, is_promised: Callable) -> str:
    """What probably went wrong when a kept promise was refused."""
    if "capitals" in how:
        return " A hash may be written in capitals: compare in one way of writing."
    if "spaces" in how:
        return " Strip the spaces of the promise first."
    for name in ("md5", "sha1", "sha512", "sha3_256"):
        other = hashlib.new(name, content).hexdigest()
        if _says_yes(is_promised, content, other):
            return f" You took {name}: the promise is SHA-256."
    for change, hint in (
        (repr(content).encode(), "You hashed the text of the bytes object, not its bytes."),
        (content.strip(), "You hashed other bytes than those that came: do not strip the content."),
    ):
        if _says_yes(is_promised, content, hashlib.sha256(change).hexdigest()):
            return f" {hint}"
    return " Compare hexdigest(), 64 digits of text, with the promise."


def _says_yes(is_promised: Callable, content: bytes, promised: str) -> bool:
    try:
        return is_promised(content, promised) is True
    except Exception:
        return False
