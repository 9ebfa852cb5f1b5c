"""What every package may use: similarity, pixels, locks, processes, progress, quantities and checksums of JSON."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mmalign.utils.files import Stamp as Stamp
    from mmalign.utils.files import file_stamp as file_stamp
    from mmalign.utils.files import link_or_copy as link_or_copy
    from mmalign.utils.files import sync_path as sync_path
    from mmalign.utils.files import write_atomic as write_atomic
    from mmalign.utils.json_checksum import CHECKSUM_KEY as CHECKSUM_KEY
    from mmalign.utils.json_checksum import holds_checksum as holds_checksum
    from mmalign.utils.json_checksum import with_checksum as with_checksum
    from mmalign.utils.locks import lock as lock
    from mmalign.utils.pixels import profile_conversion as profile_conversion
    from mmalign.utils.pixels import to_rgb as to_rgb
    from mmalign.utils.pixels.profiles import matrix_profile as matrix_profile
    from mmalign.utils.pixels.strips import STRIP_PIXELS as STRIP_PIXELS
    from mmalign.utils.pixels.strips import strips as strips
    from mmalign.utils.processes import is_running as is_running
    from mmalign.utils.processes import memory_in_use as memory_in_use
    from mmalign.utils.progress import ShowProgress as ShowProgress
    from mmalign.utils.progress import track as track
    from mmalign.utils.progress import track_several as track_several
    from mmalign.utils.quantities import parse_bytes as parse_bytes
    from mmalign.utils.quantities import parse_count as parse_count
    from mmalign.utils.quantities import parse_seconds as parse_seconds
    from mmalign.utils.quantities import show_bytes as show_bytes
    from mmalign.utils.quantities import show_bytes_up as show_bytes_up
    from mmalign.utils.quantities import show_seconds as show_seconds
    from mmalign.utils.similarity import Float32Array as Float32Array
    from mmalign.utils.similarity import Int64Array as Int64Array
    from mmalign.utils.similarity import as_cosines as as_cosines
    from mmalign.utils.similarity import as_matrix as as_matrix
    from mmalign.utils.similarity import exact_top_k as exact_top_k
    from mmalign.utils.similarity import l2_normalize as l2_normalize
    from mmalign.utils.similarity import merge_top_k as merge_top_k
    from mmalign.utils.similarity import off_device as off_device
    from mmalign.utils.storage import first_line as first_line
    from mmalign.utils.storage import storage_errors as storage_errors

# Loaded at first use, so that nobody waits for what is not needed.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "files": ["Stamp", "file_stamp", "link_or_copy", "sync_path", "write_atomic"],
        "json_checksum": ["CHECKSUM_KEY", "holds_checksum", "with_checksum"],
        "locks": ["lock"],
        "pixels": ["profile_conversion", "to_rgb"],
        "pixels.profiles": ["matrix_profile"],
        "pixels.strips": ["STRIP_PIXELS", "strips"],
        "processes": ["is_running", "memory_in_use"],
        "progress": ["ShowProgress", "track", "track_several"],
        "quantities": ["parse_bytes", "parse_count", "parse_seconds", "show_bytes", "show_bytes_up", "show_seconds"],
        "similarity": [
            "Float32Array",
            "Int64Array",
            "as_cosines",
            "as_matrix",
            "exact_top_k",
            "l2_normalize",
            "merge_top_k",
            "off_device",
        ],
        "storage": ["first_line", "storage_errors"],
    },
)
