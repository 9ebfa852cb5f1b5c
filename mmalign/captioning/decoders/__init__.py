"""What writes sentences: the decoder that comes with mmalign, trained ones, language models and programs."""
