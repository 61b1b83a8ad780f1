"""pyACL, CANN's Python interface, with every call checked; and a batch on the device with its outputs.

Source: the pages ``aclpythondevg_01_*`` of "AscendCL API (Python)", CANN commercial edition 8.0.0, Huawei,
below https://www.hiascend.com/document/detail/en/canncommercial/800/apiref/appdevgapi/. In pyACL, pointers
are ints, and most functions return an error code, alone or as the last value. pyACL raises no exceptions.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from vconv.errors import EngineError, MemoryShortError, UnavailableError
from vconv.types import Array

_HOST_TO_DEVICE, _DEVICE_TO_HOST, _HUGE_FIRST = 1, 2, 0
"""Two directions of a copy, and the policy of an allocation: huge pages where they are available."""
_DONE, INITIALIZED_ALREADY = 0, 100002
"""ACL_SUCCESS, and ACL_ERROR_REPEAT_INITIALIZE, which is not a failure if torch initialised ACL first."""
_NO_MEMORY = (200000, 207001)
"""ACL_ERROR_BAD_ALLOC and ACL_ERROR_RT_MEMORY_ALLOCATION."""
_POINTERS = ("mdl.create_desc", "mdl.create_dataset", "create_data_buffer")
"""Functions that return a pointer and no error code; the pointer is 0 if they fail."""
_VALUES = (
    *("mdl.get_num_inputs", "mdl.get_num_outputs", "mdl.get_input_size_by_index"),
    *("mdl.get_output_size_by_index", "mdl.get_output_data_type", "mdl.get_output_name_by_index"),
)
"""Functions that return a value and no error code."""


BY_BATCH, BY_SIZE = "mdl.set_dynamic_batch_size", "mdl.set_dynamic_hw_size"
"""The functions that set a gear: a batch, or a height and a width."""


@dataclass(frozen=True)
class Acl:
    """pyACL with every call checked.

    Args:
        subject: the name of the model, for error messages.
    """

    subject: str

    @functools.cached_property
    def _module(self) -> Any:
        try:
            return importlib.import_module("acl")
        except ImportError as error:
            raise UnavailableError(
                "acl cannot be imported",
                got=" ".join(str(error).split()),
                expected="CANN's own Python package, with its libraries",
                fix="source CANN's set_env.sh first",
            ) from error

    def __call__(self, name: str, *arguments: object, tolerated: int = _DONE) -> Any:
        """Call a function of pyACL by its name.

        Args:
            name: the name without the module, such as ``rt.malloc``.
            arguments: the function's arguments.
            tolerated: an error code that does not count as a failure.

        Returns:
            The function's value beside the error code; None if there is none.

        Raises:
            UnavailableError: pyACL cannot be imported, or does not have the function.
            MemoryShortError: the device has too little memory.
            EngineError: the call fails.
        """
        try:
            function = functools.reduce(getattr, name.split("."), self._module)
        except AttributeError as error:
            raise UnavailableError(
                f"pyACL has no acl.{name}",
                got=str(error),
                expected="the pyACL of CANN 8.0 or later",
                fix="install a later CANN",
            ) from error
        found = function(*arguments)
        if name in _VALUES or (name in _POINTERS and found):
            return found
        *values, code = found if isinstance(found, tuple) else (found,)
        if name in _POINTERS or code not in (_DONE, tolerated):
            raise self._refused(name, "no pointer" if name in _POINTERS else f"return code {code}", code)
        return values[0] if values else None

    def _refused(self, name: str, got: str, code: object) -> EngineError:
        what = f"acl.{name} refuses {self.subject}"
        if code in _NO_MEMORY:
            room = "room for the model and the batch"
            return MemoryShortError(what, got=got, expected=room, fix="use a smaller batch")
        fix = "look the code up under aclError in CANN's documentation, and in the device's logs"
        return EngineError(what, got=got, expected="return code 0", fix=fix)

    @contextlib.contextmanager
    def kept_context(self) -> Iterator[None]:
        """Restore the thread's context at the end: torch has its own context if it uses the NPU too."""
        before, code = self._module.rt.get_context()
        try:
            yield
        finally:
            if code == _DONE and before:
                self("rt.set_context", before)

    @contextlib.contextmanager
    def context(self, context: int) -> Iterator[None]:
        """Make a context the thread's current context while this one is open."""
        with self.kept_context():
            self("rt.set_context", context)
            yield


