"""Accuracy: the reference, metrics, limits, and verdicts."""
