"""Training encoders of texts and pictures."""
