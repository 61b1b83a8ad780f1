"""Converters: from weights to checkpoints and graphs. They transform; they run no model on data."""
