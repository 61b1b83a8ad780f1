"""Checks beside the comparison of outputs: files, tensors, graphs, preprocessing."""
