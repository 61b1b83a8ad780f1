"""The exporters, and the judgement that is the same for all: each gets the same weights and the same images.

A graph is run in ONNX Runtime and compared with the stock model of its library. Every output that has the
shape of one of the model's must keep vconv's strict limit in float32; at least one must have such a shape.
vconv's own graphs are judged by ``vconv validate``, by the same limit.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import vconv
from encoders import NO, OPTIMUM, TIMM, TRANSFORMERS, UNSUPPORTED, VCONV, YES
from encoders.shallow import shallow
from vconv.artifact.artifact import Artifact
from vconv.catalog.systems import SYSTEMS, System, find
from vconv.convert.exporters import optimum
from vconv.convert.exporters.base import ExporterError
from vconv.convert.sources.names import find_system
from vconv.convert.sources.table import Request, open_source
from vconv.errors import VconvError
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.torch_kinds import PATCHED_FP32
from vconv.runtime.engines.variants import open_variant
from vconv.runtime.inputs.images import natural_images
from vconv.runtime.inputs.preprocessing import preprocess
from vconv.types import Array, Arrays, Status
from vconv.validators.accuracy.limits import STRICT
from vconv.validators.accuracy.metrics import measure
from vconv.validators.accuracy.verdicts import judge
from vconv.workflows.sample_images import SAMPLE_IMAGES

LIMIT = STRICT["fp32", "fp32"]
WEIGHTS = "synthetic:0"


class UnsupportedError(Exception):
    """An exporter does not know a model, or its library."""


@dataclass(frozen=True)
class Case:
    """One model to export.

    Args:
        system: its row, of the catalog or for its library's own configuration.
        folder: its configuration and weights, as its library loads them.
        scratch: an empty folder.
        optimum: the folder of a virtual environment with optimum-onnx; None without one.
    """

    system: System
    folder: Path
    scratch: Path
    optimum: Path | None

    @functools.cached_property
    def images(self) -> Array:
        """The images (B, 3, H, W) on which vconv judges its export."""
        return preprocess(self.folder, natural_images(SAMPLE_IMAGES, 0))

    def stock(self, **options: Any) -> nn.Module:
        """Load the model as a user of its library does."""
        if self.system.library == "timm":
            import timm

            return timm.create_model(f"local-dir:{self.folder}", pretrained=True, **options).eval()
        import transformers

        named = self.system.config.get("architectures") or ["AutoModel"]
        model: nn.Module = getattr(transformers, named[0]).from_pretrained(self.folder)
        return model.eval()


def system_of(name: str, folder: Path) -> System:
    """Return the row of a name: ``catalog/SYSTEM``, shallow; ``timm/NAME``; or ``transformers/TYPE``."""
    library, _, rest = name.partition("/")
    if library == "catalog":
        return shallow(find(rest))
    if library == "timm":
        return find_system(name, "huggingface", WEIGHTS)[0]
    import transformers

    (folder / rest).mkdir()
    transformers.CONFIG_MAPPING[rest]().save_pretrained(folder / rest)
    return find_system(str(folder / rest), "huggingface", WEIGHTS)[0]


def tensors(given: Any) -> Arrays:
    """Return the tensors that a stock model gives, by the name that its library gives them."""
    if isinstance(given, torch.Tensor):
        return {"logits": given.numpy()}
    return {name: value.numpy() for name, value in given.items() if isinstance(value, torch.Tensor)}


def compared(case: Case, graph: Path) -> dict[str, Any]:
    """Run a graph, and judge every output that has the shape of one of the stock model's."""
    import onnxruntime

    with torch.inference_mode():
        expected = tensors(case.stock()(torch.from_numpy(case.images)))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: case.images})
    return judged(found, expected)


def judged(found: list[Array], expected: Arrays) -> dict[str, Any]:
    """Judge outputs, each by the expected one of its shape that is nearest to it."""
    errors, reasons = [], []
    for actual in found:
        alike = {
            name: measure(name, actual, value)["vector_relative_error"]
            for name, value in expected.items()
            if value.shape == actual.shape
        }
        if alike:
            name = min(alike, key=lambda name: alike[name])
            errors.append(alike[name])
            reasons += judge({name: actual}, {name: expected[name]}, LIMIT)[name].reasons
    if not errors:
        return {"status": NO, "why": "none of its outputs has the shape of one of the model's"}
    return {"status": NO if reasons else YES, "why": "; ".join(reasons), "error": max(errors)}


def by_vconv(case: Case) -> dict[str, Any]:
    """Export and validate with vconv; measure what the tanh form of every GELU would do."""
    target = case.scratch / "artifact"
    try:
        vconv.export(case.system, WEIGHTS, target)
    except VconvError as error:
        return {"status": NO, "why": f"export: {error}"}
    document = vconv.validate(target, quick=True, budget=1.0)
    failed = [f"{check.name}: {check.detail}" for check in document.checks if check.status is Status.FAILED]
    failed += [f"{row.variant} {row.status}" for row in document.variants if row.status is Status.FAILED]
    artifact = Artifact.open(target)
    counts = artifact.manifest.complexity
    return {
        "status": YES if document.status == "passed" else NO,
        "why": "; ".join(failed),
        "error": max(vector_errors(document), default=None),
        "parameters": counts.parameters if counts else None,
        "outputs": list(artifact.manifest.outputs),
        "gelus": artifact.network.gelus,
        "tanh": tanh_error(artifact),
    }


