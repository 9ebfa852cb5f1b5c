"""Vectors to neighbours: the index protocol and its implementations."""
