"""Offline models on an NPU: the engine ``acl``."""

from __future__ import annotations

import importlib.util
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from vconv.convert.ascend.atc import SCRIPT_FILE
from vconv.errors import EngineError, UnavailableError
from vconv.precisions import FP32
from vconv.runtime.devices.base import Device
from vconv.runtime.engines.base import FileSession, Placed
from vconv.runtime.engines.pyacl import (
    BY_BATCH,
    BY_SIZE,
    INITIALIZED_ALREADY,
    Acl,
    AclBatch,
    AclGear,
    AclOutput,
    let_go,
)
from vconv.types import CHANNELS, INPUT, Array

GEAR_INPUT = "ascend_mbatch_shape_data"
"""The input that ATC adds to a model with gears. This input holds the batch, or the height and width."""
_UNUSED = -1
"""The index that get_dynamic_hw takes and does not use (page aclpythondevg_01_0205 of CANN 7.0)."""
_TYPES = {0: "float32", 1: "float16"}
"""ACL's number of a type -> the name of the type."""


class OfflineSession(FileSession):
    """An offline model on an NPU.

    A model with gears takes any batch: the session fills the batch up to the next gear, and runs a batch
    beyond the greatest gear in several pieces. A model with gears by size takes one batch, and images of
    those sizes only: filling an image up would change what the network computes. Closing the session neither
    resets the device nor finalises ACL: torch may be using both.

    Args:
        path: the offline model.
        device: the NPU.
        folder: see :class:`vconv.runtime.engines.base.FileSession`.
        size: see the same class.
        batch: see the same class.
        precision: the precision that the model was compiled in.
        outputs: the names of the model's outputs, in order, if the model itself has other names for them and
            for its one input; empty if it has our names.

    Raises:
        UnavailableError: the device is not an NPU, CANN is not installed, or the model is not made yet.
        EngineError: pyACL refuses the model, or the model's images, batch or outputs are not as expected.
    """

    engine = "acl"

    @classmethod
    def lack(cls, device: Device) -> str:
        """See :meth:`vconv.runtime.engines.base.FileSession.lack`."""
        if device.kind != "npu":
            return "offline models run on an NPU alone"
        return "" if importlib.util.find_spec("acl") else "no package acl, which comes with CANN"

    @classmethod
    def arithmetic(cls, device: Device, precision: str) -> str:
        """Return the arithmetic that a model is compiled for. No probe runs: only ATC could make its model.

        vconv makes ATC compute float32 without HF32. A cube unit that takes float16 operands cannot compute
        float32: see :mod:`vconv.convert.ascend.atc`.
        """
        narrow = precision == FP32 and device.arithmetic == "fp16"
        return device.arithmetic if narrow else precision

    def __init__(
        self,
        path: Path,
        device: Device,
        folder: Path,
        size: tuple[int, int],
        batch: int | None,
        precision: str = FP32,
        outputs: Sequence[str] = (),
    ) -> None:
        super().__init__(path, device, folder, size, batch, precision)
        self._names = outputs
        lack = self.lack(device)
        if lack or not path.is_file():
            raise _unavailable(path, lack, device)
        self._acl = acl = Acl(path.name)
        acl("init", tolerated=INITIALIZED_ALREADY)
        acl("rt.set_device", device.index)
        with acl.kept_context():
            self._context = context = acl("rt.create_context", device.index)
        loaded = ExitStack()
        self._bound: list[weakref.finalize[Any, Any]] = []
        with ExitStack() as undone:
            undone.callback(acl, "rt.destroy_context", context)
            undone.callback(let_go, acl, context, loaded)
            undone.callback(self._free)
            with acl.context(context):
                self._model = acl("mdl.load_from_file", str(path))
                loaded.callback(acl, "mdl.unload", self._model)
                self._description = acl("mdl.create_desc")
                loaded.callback(acl, "mdl.destroy_desc", self._description)
                acl("mdl.get_desc", self._description, self._model)
                by_name = "mdl.get_input_index_by_name"
                self._place = 0 if outputs else acl(by_name, self._description, INPUT)
                self._gears, self.size_gears = self._find_gears()
                self._outputs = [*self._find_outputs()]
            self._closing = undone.pop_all()

    def _find_gears(self) -> tuple[list[int], tuple[tuple[int, int], ...]]:
        """Return the model's gears in ascending order: batches, and (height, width).

        Raises:
            EngineError: the model does not take the session's image size and batch.
        """
        acl, description = self._acl, self._description
        found = acl("mdl.get_dynamic_batch", description)
        gears = sorted(found["batch"][: found["batchCount"]])
        dims = acl("mdl.get_input_dims", description, self._place)["dims"]
        listed = acl("mdl.get_dynamic_hw", description, _UNUSED)
        sizes = tuple(sorted((high, wide) for high, wide in listed["hw"][: listed["hwCount"]]))
        size = self.size if self.size in sizes else dims[2:]
        own = [None if gears else dims[0], dims[1], *size]
        wanted = [self.batch, CHANNELS, *self.size]
        if own != wanted:
            raise self._unfit(f"images {own}", f"{wanted}, where None is any batch")
        return gears, sizes

    def _find_outputs(self) -> Iterator[AclOutput]:
        """Describe the model's outputs.

        A name is ``operator:number:name`` if the model was made from ONNX and no output was selected:
        https://www.hiascend.com/document/detail/en/canncommercial/800/apiref/appdevgapi/aclpythondevg_01_0214.html.
        """
        acl, description = self._acl, self._description
        names = set()
        number = acl("mdl.get_num_outputs", description)
        if self._names and (acl("mdl.get_num_inputs", description), number) != (1, len(self._names)):
            raise self._unfit(f"{number} outputs, or several inputs", f"{len(self._names)} and one input")
        for index in range(number):
            name = self._names[index] if self._names else self._own_name(index)
            dtype = acl("mdl.get_output_data_type", description, index)
            dims = acl("mdl.get_output_dims", description, index)["dims"]
            if dtype not in _TYPES or name in names:
                raise self._unfit(f"output {name} of type {dtype}", f"each name once, and types {[*_TYPES]}")
            names.add(name)
            nbytes = acl("mdl.get_output_size_by_index", description, index)
            yield AclOutput(name, _TYPES[dtype], tuple(dims[1:]), nbytes)

    def _own_name(self, index: int) -> str:
        name: str = self._acl("mdl.get_output_name_by_index", self._description, index)
        return name.rsplit(":", 1)[-1]

    def _unfit(self, got: str, expected: str) -> EngineError:
        return EngineError(
            f"{self.path.name} is not the model that this artifact describes",
            got=got,
            expected=expected,
            fix="make it again, with the script beside it or by exporting the artifact again",
        )

    def _split(self, images: Array) -> Iterator[tuple[Array, int]]:
        """Cut images into batches that the model takes.

        Yields:
            Each batch, and how many of its images are real: the rest fills the batch up to a gear.
        """
        if not self._gears and len(images) != self.batch:
            raise EngineError(
                f"acl refuses {self.path.name} this batch",
                got=len(images),
                expected=self.batch,
                fix="give the batch that it was made for, or export it with --gears",
            )
        high, wide = images.shape[2:]
        if (high, wide) not in (self.size_gears or (self.size,)):
            raise EngineError(
                f"acl refuses {self.path.name} images of this size",
                got=f"{high},{wide}",
                expected=" or ".join(f"{one[0]},{one[1]}" for one in self.size_gears or (self.size,)),
                fix="resize the images, or export it with this size in --gears-size",
            )
        gears = self._gears or [len(images)]
        for start in range(0, len(images), gears[-1]):
            part = images[start : start + gears[-1]]
            gear = next(gear for gear in gears if gear >= len(part))
            yield np.concatenate([part, np.repeat(part[-1:], gear - len(part), axis=0)]), len(part)

    def _gear(self, images: Array) -> AclGear | None:
        """Return the gear of a batch (B, 3, H, W), in the context of the model; None without gears."""
        if not self._gears and not self.size_gears:
            return None
        index = self._acl("mdl.get_input_index_by_name", self._description, GEAR_INPUT)
        function, values = (BY_BATCH, images.shape[:1]) if self._gears else (BY_SIZE, images.shape[2:])
        return AclGear(function, index, values)

    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        """See :meth:`vconv.runtime.engines.base.Session.bind`."""
        self._check_open()
        acl = self._acl
        self._bound = [one for one in self._bound if one.alive]
        pieces = []
        with acl.context(self._context):
            for images, count in self._split(pixel_values.astype(np.float32, copy=False)):
                gear = self._gear(images)
                piece = AclBatch(
                    acl, self._model, self._description, self._place, self._outputs, images, count, gear
                )
                freed = weakref.finalize(piece, let_go, acl, self._context, piece.undone)
                freed.atexit = False
                self._bound.append(freed)
                pieces.append(piece)

        def forward() -> Any:
            self._check_open()
            with acl.context(self._context):
                for piece in pieces:
                    piece.run()
            return pieces

        return forward

    def fetch(self, raw: Any) -> dict[str, Array]:
        """See :meth:`vconv.runtime.engines.base.Session.fetch`."""
        self._check_open()
        with self._acl.context(self._context):
            arrays = {
                output.name: np.concatenate([piece.fetch(index) for piece in raw])
                for index, output in enumerate(self._outputs)
            }
        self.placed = {output.name: Placed(output.dtype, self.device.name) for output in self._outputs}
        return arrays

    def _free(self) -> None:
        for freed in self._bound:
            freed()


def _unavailable(graph: Path, lack: str, device: Device) -> UnavailableError:
    if lack:
        return UnavailableError(
            "acl cannot run here",
            got=lack,
            expected=f"an NPU with CANN, not {device.name}" if device.kind != "npu" else "CANN's own Python",
            fix="use --device npu on a machine with CANN, its set_env.sh sourced",
        )
    return UnavailableError(
        f"{graph.name} is not made yet",
        got="no such file",
        expected=f"what {SCRIPT_FILE} makes",
        fix=f"run {graph.parent.name}/{SCRIPT_FILE} of the artifact where atc is on PATH",
    )
