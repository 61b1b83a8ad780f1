"""Parts of the benchmark of reduced precision."""
