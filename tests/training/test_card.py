from __future__ import annotations

import numpy as np

from mmalign.encoders.lite import LiteEncoder
from mmalign.evaluation.retrieval import RetrievalTable
from mmalign.training.card import model_card


def test_the_card_says_what_was_measured() -> None:
    owner = np.repeat(np.arange(50), 2)
    ranks = np.where(np.arange(100) % 4 == 0, 1, 7)
    table = RetrievalTable(
        n_images=50, n_captions=100, encoder="lite@1", text_ranks=ranks, text_owner=owner, image_ranks=ranks[:50]
    )
    card = model_card(table, data="some pictures: fifty of them", command="measure")
    assert card["quality"] == "some pictures text-to-image any-hit@1 25.0%, @10 100.0% (measured)"
    # The adapters, MiniLM's 91 MB and EfficientNet-Lite2's 25 MB.
    assert 115e6 < card["bytes"] < 125e6
    measured = card["measured"][0]
    low, high = measured["text_to_image_any_hit@1_interval_95"]
    assert low < 25.0 < high
    assert measured["fingerprint"] == LiteEncoder().fingerprint
