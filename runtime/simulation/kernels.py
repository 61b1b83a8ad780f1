"""Kernels of the simulated NPU: they run the CPU's operators on relabelled memory.

One function serves about a thousand operators: it relabels the operands as CPU memory, changes them as the
device's arithmetic would, runs the CPU's kernel, and relabels the results as the device's memory. On a device
that saturates, a float16 result of any operator has no Inf and no NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from vconv.runtime.simulation.arithmetic import adjusted, saturate
from vconv.runtime.simulation.relabelling import as_cpu
from vconv.runtime.simulation.state import LABEL, NPU, DeviceState

Kernel = Callable[..., Any]

_KEY = "PrivateUse1"
_MIXED = frozenset({"_copy_from", "copy_", "index", "index_put", "index_put_", "_index_put_impl_", "set_"})
"""Operators that may have operands on the CPU and on the device."""
_LAYOUT = frozenset(
    {"as_strided", "view", "_reshape_alias", "unfold", "view_as_real", "view_as_complex", "set_"}
)
"""Operators that only change sizes and strides: the CPU's kernel works directly on the device's tensor."""
_OWN = frozenset(
    {
        *("_copy_from", "copy_", "_to_copy", "to_sparse", "resize_", "_pin_memory", "is_pinned"),
        *("convolution_overrideable", "convolution_backward_overrideable"),
        *("_fused_sdp_choice", "_scaled_dot_product_flash_attention_for_cpu"),
    }
)
"""Operators that torch splits into other operators, or that are implemented below."""
_REFUSED = frozenset(
    {
        *("_transformer_encoder_layer_fwd", "_native_multi_head_attention", "_triton_multi_head_attention"),
        *("_addmm_activation", "_thnn_fused_lstm_cell", "_thnn_fused_gru_cell", "gelu_backward"),
        *("addr", "vdot", "sspaddmm", "_cdist_forward", "_cdist_backward", "_pdist_forward"),
        *("_int_mm", "_scaled_mm", "_scaled_mm_v2", "_weight_int4pack_mm_for_cpu", "_weight_int8pack_mm"),
        *("_slow_conv2d_forward", "_slow_conv2d_backward", "slow_conv3d_forward"),
        *("slow_conv_dilated2d", "slow_conv_dilated3d", "slow_conv_transpose2d", "slow_conv_transpose3d"),
        *("_pdist_backward", "_scaled_dot_product_flash_attention_for_cpu_backward"),
    }
)
"""Kernels that are refused. They hide a GELU or a product, which the arithmetic could not change, or belong
to training."""
_FOREIGN = ("quantize", "mkldnn")
_REDUCED = (
    *("conv1d", "conv2d", "conv3d", "convolution", "matmul", "mm", "bmm", "addmm", "baddbmm", "linear"),
    "scaled_dot_product_attention",
)
_WIDE = (
    *("softmax.int", "log_softmax.int", "layer_norm", "group_norm", "exp", "pow.Tensor_Scalar"),
    *("sum", "norm.Scalar", "mse_loss"),
)
"""Operators that autocast runs in the lower precision (``_REDUCED``), and operators that it runs in float32
(``_WIDE``), from torch's documentation of torch.amp."""


