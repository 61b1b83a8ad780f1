"""A file with a reference that was recorded on another machine, such as one with a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.numpy
from pydantic import BaseModel, ConfigDict
from safetensors import safe_open

from vconv import documents
from vconv.artifact import results
from vconv.artifact.manifest import Manifest
from vconv.convert.files.safetensors_file import bounded_length
from vconv.errors import ArtifactError, InputError
from vconv.hashes import sha256_of
from vconv.regular_files import open_regular
from vconv.types import INPUT, Array, Arrays, Check, Status
from vconv.validators.accuracy.golden import Reference
from vconv.validators.accuracy.limits import STRICT
from vconv.validators.accuracy.verdicts import judge

_KEY, _STOCK = "vconv_reference", "stock."
_UNREADABLE = (
    *(ArtifactError, OSError, KeyError, TypeError, ValueError, AttributeError),
    safetensors.SafetensorError,
)
_SAME = ("files", "configuration_sha256", "pool", "periods", "positions")
"""Keys of the source that must be equal: the weights, their configuration, and the requested options."""


class Facts(BaseModel):
    """How a reference was run: on which device, by which versions, and on which images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    device_model: str
    arithmetic: str
    images: tuple[str, ...]
    environment: dict[str, str | int]
    time: str


class _Told(BaseModel):
    """The description of its tensors in a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    system: str
    source: dict[str, Any]
    reference: str
    floor: dict[str, float]
    to_stock_original: dict[str, float]
    facts: Facts


@dataclass(frozen=True)
class ReferenceFile:
    """A reference from a file.

    Args:
        reference: the recorded reference.
        facts: how it was recorded.
        file: the path of the file, as it was given.
        sha256: the hash of the file.
    """

    reference: Reference
    facts: Facts
    file: str
    sha256: str

    def describe(self) -> dict[str, Any]:
        """Return where the reference comes from, for a report."""
        return {"file": self.file, "sha256": self.sha256, **self.facts.model_dump(mode="json")}


def save(path: Path, reference: Reference, made: Manifest, facts: Facts) -> bytes:
    """Write a reference under a temporary name in the same folder, then rename it.

    Args:
        path: the file.
        reference: the reference.
        made: the manifest of its artifact.
        facts: how it was run.

    Returns:
        The reference and the hash of the written file.
    """
    tensors = {INPUT: reference.pixel_values, **reference.outputs}
    tensors |= {_STOCK + name: value for name, value in reference.stock.items()}
    told = _Told(
        system=made.system.name,
        source=made.source.model_dump(mode="json"),
        reference=reference.name,
        floor=dict(reference.floor),
        to_stock_original=dict(reference.to_stock_original),
        facts=facts,
    )
    whole = {name: np.ascontiguousarray(value, "<f4") for name, value in tensors.items()}
    content = safetensors.numpy.save(whole, {_KEY: told.model_dump_json()})
    results.replace(path, content)
    return content


def load(path: Path, made: Manifest) -> ReferenceFile:
    """Read a reference, and check that it belongs to an artifact.

    Args:
        path: the file.
        made: the artifact's manifest.

    Raises:
        ArtifactError: the file is not a reference file, or it is damaged.
        InputError: it was recorded from another system or other weights, or for other outputs or sizes.
    """
    try:
        with open_regular(path) as file:
            bounded_length(file)
        with safe_open(path, "numpy") as file:
            told = _told(path, (file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        stock = {name: tensors.pop(name) for name in list(tensors) if name.startswith(_STOCK)}
        reference = Reference(
            name=told.reference,
            pixel_values=tensors.pop(INPUT),
            outputs=tensors,
            floor=told.floor,
            to_stock_original=told.to_stock_original,
            stock={name.removeprefix(_STOCK): value for name, value in stock.items()},
            source="file",
            device=told.facts.device,
        )
    except _UNREADABLE as error:
        raise ArtifactError(
            f"cannot read the reference {path}",
            got=_lack(path, error),
            expected="a file that `vconv reference` wrote",
            fix="check the path, or record it again",
        ) from error
    _require_same(path, made, told.system, told.source)
    _require_fitting(path, made, reference, len(told.facts.images))
    return ReferenceFile(reference, told.facts, str(path), sha256_of(path))


def _told(path: Path, text: str) -> _Told:
    raw = text.encode()
    if len(raw) > documents.REFERENCE.nbytes:
        raise ValueError(f"a header of {len(raw)} bytes")
    content = documents.parse(path, raw, documents.REFERENCE)
    return documents.typed(path, _Told, content, documents.REFERENCE)


def _lack(path: Path, error: Exception) -> str:
    if isinstance(error, ArtifactError):
        return error.got
    if isinstance(error, KeyError):
        return "a file of other tensors"
    if isinstance(error, OSError):
        return "a folder" if path.is_dir() else error.strerror or str(error)
    return " ".join(f"{error!s:.500}".split("\n")[:3])


def _require_same(path: Path, made: Manifest, system: str, source: Mapping[str, Any]) -> None:
    """Check that a reference was recorded from the weights of an artifact."""
    if system != made.system.name:
        raise InputError(
            f"{path} is of another system",
            got=system,
            expected=made.system.name,
            fix="name the reference of this artifact",
        )
    own = made.source.model_dump(mode="json")
    differing = [key for key in _SAME if source.get(key) != own[key]]
    if differing:
        raise InputError(
            f"{path} was recorded from other weights",
            got=f"{source.get('label')}, which differs in {' and '.join(differing)}",
            expected=own["label"],
            fix="record it again: `vconv reference PATH` on the other machine, with the same weights",
        )


def _require_fitting(path: Path, made: Manifest, reference: Reference, named: int) -> None:
    unfit = _misfit(made, reference.pixel_values, reference.outputs, named, reference.floor)
    if unfit:
        raise InputError(
            f"the reference {path} does not fit the artifact",
            got=unfit,
            expected="the images and outputs of this artifact",
            fix="record it again from this artifact",
        )


def _misfit(
    made: Manifest, pixel_values: Array, outputs: Arrays, named: int, floor: Mapping[str, float]
) -> str:
    """Return what in a recording is not as an artifact has it; empty if everything fits.

    Args:
        made: the artifact's manifest.
        pixel_values: the recorded inputs.
        outputs: the recorded outputs, by name.
        named: the number of images that are named.
        floor: the floor of each output.
    """
    expected = {INPUT: (3, *made.size)} | {name: shape[1:] for name, shape in made.outputs.items()}
    found = {INPUT: pixel_values, **outputs}
    shapes = {name: tuple(value.shape[1:]) for name, value in found.items()}
    counts = {len(value) if value.ndim else 0 for value in found.values()}
    if shapes != expected:
        return f"{shapes}, not {expected}"
    if counts != {named} or not named:
        return f"{', '.join(map(str, sorted(counts)))} images, of which {named} are named"
    if set(floor) != set(outputs):
        return f"a floor for {', '.join(floor) or 'no output'}"
    other = [name for name, value in found.items() if value.dtype != np.float32]
    if other:
        return f"{other[0]} as {found[other[0]].dtype}"
    bad = [name for name, value in found.items() if not np.isfinite(value).all()]
    return f"NaN or Inf in {', '.join(bad)}" if bad else ""


def check_reference_file(recorded: ReferenceFile, live: Arrays | None) -> Check:
    """Compare a reference from another machine with the reference as it runs here, on the CPU.

    Args:
        recorded: the recorded reference.
        live: the outputs of the reference here; None if the original's weights are not at hand.
    """
    where = f"{recorded.facts.device} ({recorded.facts.device_model})"
    if live is None:
        return Check("reference", Status.SKIPPED, f"recorded on {where}; not run again: no original here")
    verdicts = judge(recorded.reference.outputs, live, STRICT["fp32", "fp32"])
    reasons = [f"{name}: {verdict.reasons[0]}" for name, verdict in verdicts.items() if verdict.reasons]
    if reasons:
        detail = f"what {where} recorded differs from the reference on the CPU here: {reasons[0]}"
        return Check("reference", Status.FAILED, detail, "recording")
    worst = max(verdict.metrics["vector_relative_error"] for verdict in verdicts.values())
    detail = f"what {where} recorded is within {worst:.1e} of the reference on the CPU here"
    return Check("reference", Status.PASSED, detail)
