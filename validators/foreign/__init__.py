"""Graphs that vconv did not export: what they take and give, and whether they are right."""
