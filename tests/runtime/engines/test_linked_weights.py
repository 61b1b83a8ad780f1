"""Weights files that are links: which of them are followed, and to where."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from vconv.runtime.engines import linked_weights


def graph(*locations: str) -> onnx.ModelProto:
    """Return a graph whose weights are read from files."""
    weights = []
    for place, location in enumerate(locations):
        tensor = TensorProto(name=f"w{place}", data_type=TensorProto.FLOAT, dims=[1])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        weights.append(tensor)
    return helper.make_model(helper.make_graph([], "graph", [], [], weights))


def read_from(model: onnx.ModelProto) -> list[str]:
    return [tensor.external_data[0].value for tensor in model.graph.initializer]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose weights file is a link to another folder, as in a hub's cache."""
    for name in ("blobs", "snapshot"):
        (tmp_path / name).mkdir()
    (tmp_path / "blobs" / "0123").write_bytes(bytes(4))
    (tmp_path / "snapshot" / "weights").symlink_to("../blobs/0123")
    return tmp_path / "snapshot"


def put(folder: Path, model: onnx.ModelProto) -> Path:
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


def test_a_link_is_followed_to_the_real_file(folder: Path) -> None:
    model = linked_weights.opened(put(folder, graph("weights", "weights")))
    assert model is not None
    assert linked_weights.resolved(model, folder) == (folder.parent / "blobs").resolve()
    assert read_from(model) == ["0123", "0123"]


@pytest.mark.parametrize(
    "locations", [["../blobs/0123"], ["weights", "../blobs/0123"], ["/etc/passwd"], [".."]]
)
def test_a_location_that_leads_out_by_itself_is_left_to_the_engine(
    folder: Path, locations: list[str]
) -> None:
    (folder.parent / "blobs" / "0123").unlink()
    (folder.parent / "blobs" / "0123").symlink_to("/etc/passwd")
    model = graph(*locations)
    assert linked_weights.opened(put(folder, model)) is None
    assert linked_weights.resolved(model, folder) == folder
    assert read_from(model) == locations


def test_a_file_that_is_no_link_stays_where_it_is(folder: Path) -> None:
    model = graph("plain")
    (folder / "plain").write_bytes(bytes(4))
    assert linked_weights.opened(put(folder, model)) is None
    place = folder.parent / "link to the folder"
    place.symlink_to(folder)
    assert linked_weights.resolved(model, place) == place
    assert read_from(model) == ["plain"]


def test_what_is_no_graph_is_left_to_the_engine(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"\xff")
    assert linked_weights.opened(folder / "model.onnx") is None
