"""A collection: its items, searches, indexes and upkeep behind one class."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mmalign.collection.collection import Collection as Collection
    from mmalign.collection.description import FILE as FILE
    from mmalign.collection.generation import Generation as Generation
    from mmalign.collection.generation_files import LOCK as LOCK
    from mmalign.collection.locate import VARIABLE as VARIABLE
    from mmalign.collection.locate import locate_collection as locate_collection
    from mmalign.collection.recall import profile_of as profile_of
    from mmalign.collection.relations import places_in as places_in

# Loaded at first use, so that nobody waits for what is not needed.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "collection": ["Collection"],
        "description": ["FILE"],
        "relations": ["places_in"],
        "generation": ["Generation"],
        "generation_files": ["LOCK"],
        "locate": ["VARIABLE", "locate_collection"],
        "recall": ["profile_of"],
    },
)
