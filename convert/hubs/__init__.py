"""Weights on a model hub: found in its cache or downloaded. One file a hub, and their table."""
