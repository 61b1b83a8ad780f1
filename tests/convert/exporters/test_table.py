"""Every exporter of the table writes a graph that gives what the stock model gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from vconv.catalog.systems import SYSTEMS, miniature
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
