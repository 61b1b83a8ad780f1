"""The precisions in which a device runs torch variants."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from vconv.errors import InputError, UnknownNameError
from vconv.precisions import AUTO, Precision, torch_precisions
from vconv.runtime.devices.base import Device


def names_without(types: Collection[str] = ()) -> tuple[str, ...]:
    """Return the names of the precisions that need none of the given types (torch's names)."""
    return tuple(name for name, precision in torch_precisions().items() if precision.types.isdisjoint(types))


def find_precisions(names: Sequence[str], device: Device) -> list[Precision]:
    """Return the precisions that are asked for; for ``auto``, those that the device runs by default.

    Raises:
        UnknownNameError: there is no such precision.
        InputError: no precision is named, or the device does not support one.
    """
    if list(names) == [AUTO]:
        return [torch_precisions()[name] for name in device.usual]
    for name in names:
        if name not in torch_precisions():
            choices = [choice for choice in (AUTO, *torch_precisions()) if choice != name]
            raise UnknownNameError(
                "precision of torch variants",
                name,
                choices,
                fix="name some of those, separated by commas, or auto alone; graphs are judged in their own",
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
    return [precision for name, precision in torch_precisions().items() if name in names]
