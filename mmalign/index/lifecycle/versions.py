"""Index versions on disk: written beside one another, put in use by one atomic step.

    root/<version>/              the index's files and manifest.json
    root/CURRENT                 the name of the version in use
    root/<version>.tmp-<pid>/    half written; ignored, and removed once its process is gone
    root/<...>.work/             shards of an index in the making; see `mmalign.index.lifecycle.workspace`

A process may die at any point: `CURRENT` names a complete version, or there is none. Each step is a function of this
module, so that a test can stop a process before and after it.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mmalign.errors import IndexFileError
from mmalign.index.backends import load_index
from mmalign.index.base import Index
from mmalign.index.lifecycle import workspace as workspaces
from mmalign.utils import Stamp, file_stamp, holds_checksum, is_running, storage_errors, sync_path, with_checksum

FORMAT = 1
_MANIFEST = "manifest.json"
_POINTER = "CURRENT"
_LOCK = ".lock"
_TEMPORARY = ".tmp-"
# Files up to this size together are checked byte by byte on load; larger ones by size alone, unless asked for.
_VERIFY_BYTES = 1 << 30
# The steps in which file systems tell the time of a change are of 2 s at most.
_SETTLED_NS = 3_000_000_000

# Files that this process has found sound: path, inode, size and time of change.
_verified: set[tuple[str, int, int, int]] = set()


@dataclass(frozen=True, slots=True)
class IndexManifest:
    """What an index version was built from.

    Attributes:
        recipe: The recipe's name, or the factory string that was asked for.
        asked: What was asked for: the same, or `auto` where mmalign chose.
        factory: What the index is made of: `exact`, or a FAISS factory string.
        dim: Width of a vector.
        rows: How many vectors it holds.
        dataset_version: The version of the items that it covers.
        fingerprint: The encoder's, or None for vectors from elsewhere.
        version: Name of the version; given by `publish`.
        created: UTC time in ISO 8601; given by `publish`.
        checksums: SHA-256 in hex of each file, by name; given by `publish`.
        bytes: How many bytes these files hold together; given by `publish`, 0 where it was not kept.
        estimate: What the index was estimated to take; see `mmalign.index.planning.estimate.Check`.
        taken: What it took, by the same names.
        contract: What recall was measured, where it was.
        trained_rows: How many vectors there were when it was trained and measured; an index that was extended since
            holds more. 0 for as many as it holds.
        dataset: What the dataset is marked with since the index was built, so that no other one is searched with it;
            empty where that was not kept.
        ef_construction: What the recipe said of how its graph is built; None where it left that to FAISS, or the index
            has no graph.
    """

    recipe: str
    factory: str
    dim: int
    rows: int
    dataset_version: int
    fingerprint: str | None = None
    asked: str = ""
    version: str = ""
    created: str = ""
    checksums: Mapping[str, str] = field(default_factory=dict)
    bytes: int = 0
    estimate: Mapping[str, float] = field(default_factory=dict)
    taken: Mapping[str, float] = field(default_factory=dict)
    contract: Mapping[str, Any] = field(default_factory=dict)
    trained_rows: int = 0
    dataset: str = ""
    ef_construction: int | None = None

    def cost(self) -> dict[str, dict[str, float]]:
        """Say what the index took beside what it was estimated to take.

        Returns:
            `estimated` and `taken`, each with `bytes_per_vector` (on disk), `seconds` and `memory` (bytes, the peak of
            building it) as far as they are known.
        """
        size = {"bytes_per_vector": self.bytes / self.rows} if self.bytes and self.rows else {}
        return {"estimated": dict(self.estimate), "taken": size | dict(self.taken)}

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as JSON-ready values, with a checksum of them."""
        return with_checksum({"format": FORMAT} | asdict(self))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> IndexManifest:
        """Read what `to_dict` gave.

        Args:
            values: The manifest's values; those that this mmalign does not know are passed over.

        Returns:
            The manifest.

        Raises:
            IndexFileError: Of a newer format, incomplete, or not what was written.
        """
        try:
            if not holds_checksum(values):
                raise ValueError("its checksum is another one")
            if int(values["format"]) > FORMAT:
                raise IndexFileError(
                    f"the index's manifest has format {values['format']}, this mmalign reads up to {FORMAT}; "
                    "update mmalign, or build the index again"
                )
            return cls(**{one.name: values[one.name] for one in fields(cls) if one.name in values})
        except (KeyError, TypeError, ValueError) as error:
            raise IndexFileError(f"the index's manifest is damaged ({error!r}); build the index again") from error


