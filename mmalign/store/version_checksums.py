"""Checksums of what Lance keeps of a version beside the rows: its manifest, which rows are deleted, and its indexes.

A row's own checksum cannot tell that the row has gone missing, or has got another row's id. For each version that is
committed, `_checksums/VERSION.json` in the dataset's folder holds the CRC-32 of the version's manifest, of its
deletion files and of its scalar indexes. A version without that file, as one that was committed by an earlier mmalign
or by a process that was killed at that moment, is not checked; nor is any in an object store. Indexes are large, and
not all that is read needs them: they are compared when they are first used.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import lance

from mmalign.errors import DamagedError
from mmalign.store.location import Location
from mmalign.utils import holds_checksum, with_checksum, write_atomic

FOLDER = "_checksums"
_SUFFIX = ".json"
_INDEXES = "_indices"
_CHUNK = 1 << 20
# By folder of an index, whether it was what was written when it was first used: Lance never changes one.
_sound: dict[Path, bool] = {}


def write_version(dataset: lance.LanceDataset) -> None:
    """Keep the checksums of the version that a dataset is open at, where nobody has yet.

    Args:
        dataset: Just committed.

    Raises:
        OSError: The disk refused; the version stays without checksums.
    """
    root = _root(dataset)
    if root is None:
        return
    path = _path(root, dataset.version)
    if path.exists():
        return
    earlier = _read(_path(root, dataset.version - 1)) or {}
    sums: dict[str, str | None] = {}
    manifest = _manifest(root, dataset.version)
    if manifest is None:
        return
    for name in [manifest, *_deletions(dataset), *_index_files(dataset, root)]:
        # A file that was there before was read then: read again, its damage would count as right.
        found = earlier.get(name) or _checksum(root / name)
        if found is None:
            return
        sums[name] = found
    path.parent.mkdir(exist_ok=True)
    # A version without checksums is not checked, and most writes are small: the disk is not waited for.
    write_atomic(path, json.dumps(with_checksum(sums)), sync=False)


def check_version(dataset: lance.LanceDataset) -> bool:
    """Compare what Lance keeps of a version with its checksums.

    Args:
        dataset: Open at that version.

    Returns:
        Whether there are checksums to compare with.

    Raises:
        DamagedError: A file is not what was written.
    """
    root = _root(dataset)
    sums = None if root is None else _read(_path(root, dataset.version))
    if root is None or sums is None:
        return False
    for name, wanted in sums.items():
        if name.startswith(_INDEXES):
            continue
        found = _checksum(root / name)
        # What is not there any more has been cleaned away; Lance says so itself where it needs it.
        if found is not None and found != wanted:
            raise DamagedError(
                f"{root / name} is damaged: its checksum is another one, and which items there are cannot be told; "
                "bring the collection back from a copy, or make it anew: mmalign index SOURCE --collection NEW"
            )
    return True


def indexes_are_sound(dataset: lance.LanceDataset) -> bool:
    """Compare the scalar indexes of a version with their checksums, each once a process.

    Args:
        dataset: Open at that version.

    Returns:
        False where a file is not what was written; True where there is nothing to compare with.
    """
    root = _root(dataset)
    if root is None:
        return True
    folders = {root / _INDEXES / uuid for uuid in _uuids(dataset)}
    if any(folder not in _sound for folder in folders):
        sums = _read(_path(root, dataset.version)) or {}
        for folder in folders - _sound.keys():
            own = {name: wanted for name, wanted in sums.items() if (root / name).parent == folder}
            _sound[folder] = all(_checksum(root / name) == wanted for name, wanted in own.items())
    return all(_sound[folder] for folder in folders)


def clear_versions(dataset: lance.LanceDataset) -> None:
    """Take away the checksums of versions that are gone.

    Args:
        dataset: At its newest version, after earlier ones were cleaned away.
    """
    root = _root(dataset)
    if root is None:
        return
    kept = {int(version["version"]) for version in dataset.versions()}
    for path in (root / FOLDER).glob(f"*{_SUFFIX}"):
        number = path.name.removesuffix(_SUFFIX)
        # What a process was about to write when it was killed begins with a dot.
        if not number.isdigit() or int(number) < min(kept):
            path.unlink(missing_ok=True)


def _root(dataset: lance.LanceDataset) -> Path | None:
    """The dataset's folder; None where it is in an object store, which has no version checksums."""
    place = Location.of(dataset.uri)
    return place.path if place.is_local else None


def _path(root: Path, version: int) -> Path:
    return root / FOLDER / f"{version}{_SUFFIX}"


def _read(path: Path) -> dict[str, str] | None:
    """Checksums by the name of a file; None where there are none, or these are damaged themselves."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(values, dict) or "checksum" not in values or not holds_checksum(values):
        return None
    return {name: value for name, value in values.items() if name != "checksum"}


def _manifest(root: Path, version: int) -> str | None:
    # Lance counts down, so that the newest comes first in a list; its first versions counted up.
    for name in (f"_versions/{(1 << 64) - 1 - version:020d}.manifest", f"_versions/{version}.manifest"):
        if (root / name).exists():
            return name
    return None


def _deletions(dataset: lance.LanceDataset) -> list[str]:
    files = ((one.fragment_id, one.metadata.deletion_file) for one in dataset.get_fragments())
    return [file.path(fragment) for fragment, file in files if file is not None]


def _uuids(dataset: lance.LanceDataset) -> list[str]:
    return [segment.uuid for index in dataset.describe_indices() for segment in index.segments]


def _index_files(dataset: lance.LanceDataset, root: Path) -> list[str]:
    folders = [root / _INDEXES / uuid for uuid in _uuids(dataset)]
    return [path.relative_to(root).as_posix() for folder in folders for path in sorted(folder.glob("*"))]


def _checksum(path: Path) -> str | None:
    found = 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                found = zlib.crc32(chunk, found)
    except OSError:
        return None
    return f"{found:08x}"
