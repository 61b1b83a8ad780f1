"""The patches, one per file, and their table."""