def publish(root: Path, index: Index, manifest: IndexManifest) -> IndexManifest:
    """Write an index as a new version and put it in use; readers see the old one or the new one, whole.

    Args:
        root: The folder of the versions, made where it does not exist.
        index: The index.
        manifest: What it was built from; version, time and checksums are filled in.

    Returns:
        The manifest as it was written.

    Raises:
        StorageError: The disk refused; the version in use stays, and nothing is left behind.
    """
    # The random part keeps two processes that build at once apart.
    version = f"{manifest.dataset_version:012d}-{secrets.token_hex(4)}"
    temporary = root / f"{version}{_TEMPORARY}{os.getpid()}"
    pointer = root / f"{_POINTER}{_TEMPORARY}{os.getpid()}-{version}"
    with storage_errors(root):
        try:
            root.mkdir(parents=True, exist_ok=True)
            write_files(temporary, index)
            complete = replace(
                manifest,
                version=version,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                checksums=(checksums := checksum_files(temporary)),
                bytes=sum((temporary / name).stat().st_size for name in checksums),
            )
            write_manifest(temporary, complete)
            sync_files(temporary)
            with _locked(root):
                rename_version(temporary, root / version)
                write_pointer(pointer, version)
                replace_pointer(pointer, root / _POINTER)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            pointer.unlink(missing_ok=True)
            raise
    return complete


# The steps of `publish`, in order.


def write_files(temporary: Path, index: Index) -> None:
    """Write the index's files into the temporary folder."""
    index.save(temporary)


def checksum_files(folder: Path) -> dict[str, str]:
    """Return SHA-256 in hex of each file of a folder, by name."""
    return {path.name: _sha256(path) for path in sorted(folder.iterdir())}


def write_manifest(temporary: Path, manifest: IndexManifest) -> None:
    """Write `manifest.json` beside the index's files."""
    (temporary / _MANIFEST).write_text(json.dumps(manifest.to_dict(), indent=1) + "\n", encoding="utf-8")


def sync_files(temporary: Path) -> None:
    """Force the files and the folder to disk."""
    for path in temporary.iterdir():
        sync_path(path)
    sync_path(temporary)


def rename_version(temporary: Path, version: Path) -> None:
    """Give the complete folder its name."""
    temporary.rename(version)
    sync_path(version.parent)


def write_pointer(pointer: Path, version: str) -> None:
    """Write the new pointer beside the one in use."""
    with pointer.open("w", encoding="utf-8") as file:
        file.write(version + "\n")
        file.flush()
        os.fsync(file.fileno())


def replace_pointer(pointer: Path, current: Path) -> None:
    """Put the version in use."""
    pointer.replace(current)
    sync_path(current.parent)


def current(root: Path) -> Path | None:
    """Say which version is in use.

    Args:
        root: The folder of the versions.

    Returns:
        Its folder, which `load_current` checks; None where no version is in use or `CURRENT` names none.
    """
    try:
        name = (root / _POINTER).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    if not name or Path(name).name != name or _TEMPORARY in name:
        return None
    return root / name


