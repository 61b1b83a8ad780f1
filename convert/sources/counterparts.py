"""The counterpart of a system: the same network, as another library builds it."""

from __future__ import annotations

from vconv.catalog import systems
from vconv.catalog.systems import System
from vconv.convert.architectures.base import CLASSIFIER
from vconv.convert.libraries.readers import find_reader, network
from vconv.convert.sources.class_names import published_config
from vconv.convert.sources.configurations import SAME
from vconv.convert.weights.recognition import MLPS
from vconv.errors import InputError


def counterpart(system: System, library: str) -> System:
    """Find the system of another library that has the same network and was trained on the same data.

    Args:
        system: a system.
        library: the library that builds the counterpart.

    Returns:
        The counterpart; the system itself if this library builds it.

    Raises:
        InputError: the catalog has no counterpart.
    """
    if system.library == library:
        return system
    for row in systems.SYSTEMS.values():
        if (row.library, row.trained_on) == (library, system.trained_on) and _same(row, system):
            return row
    raise InputError(
        f"{system.name} has no counterpart in {library}",
        got=f"no system of {library} with this network",
        expected=f"a system whose network {library} builds too",
        fix="omit --layout; `vconv list` shows every system",
    )


def _same(first: System, second: System) -> bool:
    """Return whether two systems have the same network; timm takes time to say what its networks are."""
    readers = find_reader(first.config), find_reader(second.config)
    architectures = [reader.layout.architecture.name for reader in readers if reader]
    return (
        len(architectures) == 2 and len(set(architectures)) == 1 and _described(first) == _described(second)
    )


def _described(system: System) -> tuple[object, ...]:
    """Return what must be equal in two libraries: the numbers of the network, and of its classes."""
    net = network(published_config(system))
    classes = net.numbers.labels if net.head == CLASSIFIER else None
    return (*(getattr(net.numbers, name) for name in SAME), net.numbers.flags & MLPS, classes)
