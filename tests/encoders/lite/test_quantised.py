from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from mmalign.encoders.lite.quantised import (
    Quantised,
    map_safetensors,
    quantise,
    read_tensors,
    to_float32,
    write_tensors,
)
from mmalign.errors import InputError


@pytest.mark.parametrize(
    ("shape", "group"), [((7,), None), ((50, 33), None), ((6, 5, 3, 3), None), ((40, 192), 64), ((4, 6, 2), 3)]
)
def test_no_value_is_off_by_more_than_half_a_step(
    rng: np.random.Generator, shape: tuple[int, ...], group: int | None
) -> None:
    sizes = np.exp(rng.uniform(-9, 9, shape))
    exact = (rng.standard_normal(shape) * sizes).astype(np.float32)
    found = quantise(exact, group=group)
    assert found.values.dtype == np.int8
    assert found.shape == shape
    result = found.dequantise().reshape(shape[0], -1)
    for row, approximate in zip(exact.reshape(shape[0], -1), result, strict=True):
        step = group or len(row)
        for start in range(0, len(row), step):
            part = row[start : start + step]
            largest = max(abs(float(value)) for value in part)
            assert np.abs(part - approximate[start : start + step]).max() <= largest / 127 / 2 * (1 + 1e-5)


def test_rows_of_nothing_and_almost_nothing() -> None:
    exact = np.array([[0, 0], [1e-44, -1e-44], [3, -3], [3e38, -3e38]], np.float32)
    result = quantise(exact).dequantise()
    np.testing.assert_allclose(result, exact, rtol=4e-3, atol=1e-40)
    assert np.isfinite(result).all()


def test_some_rows_are_those_of_the_whole(rng: np.random.Generator) -> None:
    matrix = quantise(rng.standard_normal((30, 8)), group=4)
    numbers = rng.integers(0, 30, (4, 5))
    np.testing.assert_array_equal(matrix[numbers], matrix.dequantise()[numbers])


@pytest.mark.parametrize("bad", [np.array([[1.0, np.nan]]), np.array([np.inf]), np.array(1.0), np.ones((3, 0))])
def test_what_cannot_be_quantised(bad: np.ndarray) -> None:
    with pytest.raises(InputError, match="finite"):
        quantise(bad)


@pytest.mark.parametrize("group", [0, 3, 5])
def test_a_group_divides_the_rows(group: int) -> None:
    with pytest.raises(InputError, match="does not divide rows of 4"):
        quantise(np.ones((2, 4)), group=group)


def test_a_file_gives_back_what_was_written(rng: np.random.Generator, tmp_path: Path) -> None:
    tensors = {
        "b": quantise(rng.standard_normal((5, 3, 1, 1))),
        "a": rng.standard_normal((3, 7)).astype(np.float16),
        "c.scale": rng.standard_normal(2).astype(np.float32),
    }
    notes = {f"note {i}": f"é {i}" for i in range(9)}
    path = tmp_path / "new" / "w.safetensors"
    digest = write_tensors(path, tensors, metadata=notes)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert write_tensors(tmp_path / "again", dict(reversed(tensors.items())), metadata=notes) == digest
    found, metadata = read_tensors(path)
    assert metadata == notes
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert isinstance(found[name], Quantised) == isinstance(tensor, Quantised)
        np.testing.assert_array_equal(to_float32(found[name]), to_float32(tensor))


def test_the_library_reads_the_same_file(rng: np.random.Generator, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    path = tmp_path / "w.safetensors"
    write_tensors(path, {"a": quantise(rng.standard_normal((3, 5))), "b": np.ones(3, np.float16)}, metadata={})
    expected, found = load_file(path), map_safetensors(path)
    assert sorted(found) == sorted(expected) == ["a", "a.scale", "b"]
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name], tensor)
