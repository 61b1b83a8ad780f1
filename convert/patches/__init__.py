"""The patches, one a file, and their table."""
