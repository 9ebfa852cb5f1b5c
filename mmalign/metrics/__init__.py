"""Metrics as pure functions over arrays and token lists."""
