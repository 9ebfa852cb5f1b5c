"""A query to hits: plan, index, rows that it lacks, probabilities."""
