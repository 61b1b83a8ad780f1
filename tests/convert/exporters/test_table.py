"""Every exporter of the table writes a graph that gives what the stock model gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from vconv.catalog.systems import SYSTEMS, miniature
from vconv.convert.exporters import optimum
from vconv.convert.exporters.base import ExporterError, Job
from vconv.convert.exporters.table import EXPORTERS
from vconv.convert.sources.table import Request, open_source

SYSTEM_OF = {"transformers": "dinov2-large", "timm": "vit_small_patch14_reg4_dinov2.lvd142m"}
PAIRS = [
    (name, library)
    for name, exporter in EXPORTERS.items()
    for library in exporter.libraries
    if not exporter.separate
]


@pytest.mark.parametrize(("name", "library"), PAIRS, ids=[f"{name}-{library}" for name, library in PAIRS])
def test_a_graph_gives_what_the_stock_model_gives(name: str, library: str, tmp_path: Path) -> None:
    exporter = EXPORTERS[name]
    if lack := exporter.lack():
        pytest.skip(lack)
    for folder in ("source", "target"):
        (tmp_path / folder).mkdir()
    source = open_source(Request(miniature(SYSTEMS[SYSTEM_OF[library]]), "synthetic:1"), tmp_path / "source")
    job = Job(source.folder, source.network, source.image_size, tmp_path / "target")
    path = exporter.export(job)
    images = torch.randn(1, 3, *source.image_size, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        given = job.model()(images)
    expected = [given] if isinstance(given, torch.Tensor) else list(given.values())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    found = session.run(None, {taken.name: images.numpy()})
    assert len(found) == len(expected)
    for actual, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(actual, wanted.numpy(), rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_a_change_of_the_model_is_exported(tmp_path: Path) -> None:
    for folder in ("source", "target"):
        (tmp_path / folder).mkdir()
    source = open_source(Request(miniature(SYSTEMS["dinov2-large"]), "synthetic:1"), tmp_path / "source")
    changed: list[object] = []
    job = Job(source.folder, source.network, source.image_size, tmp_path / "target", None, changed.append)
    assert changed == [job.model()]


def test_optimum_needs_a_virtual_environment(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    source = open_source(Request(miniature(SYSTEMS["dinov2-large"]), "synthetic:1"), tmp_path / "source")
    for environment, got in ((None, "got none"), (tmp_path, "without bin/optimum-cli")):
        job = Job(source.folder, source.network, source.image_size, tmp_path, environment)
        with pytest.raises(ExporterError, match=got):
            EXPORTERS["optimum"].export(job)


SAYS = {
    # optimum/exporters/onnx/convert.py of optimum-onnx 0.1.0
    "ValueError: Trying to export a dinov3_vit model, that is a custom or unsupported architecture, but no "
    "custom onnx configuration was passed as `custom_onnx_configs`. Please refer to (...)": (
        optimum.UnknownModelError,
        "custom or unsupported architecture",
    ),
    # transformers/models/auto/configuration_auto.py of transformers 4.57.6
    "ValueError: The checkpoint you are trying to load has model type `new` but Transformers does not "
    "recognize this architecture. This could be because (...)": (
        optimum.UnknownModelError,
        "does not recognize this architecture",
    ),
    f"Traceback\nKeyError: {'x' * 400}": (ExporterError, f"KeyError: {'x' * 290}"),
    "": (ExporterError, "no message"),
}
"""By what optimum-cli says: the kind of the error, and what it found."""


def stand_in(environment: Path, script: str) -> Path:
    """Write a program in place of optimum-cli, and return its virtual environment."""
    program = optimum.program(environment)
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return environment


@pytest.mark.parametrize(
    ("said", "kind", "got"), [(said, *row) for said, row in SAYS.items()], ids=range(len(SAYS))
)
def test_what_optimum_says_becomes_one_line(said: str, kind: type, got: str, tmp_path: Path) -> None:
    (tmp_path / "said").write_text(said)
    environment = stand_in(tmp_path / "environment", f"cat {tmp_path / 'said'} >&2; exit 1")
    with pytest.raises(ExporterError) as error:
        optimum.run(environment, tmp_path, tmp_path / "target", classes=False)
    assert (type(error.value), error.value.got) == (kind, got)


def test_optimum_runs_without_the_libraries_of_this_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/libraries")
    # The last argument is the folder, as for `optimum-cli export onnx`.
    saves = 'for last; do :; done; mkdir -p "$last"; echo "$PYTHONPATH $*" > "$last/model.onnx"'
    environment = stand_in(tmp_path / "environment", saves)
    target = tmp_path / "target"
    graph = optimum.run(environment, tmp_path, target, classes=True)
    asked = f"export onnx --model {tmp_path} --task image-classification --no-post-process {target}"
    assert (graph, graph.read_text().strip()) == (target / "model.onnx", asked)
