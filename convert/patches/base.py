"""Definition of a patch, and the functions that apply patches to a model and undo them.

A patch is a named change. It has a reason, a rule for the networks that need it, the number of places that it
must change, an undo, and carriers: the files or functions that bring the change to the user. transformers
renames its modules between versions, so that an assignment to an old attribute may have no effect. The check
of the number of places turns this into an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn

from vconv.convert.network import Network
from vconv.convert.weights.ledger import MatchedTensor
from vconv.errors import PatchError

Undo = Callable[[], None]
Carrier = Literal["config", "checkpoint", "graph", "vconv.load"]


@dataclass(frozen=True)
class Site:
    """One place in a model that a patch must change.

    Args:
        name: the path of the place, for messages.
        done: whether the model already has the change, as a model that is built from a patched config does.
        apply: makes the change and returns a function that undoes it.
        calls: how often one forward pass comes to this place.
    """

    name: str
    done: bool
    apply: Callable[[], Undo]
    calls: int = 1


@dataclass(frozen=True)
class WeightsFinding:
    """The result of a patch's look at the weights of a checkpoint.

    Args:
        apply: whether these weights allow the patch.
        proof: the evidence from the weights; empty if the patch does not look at weights.
        drops: canonical keys of the tensors that the patch drops.
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
        corrective: whether it corrects the library's model to match the authors' network; otherwise it is
            equivalent, and changes no value.
        carriers: returns the files or functions that bring the change to the user of a network.
        applies: returns whether a network needs the patch.
        expected: returns the number of places that it must change.
        sites: finds those places in a model that the library builds from the original or the patched config.
        edit_config: returns the configuration from which the stock library builds the patched model.
        decide: looks at the weights and returns whether they allow the patch; by default they do.
        traced_sites: finds the places to change in a model from which a graph is traced; None for ``sites``.
        left: counts what is left to change in a patched model, by other means than ``sites``; None if nothing
            counts it.
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
    traced_sites: Callable[[nn.Module, Network], list[Site]] | None = None
    left: Callable[[nn.Module, Network], int] | None = None

    def traced(self) -> Patch:
        """Return the patch as it is applied to a model from which a graph is traced."""
        return replace(self, sites=self.traced_sites) if self.traced_sites else self


@dataclass(frozen=True)
class Applied:
    """The places that one patch found in a model.

    Args:
        patch: its name.
        sites: number of places found, which is the number that the architecture must have.
        carried: number of those places that already had the change.
    """

    patch: str
    sites: int
    carried: int


def find_sites(patch: Patch, model: nn.Module, network: Network) -> list[Site]:
    """Find the places that a patch must change.

    Raises:
        PatchError: there are more or fewer than the architecture must have.
    """
    sites = patch.sites(model, network)
    expected, found = patch.expected(network), sum(site.calls for site in sites)
    if found != expected:
        deep = "" if network.observed else f" with {network.blocks} blocks"
        raise PatchError(
            f"the patch {patch.name} does not fit this {type(model).__name__}",
            got=f"{found} places to change",
            expected=f"{expected}, the number in {network.layout.family}{deep}",
            fix="use a supported version of transformers (4.57 or 5) or timm (1.0.27 or later), unmodified",
        )
    return sites


@contextlib.contextmanager
def applied(model: nn.Module, network: Network, patches: Iterable[Patch]) -> Iterator[list[Applied]]:
    """Apply patches to a model, and undo them on exit, also after an exception.

    Args:
        model: a model as the library builds it.
        network: the network that it implements.
        patches: the patches to apply, in order.

    Yields:
        The places that each patch found.

    Raises:
        PatchError: a patch did not find exactly the places that the architecture must have.
    """
    with contextlib.ExitStack() as undone:
        found = []
        for patch in patches:
            sites = find_sites(patch, model, network)
            carried = sum(site.calls for site in sites if site.done)
            for site in sites:
                if not site.done:
                    undone.callback(site.apply())
            found.append(Applied(patch.name, sum(site.calls for site in sites), carried))
        yield found
