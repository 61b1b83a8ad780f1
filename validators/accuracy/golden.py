"""The reference: its outputs, the floor under any limit, and how far the stock original is from it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors.numpy
import torch

from vconv.artifact.artifact import Artifact
from vconv.artifact.records import GoldenRecord
from vconv.convert.architectures.outputs import output_names
from vconv.convert.files import safetensors_file
from vconv.convert.libraries import corrections, models, widening
from vconv.convert.network import Network
from vconv.convert.sources.base import LIBRARYS, Source
from vconv.errors import ArtifactError, PatchError, WeightsError
from vconv.printable import shortened
from vconv.regular_files import open_regular
from vconv.runtime.devices.base import Device
from vconv.runtime.engines.base import in_batches
from vconv.types import CHANNELS, INPUT, Array, Arrays, Check, Status
from vconv.validators.accuracy.limits import STRICT
from vconv.validators.accuracy.metrics import measure
from vconv.validators.accuracy.other_sizes import SizedReference, differing, images_at
from vconv.validators.accuracy.verdicts import judge

GOLDEN_FILE = "golden/golden.safetensors"
AT_ONCE = 8
"""Images per batch when variants are judged."""
FLOOR_FACTOR = 10.0
"""How far a recorded floor may be from the live one: other processors and threads add up in another order."""


@dataclass(frozen=True)
class Reference:
    """The inputs and the outputs of the reference, in fp32.

    Args:
        name: the name of the reference: ``original``, or the original with the authors' periods or positions.
        pixel_values: float32 (N, 3, H, W).
        outputs: the reference's outputs (N, ...), by name.
        floor: by output, the vector relative error of its fp32 result against its float64 result. No limit
            below this can be kept.
        to_stock_original: by output, the vector relative error of the stock original; empty if the reference
            is the stock original.
        stock: the stock original's outputs, if it was run and is not the reference.
        source: ``live``, run here; ``golden``, recorded at export; ``file``, recorded on another machine.
        device: the device on which it was run.
        elsewhere: the reference at other sizes of images, for variants that take any.
    """

    name: str
    pixel_values: Array
    outputs: Arrays
    floor: Mapping[str, float]
    to_stock_original: Mapping[str, float]
    stock: Arrays = field(default_factory=dict)
    source: Literal["live", "golden", "file"] = "live"
    device: str = "cpu"
    elsewhere: tuple[SizedReference, ...] = ()


def _run(
    model: torch.nn.Module,
    network: Network,
    pixel_values: Array,
    dtype: torch.dtype,
    device: str = "cpu",
) -> dict[str, Array]:
    outputs, names = models.Outputs(model, network).eval(), output_names(network)

    def run(images: Array) -> dict[str, Array]:
        with torch.inference_mode():
            found = outputs(torch.from_numpy(images).to(device, dtype))
        return {name: value.cpu().numpy() for name, value in zip(names, found, strict=True)}

    return in_batches(run, pixel_values, min(AT_ONCE, len(pixel_values)))


def _distance(actual: Arrays, expected: Arrays) -> dict[str, float]:
    return {name: measure(name, actual[name], expected[name])["vector_relative_error"] for name in expected}


def correct(model: torch.nn.Module, source: Source) -> str:
    """Correct an original in place if its weights or the request require it; return the reference's name."""
    if source.resampled:
        return corrections.resample_positions(model, source.resampled.how.grid)
    family = "" if source.periods == LIBRARYS else source.network.layout.family
    return corrections.correct(model, family, source.config, source.stored_periods)


@contextlib.contextmanager
def running(source: Source) -> Iterator[Callable[[Array], dict[str, Array]]]:
    """Keep the reference open, in fp32 on the CPU, without any patch.

    Args:
        source: the source weights.

    Yields:
        A function from images, float32 (N, 3, H, W), to the reference's outputs (N, ...), by name.
    """
    model = models.load(source.folder, source.network)
    try:
        correct(model, source)
        yield lambda pixel_values: _run(model, source.network, pixel_values, torch.float32)
    finally:
        models.discard(model)


