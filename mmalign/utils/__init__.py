"""What every package may use: similarity, pixels, locks, processes, progress, quantities and checksums of JSON."""
