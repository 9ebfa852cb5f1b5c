"""Pictures of any mode, depth and colour profile as 8-bit sRGB."""

from mmalign.pixels.convert import to_rgb

__all__ = ["to_rgb"]
