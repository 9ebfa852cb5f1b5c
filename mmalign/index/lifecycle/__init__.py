"""Building, extending and publishing an index, so that a kill leaves the earlier one."""
