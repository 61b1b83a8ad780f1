"""pyACL as it behaves where CANN is installed, of the functions that vconv calls, computed by ONNX Runtime.

It refuses wrong use with the codes that CANN documents: calls before ``init``, without a context, on what
was freed or never made, with buffers of the wrong size, and batches and sizes that are no gear. ``held()``
says what has not been freed, ``fail_next(name, code)`` lets a function fail, ``calls`` lists what was called.

Gears by size are as these pages say: get_dynamic_hw (aclpythondevg_01_0205 of CANN 7.0: pairs of height and
width, and an index that is always -1), aclmdlSetDynamicHWSize (aclcppdevg_03_0307 of CANN 8.0),
get_output_dims (aclpythondevg_01_0203 of CANN 8.0.RC1: the greatest gear) and get_cur_output_dims
(aclpythondevg_01_0214 of CANN 9.0: the gear that was set, or the greatest). A model whose gear is not set
runs its greatest (repository github.com/mirror-cann/ge, ``docs/zh/user_guides/atc_tools/CLI_options``).

get_output_name_by_index (aclpythondevg_01_0214 of CANN 8.0) gives ``operator:number:name`` for a model that
was made of ONNX, and ``operator:number`` otherwise.
"""

from __future__ import annotations

import ctypes
import functools
import io
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import torch

SUCCESS, INVALID, UNINITIALIZED, REPEATED, NO_FILE = 0, 100000, 100001, 100002, 100003
NO_CONTEXT, NO_MEMORY, NO_MODEL, NO_GEAR, BAD_LENGTH = 107002, 207001, 145003, 145013, 145012
GEAR_INPUT, GEAR_BYTES = "ascend_mbatch_shape_data", 4
MAGIC = b"stand-in om\n"

calls: list[str] = []
_failing: dict[str, int] = {}
_numbers = itertools.count(0x1000, 0x10)
_state: dict[str, Any] = {"ready": False, "device": None, "context": 0}
_things: dict[str, dict[int, Any]] = {
    kind: {} for kind in ("context", "memory", "buffer", "dataset", "model", "description")
}


def held() -> dict[str, int]:
    """Count what has not been freed, by kind."""
    return {kind: len(things) for kind, things in _things.items() if things}


def fail_next(name: str, code: int) -> None:
    """Let a function's next call fail."""
    _failing[name] = code


def _documented(name: str, values: int = 0, needs_context: bool = True) -> Callable[..., Any]:
    """Make a function note its call, and refuse it before ``init`` and without a context.

    Args:
        name: as it is called, without the module.
        values: how many values it returns before its code; -1 for a value without a code.
        needs_context: whether the thread must have one.
    """

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            calls.append(name)
            code = _failing.pop(name, SUCCESS)
            if not code and not _state["ready"] and name != "init":
                code = UNINITIALIZED
            if not code and needs_context and _state["context"] not in _things["context"]:
                code = NO_CONTEXT
            if code:
                return 0 if values == -1 else (*[0] * values, code) if values else code
            return function(*arguments)

        return call

    return wrap


def _make(kind: str, thing: Any, number: int | None = None) -> int:
    number = next(_numbers) if number is None else number
    _things[kind][number] = thing
    return number


def _drop(kind: str, number: int) -> int:
    return INVALID if _things[kind].pop(number, None) is None else SUCCESS


@_documented("init", needs_context=False)
def init(config: str = "") -> int:
    if _state["ready"]:
        return REPEATED
    _state["ready"] = True
    return SUCCESS


@_documented("create_data_buffer", values=-1)
def create_data_buffer(place: int, nbytes: int) -> int:
    if place not in _things["memory"] or len(_things["memory"][place]) < nbytes:
        return 0
    return _make("buffer", (place, nbytes))


@_documented("destroy_data_buffer")
def destroy_data_buffer(buffer: int) -> int:
    return _drop("buffer", buffer)


@_documented("rt.set_device", needs_context=False)
def _set_device(index: int) -> int:
    _state["device"] = index
    return SUCCESS


