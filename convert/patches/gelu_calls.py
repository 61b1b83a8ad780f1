"""Calls of the exact GELU, wherever a network makes them: in modules and in functions, however often.

A network whose architecture is not declared may call ``torch.nn.functional.gelu`` anywhere. The calls are
found by running the network once on tensors without data, while torch reports every function that is called,
and which module is running. The number that must be found comes from another place: the dispatcher, below
all functions, counts the kernels (:mod:`vconv.convert.libraries.derivation`).
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.func import functional_call
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from vconv.convert.libraries import models
from vconv.convert.libraries.table import library_of
from vconv.convert.libraries.watch import Watch
from vconv.convert.network import Network
from vconv.convert.patches.base import Site, Undo

Compute = Callable[[Tensor], Tensor]
"""Computes the exact GELU of a tensor."""
_METHODS = ("forward", "forward_features", "forward_head")
"""Methods of a whole model that are called from outside, and may call GELU themselves."""


def _is_exact(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return func is torch.nn.functional.gelu and kwargs.get("approximate", "none") == "none"


class _Instead(TorchFunctionMode):
    """Computes the exact GELU in another way, wherever it is called, while it is active."""

    def __init__(self, compute: Compute) -> None:
        super().__init__()
        self._compute = compute

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _is_exact(func, args, kwargs or {}):
            return self._compute(args[0] if args else (kwargs or {})["input"])
        return func(*args, **(kwargs or {}))


class _Callers(TorchFunctionMode):
    """Notes the innermost module that runs when GELU or ``erf`` is called, while it is active."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.kernels: Counter[nn.Module] = Counter()
        self.spelled_out: Counter[nn.Module] = Counter()
        self._running = [model]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _is_exact(func, args, kwargs or {}):
            self.kernels[self._running[-1]] += 1
        elif func in (torch.erf, Tensor.erf, torch.special.erf):
            self.spelled_out[self._running[-1]] += 1
        return func(*args, **(kwargs or {}))

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Follow which module runs."""

        def enter(module: nn.Module, args: Any) -> None:
            self._running.append(module)

        def leave(module: nn.Module, args: Any, result: Any) -> None:
            self._running.pop()

        handles = register_module_forward_pre_hook(enter), register_module_forward_hook(leave)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _run(model: nn.Module, network: Network) -> None:
    """Run a model on images without data, and with weights without data."""
    wrapper, mode = models.Outputs(model, network).eval(), FakeTensorMode(allow_non_fake_inputs=True)
    state = {**dict(wrapper.named_parameters()), **dict(wrapper.named_buffers())}
    device = next(iter(state.values())).device
    channels, height, width = library_of(network).beyond.images(network.config)
    with models.caches_cleared(model), mode, torch.no_grad():
        images = torch.empty(2, channels, height, width, device=device)
        # With tie_weights, torch would leave a module that has two names without its own tensors.
        functional_call(wrapper, _without_data(state, mode), (images,), tie_weights=False)


def _without_data(state: Mapping[str, Tensor], mode: FakeTensorMode) -> dict[str, Tensor]:
    return {
        name: tensor if isinstance(tensor, FakeTensor) else mode.from_tensor(tensor)
        for name, tensor in state.items()
    }


def _callers(model: nn.Module, network: Network) -> _Callers:
    found = _Callers(model)
    with found.listening(), found:
        _run(model, network)
    return found


def _wrapped(method: Callable[..., Any], compute: Compute) -> Callable[..., Any]:
    @functools.wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        with _Instead(compute):
            return method(*args, **kwargs)

    return run


def _set(module: nn.Module, methods: Mapping[str, Callable[..., Any]]) -> Undo:
    """Give a module other methods; return what restores its own."""
    before = {name: vars(module).get(name) for name in methods}
    for name, method in methods.items():
        setattr(module, name, method)

    def undo() -> None:
        for name, method in before.items():
            delattr(module, name) if method is None else setattr(module, name, method)

    return undo


def _computed(compute: Compute, x: Tensor) -> Tensor:
    """Compute a GELU; a module as a method would become a child of the module that has it."""
    return compute(x)


def _wrap(module: nn.Module, compute: Compute) -> Undo:
    """Let a module compute every GELU that it calls, itself or in its children, in another way."""
    own = {name: getattr(module, name) for name in _METHODS if hasattr(module, name)}
    return _set(module, {name: _wrapped(method, compute) for name, method in own.items()})


def sites(model: nn.Module, network: Network, compute: Compute, also_spelled_out: bool) -> list[Site]:
    """Find every call of the exact GELU, as a place where ``compute`` takes its place.

    Args:
        model: a model of a network whose architecture is not declared.
        network: the network.
        compute: what computes the GELU instead.
        also_spelled_out: whether to replace a GELU of the library that is spelled out with ``erf`` already.

    Returns:
        One place for each module that calls it, with the number of its calls.
    """
    found, names = _callers(model, network), {module: name for name, module in model.named_modules()}
    known = library_of(network).exact_gelus()
    places = [
        Site(names[module], False, functools.partial(_wrap, module, compute), calls)
        for module, calls in found.kernels.items()
    ]
    for module, calls in found.spelled_out.items():
        whole = functools.partial(_set, module, {"forward": functools.partial(_computed, compute)})
        done = not (also_spelled_out and isinstance(module, known))
        places.append(Site(names[module], done, whole, calls))
    return places


def left(model: nn.Module, network: Network) -> int:
    """Count the kernels of the exact GELU that one forward pass of a model runs, below all functions."""
    with Watch() as watch:
        _run(model, network)
    return int(watch.kernels)
