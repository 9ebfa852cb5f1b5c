"""The encoders that come with mmalign, every byte of them."""
