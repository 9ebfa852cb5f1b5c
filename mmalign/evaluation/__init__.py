"""The measured tables: how good an encoder is on a manifest of pictures."""
