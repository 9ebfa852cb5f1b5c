"""Bringing a collection up to date with a source, doing only the work that something changed asks for.

A file whose size and modification time are known is not read. One that is read is known by the SHA-256 of its bytes:
where those are in the collection already, it has moved, was copied or was only touched, and is not encoded again.

The source is read once and kept on disk (`source`), compared with the collection block by block (`diff`, which looks
the items up by their keys: `known`), what must be read is loaded and encoded block by block (`load`), and what comes
of it is committed every few seconds (`commit`). So neither the source nor the collection need fit in memory.
"""

from mmalign.collection.ingest.add import AddOptions, AddSource
from mmalign.collection.ingest.jobs import IngestJob, Known, NewRow, derive_id
from mmalign.collection.ingest.load import ImageLoader
from mmalign.collection.ingest.run import Ingest

__all__ = ["AddOptions", "AddSource", "ImageLoader", "Ingest", "IngestJob", "Known", "NewRow", "derive_id"]
