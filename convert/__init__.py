"""Converters: sources, layouts, patches, checkpoints and graphs. They transform; they run no model on data."""
