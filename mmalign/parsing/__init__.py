"""A sentence to its phrases and their relations."""
