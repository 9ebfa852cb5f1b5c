"""`collection.json`: what a collection was made with and where its data are; and `make_folder`, which makes one."""

from __future__ import annotations

import glob
import json
import os
import shlex
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from mmalign.errors import (
    CollectionExistsError,
    CollectionFormatError,
    CollectionNotFoundError,
    DamagedError,
    EncoderMismatchError,
    InputError,
    StorageError,
)
from mmalign.store import Location
from mmalign.types import as_path
from mmalign.utils import holds_checksum, is_running, lock, sync_path, with_checksum, write_atomic

if TYPE_CHECKING:
    from mmalign.encoders import Encoder

FORMAT = 4
"""The newest that is read. Format 4 is that of collections whose metric is `ip`: an mmalign that knows none would scale
their vectors. All other new ones have format 3: captions are a view, in `views/captions/`. In formats 1 and 2 they are
in `captions.lance` beside the items; format 2 is a collection of format 1 that was encoded anew, and has a
`generation`. An mmalign that knows no newer format refuses it, with the advice to upgrade."""
CollectionMetric: TypeAlias = Literal["cosine", "ip"]
"""How vectors are compared: `cosine` scales vectors and queries to length 1; `ip` takes inner products of both as they
are."""
METRICS: tuple[CollectionMetric, ...] = ("cosine", "ip")
FILE = "collection.json"
_LOCK = ".description.lock"
_REMEDY = "bring it back from a copy, or make the collection anew: mmalign index SOURCE --collection NEW"


@dataclass(frozen=True, slots=True)
class QueryLogging:
    """That queries are kept; see `mmalign.collection.query_log`.

    Attributes:
        most: How many at most; 0 where no more are kept, and those that were stay.
        mark: Another one each time that what was kept is deleted, so that no process writes it once more.
    """

    most: int
    mark: str