@_documented("rt.create_context", values=1, needs_context=False)
def _create_context(index: int) -> tuple[int, int]:
    if _state["device"] != index:
        return 0, INVALID
    _state["context"] = _make("context", index)
    return _state["context"], SUCCESS


@_documented("rt.get_context", values=1, needs_context=False)
def _get_context() -> tuple[int, int]:
    current = _state["context"]
    return (current, SUCCESS) if current in _things["context"] else (0, NO_CONTEXT)


@_documented("rt.set_context", needs_context=False)
def _set_context(context: int) -> int:
    if context not in _things["context"]:
        return INVALID
    _state["context"] = context
    return SUCCESS


@_documented("rt.destroy_context", needs_context=False)
def _destroy_context(context: int) -> int:
    return _drop("context", context)


@_documented("rt.malloc", values=1)
def _malloc(nbytes: int, policy: int) -> tuple[int, int]:
    if nbytes <= 0 or policy not in (0, 1, 2):
        return 0, INVALID
    memory = (ctypes.c_char * nbytes)()
    return _make("memory", memory, ctypes.addressof(memory)), SUCCESS


@_documented("rt.free")
def _free(place: int) -> int:
    return _drop("memory", place)


@_documented("rt.memcpy")
def _memcpy(target: int, room: int, source: int, nbytes: int, direction: int) -> int:
    to_device, from_device = target in _things["memory"], source in _things["memory"]
    if (to_device, from_device) != {1: (True, False), 2: (False, True)}.get(direction):
        return INVALID
    device = _things["memory"][target if to_device else source]
    if nbytes > room or nbytes > len(device) or (to_device and room > len(device)):
        return BAD_LENGTH
    ctypes.memmove(target, source, nbytes)
    return SUCCESS


class _Program:
    """A program of the stand-in for torchair, with the few functions of ONNX Runtime that are called here.

    Its outputs have no names of ours, and its input has the one that torchair gives it: the stored graphs of
    the tests in github.com/Ascend/torchair, ``tests/st/``, have ``arg0_1``.
    """

    def __init__(self, content: bytes) -> None:
        self._run = torch.export.load(io.BytesIO(content)).module()
        self._names: list[str] = []

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name) for name in self._names]

    def run(self, names: list[str] | None, feed: dict[str, Any]) -> list[Any]:
        with torch.no_grad():
            given = self._run(torch.from_numpy(np.array(feed["arg0_1"])))
        self._names = [f"NetOutput_{place}" for place in range(len(given))]
        return [given[self._names.index(name)].numpy() for name in names or self._names]


class _Model:
    def __init__(self, path: Path) -> None:
        header, graph = path.read_bytes().removeprefix(MAGIC).split(b"\n", 1)
        self.header = json.loads(header)
        air = self.header["air"]
        self.image = "arg0_1" if air else "pixel_values"
        self.session: Any = (
            _Program(graph)
            if air
            else onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        )
        self.gears: list[int] = self.header["gears"]
        self.sizes: list[list[int]] = self.header["sizes"]
        self.greatest = max(self.gears) if self.gears else self.header["shape"][0]
        self.channels, *self.sides = self.header["shape"][1:]
        self.greatest_size = max(self.sizes, key=lambda size: size[0] * size[1]) if self.sizes else self.sides
        self.set_size: list[int] = []
        zeros = np.zeros((self.greatest, self.channels, *self.greatest_size), np.float32)
        arrays = self.session.run(None, {self.image: zeros})
        names = [output.name for output in self.session.get_outputs()]
        self.outputs = dict(zip(names, arrays, strict=True))
        gear_bytes = GEAR_BYTES * (2 if self.sizes else bool(self.gears))
        self.inputs = {self.image: zeros.nbytes} | ({GEAR_INPUT: gear_bytes} if gear_bytes else {})


@_documented("mdl.load_from_file", values=1)
def _load_from_file(path: str) -> tuple[int, int]:
    if not Path(path).is_file() or not Path(path).read_bytes().startswith(MAGIC):
        return 0, NO_FILE
    return _make("model", _Model(Path(path))), SUCCESS


@_documented("mdl.unload")
def _unload(model: int) -> int:
    return _drop("model", model)


