"""Metrics as pure functions over arrays and token lists."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mmalign.metrics.boxes import Float64Array as Float64Array
    from mmalign.metrics.boxes import as_boxes as as_boxes
    from mmalign.metrics.boxes import first_hit as first_hit
    from mmalign.metrics.boxes import heat_peak as heat_peak
    from mmalign.metrics.boxes import iou_matrix as iou_matrix
    from mmalign.metrics.boxes import points_inside as points_inside
    from mmalign.metrics.boxes import recall_of_ranks as recall_of_ranks
    from mmalign.metrics.boxes import union_box as union_box
    from mmalign.metrics.caption import FIGURES as FIGURES
    from mmalign.metrics.caption import CaptionScores as CaptionScores
    from mmalign.metrics.caption import score_captions as score_captions
    from mmalign.metrics.cider import CaptionVectors as CaptionVectors
    from mmalign.metrics.cider import DocumentFrequencies as DocumentFrequencies
    from mmalign.metrics.cider import WordRuns as WordRuns
    from mmalign.metrics.cider import cider_table as cider_table
    from mmalign.metrics.clipscore import clip_score as clip_score
    from mmalign.metrics.clipscore import ref_clip_score as ref_clip_score
    from mmalign.metrics.ptb import Tokens as Tokens
    from mmalign.metrics.ptb import caption_tokens as caption_tokens
    from mmalign.metrics.retrieval import any_hit_at_k as any_hit_at_k
    from mmalign.metrics.retrieval import bootstrap_interval as bootstrap_interval
    from mmalign.metrics.retrieval import median_rank as median_rank
    from mmalign.metrics.retrieval import precision_at_k as precision_at_k
    from mmalign.metrics.retrieval import retrieval_ranks as retrieval_ranks

# Loaded at first use, so that nobody waits for what is not needed.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "caption": ["CaptionScores", "FIGURES", "score_captions"],
        "cider": ["CaptionVectors", "DocumentFrequencies", "WordRuns", "cider_table"],
        "clipscore": ["clip_score", "ref_clip_score"],
        "boxes": [
            "Float64Array",
            "as_boxes",
            "first_hit",
            "heat_peak",
            "iou_matrix",
            "points_inside",
            "recall_of_ranks",
            "union_box",
        ],
        "ptb": ["Tokens", "caption_tokens"],
        "retrieval": ["any_hit_at_k", "bootstrap_interval", "median_rank", "precision_at_k", "retrieval_ranks"],
    },
)