def run_reference(
    source: Source,
    pixel_values: Array,
    device: Device | None = None,
    sizes: Sequence[tuple[int, int]] = (),
) -> Reference:
    """Run the reference on a batch, without any patch.

    Args:
        source: the source weights.
        pixel_values: float32 (N, 3, H, W).
        device: where to run it in fp32; by default the CPU. In float64 it always runs on the CPU.
        sizes: other sizes at which to run it in fp32.

    Raises:
        WeightsError: an output is not finite.
        PatchError: the reference must be corrected, but the correction changes no output.
    """
    network = source.network
    place = device.torch_name if device else "cpu"
    model = models.load(source.folder, network)
    with device.exact() if device else contextlib.nullcontext():
        stock = _run(model.to(place), network, pixel_values, torch.float32, place)
        name = correct(model.to("cpu"), source)
        corrected = name != "original"
        outputs = _run(model.to(place), network, pixel_values, torch.float32, place) if corrected else stock
        elsewhere = tuple(
            SizedReference(images, _run(model.to(place), network, images, torch.float32, place))
            for images in images_at(pixel_values, sizes)
        )
    model.to("cpu")
    bad = [key for key, value in outputs.items() if not np.isfinite(value).all()]
    if bad:
        raise WeightsError(
            "the original's outputs are not numbers",
            got=f"NaN or Inf in {', '.join(bad)}",
            expected="finite outputs",
            fix="check the weights: they may be damaged",
        )
    if corrected and all(np.array_equal(stock[key], outputs[key]) for key in outputs):
        raise PatchError(
            "the correction of the reference changes no output",
            got="the stock original's outputs, bit by bit",
            expected="other outputs",
            fix="use a supported version of transformers (4.57 or 5) or timm (1.0.27 or later)",
        )
    with widening.in_double(model):
        exact = _run(model, network, pixel_values, torch.float64)
    models.discard(model)
    return Reference(
        name=name,
        pixel_values=pixel_values,
        outputs=outputs,
        floor=_distance(outputs, exact),
        to_stock_original=_distance(stock, outputs) if corrected else {},
        stock=stock if corrected else {},
        device=device.name if device else "cpu",
        elsewhere=elsewhere,
    )


def sized_file(size: tuple[int, int]) -> str:
    """Return the path of the recording at another size, inside an artifact."""
    return "golden/{}x{}.safetensors".format(*size)


def save(path: Path, reference: Reference) -> None:
    """Write inputs and outputs into one file, and those at other sizes into files beside it."""
    path.parent.mkdir()
    _write(path, reference.pixel_values, reference.outputs)
    for one in reference.elsewhere:
        _write(path.parents[1] / sized_file(one.size), one.pixel_values, one.outputs)


def _write(path: Path, pixel_values: Array, outputs: Arrays) -> None:
    tensors = {INPUT: pixel_values, **outputs}
    safetensors_file.write(
        path,
        [
            safetensors_file.PlannedTensor(name, "F32", value.shape, partial(_bytes, value))
            for name, value in tensors.items()
        ],
    )


def _bytes(value: Array) -> tuple[bytes]:
    return (np.ascontiguousarray(value, "<f4").tobytes(),)


def load(path: Path) -> tuple[Array, dict[str, Array]]:
    """Return the recorded inputs and outputs.

    Raises:
        ArtifactError: the file does not contain them, or they are not finite float32 numbers.
    """
    try:
        with open_regular(path) as file:
            safetensors_file.bounded_length(file)
        tensors = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unusable(path, f"{type(error).__name__}: {shortened(str(error))}") from error
    if INPUT not in tensors:
        raise _unusable(path, f"no {INPUT}")
    for name, value in tensors.items():
        if value.dtype != np.float32:
            raise _unusable(path, f"{name} of {value.dtype}")
        if not np.isfinite(value).all():
            raise _unusable(path, f"NaN or Inf in {name}")
    return tensors.pop(INPUT), tensors


