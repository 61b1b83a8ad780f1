"""Version 2 of the recipe of synthetic weights."""
