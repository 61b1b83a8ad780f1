"""Recipes of sensitised synthetic weights, by version."""
