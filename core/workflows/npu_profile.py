"""Profiles of the torch variants that a validation runs on an NPU."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from vconv.errors import InputError
from vconv.runtime.devices.base import Device
from vconv.runtime.engines.base import Session
from vconv.runtime.timing.npu_profile import folder_name, record
from vconv.types import Say
from vconv.validators.validation import Candidate

SHOWN = 5
"""How many operators are printed for each variant; all are in its JSON file."""
NPU = "npu"


@dataclass(frozen=True)
class Profiler:
    """Profiles torch variants on an NPU.

    Args:
        folder: where the traces go: a folder for each variant on each NPU, beside a JSON file with its
            operators.
        say: receives progress lines.
    """

    folder: Path
    say: Say

    def look(self, candidate: Candidate, session: Session) -> None:
        """Profile one variant; a graph, and a variant on another device, is left alone."""
        if candidate.device.kind != NPU or session.engine != "torch":
            return
        place = self.folder / folder_name(candidate.device.name, candidate.variant)
        place.mkdir(parents=True)
        forward = session.bind(candidate.reference.pixel_values[: session.batch or 1])
        with torch.inference_mode():
            found = record(forward, candidate.device.synchronize, place)
        path = place.with_suffix(".json")
        path.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n")
        self.say(
            f"{candidate.variant} on {candidate.device.name}: {len(found)} kinds of kernels, all in {path}"
        )
        for one in found[:SHOWN]:
            self.say(f"  {one.told}")


def profiler(folder: str | Path | None, devices: Sequence[Device], say: Say) -> Profiler | None:
    """Return what profiles the variants; None if no profile is asked for.

    Raises:
        InputError: none of the devices is an NPU, or the folder has something in it.
    """
    if folder is None:
        return None
    if not any(place.kind == NPU for place in devices):
        raise InputError(
            "--profile-npu has no effect here",
            got=f"--device {', '.join(place.name for place in devices)}",
            expected=NPU,
            fix="leave --profile-npu out, or choose that device",
        )
    path = Path(folder).absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(
            f"{path} is in the way",
            got="a folder that is not empty" if path.is_dir() else "a file",
            expected="nothing there",
            fix="choose another --profile-npu",
        )
    return Profiler(path, say)
