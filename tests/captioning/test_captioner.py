"""Captions of pictures from a datastore: modes, citations, influence, and what cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmalign.captioning.captioner import Captioner, cite
from mmalign.captioning.decoders.base import Draft
from mmalign.captioning.retrieval import Retrieval, TextStore
from mmalign.encoders import EncoderBase
from mmalign.errors import EncoderMismatchError, InputError
from mmalign.types import Caption, CaptionSpan
from mmalign.utils.similarity import l2_normalize

CAPTIONS = ["A dog runs .", "A dog runs in snow .", "A brown dog running in the snow .", "A man rides a bike ."]
VECTORS = l2_normalize([[1, 0, 0.1], [1, 0.1, 0], [1, 0.2, 0], [0, 0, 1]])


class Toy(EncoderBase):
    name, dim, fingerprint, modalities = "toy", 3, "t" * 8, frozenset({"text", "image"})

    def encode_text(self, texts: Any, *, batch_size: int = 64) -> Any:
        raise AssertionError("no text is to be embedded")

    def encode_image(self, images: Any, *, batch_size: int = 32) -> Any:
        return np.tile(VECTORS[:1], (len(list(images)), 1))


STORE = TextStore(CAPTIONS, VECTORS, ["a", "b", "c", "d"], Toy.fingerprint)
QUERY = np.array([1, 0, 0.1], np.float32)


def test_nearest_and_what_is_excluded() -> None:
    captioner = Captioner(Toy(), STORE, mode="nearest")
    assert captioner.caption(QUERY).text == CAPTIONS[0]
    assert captioner.caption(QUERY, exclude=["a"]).text == CAPTIONS[1]


def test_consensus_cites_and_tells_influence() -> None:
    told = Captioner(Toy(), STORE, mode="consensus").caption(QUERY, influence=True)
    assert told.text in CAPTIONS[:3]
    assert [entry.source for entry in told.evidence[:3]] == ["a", "b", "c"]
    influences = {entry.text: entry.influence for entry in told.evidence}
    # The caption that shares no word spoke against what was chosen; the caption itself spoke for it.
    assert influences[CAPTIONS[3]] is not None
    assert influences[CAPTIONS[3]] < 0 < influences[told.text]  # type: ignore[operator]
    assert told.to_dict()["caption"] == told.text


def test_words_cite_the_captions_that_hold_them() -> None:
    spans = {span.text: span for span in cite("two dogs running with a zebra", CAPTIONS)}
    assert set(spans) == {"two", "dogs", "running", "zebra"}
    assert spans["dogs"].evidence == (0, 1, 2)
    assert spans["running"].evidence == (0, 1, 2)
    assert spans["zebra"].supported is False
    assert Caption("x", 0.0, "nearest", spans=tuple(spans.values())).unsupported == (spans["two"], spans["zebra"])
    span: CaptionSpan = spans["dogs"]
    assert "two dogs running"[span.start : span.end] == "dogs"


def test_what_cannot_be_used_is_told() -> None:
    empty = TextStore((), np.zeros((0, 3), np.float32))
    with pytest.raises(InputError, match="the datastore holds no captions"):
        Captioner(Toy(), empty, mode="consensus")
    with pytest.raises(EncoderMismatchError, match="embedded by another encoder"):
        Captioner(Toy(), TextStore(CAPTIONS, VECTORS, fingerprint="other"), mode="nearest")
    with pytest.raises(EncoderMismatchError, match="was trained for lite@2"):
        Captioner(Toy(), STORE, mode="decoder")
    with pytest.raises(InputError, match="expected a caption decoder"):
        Captioner(Toy(), STORE, mode="magic")
    with pytest.raises(InputError, match="no caption was retrieved"):
        Captioner(Toy(), STORE, mode="nearest", retrieval=Retrieval(k=3, floor=0.9999)).caption(-QUERY)


def test_odd_captions_in_the_datastore(tmp_path: Path) -> None:
    odd = ["word " * 10_000, "雪の中の犬", "Ein Hund läuft .", "..."]
    store = TextStore(odd, VECTORS, fingerprint=Toy.fingerprint)
    for mode in ("nearest", "consensus"):
        told = Captioner(Toy(), store, mode=mode).caption(QUERY)
        assert told.text in odd[1:3]
        assert cite(told.text, odd)


class Judge:
    """Likes long captions, or short ones."""

    def __init__(self, sign: int) -> None:
        self.sign, self.seen = sign, list[str]()

    def __call__(self, captions: Any) -> list[float]:
        self.seen += captions
        return [self.sign * len(caption) for caption in captions]


@pytest.mark.parametrize("mode", ["nearest", "consensus"])
def test_a_judge_has_a_say(mode: str) -> None:
    captioner = Captioner(Toy(), STORE, mode=mode)
    judges = [Judge(1), Judge(-1)]
    told = [captioner.caption(QUERY, judge=judge) for judge in judges]
    assert set(judges[0].seen) == set(CAPTIONS)
    assert told[0].text != told[1].text
    assert len(told[0].text) > len(told[1].text)
    # What was chosen cites itself.
    assert all(any(entry.text == one.text for entry in one.evidence) for one in told)
    assert all(span.supported for one in told for span in one.spans)


def test_a_judge_sees_eight_drafts_of_a_decoder_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    drafts = [Draft(f"dog number {number}", None, 1.0 - number / 10) for number in range(12)]

    class Scripted:
        name = "scripted"

        def caption(self, vector: Any, context: Any) -> list[Draft]:
            return drafts

    monkeypatch.setattr("mmalign.captioning.decoders.registry.load_decoder", lambda spec, device=None: Scripted())
    captioner = Captioner(Toy(), STORE, mode="scripted")
    assert captioner.caption(QUERY).text == "dog number 0"
    seen: list[str] = []

    def judge(captions: Any) -> list[float]:
        seen.extend(captions)
        return [4.0 * (caption == "dog number 5") for caption in captions]

    told = captioner.caption(QUERY, judge=judge)
    assert seen == [draft.text for draft in drafts[:8]]
    # (5 - 3.5) / 2.29 = 0.65 standard deviations below in score, 2.65 above in fit.
    assert told.text == "dog number 5"
    assert told.score == pytest.approx((2.6458 - 0.6547) / 2, abs=1e-3)
    assert told.alternatives == tuple(draft.text for draft in drafts[:4])


class GenerationOutput:
    """A decoder that tells what it was given; `together` counts the pictures of each call."""

    name, fingerprint = "toy", Toy.fingerprint

    def __init__(self, *, many: bool) -> None:
        self.together: list[int] = []
        if many:
            self.caption_many = self._many

    def caption(self, vector: Any, context: Any) -> list[Draft]:
        return self._many(vector[None], [context])[0]

    def _many(self, vectors: Any, contexts: Any) -> list[list[Draft]]:
        self.together.append(len(contexts))
        told = zip(vectors, contexts, strict=True)
        return [[Draft(f"a dog {vector.sum():.3f} {len(near)}", None, 1.0)] for vector, near in told]


class ImageLoader:
    """A decoder that keeps what it was given to read."""

    name = "reader"

    def __init__(self, *, trained: bool) -> None:
        self.given: list[tuple[str, ...]] = []
        if trained:
            self.fingerprint = Toy.fingerprint
            self.log_likelihoods = lambda text, vector, contexts: [0.0] * len(contexts)

    def caption(self, vector: Any, context: Any) -> list[Draft]:
        self.given.append(tuple(context))
        return [Draft("a dog", None, 1.0)]


@pytest.mark.parametrize(("trained", "read"), [(True, 150), (False, 3)])
def test_what_a_decoder_is_given_to_read(trained: bool, read: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trained decoder reads the 150 nearest captions, as in training; a language model is shown three."""
    angles = np.linspace(0, 1, 200)
    store = TextStore(
        [f"caption {i}" for i in range(200)],
        l2_normalize(np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)),
        [str(i) for i in range(200)],
        Toy.fingerprint,
    )
    decoder = ImageLoader(trained=trained)
    monkeypatch.setattr("mmalign.captioning.decoders.registry.load_decoder", lambda *args, **options: decoder)
    captioner = Captioner(Toy(), store, mode="reader", retrieval=Retrieval(k=180))
    query = np.array([1, 0, 0], np.float32)
    nearest = tuple(f"caption {i}" for i in range(read))
    told = captioner.caption(query)
    captioner.caption_many(query[None], exclude=[[]])
    assert decoder.given == [nearest, nearest]
    assert tuple(entry.text for entry in told.evidence) == nearest
    # What decides by vote has no such limit, and shows as much of it.
    voted = Captioner(Toy(), store, mode="consensus", retrieval=Retrieval(k=180)).caption(query)
    assert len(voted.evidence) == 150


@pytest.mark.parametrize("mode", ["nearest", "consensus", "one by one", "together"])
def test_many_pictures_get_what_each_of_them_gets(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = GenerationOutput(many=mode == "together")
    monkeypatch.setattr("mmalign.captioning.decoders.registry.load_decoder", lambda *args, **options: decoder)
    captioner = Captioner(Toy(), STORE, mode=mode)
    vectors = l2_normalize([[1, 0, 0.1], [0, 0.1, 1], [1, 0.5, 0.5]])
    exclude = [["a"], [], ["b", "c"]]
    many = captioner.caption_many(vectors, exclude=exclude)
    assert decoder.together == {"together": [3], "one by one": [1, 1, 1]}.get(mode, [])
    alone = [captioner.caption(vector, exclude=own) for vector, own in zip(vectors, exclude, strict=True)]
    assert [one.to_dict() for one in many] == [one.to_dict() for one in alone]
    assert len({one.text for one in many}) > 1
    assert captioner.caption_many(vectors[:0], exclude=[]) == []
