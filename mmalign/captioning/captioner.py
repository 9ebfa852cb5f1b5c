"""Captions for pictures: what was retrieved, what was written from it, and what speaks for each word."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from collections.abc import Collection as Names
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mmalign.captioning.consensus import Consensus, word_weights
from mmalign.captioning.decoders.base import CaptionsMany, Draft, ReadsEmbeddings, ScoresCaptions, check_trained_for
from mmalign.captioning.decoders.prompts import PROMPTED
from mmalign.captioning.ranking import JUDGED, rank_by_fit
from mmalign.captioning.retrieval import Retrieval, RetrievedCaptions, TextStore, retrieve_context
from mmalign.encoders import Encoder
from mmalign.errors import EncoderMismatchError, InputError
from mmalign.types import Caption, CaptionEvidence, CaptionSpan, Note, check_text, check_type
from mmalign.utils import Float32Array, as_matrix

if TYPE_CHECKING:
    from mmalign.captioning.decoders.base import Decoder

GroundingJudge = Callable[[Sequence[str]], Sequence[float]]
"""Says of each of several captions how well it fits a picture, higher is better."""
MODES = ("decoder", "consensus", "nearest")
READ = 150
"""Most retrieved captions that a trained decoder is given: it reads the nearest, and all of them vote."""

_WORD = re.compile(r"\w+(?:['\u2019\-]\w+)*")
# Words that say nothing of what is to be seen; evidence for them would be noise.
_FUNCTION = frozenset(
    """
    a an the this that these those some any and or but nor so as than then while when where who whom which whose
    what of in on at to from by for with without into onto out off over under up down near next through across along
    around behind beside between during against about above below is are was were be been being am do does did has
    have had having will would can could may might must shall should it its he him his she her hers they them their
    there here i you we us our my your not no very also just other another each both all one's
    """.split()  # noqa: SIM905 - a list of them would take a screen
)


class Captioner:
    """Writes captions from what a datastore of captions says of similar pictures.

    Args:
        encoder: Embeds pictures, as it embedded the datastore.
        store: The captions to retrieve from, with their embeddings; it may be empty for a trained decoder.
        mode: `decoder` for the decoder that comes with mmalign, `consensus` for the retrieved caption that the others
            agree with most, `nearest` for the nearest one, or what `load_decoder` takes, such as a file,
            `hf:HuggingFaceTB/SmolLM2-135M` or `openai:MODEL@URL`.
        retrieval: How captions are chosen.
        device: A torch device for the decoder.

    Raises:
        EncoderMismatchError: The datastore, or the decoder, belongs to another encoder.
        InputError: The mode means nothing, or the datastore is empty and the mode needs it.
        ModelUnavailableError: The decoder's weights cannot be had.
    """

    def __init__(
        self,
        encoder: Encoder,
        store: TextStore,
        *,
        mode: str = "decoder",
        retrieval: Retrieval | None = None,
        device: str | None = None,
    ) -> None:
        check_text("mode", mode)
        check_type("store", store, TextStore, "a TextStore")
        check_type("retrieval", retrieval, (Retrieval, type(None)), "a Retrieval")
        self._encoder, self._store, self.mode = encoder, store, mode
        self._how = retrieval or Retrieval(k=150)
        if store.fingerprint and store.fingerprint != encoder.fingerprint:
            raise EncoderMismatchError(
                f"the datastore was embedded by another encoder ({store.fingerprint[:8]}) than {encoder.name} "
                f"({encoder.fingerprint[:8]}); embed its captions anew, or name the encoder that it was made with"
            )
        self._decoder: Decoder | None = None if mode in ("consensus", "nearest") else self._load(mode, device)
        if not len(store) and not self._trained:
            raise InputError(
                "the datastore holds no captions to write from; give pictures with captions, or use --mode decoder, "
                "which can do without"
            )
        self._voting = Consensus(word_weights(store.captions)) if mode == "consensus" and len(store) > 1 else None

    def _load(self, mode: str, device: str | None) -> Decoder:
        # Late: consensus needs no torch.
        from mmalign.captioning.decoders.registry import load_decoder

        try:
            decoder = load_decoder("lite" if mode == "decoder" else mode, device=device)
        except InputError as error:
            raise InputError(f"mode is decoder, consensus, nearest or a decoder of your own: {error}") from error
        name = self._encoder.name
        remedy = f"train one with mmalign train captioner --encoder {name}, or use --mode consensus"
        check_trained_for(decoder, encoder=name, fingerprint=self._encoder.fingerprint, remedy=remedy)
        return decoder

    @property
    def _trained(self) -> bool:
        """Whether the decoder reads the picture's embedding itself."""
        return isinstance(self._decoder, ReadsEmbeddings) and bool(self._decoder.fingerprint)

    def caption(
        self,
        vector: Float32Array,
        *,
        exclude: Names[str] = (),
        influence: bool = False,
        judge: GroundingJudge | None = None,
    ) -> Caption:
        """Caption one picture.

        Args:
            vector: Its embedding, shape (dim,).
            exclude: Sources whose captions must not be used, such as the picture itself.
            influence: Whether to say what each retrieved caption did, by leaving it out; takes longer.
            judge: Says how well the eight best drafts (or retrieved captions) fit the picture, and has half a say in
                which of them is taken (`rank_by_fit`); None to take the first.

        Returns:
            The caption, with the retrieved captions that it was written from and what speaks for each content word.

        Raises:
            DimensionError: The embedding has another width than the datastore's.
            InputError: Nothing was retrieved, and the mode needs it.
        """
        matrix = as_matrix(vector, dim=self._encoder.dim, name="the picture's embedding")
        context = self._retrieved(matrix, [exclude])[0]
        if self._decoder is not None:
            return self._written(matrix[0], context, influence=influence, judge=judge)
        return self._chosen(context, influence=influence, judge=judge)

    def caption_many(self, vectors: Float32Array, *, exclude: Sequence[Names[str]]) -> list[Caption]:
        """Caption some pictures; a trained decoder writes for all of them at once, in half of the time.

        Args:
            vectors: Their embeddings, shape (n, dim).
            exclude: For each, sources whose captions must not be used.

        Returns:
            A caption for each.

        Raises:
            DimensionError: The embeddings have another width than the datastore's.
            InputError: Nothing was retrieved for one of them, and the mode needs it.
        """
        matrix = as_matrix(vectors, dim=self._encoder.dim, name="the pictures' embeddings")
        contexts = self._retrieved(matrix, exclude)
        if self._decoder is None:
            return [self._chosen(context, influence=False, judge=None) for context in contexts]
        written: Sequence[list[Draft] | None] = [None] * len(contexts)
        if isinstance(self._decoder, CaptionsMany):
            written = self._decoder.caption_many(matrix, [self._read(one).captions for one in contexts])
        return [
            self._written(vector, context, influence=False, judge=None, drafts=drafts)
            for vector, context, drafts in zip(matrix, contexts, written, strict=True)
        ]

    def _retrieved(self, matrix: Float32Array, exclude: Sequence[Names[str]]) -> list[RetrievedCaptions]:
        contexts = [RetrievedCaptions()] * len(matrix)
        if len(self._store):
            contexts = retrieve_context(matrix, self._store, how=self._how, exclude=exclude)
        if not all(map(len, contexts)) and not self._trained:
            raise InputError(
                "no caption was retrieved for this picture: all are below the floor or its own; lower the floor, or "
                "use --mode decoder, which can do without"
            )
        return contexts

    def _chosen(self, context: RetrievedCaptions, *, influence: bool, judge: GroundingJudge | None) -> Caption:
        if self.mode == "nearest" or self._voting is None:
            found = [Draft(text, None, float(s)) for text, s in zip(context.captions, context.scores, strict=True)]
            best = _judged(found, judge)[0]
            row = context.captions.index(best.text)
            return _made(best.text, best.score, self.mode, context[row : row + 1], None)
        ranked = _judged([Draft(e.text, None, e.score) for e in self._voting.choose(context)], judge)
        # What it is without one vote: the others stay.
        gains = None
        read = context[:READ]
        if influence:
            whole = self._support(ranked[0].text, context)
            gains = [
                whole - self._support(ranked[0].text, context[[j for j in range(len(context)) if j != i]])
                for i in range(len(read))
            ]
        caption = _made(ranked[0].text, ranked[0].score, self.mode, read, gains)
        return replace(caption, alternatives=tuple(entry.text for entry in ranked[1:5]))

    def _support(self, text: str, context: RetrievedCaptions) -> float:
        assert self._voting is not None
        found = self._voting.choose(context, drafts=[text])
        return found[0].score if found else 0.0

    def _read(self, context: RetrievedCaptions) -> RetrievedCaptions:
        """What the decoder is given of it."""
        return context[: READ if isinstance(self._decoder, ScoresCaptions) else PROMPTED]

    def _written(
        self,
        vector: Float32Array,
        context: RetrievedCaptions,
        *,
        influence: bool,
        judge: GroundingJudge | None,
        drafts: list[Draft] | None = None,
    ) -> Caption:
        decoder = self._decoder
        assert decoder is not None
        read = self._read(context)
        drafts = _judged(decoder.caption(vector, read.captions) if drafts is None else drafts, judge)
        gains = None
        if influence and isinstance(decoder, ScoresCaptions) and len(read):
            contexts = [read.captions]
            contexts += [tuple(c for j, c in enumerate(read.captions) if j != i) for i in range(len(read))]
            found = decoder.log_likelihoods(drafts[0].text, vector, contexts)
            gains = [float(found[0] - without) for without in found[1:]]
        mode = "decoder" if self.mode == "decoder" else decoder.name
        caption = _made(drafts[0].text, drafts[0].score, mode, read, gains)
        notes: tuple[Note, ...] = ()
        if not len(read):
            notes = (Note("nothing was retrieved; written from the picture's embedding alone"),)
        if influence and gains is None and len(read):
            notes += (Note(f"{decoder.name} does not tell how likely a caption is, so no influence is told"),)
        return replace(caption, alternatives=tuple(draft.text for draft in drafts[1:5]), notes=notes)


