"""The memory that one variant takes, measured in a separate process, so that nothing else is counted.

In a shared process, a peak includes earlier memory: the allocator keeps memory that other variants freed, and
their weights stay loaded until they are timed. A child process holds only the libraries, and reports their
memory separately. ``python -m vconv.runtime.processes.peak_memory`` is this child: it reads an
:class:`OpenRequest` from standard input as JSON, and writes a :class:`Peak` to standard output.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vconv.artifact.artifact import Artifact, read_config
from vconv.convert.libraries.readers import network
from vconv.convert.libraries.table import library_of
from vconv.convert.network import Network
from vconv.errors import EngineError, UnavailableError
from vconv.precisions import PRECISIONS
from vconv.runtime.devices.base import Device, Settings
from vconv.runtime.devices.memory import reset_peak_memory, resident_memory
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.base import Session
from vconv.runtime.engines.table import Engine, Runs, find_engine
from vconv.runtime.engines.variants import open_original, open_variant
from vconv.runtime.processes import child
from vconv.runtime.processes.request import OpenRequest
from vconv.types import CHANNELS

CHILD = child.command("vconv.runtime.processes.peak_memory")
TIMEOUT_SECONDS = 1800.0
"""Longer than the greatest model takes to load from a slow disk."""
TIMED_OUT = "its own process did not end within {:.0f} s"
"""The reason of a variant that was given up after the timeout."""


@dataclass(frozen=True)
class Peak:
    """The memory that a variant took.

    Args:
        peak_rss_bytes: the most memory that the process had while it loaded and ran the variant, libraries
            included (VmHWM); None if not measured.
        before_bytes: the memory of the process with its libraries imported, before it loaded the variant
            (VmRSS); None if not measured.
        device_bytes: by how much loading and one run raised the peak of an accelerator; None on a CPU.
        reason: why the peak was not measured; empty if it was measured.
    """

    peak_rss_bytes: int | None = None
    before_bytes: int | None = None
    device_bytes: int | None = None
    reason: str = ""


def measure(
    subject: OpenRequest, command: Sequence[str] = CHILD, timeout_seconds: float = TIMEOUT_SECONDS
) -> Peak:
    """Open and run a variant in a separate process; return the memory that it took, or why it failed.

    Args:
        subject: the variant to open.
        command: the command of the child process.
        timeout_seconds: the time after which the child is given up.
    """
    try:
        done = subprocess.run(
            command,
            input=json.dumps(asdict(subject)),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            env=child.environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Peak(reason=TIMED_OUT.format(timeout_seconds))
    if done.returncode:
        return Peak(reason=child.ended(done.returncode, done.stderr))
    return Peak(**json.loads(done.stdout))


def peak_of(subject: OpenRequest) -> Peak:
    """Open a variant in this process and run one batch of made-up images; return the memory that it took.

    If an engine refuses the variant, or is not installed for the device, the result is a peak with a reason.
    """
    device, artifact = device_of(subject), Artifact.open(subject.artifact)
    import_libraries(subject, artifact)
    before = resident_memory()[0]
    known = reset_peak_memory()

    def run() -> None:
        with opened(subject, device) as session:
            shape = (session.batch or 1, CHANNELS, *artifact.manifest.size)
            session.run(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
            device.synchronize()

    try:
        grown = device.growth(run)
    except (UnavailableError, EngineError) as error:
        return Peak(reason=f"{error.what}: {error.got}")
    own = None if device.kind == "cpu" else grown
    if not known:
        return Peak(None, None, own, reason="Linux does not let the peak be measured anew here")
    return Peak(resident_memory()[1], before, own)


def _engine(subject: OpenRequest, artifact: Artifact) -> Engine:
    return find_engine(subject.engine or artifact.variant(subject.variant).engine)


def libraries(subject: OpenRequest, artifact: Artifact) -> str:
    """Return the name of the library that a variant needs beside those that this module imports."""
    engine = _engine(subject, artifact)
    return artifact.manifest.system.library if engine.runs is Runs.MODELS else engine.package


def import_libraries(subject: OpenRequest, artifact: Artifact) -> None:
    """Import all that loading a variant will import.

    Building a model without data makes its library import its remaining modules.
    """
    engine = _engine(subject, artifact)
    # If the package cannot be imported, opening the variant gives the reason.
    with contextlib.suppress(ImportError):
        importlib.import_module(engine.package)
    if engine.runs is Runs.MODELS:
        net = _network(subject, artifact)
        library_of(net).build(Path(subject.original or subject.artifact), net)


def _network(subject: OpenRequest, artifact: Artifact) -> Network:
    if not subject.original:
        return artifact.network
    net = dataclasses.replace(network(read_config(Path(subject.original))), head=subject.head)
    return net.asking(artifact.manifest.source.outputs)


def device_of(subject: OpenRequest) -> Device:
    """Return the device to run a subject on, with the subject's settings."""
    return find_device(subject.device, Settings.of(subject.hf32))


def opened(subject: OpenRequest, device: Device) -> Session:
    """Open a variant, or the original model, in this process."""
    artifact, precision = Artifact.open(subject.artifact), PRECISIONS[subject.precision]
    if subject.original:
        folder, net = Path(subject.original), _network(subject, artifact)
        return open_original(folder, net, artifact.manifest.size, device, precision, subject.captured)
    record = artifact.variant(subject.variant)
    captured, kind = subject.captured, subject.kind
    return open_variant(artifact, record, device, subject.engine, precision, captured=captured, kind=kind)


def main() -> None:
    """Read an :class:`OpenRequest` from standard input, and write its :class:`Peak` to standard output."""
    # Standard output is only for the result. What libraries print there goes to standard error.
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        found = peak_of(OpenRequest(**json.load(sys.stdin)))
        out.write(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
