"""Every version of the recipe of synthetic weights."""

from __future__ import annotations

from collections.abc import Mapping

from vconv.convert.sources.recipes import first
from vconv.convert.sources.recipes.base import Recipe
from vconv.convert.sources.recipes.second import recipe as second

RECIPES: Mapping[int, Recipe] = {recipe.version: recipe for recipe in (first.RECIPE, second.RECIPE)}
"""By version. An artifact whose manifest names no version has weights of version 1."""
LATEST = max(RECIPES)
"""The version that new synthetic weights have."""
