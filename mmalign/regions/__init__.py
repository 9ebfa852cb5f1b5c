"""Parts of a picture that a phrase may mean: proposals, detectors and boxes of the user's own."""
