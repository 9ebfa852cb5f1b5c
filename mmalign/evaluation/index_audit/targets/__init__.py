"""What can be audited: one file an engine."""
