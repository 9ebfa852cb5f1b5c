"""Where in a picture a phrase is: the learned head, and what needs no learning."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mmalign.grounding.cells import SIDE as SIDE
    from mmalign.grounding.cells import grounding_cells as grounding_cells
    from mmalign.grounding.head import Grounding as Grounding
    from mmalign.grounding.head import GroundingHead as GroundingHead
    from mmalign.grounding.head import Scoring as Scoring
    from mmalign.grounding.head import export_head as export_head
    from mmalign.grounding.head import shipped_head as shipped_head
    from mmalign.grounding.net import GroundingNet as GroundingNet
    from mmalign.grounding.net import NetSize as NetSize
    from mmalign.grounding.zero_shot import PlainGrounding as PlainGrounding
    from mmalign.grounding.zero_shot import ground_plainly as ground_plainly

# Loaded at first use, so that nobody waits for what is not needed.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cells": ["SIDE", "grounding_cells"],
        "head": ["Grounding", "GroundingHead", "Scoring", "export_head", "shipped_head"],
        "net": ["GroundingNet", "NetSize"],
        "zero_shot": ["PlainGrounding", "ground_plainly"],
    },
)
