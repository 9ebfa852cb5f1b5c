"""The measurement of the decoder's speed, on an encoder and captions made up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.caption_decoder import cache_gain, gather, peak_of, speeds
from mmalign.captioning.decoders.registry import SHIPPED, load_decoder
from mmalign.captioning.decoders.trained import TrainedDecoder, read_decoder
from mmalign.encoders import EncoderBase

CONTEXTS = [["a dog runs through the snow", "a brown dog in snow"], ["two men ride brown horses"]]


@pytest.fixture
def vectors() -> np.ndarray:
    drawn = np.random.default_rng(0).standard_normal((2, 384)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def test_speeds_and_the_cache(vectors: np.ndarray) -> None:
    decoder = load_decoder("lite")
    assert isinstance(decoder, TrainedDecoder)
    told = speeds(decoder, vectors, CONTEXTS, turns=1)
    assert len(told) == 3
    assert all(set(row) == {"one picture a call", "2 a call"} and min(row.values()) > 0 for row in told.values())
    gain = cache_gain(read_decoder(SHIPPED), vectors, CONTEXTS, turns=1)
    assert min(gain["times faster with the cache"].values()) > 0
    assert 0 < gain["largest difference of scores"] < 1e-3


def test_memory_is_at_least_the_weights(vectors: np.ndarray) -> None:
    weights = sum(tensor.numel() for tensor in read_decoder(SHIPPED).state.values()) * 4 / 1e6
    assert weights < peak_of(vectors, CONTEXTS, "greedy") < 1000


def test_own_captions_are_not_retrieved(tmp_path: Path) -> None:
    class Encoder(EncoderBase):
        def encode_text(self, texts: list[str]) -> np.ndarray:
            return np.eye(384, dtype=np.float32)[[len(text) for text in texts]]

        def encode_image(self, uris: list[str]) -> np.ndarray:
            return np.eye(384, dtype=np.float32)[[0] * len(uris)]

    manifest = tmp_path / "manifest.jsonl"
    lines = [{"image": f"{row}.jpg", "captions": [f"caption {row}", f"another {row}"]} for row in range(66)]
    manifest.write_text("\n".join(map(json.dumps, lines)))
    vectors, contexts = gather(manifest, None, Encoder())  # type: ignore[arg-type]
    assert vectors.shape == (64, 384)
    assert {caption for own in contexts for caption in own} == {"caption 0", "another 0", "caption 1", "another 1"}
