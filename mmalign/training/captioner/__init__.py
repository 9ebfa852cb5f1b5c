"""Training what writes captions."""
