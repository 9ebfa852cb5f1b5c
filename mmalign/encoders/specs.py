"""The names of the encoders that come with mmalign."""

from __future__ import annotations

LITE_VERSIONS = {
    "lite@1": "mmalign.encoders.lite.v1.LiteEncoder",
    "lite@2": "mmalign.encoders.lite.v2.Lite2Encoder",
}
"""Every version of the encoder that needs no download, oldest first, and its class; a new one is one more line."""

LITE_SPECS: tuple[str, ...] = tuple(reversed(LITE_VERSIONS))
"""The versions, newest first."""

LITE_SPEC = LITE_SPECS[0]
"""What `lite` means: the newest version."""
