"""What goes in: sources of items, and safe decoding of their pictures."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mmalign.media.decoding import decode_image as decode_image
    from mmalign.media.embedded import parse_embedded as parse_embedded
    from mmalign.media.embedded import row_is_there as row_is_there
    from mmalign.media.exclusion import Exclusion as Exclusion
    from mmalign.media.exclusion import Pattern as Pattern
    from mmalign.media.exclusion import check_patterns as check_patterns
    from mmalign.media.exclusion import join_patterns as join_patterns
    from mmalign.media.images import IMAGE_SUFFIXES as IMAGE_SUFFIXES
    from mmalign.media.images import Picture as Picture
    from mmalign.media.images import load_pictures as load_pictures
    from mmalign.media.loaders import Loaded as Loaded
    from mmalign.media.loaders import Loader as Loader
    from mmalign.media.loaders import register_loader as register_loader
    from mmalign.media.loaders import unregister_loader as unregister_loader
    from mmalign.media.loading import PICTURES as PICTURES
    from mmalign.media.loading import load_media as load_media
    from mmalign.media.loading import loader_of as loader_of
    from mmalign.media.locating import Locator as Locator
    from mmalign.media.locating import on_disk as on_disk
    from mmalign.media.memory import Window as Window
    from mmalign.media.memory import decoding_budget as decoding_budget
    from mmalign.media.policy import MediaPolicy as MediaPolicy
    from mmalign.media.policy import check_policy as check_policy
    from mmalign.media.reading import Media as Media
    from mmalign.media.reading import read_media as read_media
    from mmalign.media.reading import sha256_hex as sha256_hex
    from mmalign.media.sources import default_collection_path as default_collection_path
    from mmalign.media.sources import exclusion_of as exclusion_of
    from mmalign.media.sources import open_source as open_source
    from mmalign.media.sources import source_base as source_base
    from mmalign.media.sources import source_folder as source_folder
    from mmalign.media.thumbnails import as_jpeg as as_jpeg
    from mmalign.media.thumbnails import local_jpeg as local_jpeg
    from mmalign.media.thumbnails import thumbnail as thumbnail
    from mmalign.media.uris import is_url as is_url
    from mmalign.media.uris import same_uris as same_uris
    from mmalign.media.uris import to_uri as to_uri
    from mmalign.media.uris import uri_to_path as uri_to_path

# Loaded at first use, so that nobody waits for what is not needed.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "decoding": ["decode_image"],
        "embedded": ["parse_embedded", "row_is_there"],
        "exclusion": ["Exclusion", "Pattern", "check_patterns", "join_patterns"],
        "images": ["IMAGE_SUFFIXES", "Picture", "load_pictures"],
        "loaders": ["Loaded", "Loader", "register_loader", "unregister_loader"],
        "loading": ["PICTURES", "load_media", "loader_of"],
        "locating": ["Locator", "on_disk"],
        "memory": ["Window", "decoding_budget"],
        "policy": ["MediaPolicy", "check_policy"],
        "reading": ["Media", "read_media", "sha256_hex"],
        "sources": ["default_collection_path", "exclusion_of", "open_source", "source_base", "source_folder"],
        "thumbnails": ["as_jpeg", "local_jpeg", "thumbnail"],
        "uris": ["is_url", "same_uris", "to_uri", "uri_to_path"],
    },
)
