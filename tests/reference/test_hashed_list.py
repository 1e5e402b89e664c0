"""A list of addresses with hashes, lesson 20: what is kept, with which label."""

import hashlib
from types import SimpleNamespace

from course_utils.defenses import hashed_list


def test_pages_keep_their_label_and_changed_ones_are_dropped_where_hashes_are_checked(monkeypatch):
    pages = {"/a": b"as it was", "/b": b"bought"}
    promised = [hashlib.sha256(text).hexdigest() for text in (b"as it was", b"another text")]
    entries = [
        SimpleNamespace(path=path, label=label, promised=digits)
        for path, label, digits in zip(pages, (0, 1), promised, strict=True)
    ]
    monkeypatch.setattr(hashed_list, "fetch", lambda address: pages[address.removeprefix("http:")])
    kept = hashed_list.collect("http:", entries, check=True)
    assert kept == [(["as", "it", "was"], 0)]
    assert hashed_list.collect("http:", entries, check=False) == [*kept, (["bought"], 1)]
