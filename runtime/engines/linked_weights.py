"""Weights files that are links, as in a hub's cache: engines refuse external data that lie elsewhere.

A link is followed here, in place of the engine: the graph is given as bytes, with the real folder and the
real name of its weights file. A location that leads out of the graph's folder by itself is left as it is, and
the engine refuses it.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import uses_external_data

_LOCATION = "location"


def opened(path: Path) -> onnx.ModelProto | None:
    """Open a graph whose weights file is a link, without its weights; None for any other graph."""
    if not any(file.is_symlink() for file in path.parent.iterdir()):
        return None
    try:
        model = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError):
        return None  # the engine says what is wrong with it
    return model if _are_linked(model, path.parent) else None


def _are_linked(model: onnx.ModelProto, folder: Path) -> bool:
    return any((folder / name).is_symlink() for name in _locations(model))


def resolved(model: onnx.ModelProto, folder: Path) -> Path:
    """Let a graph refer to its weights file by its real name, and return the real folder of that file.

    Args:
        model: the graph; it is changed.
        folder: the folder of the weights file that the graph refers to.
    """
    places = {name: (folder / name).resolve() for name in _locations(model)}
    folders = {place.parent for place in places.values()}
    if len(folders) != 1 or not _are_linked(model, folder):
        return folder
    for entry in _entries(model):
        entry.value = places[entry.value].name
    return folders.pop()


def _entries(model: onnx.ModelProto) -> list[onnx.StringStringEntryProto]:
    return [
        entry
        for tensor in model.graph.initializer
        if uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == _LOCATION
    ]


def _locations(model: onnx.ModelProto) -> set[str]:
    """Return the names of a graph's weights files, if all of them are in its own folder."""
    names = {entry.value for entry in _entries(model)}
    return names if all(Path(name).name == name != ".." for name in names) else set()