@_documented("mdl.create_desc", values=-1)
def _create_desc() -> int:
    return _make("description", {})


@_documented("mdl.get_desc")
def _get_desc(description: int, model: int) -> int:
    if model not in _things["model"] or description not in _things["description"]:
        return NO_MODEL
    _things["description"][description]["model"] = _things["model"][model]
    return SUCCESS


@_documented("mdl.destroy_desc")
def _destroy_desc(description: int) -> int:
    return _drop("description", description)


def _described(description: int) -> Any:
    return _things["description"][description]["model"]


@_documented("mdl.get_dynamic_batch", values=1)
def _get_dynamic_batch(description: int) -> tuple[dict[str, Any], int]:
    gears = _described(description).gears
    return {"batchCount": len(gears), "batch": [*gears, *[0] * (128 - len(gears))]}, SUCCESS


@_documented("mdl.get_dynamic_hw", values=1)
def _get_dynamic_hw(description: int, index: int) -> tuple[dict[str, Any], int]:
    if index != -1:
        return {}, INVALID
    sizes = _described(description).sizes
    return {"hwCount": len(sizes), "hw": [[*size] for size in sizes]}, SUCCESS


@_documented("mdl.get_num_inputs", values=-1)
def _get_num_inputs(description: int) -> int:
    return len(_described(description).inputs)


@_documented("mdl.get_input_index_by_name", values=1)
def _get_input_index_by_name(description: int, name: str) -> tuple[int, int]:
    inputs = [*_described(description).inputs]
    return (inputs.index(name), SUCCESS) if name in inputs else (0, INVALID)


@_documented("mdl.get_input_size_by_index", values=-1)
def _get_input_size_by_index(description: int, index: int) -> int:
    return int([*_described(description).inputs.values()][index])


@_documented("mdl.get_input_dims", values=1)
def _get_input_dims(description: int, index: int) -> tuple[dict[str, Any], int]:
    model = _described(description)
    dims = [-1 if model.gears else model.greatest, model.channels, *model.sides]
    return {"name": [*model.inputs][index], "dimCount": 4, "dims": dims}, SUCCESS


@_documented("mdl.get_num_outputs", values=-1)
def _get_num_outputs(description: int) -> int:
    return len(_described(description).outputs)


@_documented("mdl.get_output_name_by_index", values=-1)
def _get_output_name_by_index(description: int, index: int) -> str:
    model = _described(description)
    operator = f"PartitionedCall_node_{index}:0"
    return operator if model.header["air"] else f"{operator}:{[*model.outputs][index]}"


@_documented("mdl.get_output_data_type", values=-1)
def _get_output_data_type(description: int, index: int) -> int:
    return {"float32": 0, "float16": 1}[_described(description).header["output_type"]]


@_documented("mdl.get_output_dims", values=1)
def _get_output_dims(description: int, index: int) -> tuple[dict[str, Any], int]:
    name, array = [*_described(description).outputs.items()][index]
    return {"name": name, "dimCount": array.ndim, "dims": [*array.shape]}, SUCCESS


@_documented("mdl.get_cur_output_dims", values=1)
def _get_cur_output_dims(description: int, index: int) -> tuple[dict[str, Any], int]:
    model = _described(description)
    zeros = np.zeros((model.greatest, model.channels, *(model.set_size or model.greatest_size)), np.float32)
    name = [*model.outputs][index]
    (array,) = model.session.run([name], {model.image: zeros})
    return {"name": name, "dimCount": array.ndim, "dims": [*array.shape]}, SUCCESS


@_documented("mdl.get_output_size_by_index", values=-1)
def _get_output_size_by_index(description: int, index: int) -> int:
    model = _described(description)
    itemsize = np.dtype(model.header["output_type"]).itemsize
    return int([*model.outputs.values()][index].size * itemsize)


@_documented("mdl.create_dataset", values=-1)
def _create_dataset() -> int:
    return _make("dataset", {"buffers": [], "gear": None})


