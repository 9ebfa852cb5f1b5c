"""Bits of a collection's files flipped one at a time: what becomes of its answers."""
