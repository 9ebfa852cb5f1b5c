"""mmalign connects pictures and words."""
