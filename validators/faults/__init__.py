"""Faults that are made on purpose, and the folder in which they are made."""
