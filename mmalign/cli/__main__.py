"""`python -m mmalign.cli`."""

from mmalign.cli import main

main()
