"""Prefixes that training tools put before the names of tensors, and their removal.

A model that torch.compile, DataParallel or FSDP wrapped saves its tensors under longer names. So does a model
that is an attribute of a training module. Only the prefixes declared here are removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

WRAPPED_MODULES = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""Names of wrapped modules: of torch.compile, of FSDP, and of activation checkpointing. They may stand before
any part of a name, because a tool can wrap a part of a model."""
PREFIXES = ("module.", "model.", "teacher.", "backbone.")
"""Names of the attribute that holds the model: removed if every name begins with it."""
Rename = Callable[[Iterable[str]], tuple[dict[str, str], tuple[str, ...]]]
"""Takes the names of all tensors; returns the new name of each by the old one, and the removed prefixes."""


def peel(names: Iterable[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Remove the declared prefixes.

    Args:
        names: the names of all tensors of a checkpoint.

    Returns:
        The new name of each tensor by the old one, and the prefixes that were removed, in order. If two
        tensors would get the same name, nothing is removed.
    """
    old = list(names)
    new, removed = list(old), []
    while True:
        inside = next((part for part in WRAPPED_MODULES if any(_has(name, part) for name in new)), "")
        before = next((part for part in PREFIXES if new and all(name.startswith(part) for name in new)), "")
        if before:
            new = [name.removeprefix(before) for name in new]
        elif inside:
            new = [_without(name, inside) for name in new]
        else:
            break
        removed.append(before or inside)
    if len(set(new)) < len(new) or "" in new:
        return dict(zip(old, old, strict=True)), ()
    return dict(zip(old, new, strict=True)), tuple(removed)


def keep(names: Iterable[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Keep every name: see :func:`peel`."""
    return {name: name for name in names}, ()


def _has(name: str, part: str) -> bool:
    return name.startswith(part) or f".{part}" in name


def _without(name: str, part: str) -> str:
    return f".{name}".replace(f".{part}", ".").removeprefix(".")
