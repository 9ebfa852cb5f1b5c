"""Parts of a picture that a phrase may mean: proposals, detectors and boxes of the user's own."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mmalign.regions.detectors import Detector as Detector
    from mmalign.regions.given import GivenRegion as GivenRegion
    from mmalign.regions.given import given_regions as given_regions
    from mmalign.regions.load import load_detector as load_detector
    from mmalign.regions.peaks import peak_regions as peak_regions
    from mmalign.regions.proposals import box_prior as box_prior
    from mmalign.regions.proposals import propose_regions as propose_regions

# Loaded at first use, so that nobody waits for what is not needed.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "detectors": ["Detector"],
        "given": ["GivenRegion", "given_regions"],
        "load": ["load_detector"],
        "peaks": ["peak_regions"],
        "proposals": ["propose_regions", "box_prior"],
    },
)
