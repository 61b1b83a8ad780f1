"""The systems of the catalog that weights are nearest to, by the names and shapes of their tensors."""

from __future__ import annotations

from dataclasses import dataclass

from vconv.catalog import systems
from vconv.convert.libraries.readers import network
from vconv.convert.network import Network
from vconv.convert.weights.recognition import Fit, Shapes, recognise
from vconv.errors import WeightsError

_LIBRARY = "transformers"
"""The library whose systems are looked at: its configurations are read at once, and their weights may have
the layout of any home."""
_FAR = 0.5
"""A layout that does not know a greater share of the names is not near."""
_SHOWN = 3
"""Number of systems that an error names."""


@dataclass(frozen=True)
class Nearest:
    """The systems of the catalog that weights are nearest to.

    Args:
        names: their short names; several if they differ in their training alone.
        fit: how the weights fit their layout.
    """

    names: tuple[str, ...]
    fit: Fit

    def explains(self, found: Fit, own: Network) -> bool:
        """Return whether these systems say more of weights than the one that they were given for.

        Args:
            found: how the weights fit the system that they were given for.
            own: the network of that system.
        """
        theirs, faults = self.fit.network.layout.architecture, self.fit.faults
        return faults < max(found.faults, 1) and (not faults or theirs is not own.layout.architecture)

    def refusal(self, own: Network) -> WeightsError:
        """Return the error for weights that were given for another system, with this network."""
        faults = self.fit.faults
        differing = f"; {faults} tensor{'s' * (faults > 1)} of it differ{'s' * (faults == 1)}" * bool(faults)
        return WeightsError(
            "the weights are of another system",
            got=f"nearest is {self}{differing}",
            expected=f"the tensors of {own.layout.family}, or the same network in another layout",
            fix=f"export {self.names[0]} with them, or give the weights of this system",
        )

    def __str__(self) -> str:
        return f"{' or '.join(self.names[:_SHOWN])} in the layout of {self.fit.network.layout.home}"


def nearest(shapes: Shapes) -> Nearest | None:
    """Find the systems that weights are nearest to; None if they are near to none.

    Args:
        shapes: the shape of each tensor of the checkpoint, by name.
    """
    near: dict[str, Fit] = {}
    for name, system in systems.SYSTEMS.items():
        if system.library == _LIBRARY:
            own = network(system.config)
            fit = recognise(own, shapes)
            same = has_registers(fit.network) == has_registers(own)
            if same and len(fit.unexpected) <= _FAR * len(shapes):
                near[name] = fit
    if not near:
        return None
    least = min(fit.faults for fit in near.values())
    names = tuple(name for name, fit in near.items() if fit.faults == least)
    return Nearest(names, near[names[0]])


def has_registers(net: Network) -> bool:
    """Return whether a network has registers: a layout takes them as an option, a system has them or not."""
    return any(group.parts.get("registers") for group in net.groups())
