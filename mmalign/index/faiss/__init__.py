"""Indexes of FAISS, the only place where it is imported."""
