"""A caption for a picture, from what was retrieved for it."""
