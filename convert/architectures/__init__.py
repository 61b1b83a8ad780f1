"""Architectures: what a network is, whatever library stores it. One file each, and their table."""
