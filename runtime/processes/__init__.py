"""Child processes, and the measurement of peak memory in them."""
