"""Training of encoders, captioners and grounding heads, over one loop."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mmalign.training.captioner.config import read_captioner_config as read_captioner_config
    from mmalign.training.captioner.train import train_captioner as train_captioner
    from mmalign.training.contrastive.config import read_config as read_config
    from mmalign.training.contrastive.train import train_contrastive as train_contrastive
    from mmalign.training.grounding.config import HeadTraining as HeadTraining
    from mmalign.training.grounding.train import train_grounding as train_grounding
    from mmalign.training.near_duplicates import fuzzy_likeness as fuzzy_likeness
    from mmalign.training.near_duplicates import same_words as same_words

# Loaded at first use, so that nobody waits for what is not needed.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "captioner.config": ["read_captioner_config"],
        "captioner.train": ["train_captioner"],
        "contrastive.config": ["read_config"],
        "near_duplicates": ["fuzzy_likeness", "same_words"],
        "contrastive.train": ["train_contrastive"],
        "grounding.config": ["HeadTraining"],
        "grounding.train": ["train_grounding"],
    },
)
