"""Every error that mmalign raises on purpose.

    MMAlignError
    +-- InputError (ValueError)        what the caller passed cannot be used
    |   +-- DimensionError             vectors of another width, or not 2-d
    |   +-- QueryError                 a query that cannot be parsed or encoded
    |   +-- FilterError                a `where` filter that is no condition over the columns
    |   +-- SourceError                a source of items that cannot be read at all
    |   +-- MetadataError              metadata that does not fit the collection's columns
    |   +-- EncoderSpecError           an encoder name that means nothing
    |   +-- RecipeError                an index recipe or factory string that means nothing
    +-- DecodeError                    one picture that cannot be decoded (`reason` says why)
    +-- ModelUnavailableError          weights that are not here and cannot be fetched
    +-- CalibrationError               no probabilities for these scores, or a calibration of another encoder
    +-- MissingExtraError (ImportError)  an optional package that is not installed
    +-- EnvironmentConflictError       two installed packages that exclude one another
    +-- CollectionError
    |   +-- CollectionNotFoundError    no collection there
    |   +-- CollectionExistsError      a collection is there already
    |   +-- ItemNotFoundError (KeyError)  no item with an id that was asked for
    |   +-- CollectionFormatError      written by a newer mmalign, or damaged
    |   |   +-- DamagedError           bytes on disk that are not those that were written
    |   +-- EncoderMismatchError       the collection was made with another encoder
    |   +-- UnreadableItemsError       items whose pictures are gone, where all must be read again
    |   +-- StorageError               the disk refused (full, read-only, permission)
    +-- IndexFileError                 an index file that is damaged or does not fit

    AddInterrupted (KeyboardInterrupt)        Ctrl-C during `Collection.add`; what was encoded is kept
    ReencodeInterrupted (KeyboardInterrupt)   Ctrl-C during `Collection.reencode`; what was encoded is kept
    SearchInterrupted (KeyboardInterrupt)     Ctrl-C while a search explains its hits; what was found is kept
    TrainingInterrupted (KeyboardInterrupt)   Ctrl-C during a training; the state is saved

An error's text names what was expected, what came, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

# What an error carries: a value of a layer above, whose type whoever raises the error knows.
Payload = TypeVar("Payload")


class MMAlignError(Exception):
    """Base of every error that mmalign raises on purpose."""


class InputError(MMAlignError, ValueError):
    """What the caller passed cannot be used."""


class DimensionError(InputError):
    """Vectors have another width than the index, collection or encoder, or are not 2-d."""


class QueryError(InputError):
    """A query cannot be parsed or encoded."""


class FilterError(InputError):
    """A `where` filter is no condition over the columns, or compares what cannot be compared."""


class SourceError(InputError):
    """A source of items cannot be read at all."""


class MetadataError(InputError):
    """Metadata does not fit the collection's columns."""


class EncoderSpecError(InputError):
    """An encoder name means nothing to `load_encoder`."""


class RecipeError(InputError):
    """An index recipe or factory string means nothing."""


class DecodeError(MMAlignError):
    """One picture cannot be decoded.

    Args:
        uri: Where the picture came from, for the message.
        reason: What is wrong with it, and what to do where something can be done.
    """

    def __init__(self, uri: str, reason: str) -> None:
        super().__init__(f"{uri}: {reason}")
        self.uri = uri
        self.reason = reason

    def __reduce__(self) -> tuple[type[DecodeError], tuple[str, str]]:
        # Exception pickles by its one formatted argument; worker processes need both.
        return type(self), (self.uri, self.reason)


class ModelUnavailableError(MMAlignError):
    """Model weights are not on this machine and cannot be fetched, or are not the expected bytes."""


class CalibrationError(MMAlignError):
    """There are no probabilities for these scores: no calibration, a damaged one, or that of another encoder."""


class MissingExtraError(MMAlignError, ImportError):
    """An optional package is not installed.

    Args:
        feature: What needs it, as the user would call it.
        package: The missing package.
        extra: The mmalign extra that brings it.
    """

    def __init__(self, feature: str, *, package: str, extra: str) -> None:
        super().__init__(f"{feature} needs the package {package}; install it with: pip install 'mmalign[{extra}]'")
        self.feature = feature
        self.package = package
        self.extra = extra


class EnvironmentConflictError(MMAlignError):
    """Two installed packages exclude one another, or one of them cannot be loaded."""


class CollectionError(MMAlignError):
    """Base of the errors about a collection on disk."""


class CollectionNotFoundError(CollectionError):
    """There is no collection at the path, or none could be guessed."""


class CollectionExistsError(CollectionError):
    """A collection is there already."""


class ItemNotFoundError(CollectionError, KeyError):
    """A collection has no item with an id that was asked for.

    Args:
        message: What was asked for.
        unknown: The ids that no item has, each once, in the order asked for.
    """

    def __init__(self, message: str, unknown: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.unknown = unknown

    def __reduce__(self) -> tuple[type[ItemNotFoundError], tuple[str, tuple[str, ...]]]:
        return type(self), (str(self), self.unknown)

    # A KeyError shows its text in quotation marks.
    __str__ = Exception.__str__


class CollectionFormatError(CollectionError):
    """A collection was written by a newer mmalign, or its description is damaged."""


class DamagedError(CollectionFormatError):
    """What is on disk is not what was written: a flipped bit, a file that was cut or is missing.

    Args:
        message: What is damaged and what to do.
        items: Ids of some of the items that are damaged, as far as these can be read.
    """

    def __init__(self, message: str, items: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.items = items


class EncoderMismatchError(CollectionError):
    """A collection was made with another encoder than the one now used."""


class UnreadableItemsError(CollectionError, Generic[Payload]):
    """Items whose pictures cannot be read, where all must be read again.

    Args:
        message: What happened and what to do.
        unreadable: The items, each a `Skip` with the reason.
    """

    def __init__(self, message: str, unreadable: tuple[Payload, ...] = ()) -> None:
        super().__init__(message)
        self.unreadable = unreadable


class StorageError(CollectionError):
    """The disk refused a read or a write: full, read-only, or no permission."""


class IndexFileError(MMAlignError):
    """An index file is damaged, or does not fit what it is loaded for."""


class AddInterrupted(KeyboardInterrupt, Generic[Payload]):
    """Ctrl-C during `Collection.add`; what was encoded until then is kept, and the same call goes on from there.

    Args:
        report: What was done until then, an `AddReport`.
        left: How many pictures are still to be read; None where it is not known, since the source was not read to its
            end.
    """

    def __init__(self, report: Payload, left: int | None = None) -> None:
        super().__init__("interrupted; what was encoded is kept, and the same call goes on from there")
        self.report, self.left = report, left


class ReencodeInterrupted(KeyboardInterrupt, Generic[Payload]):
    """Ctrl-C during `Collection.reencode`; the collection is as it was, and the same call goes on from there.

    Args:
        report: What was done until then, a `ReencodeReport`.
    """

    def __init__(self, report: Payload) -> None:
        super().__init__("interrupted; the collection is as it was, and the same call goes on from there")
        self.report = report


class SearchInterrupted(KeyboardInterrupt, Generic[Payload]):
    """Ctrl-C during `Collection.search(..., explain=True)`.

    Args:
        results: The `SearchResult`s as they are: the hits that were looked at have their regions, the others none, and
            the notes of each say how many were.
    """

    def __init__(self, results: Iterable[Payload]) -> None:
        super().__init__("interrupted; the hits that were looked at until then have their regions")
        self.results = tuple(results)


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during a training; its state is saved, and the same command goes on from there.

    The text says how far the training is and where its state lies.
    """
