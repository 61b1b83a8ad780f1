"""Sources of weights: a seed, a file, a folder, a hub. One file per kind, and their table."""
