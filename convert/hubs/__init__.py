"""Weights on a model hub: found in its cache or downloaded. One file per hub, and their table."""
