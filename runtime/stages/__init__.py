"""Variants in stages: embeddings, blocks and head. Each stage can be run separately."""
