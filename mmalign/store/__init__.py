"""What is kept: items and embeddings in a Lance dataset."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mmalign.store.batches import Float16Array as Float16Array
    from mmalign.store.changes import find_changes as find_changes
    from mmalign.store.checksums import readable_values as readable_values
    from mmalign.store.claims import CALL as CALL
    from mmalign.store.claims import ROWS as ROWS
    from mmalign.store.claims import SIDECAR as SIDECAR
    from mmalign.store.claims import Claim as Claim
    from mmalign.store.claims import keep_for_user as keep_for_user
    from mmalign.store.claims import merge_claims as merge_claims
    from mmalign.store.claims import table_key as table_key
    from mmalign.store.columns import to_array as to_array
    from mmalign.store.copies import Copies as Copies
    from mmalign.store.digests import Digests as Digests
    from mmalign.store.fitting import CellNotes as CellNotes
    from mmalign.store.fitting import FittedItem as FittedItem
    from mmalign.store.fitting import fit_items as fit_items
    from mmalign.store.fitting import plain_item as plain_item
    from mmalign.store.item_columns import base_schema as base_schema
    from mmalign.store.lance_store import Store as Store
    from mmalign.store.location import Location as Location
    from mmalign.store.mending import Mending as Mending
    from mmalign.store.removed import Removed as Removed
    from mmalign.store.rewriting import rewrite as rewrite
    from mmalign.store.settling import Columns as Columns
    from mmalign.store.sizes import size_columns as size_columns
    from mmalign.store.view_columns import view_schema as view_schema

# Loaded at first use, so that nobody waits for what is not needed.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "batches": ["Float16Array"],
        "changes": ["find_changes"],
        "checksums": ["readable_values"],
        "columns": ["to_array"],
        "copies": ["Copies"],
        "digests": ["Digests"],
        "fitting": ["FittedItem", "CellNotes", "fit_items", "plain_item"],
        "item_columns": ["base_schema"],
        "lance_store": ["Store"],
        "location": ["Location"],
        "mending": ["Mending"],
        "removed": ["Removed"],
        "rewriting": ["rewrite"],
        "claims": ["CALL", "Claim", "ROWS", "SIDECAR", "merge_claims", "keep_for_user", "table_key"],
        "settling": ["Columns"],
        "sizes": ["size_columns"],
        "view_columns": ["view_schema"],
    },
)
