import threading
import time
from collections.abc import Iterator

import pytest

from mmalign.encoders.prefetch import default_workers, prefetch_batches
from mmalign.errors import InputError


def prefetch_threads() -> int:
    return sum(thread.name.startswith("mmalign-prefetch") for thread in threading.enumerate())


def drain(batches: Iterator[list[int]], into: list[list[int]]) -> None:
    """Keep what came before an error, which `into.extend(batches)` does not promise."""
    for batch in batches:
        into.append(batch)  # noqa: PERF402


@pytest.mark.parametrize("count", [0, 1, 4, 5, 12, 13])
@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_and_complete(count: int, workers: int) -> None:
    def prepare(item: int) -> int:
        time.sleep(0.002 * (item % 3))
        return item * 10

    batches = list(prefetch_batches(range(count), prepare, batch_size=4, workers=workers))

    assert [value for batch in batches for value in batch] == [item * 10 for item in range(count)]
    assert [len(batch) for batch in batches] == [4] * (count // 4) + ([count % 4] if count % 4 else [])
    assert prefetch_threads() == 0


def test_reads_no_further_than_the_look_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1000):
            taken.append(item)
            yield item

    stream = prefetch_batches(items(), lambda item: item, batch_size=3, workers=2, ahead=2)
    assert taken == []
    assert next(iter(stream)) == [0, 1, 2]
    assert len(taken) == 9
    next(iter(stream))
    assert len(taken) == 12


def test_prepares_the_next_batch_while_the_caller_works() -> None:
    ready = threading.Event()

    def prepare(item: int) -> int:
        if item == 3:
            ready.set()
        return item

    stream = iter(prefetch_batches(range(6), prepare, batch_size=2, workers=2))
    assert next(stream) == [0, 1]
    assert ready.wait(timeout=10), "the second batch was not prepared before it was asked for"


def test_closing_stops_the_workers_and_leaves_the_rest_unprepared() -> None:
    done: list[int] = []

    def prepare(item: int) -> int:
        time.sleep(0.01)
        done.append(item)
        return item

    stream = iter(prefetch_batches(range(1000), prepare, batch_size=2, workers=2, ahead=50))
    next(stream)
    assert prefetch_threads() == 2
    stream.close()  # type: ignore[attr-defined]
    assert prefetch_threads() == 0
    assert len(done) < 50


@pytest.mark.parametrize("bad", [0, 3, 4, 9])
def test_an_error_of_prepare_comes_after_all_results_before_it(bad: int) -> None:
    def prepare(item: int) -> int:
        if item == bad:
            raise ValueError(f"item {item}")
        return item

    received: list[list[int]] = []
    with pytest.raises(ValueError, match=f"item {bad}"):
        drain(prefetch_batches(range(10), prepare, batch_size=4, workers=3), received)

    assert all(received)
    assert [item for batch in received for item in batch] == list(range(bad))
    assert prefetch_threads() == 0


@pytest.mark.parametrize("count", [0, 3, 4, 5])
def test_an_error_of_the_source_comes_after_all_results_before_it(count: int) -> None:
    def items() -> Iterator[int]:
        yield from range(count)
        raise OSError("the disk is gone")

    received: list[list[int]] = []
    with pytest.raises(OSError, match="the disk is gone"):
        drain(prefetch_batches(items(), lambda item: item, batch_size=2, workers=2), received)

    assert [item for batch in received for item in batch] == list(range(count))


@pytest.mark.parametrize("name", ["batch_size", "workers", "ahead"])
def test_numbers_below_one_are_refused(name: str) -> None:
    numbers = {"batch_size": 1, "workers": 1, "ahead": 1, name: 0}
    with pytest.raises(InputError, match=f"{name} must be at least 1, got 0"):
        prefetch_batches([1], str, **numbers)


def test_default_workers_is_within_bounds() -> None:
    assert 1 <= default_workers() <= 16
