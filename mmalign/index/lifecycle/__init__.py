"""Building, extending and publishing an index, so that a kill leaves the earlier one."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mmalign.index.lifecycle.versions import Pointer as Pointer
    from mmalign.index.lifecycle.versions import claim_workspace as claim_workspace
    from mmalign.index.lifecycle.versions import clean as clean
    from mmalign.index.lifecycle.versions import clear_work as clear_work
    from mmalign.index.lifecycle.versions import current as current
    from mmalign.index.lifecycle.versions import load_current as load_current
    from mmalign.index.lifecycle.versions import publish as publish
    from mmalign.index.lifecycle.versions import read_manifest as read_manifest
    from mmalign.index.lifecycle.versions import withdraw as withdraw

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "versions": [
            "Pointer",
            "claim_workspace",
            "clean",
            "clear_work",
            "current",
            "load_current",
            "publish",
            "read_manifest",
            "withdraw",
        ],
    },
)
