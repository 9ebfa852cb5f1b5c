"""Which phrase of a sentence belongs to which region of a picture."""
