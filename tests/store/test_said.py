"""Who gave what: a source takes away what it gave, and nothing that another or the user gave."""

from __future__ import annotations

import random
from typing import Any

import pytest

from mmalign.store.claims import CALL, ROWS, SIDECAR, Claim, keep_for_user, merge_claims, table_key

EARLIER = "0123456789abcdef"


def say(item: dict[str, Any], source: str, **values: Any) -> bool:
    """Let a source speak of an item, as a store would; whether a value was written."""
    merged = merge_claims(item.get("said"), [Claim(source, values)])
    if merged is None:
        return False
    item["said"] = merged.claims_json
    for name, value in merged.values.items():
        if value is None:
            item.pop(name, None)
        else:
            item[name] = value
    return bool(merged.values)


def update(item: dict[str, Any], **values: Any) -> None:
    item["said"] = keep_for_user(item.get("said"), values)
    item.update(values)


def shown(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != "said" and value is not None}


def test_a_source_takes_away_what_it_gave() -> None:
    item: dict[str, Any] = {}
    assert say(item, "t", captions=("a",), year=1)
    assert not say(item, "t", captions=("a",), year=1)
    assert say(item, "t", year=1)
    assert shown(item) == {"year": 1}
    assert say(item, "t", captions=None, year=None, mood="x")
    assert shown(item) == {"mood": "x"}
    assert say(item, "t")
    assert shown(item) == {}
    assert item["said"] is None
    assert not say(item, "t")


def test_a_source_takes_nothing_of_another() -> None:
    item: dict[str, Any] = {}
    say(item, "t", captions=("a",), year=1)
    assert not say(item, SIDECAR)
    assert not say(item, "u")
    say(item, "u", mood="x")
    say(item, "t")
    assert shown(item) == {"mood": "x"}


def test_a_column_belongs_to_whoever_gave_it_last() -> None:
    item: dict[str, Any] = {}
    say(item, "t", captions=("a",), year=1)
    say(item, SIDECAR, captions=("b",))
    say(item, "t", year=1)
    assert shown(item) == {"captions": ("b",), "year": 1}
    assert say(item, "t", captions=("a",), year=1), "it gives the captions again, though it has not changed"
    assert shown(item)["captions"] == ("a",)
    assert not say(item, SIDECAR)


def test_what_the_user_set_stays() -> None:
    item: dict[str, Any] = {}
    say(item, "t", captions=("a",), year=1)
    update(item, captions=["mine"], stars=5, mood=None)
    assert not say(item, "t", captions=("a",), year=1), "nothing has changed"
    say(item, "t", captions=("c",), year=2, stars=1, mood="x")
    assert shown(item) == {"captions": ["mine"], "year": 2, "stars": 5}
    say(item, "t")
    say(item, SIDECAR, captions=("d",))
    assert shown(item) == {"captions": ["mine"], "stars": 5}
    merged = merge_claims(item["said"], [Claim("t", {"stars": 2, "year": 7})])
    assert merged is not None
    assert (dict(merged.values), merged.overruled) == ({"year": 7}, {"stars"})


def test_two_parts_of_one_run() -> None:
    merged = merge_claims(None, [Claim(SIDECAR, {"captions": ("a",)}), Claim(CALL, {"album": "x"})])
    assert merged is not None
    again = [Claim(SIDECAR, {"captions": ("a",)}), Claim(CALL, {"album": "x"})]
    assert merge_claims(merged.claims_json, again) is None
    assert merge_claims(merged.claims_json, again[:1]) is None, "the album stays where nobody speaks of it"
    emptied = merge_claims(merged.claims_json, [Claim(SIDECAR, {})])
    assert emptied is not None
    assert dict(emptied.values) == {"captions": None}


def test_what_an_earlier_version_knew_is_taken_over() -> None:
    same = Claim("t", {"captions": ("a",), "year": 1}, earlier=EARLIER)
    merged = merge_claims(EARLIER, [same], fields=["year", "mood"])
    assert merged is not None
    assert dict(merged.values) == {}, "nothing has changed"
    gone = merge_claims(merged.claims_json, [Claim("t", {"year": 1}, earlier="f" * 16)])
    assert gone is not None
    assert dict(gone.values) == {"captions": None, "year": 1}


def test_what_an_earlier_version_may_have_set_goes_by_the_fields_of_the_run() -> None:
    merged = merge_claims(EARLIER, [Claim("t", {"year": 2}, earlier="f" * 16)], fields=["year", "mood"])
    assert merged is not None
    assert dict(merged.values) == {"captions": None, "mood": None, "year": 2}
    assert merge_claims(EARLIER, [Claim(SIDECAR, {})], fields=["year"]) is None, "whose it was is not known"
    assert keep_for_user(EARLIER, []) == EARLIER
    kept = keep_for_user(EARLIER, ["captions"])
    merged = merge_claims(kept, [Claim("t", {"captions": ("a",), "year": 2}, earlier="f" * 16)], fields=["year"])
    assert merged is not None
    assert dict(merged.values) == {"year": 2}


def test_a_value_of_a_call_takes_nothing_from_what_an_earlier_version_knew() -> None:
    """It was a source that set it then; what is passed to `add` is not what that source says now."""
    merged = merge_claims(EARLIER, [Claim(CALL, {"album": "x"}, earlier="f" * 16)], fields=["year", "album"])
    assert merged is not None
    assert dict(merged.values) == {"album": "x"}


def test_names_of_any_kind_come_back() -> None:
    names = {"a b": 1, 'say "x"': 2, "käse": 3, "user": 4, "": 5}
    merged = merge_claims(None, [Claim(ROWS, names)])
    assert merged is not None
    assert merge_claims(merged.claims_json, [Claim(ROWS, names)]) is None
    assert len(table_key("/t.jsonl")) == 8
    assert table_key("/t.jsonl") != table_key("/u.jsonl")


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_sources_ends_as_the_rule_says(seed: int) -> None:
    """An oracle that keeps an owner for each column, in plain words."""
    rng = random.Random(seed)
    item: dict[str, Any] = {}
    value: dict[str, Any] = {}
    owner: dict[str, str] = {}
    for _ in range(60):
        speaker = rng.choice(["t", "u", SIDECAR, "user"])
        given = {name: rng.randrange(3) for name in "abcd" if rng.random() < 0.4}
        if speaker == "user":
            update(item, **given)
            owner.update(dict.fromkeys(given, "user"))
            value.update(given)
            continue
        say(item, speaker, **given)
        for name in "abcd":
            if owner.get(name) == "user":
                continue
            if name in given:
                owner[name], value[name] = speaker, given[name]
            elif owner.get(name) == speaker:
                del owner[name], value[name]
        assert shown(item) == value