def cite(text: str, evidence: Sequence[str]) -> tuple[CaptionSpan, ...]:
    """Say for each content word of a caption which retrieved captions hold it.

    Args:
        text: The caption.
        evidence: The retrieved captions.

    Returns:
        A span for each content word, in order; an ending of number or tense does not matter.
    """
    stems = [{_stem(word) for word in _WORD.findall(caption.lower())} for caption in evidence]
    spans = []
    for match in _WORD.finditer(text):
        word = match.group().lower()
        if word in _FUNCTION:
            continue
        holding = tuple(i for i, known in enumerate(stems) if _stem(word) in known)
        spans.append(
            CaptionSpan(match.group(), match.start(), match.end(), "word", evidence=holding, supported=bool(holding))
        )
    return tuple(spans)


def _stem(word: str) -> str:
    """A word without the ending of number or tense, as far as letters tell: runs, running, run are one."""
    for ending in ("'s", "ies", "ing", "es", "ed", "s", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            break
    # A doubled consonant before an ending, and a silent e, are no part of the stem.
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeioul":
        word = word[:-1]
    return word.removesuffix("e") if len(word) > 3 else word


def _judged(drafts: list[Draft], judge: GroundingJudge | None) -> list[Draft]:
    """The drafts, best first; those beyond the first eight fall away where there is a judge."""
    if judge is None or len(drafts) < 2:
        return drafts
    looked = drafts[:JUDGED]
    return rank_by_fit(looked, judge([draft.text for draft in looked]))


def _made(text: str, score: float, mode: str, context: RetrievedCaptions, gains: Sequence[float] | None) -> Caption:
    evidence = tuple(
        CaptionEvidence(caption, source, float(near), None if gains is None else float(gains[rank]))
        for rank, (caption, source, near) in enumerate(
            zip(context.captions, context.sources, np.asarray(context.scores), strict=True)
        )
    )
    return Caption(text, score, mode, evidence, cite(text, context.captions))
