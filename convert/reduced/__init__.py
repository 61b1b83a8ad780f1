"""Graphs in a reduced precision, made from the float32 graphs of an artifact, each with its weights file."""