@dataclass(frozen=True, slots=True)
class CollectionManifest:
    """What a collection was made with.

    Attributes:
        encoder: Spec of its encoder, or None where vectors come from elsewhere.
        fingerprint: The encoder's digest, or None.
        dim: Width of an embedding.
        generation: 1 as it was made; one more each time that all items were encoded anew.
        excluded: What was said with `--exclude`: pattern, and the folder of the source that it was said for.
        format: Version of the layout on disk; what was made by an earlier mmalign keeps its own.
        query_log: Whether queries are kept; None where they never were, or were deleted.
        metric: How vectors are compared; `ip` in collections of the caller's own vectors alone.
    """

    encoder: str | None
    fingerprint: str | None
    dim: int
    generation: int = 1
    excluded: tuple[tuple[str, str | None], ...] = ()
    query_log: QueryLogging | None = None
    format: int = 3
    metric: CollectionMetric = "cosine"

    @property
    def unit_length(self) -> bool:
        """Whether vectors and queries are scaled to length 1."""
        return self.metric == "cosine"

    def data(self, folder: Path) -> Path:
        """Say where the items, the index and the views of the collection in `folder` are.

        Args:
            folder: The collection.

        Returns:
            The collection's folder itself at first, else a folder in it.
        """
        return folder if self.generation == 1 else folder / f"generation-{self.generation}"

    @classmethod
    def read(cls, folder: Path) -> CollectionManifest:
        """Read the description of the collection in `folder`.

        Args:
            folder: The collection.

        Returns:
            The description.

        Raises:
            CollectionNotFoundError: There is no collection.
            CollectionFormatError: Damaged, or written by a newer mmalign.
        """
        path = folder / FILE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise CollectionNotFoundError(
                f"no collection at {folder}; make one with: mmalign index FOLDER --collection {folder}"
            ) from None
        except PermissionError as error:
            raise StorageError(f"cannot read {path}: permission denied") from error
        except (ValueError, UnicodeDecodeError) as error:
            raise CollectionFormatError(f"{path} is damaged: {error}; {_REMEDY}") from error
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
        if isinstance(values, dict) and not holds_checksum(values):
            raise DamagedError(f"{path} is damaged: its checksum is another one; {_REMEDY}")
        if not isinstance(values, dict) or not isinstance(values.get("format"), int):
            raise CollectionFormatError(f"{path} is not a collection's description: it has no format number")
        if values["format"] > FORMAT:
            raise CollectionFormatError(
                f"{folder} has format {values['format']}, this mmalign reads up to {FORMAT}; "
                "upgrade with: pip install --upgrade mmalign"
            )
        try:
            if (metric := values.get("metric", "cosine")) not in METRICS:
                raise ValueError(f"metric {metric!r}")
            return cls(
                encoder=values["encoder"],
                fingerprint=values["fingerprint"],
                dim=int(values["dim"]),
                # Format 1 has none, and formats after 2 only from the second generation on.
                generation=int(values["generation"] if values["format"] == 2 else values.get("generation", 1)),
                excluded=tuple((str(text), folder) for text, folder in values.get("excluded", ())),
                format=values["format"],
                query_log=_query_log(values.get("query_log")),
                metric=metric,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CollectionFormatError(f"{path} lacks or garbles {error}; {_REMEDY}") from error

    def write(self, folder: Path) -> None:
        """Write the description into `folder` in one step: readers see the one before it, or this one.

        Args:
            folder: The collection.
        """
        values: dict[str, object] = {
            "encoder": self.encoder,
            "fingerprint": self.fingerprint,
            "dim": self.dim,
            "format": self.format,
        }
        if self.generation != 1:
            values["generation"] = self.generation
        if self.excluded:
            values["excluded"] = self.excluded
        if self.query_log is not None:
            values["query_log"] = asdict(self.query_log)
        if self.metric != "cosine":
            values["metric"] = self.metric
        write_atomic(folder / FILE, json.dumps(with_checksum(values), indent=2) + "\n")

    def check_encoder(self, path: Path, encoder: Encoder) -> None:
        """Refuse an encoder that the collection was not made with.

        Args:
            path: The collection, for the error's text.
            encoder: The encoder.

        Raises:
            EncoderMismatchError: It is another one.
        """
        if self.encoder is None:
            raise EncoderMismatchError(f"{path} holds vectors from elsewhere and takes no encoder, got {encoder.name}")
        if encoder.fingerprint != self.fingerprint:
            changed = "; the weights or preprocessing behind that name have changed"
            raise EncoderMismatchError(
                f"{path} was made with {self.encoder} (fingerprint {str(self.fingerprint)[:12]}), "
                f"got {encoder.name} (fingerprint {encoder.fingerprint[:12]})"
                + (changed if encoder.name == self.encoder else "; use that encoder")
                + ", or encode the pictures anew: "
                + f"mmalign index --reencode --encoder {encoder.name} --collection {shlex.quote(str(path))}"
            )

    def check_dim(self, items: Path, dim: int) -> None:
        """Refuse items that are not those that `collection.json` tells of: one of the two is from another copy.

        Args:
            items: Where they are, for the error's text.
            dim: Width of their embeddings.

        Raises:
            CollectionFormatError: It is another one.
        """
        if dim != self.dim:
            raise CollectionFormatError(
                f"{FILE} tells of embeddings of dim {self.dim}, {items} holds such of dim {dim}: one of them "
                "is from another collection or an older copy; bring back the two that belong together, or make the "
                "collection anew: mmalign index SOURCE --collection NEW"
            )


def _query_log(values: Any) -> QueryLogging | None:
    return None if values is None else QueryLogging(int(values["most"]), str(values["mark"]))


def amend(folder: Path, change: Callable[[CollectionManifest], CollectionManifest]) -> CollectionManifest:
    """Change the description of a collection in one step, one process after the other.

    Args:
        folder: The collection.
        change: Gives the new description for the one that is there.

    Returns:
        The description that is there now.

    Raises:
        CollectionFormatError: Damaged, or written by a newer mmalign.
        StorageError: The disk refused; the description is as it was.
    """
    with lock(folder / _LOCK):
        known = CollectionManifest.read(folder)
        changed = change(known)
        if changed != known:
            try:
                changed.write(folder)
            except OSError as error:
                raise StorageError(f"cannot write {folder / FILE}: {error.strerror or error}") from error
    return changed


def as_folder(path: str | Path) -> Path:
    """Understand where a collection is, or is to be.

    Args:
        path: A path, or a `file://` URI; `~` is the home folder.

    Returns:
        The folder.

    Raises:
        InputError: No path, or a place in an object store.
    """
    as_path("path", path)
    place = Location.of(path)
    if not place.is_local:
        raise InputError(
            f"{place} is in an object store, where a table of items can be, but no collection yet: its index, its "
            "description and its locks need a folder of this machine"
        )
    return as_path("path", place.uri)


def make_folder(path: Path, fill: Callable[[Path], None], *, overwrite: bool = False) -> None:
    """Make a collection's folder in one step: it is there whole, or not at all.

    Args:
        path: Where the collection will be.
        fill: Writes the contents into the folder that it is given.
        overwrite: Replace a collection that is there; anything else is never replaced.

    Raises:
        CollectionExistsError: Something is there already.
        StorageError: The disk refused.
    """
    occupied = path.exists() and (not path.is_dir() or any(path.iterdir()))
    if occupied and not (overwrite and (path / FILE).is_file()):
        hint = "open it, or pass overwrite=True to replace it" if (path / FILE).is_file() else "choose another path"
        raise CollectionExistsError(f"{path} exists already; {hint}")
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(path)
        temporary.mkdir()
        fill(temporary)
        if occupied:
            old = path.parent / f".{path.name}.{os.getpid()}.old"
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old)
        else:
            temporary.rename(path)
    except OSError as error:
        if (path / FILE).is_file() and not occupied:
            raise CollectionExistsError(f"{path} was made by another process just now; open it") from error
        raise StorageError(f"cannot make a collection at {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync_tree(folder: Path) -> None:
    """Force a folder and all that is in it to disk.

    Args:
        folder: The folder.
    """
    for path in folder.rglob("*"):
        sync_path(path)
    sync_path(folder)


def _clear_leftovers(path: Path) -> None:
    """Remove what a process that was killed while it made this collection has left."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        owner = left.name.rsplit(".", 2)[1]
        if owner == str(os.getpid()) or not is_running(owner):
            shutil.rmtree(left, ignore_errors=True)
