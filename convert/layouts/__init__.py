"""Layouts: how a library names and shapes the tensors of an architecture. One file each, and their table."""
