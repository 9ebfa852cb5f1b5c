"""What an index finds of the true neighbours: measured with bounds, and kept."""
