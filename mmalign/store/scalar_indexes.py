"""Scalar indexes (B-trees) of the columns by which items are looked up, so that one item costs the same in any number.

Small collections have none: to compare a column of some thousand values is as quick. Rows that were written since an
index was made or brought up to date are compared one by one, so that it need not follow each commit. An index holds
nothing that the rows do not: where one is damaged it is left alone, and made anew with the next write.
"""

from __future__ import annotations

import lance

from mmalign.store.version_checksums import indexes_are_sound

KEYS = ("id", "uri", "sha256")
"""The columns that have indexes."""

_WORTHWHILE = 65_536
# Rows that no index knows cost each lookup some time; to take them in costs as much as there are rows.
_LAG = 1 / 16


def indexed_columns(dataset: lance.LanceDataset) -> frozenset[str]:
    """The columns whose scalar index can be relied on.

    Args:
        dataset: The items.
    """
    known = _segments(dataset)
    return frozenset(known) if known and indexes_are_sound(dataset) else frozenset()


def due_indexes(dataset: lance.LanceDataset) -> dict[str, bool]:
    """Say which indexes are to be made or brought up to date.

    Args:
        dataset: The items, at their newest version.

    Returns:
        Column to whether its index is there, sound, and only lacks rows.
    """
    sizes = {fragment.fragment_id: fragment.metadata.num_rows for fragment in dataset.get_fragments()}
    rows = sum(sizes.values())
    known = _segments(dataset)
    sound = not known or indexes_are_sound(dataset)
    due = {}
    for column in _keys(dataset):
        covered = known.get(column)
        if covered is None or not sound:
            if rows >= _WORTHWHILE or covered is not None:
                due[column] = False
            continue
        lacking = sum(size for name, size in sizes.items() if name not in covered)
        if lacking > max(_WORTHWHILE, _LAG * (rows - lacking)):
            due[column] = True
    return due


def keep_up(dataset: lance.LanceDataset) -> bool:
    """Make the indexes that are worthwhile, and bring those up to date that lack many rows.

    Args:
        dataset: The items, at their newest version.

    Returns:
        Whether something was committed.
    """
    due = due_indexes(dataset)
    for column, there in due.items():
        if there:
            dataset.optimize.optimize_indices(index_names=[_name(dataset, column)])
        else:
            dataset.create_scalar_index(column, "BTREE", replace=True)
    return bool(due)


def remake(dataset: lance.LanceDataset) -> None:
    """Make all indexes anew that are there, so that they hold no value that no row has.

    Args:
        dataset: The items, at their newest version.
    """
    for column in _segments(dataset):
        name = _name(dataset, column)
        dataset.drop_index(name)
        dataset.create_scalar_index(column, "BTREE", name=name)


def _keys(dataset: lance.LanceDataset) -> list[str]:
    """The keys that a table has: that of a view has not all of them."""
    return [column for column in KEYS if column in dataset.schema.names]


def _segments(dataset: lance.LanceDataset) -> dict[str, set[int]]:
    """By column, the fragments that its index knows."""
    found: dict[str, set[int]] = {}
    for index in dataset.describe_indices():
        if len(index.field_names) == 1 and index.field_names[0] in KEYS and index.index_type == "BTree":
            covered = found.setdefault(index.field_names[0], set())
            for segment in index.segments:
                covered.update(segment.fragment_ids)
    return found


def _name(dataset: lance.LanceDataset, column: str) -> str:
    return next(str(index.name) for index in dataset.describe_indices() if list(index.field_names) == [column])