def recorded(artifact: Artifact) -> tuple[Array, dict[str, Array]] | None:
    """Return an artifact's recorded inputs and outputs; None if its manifest says that there are none.

    Raises:
        ArtifactError: the recording is damaged, or is not what the manifest says.
    """
    made = artifact.manifest
    if made.golden is None:
        return None
    path, count = artifact.folder / made.golden.path, len(made.golden.images)
    pixel_values, outputs = load(path)
    expected = {name: (count, *shape[1:]) for name, shape in made.outputs.items()}
    expected[INPUT] = (count, CHANNELS, *made.size)
    found = {INPUT: pixel_values.shape, **{name: value.shape for name, value in outputs.items()}}
    for name in sorted({*found, *expected}):
        if found.get(name) != expected.get(name) or not count:
            shapes = [list(shape) if shape else "nothing" for shape in (found.get(name), expected.get(name))]
            raise _unusable(path, f"{name} as {shapes[0]}, in the manifest {shapes[1]} for {count} images")
    return pixel_values, outputs


def recorded_elsewhere(artifact: Artifact) -> tuple[SizedReference, ...]:
    """Return an artifact's recorded inputs and outputs at other sizes of images.

    Raises:
        ArtifactError: a recording is damaged, or is not what the manifest says.
    """
    made, found = artifact.manifest, []
    for record in made.golden.elsewhere if made.golden else ():
        path = artifact.folder / record.path
        one = SizedReference(*load(path))
        if (
            one.pixel_values.ndim != 4
            or one.size != tuple(record.size)
            or set(one.outputs) != set(made.outputs)
        ):
            shape = list(one.pixel_values.shape)
            raise _unusable(path, f"{INPUT} as {shape} and {', '.join(one.outputs) or 'no output'}")
        found.append(one)
    return tuple(found)


def _unusable(path: Path, got: str) -> ArtifactError:
    return ArtifactError(
        f"cannot read {path}",
        got=got,
        expected=f"{INPUT} and the reference's outputs, as the manifest describes them",
        fix="export the artifact again, or fetch it again",
    )


def check_recorded(
    live: Reference,
    recorded: tuple[Array, Arrays] | None,
    record: GoldenRecord | None,
    elsewhere: Sequence[SizedReference] = (),
) -> Check:
    """Compare the reference as it runs here with what was recorded at export.

    Args:
        live: the reference, run here on the recorded inputs.
        recorded: the recorded inputs and outputs; None if there are none for these inputs.
        record: what the manifest says of them.
        elsewhere: what was recorded at other sizes of images.
    """
    if recorded is None or record is None:
        return Check("golden", Status.SKIPPED, "nothing was recorded for these inputs")
    verdicts = judge(live.outputs, recorded[1], STRICT["fp32", "fp32"])
    reasons = [f"{name}: {verdict.reasons[0]}" for name, verdict in verdicts.items() if verdict.reasons]
    reasons += _misstated(live, record)
    reasons += differing(live.elsewhere, elsewhere)
    if reasons:
        detail = f"the live reference differs from the recorded one: {reasons[0]}"
        return Check("golden", Status.FAILED, detail, "recording")
    worst = max(verdict.metrics["vector_relative_error"] for verdict in verdicts.values())
    return Check("golden", Status.PASSED, f"the live reference is within {worst:.1e} of the recorded one")


def _misstated(live: Reference, record: GoldenRecord) -> Iterator[str]:
    """Yield what the manifest says of the recorded reference and the live one contradicts."""
    if record.reference != live.name:
        yield f"it is {live.name}, in the manifest {record.reference}"
    distances = {
        "the floor": (live.floor, record.floor),
        "the distance to the stock original": (live.to_stock_original, record.to_stock_original),
    }
    for what, (found, said) in distances.items():
        if found.keys() != said.keys():
            here, there = (", ".join(names) or "no output" for names in (found, said))
            yield f"{what} is of {here}, in the manifest of {there}"
            continue
        for name, value in found.items():
            if not value / FLOOR_FACTOR <= said[name] <= value * FLOOR_FACTOR:
                yield f"{what} of {name} is {value:.1e}, in the manifest {said[name]:.1e}"
