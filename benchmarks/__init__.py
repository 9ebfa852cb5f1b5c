"""Measurements, each in its own file; `python -m benchmarks.report` turns their results into pages."""
