"""Checks other than the comparison of outputs: files, tensors, graphs, preprocessing."""
