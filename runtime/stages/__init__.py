"""Variants in stages: embeddings, blocks and head, each of which can be run by itself."""
