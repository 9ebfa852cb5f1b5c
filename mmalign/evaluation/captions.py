"""How good captions are: a ladder from the most frequent caption to what people write."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmalign.captioning import (
    PROMPTED,
    CaptionsMany,
    Consensus,
    Decoder,
    MBRConfig,
    Retrieval,
    RetrievedCaptions,
    TextStore,
    check_trained_for,
    retrieve_context,
    word_weights,
)
from mmalign.encoders import Encoder, load_encoder
from mmalign.errors import InputError
from mmalign.evaluation.baselines import RUNGS, CaptionsTable, human_scores
from mmalign.evaluation.caption_store import Twins, embed_sentences, read_stored_captions
from mmalign.evaluation.pictures import encode_pictures
from mmalign.evaluation.retrieval import CaptionedPicture, read_captions
from mmalign.metrics import caption_tokens, clip_score, ref_clip_score, score_captions
from mmalign.utils import Float32Array, track

# Pictures that a decoder writes for at once, where it can.
_TOGETHER = 16


@dataclass(frozen=True, slots=True)
class CaptionEvalOptions:
    """What is measured, and how.

    Attributes:
        retrieval: How captions are retrieved for a picture.
        agreement: How the consensus votes.
        read: Most retrieved captions that a decoder is given; one of ours reads the nearest, and lets all vote.
        hf_read: Most retrieved captions that a language model is prompted with.
        seed: Of random contexts and of the bootstrap.
        clip: Whether to add CLIPScore and RefCLIPScore by the encoder.
        rungs: Only these.

    Raises:
        InputError: An unknown rung.
    """

    retrieval: Retrieval = Retrieval(k=150)  # noqa: RUF009 - frozen
    agreement: MBRConfig = MBRConfig()  # noqa: RUF009 - frozen
    read: int = 150
    hf_read: int = PROMPTED
    seed: int = 0
    clip: bool = False
    rungs: tuple[str, ...] = RUNGS

    def __post_init__(self) -> None:
        if unknown := [rung for rung in self.rungs if rung not in RUNGS]:
            raise InputError(f"the rungs are {', '.join(RUNGS)}; got {', '.join(unknown)}")


def evaluate_captions(
    manifest: str | os.PathLike[str],
    datastore: Sequence[str | os.PathLike[str]],
    *,
    split: str | None = None,
    datastore_split: str | None = None,
    encoder: str | Encoder = "lite",
    decoders: Mapping[str, Decoder | str] | None = None,
    twins: Twins | None = None,
    options: CaptionEvalOptions = CaptionEvalOptions(),
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> CaptionsTable:
    """Caption the pictures of a manifest in every way of the ladder and score the captions.

    Args:
        manifest: The pictures and what people wrote of them, as for `read_captions`.
        datastore: Manifests and text files to retrieve from. Captions of the picture itself never come.
        split: Which part of the manifest; all of it where None.
        datastore_split: Which part of the datastore's manifests.
        encoder: A spec for `load_encoder`, or an encoder.
        decoders: `decoder` and `hf`: what writes the captions of those rungs, or in words why there is none.
        twins: Says which sentences nearly equal a reference. Of the datastore's captions without a picture these are
            left out, since they may be of the measured pictures. None keeps all.
        options: What is measured, and how.
        cache: Where embeddings of the datastore are kept; see `embed_sentences`.
        progress: Whether to show progress bars.

    Returns:
        The ladder.

    Raises:
        SourceError: A file cannot be read.
        InputError: No such split, no captions, fewer than two pictures, or none of the pictures can be decoded.
        EncoderMismatchError: A decoder was trained for another encoder.
    """
    pictures = read_captions(manifest, split=split)
    sentences = read_stored_captions(datastore, split=datastore_split)
    model = load_encoder(encoder)
    writers = dict(decoders or {})
    for writer in writers.values():
        _check_encoder(writer, model)
    encoded = encode_pictures(model, [picture.uri for picture in pictures], progress=progress)
    pictures = [pictures[position] for position in encoded.kept]
    references = [picture.captions for picture in pictures]
    if len(pictures) < 2:
        raise InputError(f"captions are measured on two pictures or more, got {len(pictures)}; see CIDEr")
    store = embed_sentences(sentences, model, cache=cache, progress=progress)
    counts = dict(sentences.counts)
    if twins is not None:
        # After the embedding: what is kept of that serves other pictures, too.
        store, counts["twins_of_references"] = _without_twins(store, references, twins)
    contexts = retrieve_context(
        encoded.vectors, store, how=options.retrieval, exclude=[(picture.uri,) for picture in pictures]
    )
    written, missing = _climb(pictures, encoded.vectors, contexts, store, writers, options, progress=progress)
    scores = {rung: score_captions(captions, references) for rung, captions in written.items()}
    return CaptionsTable(
        n=len(pictures),
        n_references=sum(map(len, references)),
        encoder=model.name,
        datastore=counts,
        scores=scores,
        captions=written,
        clip=_clip_scores(model, encoded.vectors, written, references) if options.clip else {},
        human=human_scores(references) if "human" in options.rungs else {},
        missing=missing,
        without_context=sum(not len(context) for context in contexts),
        uris=[picture.uri for picture in pictures],
        skipped=encoded.skipped,
        seed=options.seed,
    )


def most_frequent(captions: Sequence[str]) -> str:
    """The caption that comes most often, whatever its case and punctuation; the first of those that tie."""
    words = [caption_tokens(caption) for caption in captions]
    best, _ = Counter(words).most_common(1)[0]
    return captions[words.index(best)]


def _climb(
    pictures: Sequence[CaptionedPicture],
    vectors: Float32Array,
    contexts: Sequence[RetrievedCaptions],
    store: TextStore,
    writers: Mapping[str, Decoder | str],
    options: CaptionEvalOptions,
    *,
    progress: bool,
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """What each rung says of each picture, and why rungs are missing."""
    usual = most_frequent(store.captions)
    voting = Consensus(word_weights(store.captions), options.agreement)
    rng = np.random.default_rng(options.seed)
    rungs: dict[str, Callable[[int], str]] = {
        "frequency": lambda row: usual,
        "nearest": lambda row: contexts[row].captions[0] if len(contexts[row]) else usual,
        "consensus": lambda row: agreed[0].text if (agreed := voting.choose(contexts[row])) else usual,
    }
    missing: dict[str, str] = {}
    for name, asked in (("decoder", ("decoder_no_retrieval", "decoder_random", "decoder")), ("hf", ("hf",))):
        writer = writers.get(name, "not asked for")
        if isinstance(writer, str):
            missing |= dict.fromkeys(asked, writer)
        elif name == "hf":
            rungs["hf"] = _writing(writer, vectors, [context.captions[: options.hf_read] for context in contexts])
        else:
            length = min(options.read, len(store))
            strangers = [_strangers(store, rng, length, picture.uri) for picture in pictures]
            rungs |= {
                "decoder_no_retrieval": _writing(writer, vectors, [()] * len(contexts)),
                "decoder_random": _writing(writer, vectors, strangers),
                "decoder": _writing(writer, vectors, [context.captions[: options.read] for context in contexts]),
            }
    written: dict[str, list[str]] = {}
    for name in (rung for rung in RUNGS if rung in rungs and rung in options.rungs):
        with track(f"Captioning: {name}", len(pictures), enabled=progress) as advance:
            written[name] = []
            for row in range(len(pictures)):
                written[name].append(rungs[name](row))
                advance(1)
    return written, {rung: why for rung, why in missing.items() if rung in options.rungs}


def _strangers(store: TextStore, rng: np.random.Generator, length: int, uri: str) -> tuple[str, ...]:
    # Not the picture's own: then they would not be random.
    drawn = rng.choice(len(store), size=length, replace=False).tolist()
    return tuple(store.captions[i] for i in drawn if not (store.sources and store.sources[i] == uri))


def _writing(writer: Decoder, vectors: Float32Array, contexts: Sequence[Sequence[str]]) -> Callable[[int], str]:
    ready: dict[int, str] = {}

    def write(row: int) -> str:
        if row not in ready:
            # Some at once, where a decoder can: that is several times faster.
            rows = slice(row, row + _TOGETHER if isinstance(writer, CaptionsMany) else row + 1)
            drafts = (
                writer.caption_many(vectors[rows], contexts[rows])
                if isinstance(writer, CaptionsMany)
                else [writer.caption(vectors[row], contexts[row])]
            )
            ready.update((row + place, found[0].text if found else "") for place, found in enumerate(drafts))
        return ready[row]

    return write


def _check_encoder(writer: Decoder | str, encoder: Encoder) -> None:
    if not isinstance(writer, str):
        remedy = "name that encoder, or train a decoder for this one with mmalign train captioner"
        check_trained_for(writer, encoder=encoder.name, fingerprint=encoder.fingerprint, remedy=remedy)


def _without_twins(store: TextStore, references: Sequence[Sequence[str]], twins: Twins) -> tuple[TextStore, int]:
    """Leave out what may have been written of the measured pictures; a caption of a known other picture was not."""
    loose = np.array([not (store.sources and store.sources[row]) for row in range(len(store))])
    places = np.flatnonzero(loose)
    keep = np.ones(len(store), np.bool_)
    if len(places):
        flat = [caption for own in references for caption in own]
        keep[places] = ~twins([store.captions[place] for place in places.tolist()], flat)
    if not keep.any():
        raise InputError("every caption of the datastore nearly equals a reference; name another datastore")
    return store.take(np.flatnonzero(keep)), int((~keep).sum())


def _clip_scores(
    encoder: Encoder, vectors: Float32Array, written: Mapping[str, Sequence[str]], references: Sequence[Sequence[str]]
) -> dict[str, dict[str, float]]:
    ends = np.cumsum([len(own) for own in references])[:-1]
    wanted = np.split(encoder.encode_text([caption for own in references for caption in own]), ends)
    scores = {}
    for rung, captions in written.items():
        found = encoder.encode_text(list(captions))
        scores[rung] = {
            "clip_score": 100 * float(clip_score(vectors, found).mean()),
            "ref_clip_score": 100 * float(ref_clip_score(vectors, found, wanted).mean()),
        }
    return scores
