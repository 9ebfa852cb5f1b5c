"""Encoders: texts and pictures to vectors in one space."""
