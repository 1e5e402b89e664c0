"""Promised hashes, lesson 20."""

import hashlib

from course_utils.defenses.safe_loading import is_promised


def test_a_promise_holds_in_capitals_and_with_spaces_and_for_all_its_digits():
    digits = hashlib.sha256(b"weights").hexdigest()
    assert is_promised(b"weights", f"  {digits.upper()}\n")
    last = "0" if digits[-1] != "0" else "1"
    assert not is_promised(b"weights", digits[:-1] + last)
