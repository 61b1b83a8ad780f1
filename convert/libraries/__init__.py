"""Libraries: what builds, loads and runs the original of each system. One file a library, and their table."""
