"""What a patch is, and how patches are put on a model and taken off again.

A patch is a named change with a reason, a rule for where it applies, a count of what it must touch, an
undo, and carriers: the things by which it reaches the user. transformers renames its modules from one
version to the next, so an assignment to a remembered attribute may do nothing at all; the count is what
turns such silence into an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from vconv.convert.network import Network
from vconv.convert.weights.ledger import MatchedTensor
from vconv.errors import PatchError

Undo = Callable[[], None]
Carrier = Literal["config", "checkpoint", "graph", "vconv.load"]


@dataclass(frozen=True)
class Site:
    """One place in a model that a patch must touch.

    Args:
        name: where, for messages.
        done: whether the model already has the change, as one built from a patched config does.
        apply: makes the change and returns what undoes it.
    """

    name: str
    done: bool
    apply: Callable[[], Undo]


@dataclass(frozen=True)
class WeightsFinding:
    """What a patch finds in a checkpoint.

    Args:
        apply: whether these weights allow the patch.
        proof: what was found; empty where a patch does not look at weights.
        drops: canonical keys of the tensors that it leaves out.
    """

    apply: bool = True
    proof: str = ""
    drops: tuple[str, ...] = ()


def _unchanged(network: Network, config: dict[str, Any]) -> dict[str, Any]:
    return config


def _always(network: Network, matches: Sequence[MatchedTensor]) -> WeightsFinding:
    return WeightsFinding()


@dataclass(frozen=True)
class Patch:
    """One patch: a row of the table.

    Args:
        name: its name.
        reason: why it is needed.
        corrective: whether it moves the library's model to the authors' network; otherwise it is
            equivalent, and changes no value.
        carriers: by what it reaches the user of a network.
        applies: tells whether a network calls for it.
        expected: how many places it must touch.
        sites: finds those places in a model as the library builds it from the original or the patched config.
        edit_config: the configuration that makes the stock library build the patched model.
        decide: looks at the weights and tells whether they allow it; by default they do.
    """

    name: str
    reason: str
    corrective: bool
    carriers: Callable[[Network], tuple[Carrier, ...]]
    applies: Callable[[Network], bool]
    expected: Callable[[Network], int]
    sites: Callable[[nn.Module, Network], list[Site]]
    edit_config: Callable[[Network, dict[str, Any]], dict[str, Any]] = _unchanged
    decide: Callable[[Network, Sequence[MatchedTensor]], WeightsFinding] = _always


@dataclass(frozen=True)
class Applied:
    """What one patch found in a model.

    Args:
        patch: its name.
        sites: places found, as many as the architecture must have.
        carried: how many of them the model had already.
    """

    patch: str
    sites: int
    carried: int


def find_sites(patch: Patch, model: nn.Module, network: Network) -> list[Site]:
    """Find the places that a patch must touch.

    Raises:
        PatchError: there are more or fewer than the architecture must have.
    """
    sites = patch.sites(model, network)
    expected = patch.expected(network)
    if len(sites) != expected:
        raise PatchError(
            f"the patch {patch.name} does not fit this {type(model).__name__}",
            got=f"{len(sites)} places to change",
            expected=f"{expected}, as {network.layout.family} with {network.blocks} blocks has",
            fix="use a supported version of transformers (4.57 or 5) or timm (1.0.27 or later), unmodified",
        )
    return sites


@contextlib.contextmanager
def applied(model: nn.Module, network: Network, patches: Iterable[Patch]) -> Iterator[list[Applied]]:
    """Put patches on a model, and take them off on exit, whatever happens.

    Args:
        model: a model as the library builds it.
        network: what it is.
        patches: the patches to apply, in order.

    Yields:
        What each patch found.

    Raises:
        PatchError: a patch did not find exactly the places that the architecture must have.
    """
    with contextlib.ExitStack() as undone:
        found = []
        for patch in patches:
            sites = find_sites(patch, model, network)
            carried = sum(site.done for site in sites)
            for site in sites:
                if not site.done:
                    undone.callback(site.apply())
            found.append(Applied(patch.name, len(sites), carried))
        yield found
