"""Scores to probabilities: the mapping, its fitting and its figures."""
