"""Libraries: they build, load and run the original of each system. One file per library, and their table."""
