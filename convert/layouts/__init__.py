"""Layouts: what tensors each architecture has. One file a layout, and their table."""
