"""Which index suits the data: recipes, bytes, time and recall before anything is built."""
