"""The text towers of open_clip that look back only, without the padding after a text.

Each place of such a tower sees those before it, and the embedding is read where the text ends: what follows cannot
change it. A query of ten words fills twelve places of CLIP's 77, so that six sevenths of the work are for nothing.
open_clip itself takes texts of full length alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Where a tower of each kind of model is.
_TOWERS = {"CLIP": lambda model: model, "CustomTextCLIP": lambda model: model.text}


@dataclass(frozen=True, slots=True)
class CausalTower:
    """A text tower that looks back only.

    Attributes:
        tower: What holds its layers: the model itself, or its `text`.
        end: The token that ends a text; None where that is the one with the highest number.
    """

    tower: Any
    end: int | None

    @classmethod
    def of(cls, model: Any) -> CausalTower | None:
        """Find the text tower of a model; None where padding may change what it makes of a text."""
        kind = type(model).__name__
        tower = _TOWERS[kind](model) if kind in _TOWERS else None
        if kind == "CustomTextCLIP" and type(tower).__name__ != "TextTransformer":
            return None
        if getattr(tower, "attn_mask", None) is None or getattr(tower, "cls_emb", None) is not None:
            return None
        prefix = "text_" if kind == "CLIP" else ""
        pooling = getattr(tower, f"{prefix}pool_type", None)
        if pooling not in ("argmax", "eos"):
            return None
        return cls(tower, getattr(tower, f"{prefix}eos_id") if pooling == "eos" else None)

    def ends(self, tokens: torch.Tensor) -> torch.Tensor:
        """Where the embedding of each text is read.

        Args:
            tokens: Shape (n, places), int64.

        Returns:
            Shape (n,), int64.
        """
        return (tokens if self.end is None else (tokens == self.end).int()).argmax(dim=-1)

    def encode(self, tokens: torch.Tensor) -> torch.Tensor:
        """Do what the model's `encode_text` does, for texts of any length up to the context length.

        Args:
            tokens: Shape (n, places), int64; each row reaches to the end of its text at least.

        Returns:
            Shape (n, dim), not scaled to length 1.
        """
        import torch

        tower, places = self.tower, tokens.shape[1]
        kind = tower.transformer.get_cast_dtype()
        states = tower.token_embedding(tokens).to(kind) + tower.positional_embedding[:places].to(kind)
        states = tower.transformer(states, attn_mask=tower.attn_mask[:places, :places])
        pooled: torch.Tensor = tower.ln_final(
            states[torch.arange(len(tokens), device=tokens.device), self.ends(tokens)]
        )
        projection = tower.text_projection
        if projection is None:
            return pooled
        projected: torch.Tensor = projection(pooled) if isinstance(projection, torch.nn.Linear) else pooled @ projection
        return projected
