"""A collection: its items, searches, indexes and upkeep behind one class."""
