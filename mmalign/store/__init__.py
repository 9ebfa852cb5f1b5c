"""What is kept: items and embeddings in a Lance dataset."""
