"""A gallery of small free pictures for demonstrations and tests; installed as the package `mmalign.gallery`."""
