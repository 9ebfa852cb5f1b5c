"""Captions for the pictures of a collection, and the collection's own captions as what they are written from."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL.Image import Image

from mmalign.captioning import AlignmentJudge, Captioner, Retrieval, TextStore, ground_caption
from mmalign.collection.generation import Generation
from mmalign.encoders import ImageLike
from mmalign.media import decode_image, to_uri
from mmalign.search import stored_picture
from mmalign.store import Store
from mmalign.types import Caption, check_type
from mmalign.utils import Float32Array, l2_normalize, track

if TYPE_CHECKING:
    from mmalign.alignment import Aligner

COLUMN = "written_caption"
"""The column that `--write` fills."""

# Written to the collection in one commit: a kill costs so many captions, or the work of so many seconds, at most.
_COMMIT = 256
_COMMIT_SECONDS = 5.0
# Pictures that are captioned at once.
_TOGETHER = 16


def text_store(generation: Generation, *, progress: bool = True) -> TextStore:
    """The captions of a collection's items, with their embeddings; new ones are embedded first.

    Args:
        generation: The collection as it is.
        progress: Whether to show a progress bar.

    Returns:
        The captions, each with the id of its item as its source; none where no item has one.
    """
    found = generation.caption_searcher(progress=progress).rows
    names = found.items.take(found.owners, ["id"]).column("id").to_pylist() if len(found) else []
    return TextStore(found.texts(), found.vectors(), names, generation.encoder.fingerprint)


def store_captions(store: Store, captions: Sequence[tuple[str, Caption]]) -> None:
    """Store what was written in the column `written_caption`, in one commit.

    Args:
        store: The items, for writing.
        captions: Each item's id and caption.
    """
    settled = store.settle([{COLUMN: caption.text} for _, caption in captions], strict=str)
    store.patch([{"id": name, **row} for (name, _), row in zip(captions, settled.rows, strict=True)])


class CollectionCaptioner:
    """Captions pictures from a collection's captions, and keeps what that takes.

    Args:
        generation: The collection as it is.
        mode: As for `Captioner`.
        floor: Least cosine of a retrieved caption; None for all.
        device: A torch device for the decoder.
        progress: Whether to show progress bars.
    """

    def __init__(
        self,
        generation: Generation,
        *,
        mode: str = "decoder",
        floor: float | None = None,
        device: str | None = None,
        progress: bool = True,
    ) -> None:
        self._generation = generation
        self.captioner = Captioner(
            generation.encoder,
            text_store(generation, progress=progress),
            mode=mode,
            retrieval=Retrieval(k=150, floor=floor),
            device=device,
        )

    def caption(
        self,
        image: ImageLike,
        *,
        influence: bool = False,
        aligner: Aligner | None = None,
        ground: bool = True,
        rerank: bool = False,
    ) -> Caption:
        """Caption a picture; captions of the same file in the collection are not used.

        Args:
            image: A decoded picture, a path, a `file://` URI or a URL.
            influence: As for `Captioner.caption`.
            aligner: Looks for phrases in the picture; None leaves out both of what follows.
            ground: Whether to tell where the caption's phrases are.
            rerank: Whether the fit of the best drafts to the picture counts as well (`AlignmentJudge`).

        Returns:
            The caption.

        Raises:
            DecodeError: The picture cannot be read.
        """
        own = self._own(image)
        vector, image = self._look(image, needed=aligner is not None)
        judge = AlignmentJudge(image, aligner) if rerank and aligner is not None else None
        caption = self.captioner.caption(vector, exclude=own, influence=influence, judge=judge)
        if aligner is None or not ground or not caption.text.strip():
            return caption
        return ground_caption(caption, image, aligner, found=judge.align(caption.text) if judge else None)

    def _look(self, image: ImageLike, *, needed: bool) -> tuple[Float32Array, ImageLike]:
        """The picture's embedding, that which is in the collection or a new one; and the picture where it is needed."""
        check_type("image", image, (str, Path, Image), "a path, a URL or a PIL picture")
        found = None
        if isinstance(image, str | Path):
            name = to_uri(image)
            found = stored_picture(self._generation.latest(), name)
            if not isinstance(found, np.ndarray):
                image = decode_image(name if found is None else found.data, uri=name).image
            elif needed:
                image = decode_image(name).image
        if isinstance(found, np.ndarray):
            return found, image
        return self._generation.encoder.encode_image([image])[0], image

    def _own(self, image: ImageLike) -> Sequence[str]:
        if not isinstance(image, str | Path):
            return ()
        _, table = self._generation.latest().find("uri", to_uri(image), ["id"])
        return [str(name) for name in table.column("id").to_pylist()]

    def caption_items(
        self, *, where: str | None = None, again: bool = False, progress: bool = True
    ) -> Iterator[list[tuple[str, Caption]]]:
        """Caption the items of the collection from their stored embeddings; their own captions are not used.

        Args:
            where: SQL over the columns of the items; None for all.
            again: Whether items that have a written caption get a new one.
            progress: Whether to show a progress bar.

        Yields:
            Lists of `(id, caption)`, each for one commit.

        Raises:
            FilterError: The filter is no condition over the columns; the text says what they hold.
        """
        store = self._generation.latest()
        left = f"{COLUMN} IS NULL" if COLUMN in store.columns and not again else None
        row_ids, table = store.scan(["id"], where=where, also=left)
        names = table.column("id").to_pylist()
        found: list[tuple[str, Caption]] = []
        since = time.monotonic()
        try:
            with store.reads_long(), track("Captioning", len(names), enabled=progress) as advance:
                for start in range(0, len(names), _TOGETHER):
                    some = names[start : start + _TOGETHER]
                    _, vectors = store.embeddings(row_ids[start : start + _TOGETHER])
                    written = self.captioner.caption_many(l2_normalize(vectors), exclude=[[name] for name in some])
                    found += zip(some, written, strict=True)
                    advance(len(some))
                    if len(found) >= _COMMIT or time.monotonic() - since > _COMMIT_SECONDS:
                        block, found = found, []
                        yield block
                        since = time.monotonic()
        except KeyboardInterrupt:
            # Seconds of work: what is written until now is handed over first.
            if found:
                yield found
            raise
        if found:
            yield found
