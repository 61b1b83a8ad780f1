"""An artifact on disk: its manifest, its files and hashes, its results, and its staging."""
