"""Wrong and unusual right answers to the exercises of lesson 20, and what the check must say."""

import hashlib
from collections import Counter

import numpy as np


def divides_by_clean(count, clean, steps, batch):
    return count * steps * batch / clean


def once_a_step(count, clean, steps, batch):
    return count * steps


def passes(count, clean, steps, batch):
    return steps * batch / (count + clean)


def share(count, clean, steps, batch):
    return count / (count + clean)


def no_batch(count, clean, steps, batch):
    return count * steps / (count + clean)


def one_step(count, clean, steps, batch):
    return count * batch / (count + clean)


def the_count(count, clean, steps, batch):
    return count


def all_drawn(count, clean, steps, batch):
    return steps * batch


def the_clean_ones(count, clean, steps, batch):
    return clean * steps * batch / (count + clean)


def as_text(count, clean, steps, batch):
    return f"{count * steps * batch / (count + clean):.0f} times"


def first_value(values, needed):
    return values[0] if values else None


def most_common(values, needed):
    return max(values, key=values.count, default=None)


def more_than_needed(values, needed):
    counts = Counter(values)
    best = max(counts, key=counts.get, default=None)
    return best if counts[best] > needed else None


def first_with_enough(values, needed):
    return next((value for value in values if values.count(value) >= needed), None)


def last_of_equals(values, needed):
    best = max(reversed(values), key=values.count, default=None)
    return best if best is not None and values.count(best) >= needed else None


def alphabetical(values, needed):
    best = max(sorted(set(values)), key=values.count, default=None)
    return best if best is not None and values.count(best) >= needed else None


def with_its_count(values, needed):
    best = Counter(values).most_common(1)
    return best[0] if best and best[0][1] >= needed else None


def its_count(values, needed):
    best = max((values.count(value) for value in values), default=0)
    return best if best >= needed else None


def all_must_agree(values, needed):
    return values[0] if len(values) >= needed and len(set(values)) == 1 else None


def half_must_agree(values, needed):
    best = max(values, key=values.count, default=None)
    return best if best is not None and values.count(best) > len(values) / 2 else None


def fails_without_values(values, needed):
    value, count = Counter(values).most_common(1)[0]
    return value if count >= needed else None


def sorts_in_place(values, needed):
    values.sort()
    best = max(values, key=values.count, default=None)
    return best if best is not None and values.count(best) >= needed else None


def digest(content):
    return hashlib.sha256(content).hexdigest()


def case_matters(content, promised):
    return digest(content) == promised.strip()


def spaces_matter(content, promised):
    return digest(content) == promised.lower()


def md5(content, promised):
    return hashlib.md5(content).hexdigest() == promised.strip().lower()


def sha1(content, promised):
    return hashlib.sha1(content).hexdigest() == promised.strip().lower()


def first_digits(content, promised):
    return digest(content)[:16] == promised.strip().lower()[:16]


def a_part(content, promised):
    return digest(content).startswith(promised.strip().lower())


def contained(content, promised):
    return digest(content) in promised.strip().lower()


def same_digits(content, promised):
    return sorted(digest(content)) == sorted(promised.strip().lower())


def of_the_text(content, promised):
    return digest(repr(content).encode()) == promised.strip().lower()


def strips_the_content(content, promised):
    return digest(content.strip()) == promised.strip().lower()


def bytes_with_text(content, promised):
    return hashlib.sha256(content).digest() == promised.strip().lower()


def returns_the_hash(content, promised):
    return digest(content)


def decodes_first(content, promised):
    return digest(content.decode().encode()) == promised.strip().lower()


def seen_with_numpy(count, clean, steps, batch):
    return np.float64(count) * steps * batch / (count + clean)


def seen_by_passes(count, clean, steps, batch):
    per_pass = (count + clean) / batch
    return count * (steps / per_pass)


def seen_as_whole_number(count, clean, steps, batch):
    return count * steps * batch // (count + clean)


def agreed_by_sorting(values, needed):
    order = sorted(set(values), key=lambda v: (-list(values).count(v), list(values).index(v)))
    return order[0] if order and list(values).count(order[0]) >= needed else None


def agreed_with_most_common(values, needed):
    for value, count in Counter(values).most_common(1):
        return value if count >= needed else None


def agreed_by_hand(values, needed):
    best, most = None, needed - 1
    for value in values:
        votes = sum(other == value for other in values)
        if votes > most:
            best, most = value, votes
    return best


def promised_in_capitals(content, promised):
    return hashlib.sha256(content).hexdigest().upper() == promised.upper().strip()


def promised_in_pieces(content, promised):
    hasher = hashlib.new("sha256")
    for start in range(0, len(content), 4):
        hasher.update(content[start : start + 4])
    return hasher.hexdigest() == promised.strip().casefold()


def promised_as_bytes(content, promised):
    try:
        return hashlib.sha256(content).digest() == bytes.fromhex(promised.strip())
    except ValueError:
        return False


RIGHT = {
    "times_seen": [seen_with_numpy, seen_by_passes, seen_as_whole_number],
    "agreed_answer": [agreed_by_sorting, agreed_with_most_common, agreed_by_hand],
    "is_promised": [promised_in_capitals, promised_in_pieces, promised_as_bytes],
}
WRONG = {
    "times_seen": [
        (divides_by_clean, "divide by all texts"),
        (once_a_step, "once a pass"),
        (passes, "number of passes"),
        (share, "share of the data"),
        (no_batch, "whole batch"),
        (one_step, "This is one step"),
        (the_count, "more than once"),
        (all_drawn, "clean ones too"),
        (the_clean_ones, "counted the clean texts"),
        (as_text, "Return one number"),
    ],
    "agreed_answer": [
        (first_value, "not the first"),
        (most_common, "No value has 2 sources"),
        (more_than_needed, "exactly enough is enough"),
        (first_with_enough, "not the first one with enough"),
        (last_of_equals, "found first wins"),
        (alphabetical, "found first wins"),
        (with_its_count, "Return the value alone"),
        (its_count, "You returned a count"),
        (all_must_agree, "whatever else was found"),
        (half_must_agree, "has 2 sources"),
        (fails_without_values, "IndexError"),
        (sorts_in_place, "came in was changed"),
    ],
    "is_promised": [
        (case_matters, "in capitals"),
        (spaces_matter, "Strip the spaces"),
        (md5, "You took md5"),
        (sha1, "You took sha1"),
        (first_digits, "compare all 64"),
        (a_part, "Only the first digits"),
        (contained, "must be the same, not a part"),
        (same_digits, "another order"),
        (of_the_text, "text of the bytes object"),
        (strips_the_content, "do not strip the content"),
        (bytes_with_text, "hexdigest()"),
        (returns_the_hash, "True or False"),
        (decodes_first, "UnicodeDecodeError"),
    ],
}
