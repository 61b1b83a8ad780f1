"""Architectures: descriptions of networks that do not depend on a library. One file each, and their table."""