@dataclass(frozen=True)
class AclOutput:
    """One output of a model.

    Args:
        name: the output's name in the graph.
        dtype: the type of its elements.
        shape: its shape for one image; with gears by size, that of the greatest gear.
        nbytes: the size of its buffer, which has room for the greatest gear.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


@dataclass(frozen=True)
class AclGear:
    """One gear of a model.

    Args:
        function: the function that sets it.
        index: the index of the input from which the model reads its gear.
        values: the batch, or the height and the width.
    """

    function: str
    index: int
    values: tuple[int, ...]

    @property
    def by_size(self) -> bool:
        """Whether the gear is a size of images; the shapes of the outputs may depend on it."""
        return self.function == BY_SIZE


class AclBatch:
    """A batch on the device, with room for its outputs. Its memory is freed with the piece or its session.

    Args:
        acl: pyACL, in the context of the model.
        model: ACL's number of the model.
        description: the model's description.
        place: the index of the input that takes the images.
        outputs: the model's outputs.
        images: float32 (gear, 3, H, W).
        count: how many images are real; the rest fills the batch up to the gear.
        gear: how the model is set to this batch or size; None for a model without gears.
    """

    def __init__(
        self,
        acl: Acl,
        model: int,
        description: int,
        place: int,
        outputs: Sequence[AclOutput],
        images: Array,
        count: int,
        gear: AclGear | None,
    ) -> None:
        self.acl, self.model, self.outputs = acl, model, outputs
        self.batch, self.count, self.gear = len(images), count, gear
        with ExitStack() as undone:
            inputs = range(acl("mdl.get_num_inputs", description))
            sizes = [acl("mdl.get_input_size_by_index", description, index) for index in inputs]
            self.input, places = _dataset(acl, sizes, undone)
            self.output, self.places = _dataset(acl, [output.nbytes for output in outputs], undone)
            data = places[place]
            host = np.ascontiguousarray(images)
            acl("rt.memcpy", data, host.nbytes, host.ctypes.data, host.nbytes, _HOST_TO_DEVICE)
            self.shapes = [output.shape for output in outputs]
            if gear and gear.by_size:
                self._set_gear()
                found = [acl("mdl.get_cur_output_dims", description, index) for index in range(len(outputs))]
                self.shapes = [tuple(one["dims"][1:]) for one in found]
            self.undone = undone.pop_all()

    def _set_gear(self) -> None:
        if self.gear is not None:
            self.acl(self.gear.function, self.model, self.input, self.gear.index, *self.gear.values)

    def run(self) -> None:
        """Run the batch, and wait until the run is done."""
        self._set_gear()
        self.acl("mdl.execute", self.model, self.input, self.output)

    def fetch(self, index: int) -> Array:
        """Copy one output of the real images to the host."""
        output = self.outputs[index]
        host = np.empty((self.batch, *self.shapes[index]), output.dtype)
        self.acl("rt.memcpy", host.ctypes.data, host.nbytes, self.places[index], host.nbytes, _DEVICE_TO_HOST)
        return host[: self.count]


def _dataset(acl: Acl, sizes: Sequence[int], undone: ExitStack) -> tuple[int, list[int]]:
    """Make a dataset with one buffer per size; return the dataset and the addresses of the buffers."""
    dataset = acl("mdl.create_dataset")
    undone.callback(acl, "mdl.destroy_dataset", dataset)
    places = []
    for nbytes in sizes:
        place = acl("rt.malloc", nbytes, _HUGE_FIRST)
        undone.callback(acl, "rt.free", place)
        buffer = acl("create_data_buffer", place, nbytes)
        undone.callback(acl, "destroy_data_buffer", buffer)
        acl("mdl.add_dataset_buffer", dataset, buffer)
        places.append(place)
    return dataset, places


def let_go(acl: Acl, context: int, undone: ExitStack) -> None:
    """Free everything that was made in a context, by calling the clean-up functions in it."""
    with acl.context(context):
        undone.close()
