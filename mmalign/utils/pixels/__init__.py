"""Pictures of any mode, depth and colour profile as 8-bit sRGB."""

from mmalign.utils.pixels.convert import to_rgb
from mmalign.utils.pixels.profiles import profile_conversion

__all__ = ["profile_conversion", "to_rgb"]
