"""What goes in: sources of items, and safe decoding of their pictures."""
