"""Graphs in ONNX Runtime, on every kind of device: the engine ``onnxruntime``."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError

from vconv.convert.libraries.widening import GREATEST_WIDENED
from vconv.precisions import FP32
from vconv.runtime.devices.base import Device
from vconv.runtime.engines import linked_weights, threads
from vconv.runtime.engines.base import PIECE, GraphSession, Placed, RunPiece, refusals, unavailable
from vconv.runtime.engines.placement import Profile
from vconv.runtime.engines.providers import PROVIDERS, Provider
from vconv.types import Array, Arrays

ONNX_RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    *(
        value
        for value in vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ),
)
"""Everything that ONNX Runtime raises: its exceptions, and RuntimeError from binding inputs or outputs."""
_TYPES = {"float": "float32", "double": "float64"}
"""ONNX Runtime's name of a type -> the usual name, where the two differ."""


_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
"""ONNX Runtime's key for the folder of a serialised graph's weights (session_options_config_keys.h)."""


_NARROW = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
_FOLDING = ("ConstantFolding", "ConstantFoldingDQ")
"""ONNX Runtime's names of the optimisers that would widen narrow weights once and for all."""


_INTO_GEMM = ("MatMulAddFusion",)
"""Those that make ``Gemm`` of a product and a sum. ONNX Runtime 1.32 has a form in whole numbers of quantised
products, and none of such a ``Gemm``, which it then computes in float32: seen in the optimised graph."""


def _session_options(
    profile: Profile | None, weights_folder: Path | None, lean: bool
) -> onnxruntime.SessionOptions:
    """Return ONNX Runtime's options for every graph.

    Args:
        profile: records where nodes run; None to record nothing.
        weights_folder: the folder from which a serialised graph reads its weights.
        lean: whether weights stay in their file: neither packed anew, nor kept by the arena after their use.
    """
    options = onnxruntime.SessionOptions()
    if lean:
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.disable_prepacking", "1")
    options.log_severity_level = 3
    # Otherwise idle threads would keep spinning during the next variant's run and slow it down.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if weights_folder is not None:
        options.add_session_config_entry(_WEIGHTS_FOLDER, str(weights_folder))
    if profile:
        profile.start(options)
    return options


def onnxruntime_session(
    model: str | bytes,
    device: Device,
    subject: str,
    profile: Profile | None = None,
    weights_folder: Path | None = None,
    lean: bool = False,
    plain: bool = False,
    disabled: Sequence[str] = (),
    provider: Provider | None = None,
    engine: str = "onnxruntime",
) -> onnxruntime.InferenceSession:
    """Open a graph in ONNX Runtime.

    Args:
        model: the path of a graph, or its serialised bytes.
        device: the device to run on.
        subject: the graph's name in error messages.
        profile: records where the graph's nodes run; None to record nothing.
        weights_folder: the folder of a serialised graph's external weights.
        lean: whether to keep narrow weights narrow, in their file, and widen each only while it is used.
        plain: whether to run the nodes as they are, without any optimisation of the graph.
        disabled: ONNX Runtime's names of optimisers that are not run.
        provider: the execution provider; by default the usual one of the device.
        engine: the name of the engine in error messages.

    Raises:
        EngineError: ONNX Runtime refuses the graph.
        UnavailableError: ONNX Runtime would run the graph on another device, for example because a library is
            missing.
    """
    with refusals("ONNX Runtime", ONNX_RUNTIME_ERRORS, subject):
        options, provider = (
            _session_options(profile, weights_folder, lean),
            provider or PROVIDERS[device.kind],
        )
        if plain:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(
            model,
            options,
            providers=[provider.on(device)],
            disabled_optimizers=[*disabled, *(_FOLDING if lean else ())] or None,
        )
    used = session.get_providers()
    if provider.name not in used:
        raise unavailable(engine, f"{', '.join(used)} alone", device)
    return session


def _is_lean(tensors: Sequence[onnx.TensorProto]) -> bool:
    """Return whether a graph's weights are narrow, and would take too much memory in float32."""
    narrow: int = sum(math.prod(tensor.dims) for tensor in tensors if tensor.data_type in _NARROW)
    return 4 * narrow > GREATEST_WIDENED


def _constants(graph: Path) -> Sequence[onnx.TensorProto]:
    try:
        return list(onnx.load(graph, load_external_data=False).graph.initializer)
    except (OSError, DecodeError):
        return ()  # the engine says what is wrong with it


def _placed(output: Any) -> Placed:
    dtype = str(output.data_type())[len("tensor(") : -1]
    return Placed(_TYPES.get(dtype, dtype), output.device_name())


