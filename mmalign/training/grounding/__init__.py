"""Training the head that says where a phrase is."""
