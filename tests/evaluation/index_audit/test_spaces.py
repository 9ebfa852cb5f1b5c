"""The nearest by each metric are those of the largest inner product, after the change of space."""

from __future__ import annotations

import numpy as np
import pytest

from mmalign.evaluation.index_audit.spaces import look
from mmalign.index import exact_truth
from tests.evaluation.index_audit.worlds import make_world, nearest


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("far", [0.0, 30.0])
def test_the_truth_is_that_of_a_naive_loop(metric: str, far: float) -> None:
    world = make_world(500)
    vectors, queries = world.vectors * 40 + np.float32(far), world.queries * 40 + np.float32(far)
    space, _ = look(metric, lambda: [vectors[:200], vectors[200:]], queries)  # type: ignore[arg-type]
    chunks = lambda: [(np.arange(500), space.vectors(vectors))]  # noqa: E731
    found = exact_truth(space.queries(queries), chunks, 10).ids
    assert [set(row.tolist()) for row in found] == nearest(metric, queries, vectors, 10)
    np.testing.assert_array_equal(space.asked(space.queries(queries)), queries)


def test_the_metrics_differ_where_lengths_do() -> None:
    world = make_world(500)
    by = {metric: nearest(metric, world.queries, world.vectors, 10) for metric in ("cosine", "ip", "l2")}
    assert by["cosine"] != by["ip"] != by["l2"] != by["cosine"]


def test_lengths_are_told() -> None:
    vectors = np.array([[3, 4], [0, 0], [0, 1]], np.float32)
    _, lengths = look("l2", lambda: [vectors], vectors)
    assert (lengths.least, lengths.most, lengths.zeros, lengths.alike) == (1.0, 5.0, 1, False)