def piece_of_session(
    model: onnx.ModelProto,
    folder: Path,
    names: Sequence[str],
    device: Device,
    plain: bool = False,
    provider: Provider | None = None,
    engine: str = "onnxruntime",
) -> RunPiece:
    """Load a piece of a graph: see :meth:`vconv.runtime.engines.base.GraphSession.piece`.

    Args:
        model: see there.
        folder: see there.
        names: see there.
        device: see there.
        plain: see :func:`onnxruntime_session`.
        provider: see the same function.
        engine: see the same function.
    """
    place, wanted = linked_weights.resolved(model, folder), list(names)
    session = onnxruntime_session(
        model.SerializeToString(),
        device,
        PIECE,
        weights_folder=place,
        plain=plain,
        provider=provider,
        engine=engine,
    )

    def run(given: Arrays) -> dict[str, Array]:
        with refusals("ONNX Runtime", ONNX_RUNTIME_ERRORS, PIECE):
            return dict(zip(wanted, session.run(wanted, dict(given)), strict=True))

    return run


class OnnxRuntimeSession(GraphSession):
    """A graph in ONNX Runtime.

    On an accelerator, the runs before the first fetch are profiled, to find the device of each node.

    Args:
        path: the ONNX file.
        device: see :class:`vconv.runtime.engines.base.FileSession`.
        folder: see the same class.
        size: see the same class.
        batch: see the same class.
        precision: the graph's precision. ONNX Runtime has no option for it.
    """

    engine = "onnxruntime"
    providers: ClassVar[Mapping[str, Provider]] = PROVIDERS
    """Kind of device -> provider."""

    @classmethod
    def lack(cls, device: Device) -> str:
        """See :meth:`vconv.runtime.engines.base.FileSession.lack`."""
        if device.kind not in cls.providers:
            return f"vconv knows no execution provider for {device.name}"
        available, provider = onnxruntime.get_available_providers(), cls.providers[device.kind]
        return "" if provider.name in available else f"no {provider.name}, only {', '.join(available)}"

    @classmethod
    def piece(
        cls, model: onnx.ModelProto, folder: Path, names: Sequence[str], device: Device, precision: str
    ) -> RunPiece:
        """See :meth:`vconv.runtime.engines.base.GraphSession.piece`."""
        return piece_of_session(
            model, folder, names, device, provider=cls.providers[device.kind], engine=cls.engine
        )

    def __init__(
        self,
        path: Path,
        device: Device,
        folder: Path,
        size: tuple[int, int],
        batch: int | None,
        precision: str = FP32,
    ) -> None:
        super().__init__(path, device, folder, size, batch, precision)
        lack = self.lack(device)
        if lack:
            raise unavailable(self.engine, lack, device)
        self._profile = None if device.kind == "cpu" or device.simulated else Profile()
        with contextlib.ExitStack() as undone:
            if self._profile:
                undone.callback(self._profile.discard)
            self._session = self.load(path)
            self._closing = undone.pop_all()
        if device.kind == "cpu":
            self.threads = threads.of_onnxruntime(self._session.get_session_options().intra_op_num_threads)
        (self._input,) = (given.name for given in self._session.get_inputs())
        self._names = [output.name for output in self._session.get_outputs()]

    def load(self, graph: Path) -> onnxruntime.InferenceSession:
        """Load the graph."""
        model, constants = linked_weights.opened(graph), _constants(graph)
        whole = any(tensor.data_type == onnx.TensorProto.INT8 for tensor in constants)
        place = None if model is None else linked_weights.resolved(model, graph.parent)
        return onnxruntime_session(
            str(graph) if model is None else model.SerializeToString(),
            self.device,
            self.path.name,
            self._profile,
            place,
            _is_lean(constants),
            disabled=_INTO_GEMM if whole else (),
            provider=self._provider,
            engine=self.engine,
        )

    @property
    def _provider(self) -> Provider:
        return self.providers[self.device.kind]

    def _refusals(self) -> contextlib.AbstractContextManager[None]:
        return refusals("ONNX Runtime", ONNX_RUNTIME_ERRORS, self.path.name)

    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        """See :meth:`vconv.runtime.engines.base.Session.bind`."""
        self._check_open()
        kind, index = self._provider.memory, self.device.index
        binding = self._session.io_binding()
        with self._refusals():
            images = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(pixel_values), kind, index)
            binding.bind_ortvalue_input(self._input, images)
            for name in self._names:
                binding.bind_output(name, kind, index)

        def forward() -> Any:
            with self._refusals():
                self._session.run_with_iobinding(binding)
                return binding.get_outputs()

        return forward

    def fetch(self, raw: Any) -> dict[str, Array]:
        """See :meth:`vconv.runtime.engines.base.Session.fetch`."""
        outputs = dict(zip(self._names, raw, strict=True))
        self.placed = {name: _placed(output) for name, output in outputs.items()}
        if self._profile and self.fallbacks is None:
            self.fallbacks = self._profile.end(self._session, {self._provider.name})
        with self._refusals():
            return {name: output.numpy() for name, output in outputs.items()}