def vector_errors(document: Any) -> list[float]:
    """Return the vector relative error of every output of every graph that a validation judged."""
    return [
        output.metrics["vector_relative_error"]
        for row in document.variants
        if row.variant.startswith("onnx")
        for output in row.outputs.values()
        if "vector_relative_error" in output.metrics
    ]


def tanh_error(artifact: Artifact) -> float | None:
    """Return the worst error of an output if every exact GELU were computed in its tanh form."""
    from vconv.convert.patches.gelu_erf import realised_by
    from vconv.validators.accuracy import golden

    if not artifact.network.gelus:
        return None
    pixel_values, expected = golden.load(artifact.folder / golden.GOLDEN_FILE)
    tanh = {"gelu-erf": realised_by(lambda: nn.GELU("tanh"))}
    record = artifact.variant(PATCHED_FP32)
    with open_variant(artifact, record, find_device("cpu"), patches=tanh) as session:
        found = session(pixel_values)
    return max(measure(key, found[key], value)["vector_relative_error"] for key, value in expected.items())


def by_transformers(case: Case) -> dict[str, Any]:
    """Export with ``transformers.exporters``, in its default configuration."""
    from transformers.exporters import OnnxConfig, OnnxExporter

    model = case.stock()
    exported = OnnxExporter().export(
        model, {"pixel_values": torch.from_numpy(case.images)}, config=OnnxConfig()
    )
    exported.save_pretrained(str(case.scratch / "exported"))
    return compared(case, next((case.scratch / "exported").glob("*.onnx")))


def by_timm(case: Case) -> dict[str, Any]:
    """Export with timm's own function, by its default way or, if that fails, by its other one."""
    from timm.utils.onnx import onnx_export

    graph, images = case.scratch / "timm.onnx", torch.from_numpy(case.images)
    try:
        onnx_export(case.stock(exportable=True), str(graph), images)
        found = compared(case, graph)
    except Exception as error:  # noqa: BLE001 - whatever its default way raises, its other one is tried
        found = {"status": NO, "why": str(error)}
    if found["status"] == NO:
        onnx_export(case.stock(exportable=True), str(graph), images, use_dynamo=True)
        found = compared(case, graph)
    return found


def by_optimum(case: Case) -> dict[str, Any]:
    """Export with ``optimum-cli``, in a separate virtual environment."""
    assert case.optimum is not None
    target = case.scratch / "exported"
    try:
        graph = optimum.run(case.optimum, case.folder, target, classes=bool(case.system.classes))
    except optimum.UnknownModelError as error:
        raise UnsupportedError(error.got) from error
    except ExporterError as error:
        return {"status": NO, "why": error.got}
    return compared(case, graph)


def last_line(text: str) -> str:
    """Return the last line of an error's text, shortened."""
    return f"{(text.strip().splitlines() or ['no message'])[-1]:.300}"


@dataclass(frozen=True)
class Exporter:
    """An exporter.

    Args:
        export: exports a model and judges the graph.
        libraries: the libraries whose models it takes.
        unsupported: why it takes no others.
    """

    export: Callable[[Case], dict[str, Any]]
    libraries: tuple[str, ...]
    unsupported: str = ""


EXPORTERS: Mapping[str, Exporter] = {
    VCONV: Exporter(by_vconv, ("timm", "transformers")),
    TRANSFORMERS: Exporter(by_transformers, ("transformers",), "it takes models of transformers"),
    TIMM: Exporter(by_timm, ("timm",), "it takes models of timm"),
    OPTIMUM: Exporter(by_optimum, ("transformers",), "it takes timm's models only from the hub"),
}


def library_of(name: str) -> str:
    """Return the library of a row's name."""
    library, _, rest = name.partition("/")
    return SYSTEMS[rest].library if library == "catalog" else library


def tried(name: str, exporter: str, scratch: Path, optimum: Path | None) -> dict[str, Any]:
    """Export one model with one exporter into an empty folder, and judge it.

    The result is empty if vconv draws no weights that another exporter could get.
    """
    system = system_of(name, scratch)
    for folder in ("source", "work"):
        (scratch / folder).mkdir()
    if exporter != VCONV:
        try:
            open_source(Request(system, WEIGHTS), scratch / "source")
        except VconvError:  # there are no weights to give to another exporter
            return {}
    began = time.perf_counter()
    try:
        cell = EXPORTERS[exporter].export(Case(system, scratch / "source", scratch / "work", optimum))
    except UnsupportedError as error:
        cell = {"status": UNSUPPORTED, "why": str(error)}
    cell["seconds"] = round(time.perf_counter() - began, 1)
    return json.loads(json.dumps(cell))
