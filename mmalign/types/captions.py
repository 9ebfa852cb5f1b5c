"""What captioning gives: a caption, and what speaks for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmalign.types.geometry import Region
from mmalign.types.json_ready import json_ready_dict
from mmalign.types.notes import Note


@dataclass(frozen=True, slots=True)
class CaptionEvidence:
    """One caption that was retrieved for a picture.

    Attributes:
        text: The caption.
        source: What it belongs to, such as an item's id; empty where not known.
        score: How near it is to the picture.
        influence: How much less likely the written caption is, in nats of log-likelihood, or how much less is agreed
            with it, where this one is left out; None where nobody asked, or the decoder does not tell. Below 0 it spoke
            against what was written.
    """

    text: str
    source: str
    score: float
    influence: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        payload = {"text": self.text, "source": self.source, "score": self.score, "influence": self.influence}
        return json_ready_dict(payload)


@dataclass(frozen=True, slots=True)
class CaptionSpan:
    """A part of a caption, and what speaks for it.

    Attributes:
        text: The word or phrase.
        start: Where it begins in the caption, in characters.
        end: Where it ends, exclusive.
        kind: `word`, a content word, or `phrase`, a noun phrase that was looked for in the picture.
        evidence: Of a word: which of the caption's `evidence` hold it, by index.
        region: Of a phrase: where it was found, or None.
        supported: Of a phrase: whether it was found; None where nobody looked. Of a word: whether evidence holds it.
        probability: Of a phrase: that what it names is there, 0 to 1, or None.
    """

    text: str
    start: int
    end: int
    kind: str
    evidence: tuple[int, ...] = ()
    region: Region | None = None
    supported: bool | None = None
    probability: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        payload: dict[str, Any] = {"text": self.text, "start": self.start, "end": self.end, "kind": self.kind}
        if self.kind == "word":
            return json_ready_dict({**payload, "evidence": self.evidence, "supported": self.supported})
        found = {"region": self.region, "supported": self.supported, "probability": self.probability}
        return json_ready_dict({**payload, **found})


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption of a picture.

    Attributes:
        text: The caption.
        score: What it was chosen by, higher is better; comparable within one mode alone.
        mode: What wrote it: `decoder`, `consensus`, `nearest`, or a decoder's name.
        evidence: The captions that were retrieved, best first.
        spans: Its content words, and its noun phrases where they were looked for.
        alternatives: Other captions that were considered, best first.
        notes: Remarks that a person should see.
    """

    text: str
    score: float
    mode: str
    evidence: tuple[CaptionEvidence, ...] = ()
    spans: tuple[CaptionSpan, ...] = ()
    alternatives: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()

    def __str__(self) -> str:
        return self.text

    @property
    def unsupported(self) -> tuple[CaptionSpan, ...]:
        """Phrases that were looked for and not found, and words that no evidence holds."""
        return tuple(span for span in self.spans if span.supported is False)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return json_ready_dict(
            {
                "caption": self.text,
                "score": self.score,
                "mode": self.mode,
                "evidence": self.evidence,
                "spans": self.spans,
                "alternatives": self.alternatives,
                "notes": self.notes,
            }
        )
