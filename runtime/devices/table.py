"""The table of devices. A new kind of device is one file and one row of this table.

Nothing heavy is imported here, so that the command line can name the kinds; a row's file is imported when it
is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from vconv.errors import AbsentDeviceError, InputError, UnknownNameError
from vconv.runtime.devices.base import DEFAULT_SETTINGS, Device, Settings

ALL = "all"
"""The name that stands for every device of this machine, simulated ones excepted."""
_HERE = "vconv.runtime.devices"


@dataclass(frozen=True)
class DeviceKind:
    """A kind of device.

    Its file has four functions: ``count()`` returns how many such devices this machine has; ``make(index,
    settings)`` describes one; ``absent()`` says what was found instead if there is none; ``fix()`` says what
    to do then.

    Args:
        name: its name on the command line.
        home: the module that is its file.
        takes: the names of the settings that it supports.
        numbered: whether a machine can have several, each with an index.
        simulated: whether it imitates another device; ``all`` does not include it.
    """

    name: str
    home: str
    takes: tuple[str, ...] = ()
    numbered: bool = True
    simulated: bool = False

    @property
    def shown(self) -> str:
        """Its name in the help: ``cuda[:N]``."""
        return self.name + "[:N]" * self.numbered

    @property
    def _file(self) -> Any:
        return import_module(self.home)

    def count(self) -> int:
        """Return how many devices of this kind the machine has."""
        return int(self._file.count())

    def make(self, index: int, settings: Settings) -> Device:
        """Describe one device of this kind.

        Raises:
            InputError: the device does not support the settings.
        """
        found: Device = self._file.make(index, settings)
        return found

    def absent(self) -> str:
        """Say what was found instead if the machine has no such device."""
        return str(self._file.absent())

    def fix(self) -> str:
        """Say what to do if the machine has no such device."""
        return str(self._file.fix())


KINDS: Mapping[str, DeviceKind] = {
    kind.name: kind
    for kind in (
        DeviceKind("cpu", f"{_HERE}.cpu", numbered=False),
        DeviceKind("cuda", f"{_HERE}.cuda"),
        DeviceKind("npu", f"{_HERE}.npu", takes=("hf32",)),
        DeviceKind(
            "npu-sim",
            f"{_HERE}.npu_sim",
            takes=("hf32", "profile", "fusions"),
            numbered=False,
            simulated=True,
        ),
    )
}
"""Every kind of device, by name."""


def find_device(name: str, settings: Settings = DEFAULT_SETTINGS) -> Device:
    """Look a device up by its name: ``cpu``, ``cuda``, ``cuda:1``, ``npu:0``, ``npu-sim``.

    Args:
        name: its name; without an index, the first of its kind.
        settings: how the device is to compute.

    Raises:
        UnknownNameError: there is no such kind.
        AbsentDeviceError: this machine has no such device.
        InputError: the device does not support one of the settings.
    """
    match = re.fullmatch(r"([a-z-]+)(?::(\d{1,3}))?", name)
    if match is None or match[1] not in KINDS:
        raise UnknownNameError("device", name, KINDS, fix="choose one of the devices listed")
    kind, index = KINDS[match[1]], int(match[2] or 0)
    count = kind.count()
    if index >= count:
        raise AbsentDeviceError(
            f"there is no {kind.name}:{index}" if count else f"there is no {kind.name}",
            got=f"{count} of them" if count else kind.absent(),
            expected=f"{kind.name}:0 to {kind.name}:{count - 1}" if count > 1 else kind.name,
            fix=kind.fix(),
        )
    _require_taken(settings, [kind], name, name)
    return kind.make(index, settings)


def _require_taken(settings: Settings, kinds: Iterable[DeviceKind], name: str, subject: str) -> None:
    """Refuse a setting that no device of the given kinds supports.

    Args:
        settings: the settings that are asked for.
        kinds: the kinds of devices in question.
        name: the device, as the user named it.
        subject: the words for the device in the error.
    """
    taken = {setting for kind in kinds for setting in kind.takes}
    for setting in settings.given:
        if setting not in taken:
            raise InputError(
                f"--{setting} has no effect on {subject}",
                got=f"--device {name}",
                expected=" or ".join(kind.name for kind in KINDS.values() if setting in kind.takes),
                fix=f"leave --{setting} out, or choose that device",
            )


def find_devices(name: str, settings: Settings = DEFAULT_SETTINGS) -> list[Device]:
    """Look devices up: every device of this machine for ``all``, else the device with this name.

    With ``all``, each device takes the settings that it supports. Simulated devices are not included.

    Raises:
        UnknownNameError: see :func:`find_device`.
        InputError: see :func:`find_device`.
    """
    if name.partition(":")[0] not in (*KINDS, ALL):
        choices = (*KINDS, ALL)
        raise UnknownNameError("device", name, choices, fix="choose one of the devices listed")
    if name != ALL:
        return [find_device(name, settings)]
    kinds = [(kind, kind.count()) for kind in KINDS.values() if not kind.simulated]
    here = [kind for kind, count in kinds if count]
    _require_taken(settings, here, name, "any device of this machine")
    return [kind.make(index, settings.only(kind.takes)) for kind, count in kinds for index in range(count)]
