"""vconv.load: which variant, in which engine, on which device."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_reports
import numpy as np
import pytest

import vconv
from vconv.errors import ArtifactError, InputError, UnavailableError, UnknownNameError
from vconv.runtime.engines.compiled import CompiledSession
from vconv.runtime.engines.onnxruntime import OnnxRuntimeSession
from vconv.runtime.engines.openvino import OpenVinoSession
from vconv.validators.report import saving

Record = Callable[..., None]


@pytest.fixture
def record(copied: Path) -> Record:
    """Record a ranking of variants, the fastest first; or all of one rank."""

    def save(*variants: tuple[str, str], device: str = "cpu", tied: bool = False) -> None:
        ours = {"artifact": str(copied), "device": device}
        timed = {"batch": 1, "p50_ms": 1.0, "interval": None, "tied_with": []}
        ranked = [
            {"variant": name, "engine": engine, "rank": 1 if tied else rank, **ours, **timed}
            for rank, (name, engine) in enumerate(variants, start=1)
        ]
        rows = [made_reports.variant(name, engine=engine, **ours) for name, engine in variants]
        ranking = {"refused": None, "rows": ranked, "left_out": []}
        saving.save(copied, made_reports.report(*rows, ranking=ranking), "validate", "log")

    return save


def opened(folder: Path, *args: Any, **more: Any) -> tuple[str, str]:
    with vconv.load(folder, *args, **more) as session:
        return session.variant, session.engine


def test_without_a_ranking_it_is_the_dynamic_graph(copied: Path) -> None:
    assert opened(copied) == ("onnx-fp32", "onnxruntime")


@pytest.mark.parametrize(
    "winner",
    [
        *(("onnx-fp32", "openvino"), ("onnx-fp32-npu", "onnxruntime")),
        *(("patched-torch-bf16", "torch"), ("patched-torch-fp32", "torch-compiled")),
    ],
    ids=lambda winner: " in ".join(winner),
)
def test_the_recorded_winner_is_opened_in_its_own_engine(
    winner: tuple[str, str], copied: Path, record: Record
) -> None:
    record(winner, ("onnx-fp32", "onnxruntime"))
    assert opened(copied) == winner


def test_what_is_named_is_opened_whatever_won(copied: Path, record: Record) -> None:
    record(("onnx-fp32", "openvino"))
    assert opened(copied, variant="patched-torch-fp32") == ("patched-torch-fp32", "torch")
    assert opened(copied, variant="onnx-fp32") == ("onnx-fp32", "onnxruntime")
    compiled = ("patched-torch-fp32", "torch-compiled")
    assert opened(copied, variant=compiled[0], engine=compiled[1]) == compiled
    assert opened(copied, engine="onnxruntime") == ("onnx-fp32", "onnxruntime")


def test_of_those_that_share_a_rank_it_is_the_dynamic_graph_or_else_what_takes_any_batch(
    copied: Path, record: Record
) -> None:
    record(("onnx-fp32-npu", "onnxruntime"), ("patched-torch-fp32", "torch"), tied=True)
    assert opened(copied) == ("patched-torch-fp32", "torch")
    record(
        ("patched-torch-fp32", "torch"), ("onnx-fp32", "openvino"), ("onnx-fp32", "onnxruntime"), tied=True
    )
    assert opened(copied) == ("onnx-fp32", "onnxruntime")


def test_a_winner_on_another_kind_of_device_is_none_here(copied: Path, record: Record) -> None:
    record(("patched-torch-fp32", "torch"), device="cuda:0")
    record(("patched-torch-fp32", "torch"), device="npu:0")
    assert opened(copied) == ("onnx-fp32", "onnxruntime")


@pytest.mark.parametrize(
    "first",
    [
        ("patched-torch-fp32-captured", "torch"),
        ("patched-torch-fp32", "openvino"),
        ("patched-torch-fp4", "torch"),
        ("original-torch-fp32", "torch"),
        ("om-fp16", "acl"),
        ("onnx-fp32", "an engine that is not here"),
    ],
    ids=lambda first: " in ".join(first),
)
def test_a_winner_that_cannot_run_here_leaves_it_to_the_next(
    first: tuple[str, str], copied: Path, record: Record
) -> None:
    record(first, ("patched-torch-fp32", "torch"))
    assert opened(copied) == ("patched-torch-fp32", "torch")


def test_an_engine_that_is_not_installed_leaves_it_to_the_next(
    copied: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    record(("onnx-fp32", "openvino"), ("onnx-fp32-npu", "onnxruntime"))
    assert opened(copied) == ("onnx-fp32-npu", "onnxruntime")


def test_a_compiled_winner_leaves_it_to_the_next_where_nothing_can_be_compiled(
    copied: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CompiledSession, "lack", lambda device: "no compiler")
    record(("patched-torch-fp32", "torch-compiled"), ("patched-torch-bf16", "torch"))
    assert opened(copied) == ("patched-torch-bf16", "torch")
    with pytest.raises(UnavailableError, match="torch-compiled cannot run here .*no compiler"):
        vconv.load(copied, variant="patched-torch-fp32", engine="torch-compiled")


def test_every_name_of_a_report_opens_with_what_it_says(copied: Path, size: tuple[int, int]) -> None:
    pixel_values = np.random.default_rng(3).standard_normal((2, 3, *size), np.float32)
    with vconv.load(copied, variant="onnx-fp32") as graph, vconv.load(copied, engine="openvino") as other:
        assert isinstance(graph, OnnxRuntimeSession) and isinstance(other, OpenVinoSession)
        exact, found = graph(pixel_values), other(pixel_values)
    for name, value in exact.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-4)
    for precision, least, most in (("fp32", 0.0, 1e-5), ("fp16", 1e-4, 5e-3), ("bf16", 1e-3, 3e-2)):
        with vconv.load(copied, variant=f"patched-torch-{precision}") as session:
            given = session(pixel_values)
        for name, value in exact.items():
            error = np.linalg.norm(given[name].astype(np.float64) - value) / np.linalg.norm(value)
            assert least <= error < most, (precision, name)


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        ({"variant": "onnx-fp23"}, UnknownNameError, "unknown variant .*onnx-fp32"),
        ({"variant": "original-torch-fp32"}, UnknownNameError, "original is not in it"),
        ({"variant": "patched-torch-fp4"}, UnknownNameError, "unknown variant .*patched-torch-fp32"),
        ({"variant": "patched-torch-fp16", "device": "npu-sim"}, InputError, "npu-sim, which runs fp32"),
        ({"variant": "patched-torch-fp32-captured"}, InputError, "cpu, which captures no graphs"),
        ({"variant": "patched-torch-fp32", "engine": "openvino"}, InputError, "got engine openvino"),
        ({"variant": "onnx-fp32", "engine": "torch"}, UnknownNameError, "unknown engine .*onnxruntime"),
        ({"variant": ""}, UnknownNameError, "unknown variant"),
        ({"device": "npu-sim", "engine": "openvino"}, UnavailableError, "OpenVINO runs on CPU here"),
        ({"engine": "torch"}, UnknownNameError, "or name a torch variant"),
        ({"engine": "tensorrt"}, UnknownNameError, "unknown engine .*openvino"),
    ],
    ids=lambda value: " ".join(value.values()) if isinstance(value, dict) else None,
)
def test_what_cannot_be_opened_is_one_line(
    more: dict[str, str], error: type[Exception], said: str, copied: Path
) -> None:
    with pytest.raises(error, match=said) as raised:
        vconv.load(copied, **more)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


def test_a_graph_that_is_gone_is_one_line(copied: Path, refused: Callable[..., Any]) -> None:
    (copied / "model.onnx").unlink()
    with refused(ArtifactError, "model.onnx is missing"):
        vconv.load(copied, variant="onnx-fp32")