class Kernels:
    """The kernels that are registered with torch.

    Args:
        state: the device's state: its arithmetic, its memory and its counts.
    """

    def __init__(self, state: DeviceState) -> None:
        self._state = state
        self._kept: list[Any] = []
        """The libraries of the registrations: a registration lasts as long as its library object."""

    def register(self) -> int:
        """Register every kernel; return how many of the CPU's operators were registered."""
        aten = self._library("aten", "IMPL")
        count = 0
        for operator, name in self._operators():
            aten.impl(name, self._kernel(operator), _KEY)
            count += 1
        for name in ("_copy_from", "_copy_from_and_resize"):
            aten.impl(name, self._copy, _KEY)
        aten.impl("convolution_overrideable", self._convolution, _KEY)
        aten.impl("resize_", self._resize, _KEY)
        everything = self._library("_", "IMPL")
        everything.fallback(lambda operator, *args, **kwargs: self.run(operator, args, kwargs), _KEY)
        everything.fallback(torch.library.fallthrough_kernel, f"Autocast{_KEY}")
        self._register_autocast()
        self._register_gelu()
        return count

    def _library(self, namespace: str, kind: str) -> Any:
        make: Any = torch.library.Library
        self._kept.append(make(namespace, kind))
        return self._kept[-1]

    def _operators(self) -> list[tuple[Any, str]]:
        """List the CPU's operators that have no kernel on the device yet, with their registration names."""
        found = []
        for full in torch._C._dispatch_get_registrations_for_dispatch_key("CPU"):
            namespace, _, name = full.partition("::")
            base, _, overload = name.partition(".")
            if namespace != "aten" or base in _OWN or any(word in base for word in _FOREIGN):
                continue
            operator = getattr(getattr(torch.ops.aten, base, None), overload or "default", None)
            if operator is not None and not torch._C._dispatch_has_kernel_for_dispatch_key(full, _KEY):
                found.append((operator, name))
        return found

    def _kernel(self, operator: Any) -> Kernel:
        name = operator._schema.name.partition("::")[2]
        if name in _REFUSED:
            return _refusing(name)
        if name in _LAYOUT:
            keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
            return lambda *args, **kwargs: operator.redispatch(keys, *args, **kwargs)
        return lambda *args, **kwargs: self.run(operator, args, kwargs)

    def run(self, operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run one operator on the device.

        Raises:
            RuntimeError: an operand is on the CPU, which a real device would refuse.
        """
        name = operator._schema.name.partition("::")[2]
        call = _Call(name)
        own = [call.taken(arg) for arg in args]
        named = {key: call.taken(arg) for key, arg in kwargs.items() if key != "pin_memory"}
        call.require_one_device()
        if operator._schema.is_mutable and "out" in operator._overloadname:
            own, named = call.with_fresh_outs(own, named)
        new, changed, cause = adjusted(name, tuple(own), named, self._state.arithmetic)
        self._state.note(name, cause)
        result = operator(*new, **changed)
        if self._state.arithmetic.saturates:
            _saturate(result)
        if operator._schema.is_mutable:
            call.put_back(self._state.memory.as_npu)
        return call.given(result, self._state.memory.as_npu)

    def _convolution(self, *args: Any) -> Any:
        return self.run(torch.ops.aten.convolution.default, args, {})

    def _copy(self, source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
        copied = as_cpu(target) if target.device.type == NPU else target
        copied.copy_(as_cpu(source) if source.device.type == NPU else source)
        if self._state.arithmetic.saturates and source.dtype != target.dtype:
            _saturate(copied)
        return target

    def _resize(self, tensor: Tensor, size: Any, *, memory_format: Any = None) -> Tensor:
        tensor.data = self._state.memory.as_npu(as_cpu(tensor).clone().resize_(size))
        return tensor

    def _register_gelu(self) -> None:
        """Register ``npu_gelu``, which honours ``approximate`` even where ``F.gelu`` ignores it."""
        library = self._library("npu", "DEF")
        library.define('npu_gelu(Tensor self, *, str approximate="none") -> Tensor')

        def npu_gelu(values: Tensor, *, approximate: str = "none") -> Tensor:
            if approximate not in ("none", "tanh"):
                raise RuntimeError("NPU error, approximate argument must be either none or tanh.")
            self._state.note("npu_gelu", "")
            computed = torch.nn.functional.gelu(as_cpu(values), approximate=approximate)
            return self._state.memory.as_npu(computed)

        def without_data(values: Tensor, *, approximate: str = "none") -> Tensor:
            return torch.empty_like(values)

        library.impl("npu_gelu", npu_gelu, _KEY)
        library.impl("npu_gelu", without_data, "Meta")

    def _register_autocast(self) -> None:
        library = self._library("aten", "IMPL")
        excluded = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)  # type: ignore[attr-defined]

        def casting(operator: Any, reduced: bool) -> Kernel:
            def kernel(*args: Any, **kwargs: Any) -> Any:
                dtype = torch.get_autocast_dtype(NPU) if reduced else torch.float32
                with torch._C._ExcludeDispatchKeyGuard(excluded):
                    cast = {key: _cast(arg, dtype) for key, arg in kwargs.items()}
                    return operator(*(_cast(arg, dtype) for arg in args), **cast)

            return kernel

        for names, reduced in ((_REDUCED, True), (_WIDE, False)):
            for name in names:
                base, _, overload = name.partition(".")
                operator = getattr(getattr(torch.ops.aten, base), overload or "default")
                library.impl(name, casting(operator, reduced), f"Autocast{_KEY}")


class _Call:
    """One call of an operator: the operands on the device, each paired with its tensor on the CPU.

    Args:
        name: the operator.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._foreign = False

    def taken(self, value: Any) -> Any:
        """Return an argument in the form that the CPU's kernel takes."""
        if isinstance(value, Tensor):
            if value.device.type == NPU:
                self._pairs.append((as_cpu(value), value))
                return self._pairs[-1][0]
            self._foreign |= value.dim() > 0 and value.device.type == "cpu"
            return value
        if isinstance(value, (list, tuple)):
            return type(value)(self.taken(item) for item in value)
        if isinstance(value, torch.device) and value.type == NPU:
            return torch.device("cpu")
        return value

    def require_one_device(self) -> None:
        """Refuse operands on two devices, with torch's error message."""
        if self._foreign and self._pairs and self._name not in _MIXED:
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, npu:0 and "
                f"cpu! (when running {self._name} on {LABEL})"
            )

    def with_fresh_outs(self, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Replace empty outputs by new memory: kernels resize them, but cannot resize relabelled memory."""
        fresh = {}
        for place, (cpu, npu) in enumerate(self._pairs):
            if not cpu.numel():
                fresh[id(cpu)] = torch.empty(cpu.shape, dtype=cpu.dtype)
                self._pairs[place] = (fresh[id(cpu)], npu)
        new = {key: fresh.get(id(arg), arg) for key, arg in kwargs.items()}
        return [fresh.get(id(arg), arg) for arg in args], new

    def put_back(self, as_npu: Callable[[Tensor], Tensor]) -> None:
        """Attach the new memory to outputs that the kernel resized or moved."""
        for cpu, npu in self._pairs:
            if cpu.shape != npu.shape or (cpu.numel() and cpu.data_ptr() != npu.data_ptr()):
                npu.data = as_npu(cpu)

    def given(self, result: Any, as_npu: Callable[[Tensor], Tensor]) -> Any:
        """Return a result as a tensor on the device; the tensors in a list or tuple likewise."""
        if isinstance(result, Tensor):
            if result.device.type != "cpu":
                return result
            for cpu, npu in self._pairs:
                if cpu is result:
                    return npu
            return as_npu(result)
        if isinstance(result, (list, tuple)):
            return type(result)(self.given(item, as_npu) for item in result)
        return result


def _saturate(result: Any) -> None:
    """Replace Inf and NaN in float16 results by what a device gives that saturates."""
    for one in result if isinstance(result, (list, tuple)) else (result,):
        if isinstance(one, Tensor) and one.dtype == torch.float16:
            saturate(one)


def _refusing(name: str) -> Kernel:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"aten::{name} is not modelled by the {LABEL}")

    return kernel


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        ours = value.is_floating_point() and value.device.type == NPU and value.dtype != torch.float64
        return value.to(dtype) if ours else value
    if isinstance(value, (list, tuple)):
        return type(value)(_cast(item, dtype) for item in value)
    return value