class Pointer:
    """`CURRENT` of a folder of versions, for who asks it again and again: read only where it may have changed.

    Args:
        root: The folder of the versions.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = os.fspath(root / _POINTER)
        self._known: tuple[Stamp, str] | None = None

    def version(self) -> str | None:
        """Say which version is in use now.

        Returns:
            Its name; None where `current` gives none.
        """
        known, stamp = self._known, file_stamp(self._path)
        if stamp is None:
            return None
        if known is not None and known[0] == stamp:
            return known[1]
        # Looked at before it is read: what is replaced in between is read again at the next look.
        folder = current(self._root)
        if folder is None:
            return None
        # What was written just now may be written again without that its time, which goes in steps, tells.
        self._known = (stamp, folder.name) if time.time_ns() - stamp[2] > _SETTLED_NS else None
        return folder.name


def read_manifest(root: Path) -> IndexManifest | None:
    """Read the manifest of the version in use.

    Args:
        root: The folder of the versions.

    Returns:
        The manifest, or None where no version is in use.

    Raises:
        IndexFileError: Missing, damaged, or of a newer format.
    """
    folder = current(root)
    if folder is None and (root / _POINTER).exists():
        raise IndexFileError(f"{root / _POINTER} is damaged; build the index again")
    return None if folder is None else _read_manifest(folder)


def load_current(root: Path, *, mmap: bool = True, verify: bool | None = None) -> tuple[Index, IndexManifest] | None:
    """Load the version in use.

    Args:
        root: The folder of the versions.
        mmap: Read vectors from disk when they are needed.
        verify: Whether to compare the files' checksums, once a process; None to do so up to 1 GiB, which takes about
            a second, and to compare only sizes beyond.

    Returns:
        The index and its manifest, or None where no version is in use.

    Raises:
        IndexFileError: A file is missing or damaged; search exactly, or build the index again.
        MissingExtraError: The index needs FAISS, which is not installed.
    """
    while True:
        folder = current(root)
        if folder is None:
            if (root / _POINTER).exists():
                raise IndexFileError(f"{root / _POINTER} is damaged; build the index again")
            return None
        try:
            manifest = _read_manifest(folder)
            _check_files(folder, manifest, verify=verify)
            index = load_index(folder, mmap=mmap)
        except IndexFileError:
            # Another process may have put a newer version in use and removed this one meanwhile.
            if current(root) != folder:
                continue
            raise
        if (index.factory, index.dim, index.ntotal) != (manifest.factory, manifest.dim, manifest.rows):
            raise IndexFileError(
                f"{folder}: the manifest says {manifest.factory} with {manifest.rows} rows of dim {manifest.dim}, the "
                f"index is {index.factory} with {index.ntotal} rows of dim {index.dim}; build the index again"
            )
        return index, manifest


def withdraw(root: Path) -> None:
    """Put no version in use; the versions themselves go with the next `clean`.

    Args:
        root: The folder of the versions.

    Raises:
        StorageError: The disk refused.
    """
    if (root / _POINTER).exists():
        with storage_errors(root), _locked(root):
            (root / _POINTER).unlink(missing_ok=True)
            sync_path(root)


def clean(root: Path, *, keep: int = 2) -> list[str]:
    """Remove what dead processes left behind, and old versions.

    Processes that search a version go on after its files are removed, since they have them open or mapped; this is
    so on POSIX systems. A process that is just about to open it reads `CURRENT` again.

    Args:
        root: The folder of the versions.
        keep: How many versions to keep, at least 1: the one in use and the newest others.

    Returns:
        Names of what was removed.

    Raises:
        StorageError: The disk refused.
    """
    removed: list[str] = []
    if not root.is_dir():
        return removed
    with storage_errors(root), _locked(root):
        used = current(root)
        versions = []
        for path in root.iterdir():
            _, mark, owner = path.name.rpartition(_TEMPORARY)
            if mark:
                if not is_running(owner.partition("-")[0]):
                    removed.append(path.name)
            elif path.name.endswith(workspaces.SUFFIX):
                if workspaces.is_stale(path, published=None if used is None else _time(used)):
                    removed.append(path.name)
            elif path.is_dir() and (path / _MANIFEST).exists() and path != used:
                versions.append(path)
        versions.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        removed += [path.name for path in versions[max(0, keep - 1) :]]
        for name in removed:
            if (root / name).is_dir():
                shutil.rmtree(root / name, ignore_errors=True)
            else:
                (root / name).unlink(missing_ok=True)
    return removed


@contextmanager
def claim_workspace(
    root: Path, design: str, *, version: int, usable: Callable[[int], bool]
) -> Iterator[workspaces.Workspace]:
    """Make a folder to build in, or take over the one of a process that died; see `lifecycle.workspace`."""
    with workspaces.workspace(root, design, version=version, usable=usable, guard=lambda: _locked(root)) as found:
        yield found


def clear_work(root: Path) -> bool:
    """Remove what builds on disk have left behind, so that no byte of an item stays in it.

    Args:
        root: The folder of the versions.

    Returns:
        False where a build is under way, whose files stay.

    Raises:
        StorageError: The disk refused.
    """
    if not root.is_dir():
        return True
    with storage_errors(root), _locked(root):
        return workspaces.clear(root)


def _time(folder: Path) -> float:
    try:
        return (folder / _MANIFEST).stat().st_mtime
    except OSError:
        return 0.0


def _read_manifest(folder: Path) -> IndexManifest:
    try:
        values = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise IndexFileError(f"{folder / _MANIFEST} cannot be read: {error}; build the index again") from error
    return IndexManifest.from_dict(values)


def _check_files(folder: Path, manifest: IndexManifest, *, verify: bool | None) -> None:
    try:
        states = {name: (folder / name).stat() for name in manifest.checksums}
    except OSError as error:
        raise IndexFileError(f"{error.filename} is missing; build the index again") from error
    if verify is None:
        verify = sum(state.st_size for state in states.values()) <= _VERIFY_BYTES
    for name, state in states.items():
        known = (str(folder / name), state.st_ino, state.st_size, state.st_mtime_ns)
        if not verify or known in _verified:
            continue
        try:
            checksum = _sha256(folder / name)
        except OSError as error:
            # Removed, or unreadable, since it was looked at.
            raise IndexFileError(f"{folder / name} cannot be read: {error}; build the index again") from error
        if checksum != manifest.checksums[name]:
            raise IndexFileError(f"{folder / name} is damaged: its checksum is another one; build the index again")
        _verified.add(known)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Keep `clean` from removing a version that another process is just about to put in use."""
    try:
        import fcntl
    except ImportError:
        # No such lock on Windows; there, open files cannot be removed either.
        yield
        return
    with (root / _LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        # Closing the file, or the end of the process, lets go.
        yield
