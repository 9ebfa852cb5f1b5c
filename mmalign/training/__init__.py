"""Training of encoders and adapters."""
