from __future__ import annotations

import pytest

from mmalign.collection.maintenance import IndexState, choose_action


@pytest.mark.parametrize(
    ("items", "tail", "dead", "positions", "trained", "action", "reason"),
    [
        (1000, 0, 0, 1000, 1000, "keep", "all but 0 of 1,000"),
        (1000, 100, 0, 900, 900, "keep", "all but 100"),
        (1000, 101, 0, 899, 899, "extend", "101 of 1,000 items are not in it"),
        (10_000_000, 20_001, 0, 9_979_999, 9_979_999, "extend", "20,001"),
        (10_000_000, 20_000, 0, 9_980_000, 9_980_000, "keep", "20,000"),
        (2001, 500, 0, 1501, 1000, "build", "made for 1,000 items, and there are 2,001"),
        (2000, 500, 0, 1500, 1000, "extend", "500"),
        (2001, 5, 0, 1996, 1000, "keep", "all but 5 of 2,001"),
        (800, 0, 201, 1001, 1000, "build", "201 of the 1,001 vectors"),
        (800, 0, 200, 1000, 1000, "keep", "all but 0"),
        (0, 0, 5, 5, 5, "build", "5 of the 5"),
        (0, 0, 0, 0, 0, "keep", "all but 0 of 0"),
    ],
)
def test_action(items: int, tail: int, dead: int, positions: int, trained: int, action: str, reason: str) -> None:
    state = IndexState(items=items, unindexed=tail, stale=dead, positions=positions, trained_rows=trained)
    chosen, why = choose_action(state)
    assert chosen == action
    assert reason in why