@_documented("mdl.add_dataset_buffer", values=1)
def _add_dataset_buffer(dataset: int, buffer: int) -> tuple[int, int]:
    if dataset not in _things["dataset"] or buffer not in _things["buffer"]:
        return dataset, INVALID
    _things["dataset"][dataset]["buffers"].append(buffer)
    return dataset, SUCCESS


@_documented("mdl.destroy_dataset")
def _destroy_dataset(dataset: int) -> int:
    return _drop("dataset", dataset)


@_documented("mdl.set_dynamic_batch_size")
def _set_dynamic_batch_size(model: int, dataset: int, index: int, batch: int) -> int:
    if model not in _things["model"] or dataset not in _things["dataset"]:
        return NO_MODEL
    made = _things["model"][model]
    if batch not in made.gears or [*made.inputs][index] != GEAR_INPUT:
        return NO_GEAR
    _things["dataset"][dataset]["gear"] = batch
    return SUCCESS


@_documented("mdl.set_dynamic_hw_size")
def _set_dynamic_hw_size(model: int, dataset: int, index: int, height: int, width: int) -> int:
    if model not in _things["model"] or dataset not in _things["dataset"]:
        return NO_MODEL
    made = _things["model"][model]
    if [height, width] not in made.sizes or [*made.inputs][index] != GEAR_INPUT:
        return NO_GEAR
    _things["dataset"][dataset]["gear"] = made.set_size = [height, width]
    return SUCCESS


@_documented("mdl.execute")
def _execute(model: int, given: int, wanted: int) -> int:
    if model not in _things["model"] or not {given, wanted} <= _things["dataset"].keys():
        return NO_MODEL
    made, feed, result = _things["model"][model], _things["dataset"][given], _things["dataset"][wanted]
    if not {*feed["buffers"], *result["buffers"]} <= _things["buffer"].keys():
        return INVALID
    places = [_things["buffer"][buffer] for buffer in feed["buffers"]]
    if [nbytes for _, nbytes in places] != [*made.inputs.values()]:
        return BAD_LENGTH
    batch = (feed["gear"] if made.gears else None) or made.greatest
    size = (feed["gear"] if made.sizes else None) or made.greatest_size
    numbers = np.frombuffer(bytes(_things["memory"][places[0][0]]), np.float32)
    shape = (batch, made.channels, *size)
    images = numbers[: math.prod(shape)].reshape(shape)
    arrays = made.session.run([*made.outputs], {made.image: images})
    targets = [_things["buffer"][buffer] for buffer in result["buffers"]]
    if len(targets) != len(arrays):
        return INVALID
    for array, (place, nbytes) in zip(arrays, targets, strict=True):
        content = array.astype(made.header["output_type"]).tobytes()
        if len(content) > nbytes:
            return BAD_LENGTH
        ctypes.memmove(place, content, len(content))
    return SUCCESS


rt = SimpleNamespace(
    set_device=_set_device,
    create_context=_create_context,
    get_context=_get_context,
    set_context=_set_context,
    destroy_context=_destroy_context,
    malloc=_malloc,
    free=_free,
    memcpy=_memcpy,
)
mdl = SimpleNamespace(
    load_from_file=_load_from_file,
    unload=_unload,
    create_desc=_create_desc,
    get_desc=_get_desc,
    destroy_desc=_destroy_desc,
    get_dynamic_batch=_get_dynamic_batch,
    get_dynamic_hw=_get_dynamic_hw,
    get_num_inputs=_get_num_inputs,
    get_input_index_by_name=_get_input_index_by_name,
    get_input_size_by_index=_get_input_size_by_index,
    get_input_dims=_get_input_dims,
    get_num_outputs=_get_num_outputs,
    get_output_name_by_index=_get_output_name_by_index,
    get_output_data_type=_get_output_data_type,
    get_output_dims=_get_output_dims,
    get_cur_output_dims=_get_cur_output_dims,
    get_output_size_by_index=_get_output_size_by_index,
    create_dataset=_create_dataset,
    add_dataset_buffer=_add_dataset_buffer,
    destroy_dataset=_destroy_dataset,
    set_dynamic_batch_size=_set_dynamic_batch_size,
    set_dynamic_hw_size=_set_dynamic_hw_size,
    execute=_execute,
)
