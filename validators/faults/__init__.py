"""Faults that are injected on purpose, and the folder in which they are injected."""
