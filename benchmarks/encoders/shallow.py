"""Systems in their true width and small depth."""

from __future__ import annotations

from dataclasses import replace

from vconv.catalog.systems import System, miniature

_DEPTHS = ("num_hidden_layers", "depth", "depths")


def shallow(system: System) -> System:
    """Return a system in its true width, with the blocks of its miniature."""
    small = miniature(system).config
    if system.library == "timm":
        depth = {key: value for key, value in small["model_args"].items() if key in _DEPTHS}
        return replace(system, config={**system.config, "model_args": depth})
    return replace(system, config={**system.config, **{key: small[key] for key in _DEPTHS if key in small}})
