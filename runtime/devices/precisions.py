"""Which precisions a device runs torch variants in, of those that are asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from vconv.errors import InputError, UnknownNameError
from vconv.precisions import AUTO, PRECISIONS, Precision
from vconv.runtime.devices.base import Device


def names_without(types: Collection[str] = ()) -> tuple[str, ...]:
    """Name the precisions that need none of some types, by torch's names of those."""
    return tuple(name for name, precision in PRECISIONS.items() if precision.types.isdisjoint(types))


def find_precisions(names: Sequence[str], device: Device) -> list[Precision]:
    """Return the precisions that are asked for; what the device usually runs for ``auto``.

    Raises:
        UnknownNameError: there is no such precision.
        InputError: no precision is named, or the device does not run it.
    """
    if list(names) == [AUTO]:
        return [PRECISIONS[name] for name in device.usual]
    for name in names:
        if name not in PRECISIONS:
            choices = [choice for choice in (AUTO, *PRECISIONS) if choice != name]
            raise UnknownNameError(
                "precision", name, choices, fix="name some of those, with commas between, or auto alone"
            )
        if name not in device.precisions:
            raise InputError(
                f"{device.name} has no {name}",
                got=name,
                expected=f"one of {', '.join(device.precisions)}",
                fix="leave --precision out, or name another",
            )
    if not names:
        raise InputError("--precision is empty", got="''", expected="a name", fix="leave --precision out")
    return [precision for name, precision in PRECISIONS.items() if name in names]
