"""Where weights come from: a seed, a file, a folder, a hub. One file a kind, and their table."""
