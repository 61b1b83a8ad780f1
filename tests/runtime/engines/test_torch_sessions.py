from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from vconv.convert.libraries import models
from vconv.convert.patches import table
from vconv.convert.patches.base import Patch
from vconv.convert.sources.base import Source
from vconv.errors import EngineError, MemoryShortError
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.torch_model import TorchSession
from vconv.types import Array

CPU = find_device("cpu")


def images(count: int, size: tuple[int, int]) -> Array:
    return np.random.default_rng(count).standard_normal((count, 3, *size), dtype=np.float32)


@pytest.fixture
def original(small_source: Source, size: tuple[int, int]) -> Callable[..., TorchSession]:
    """Open the original of a small system in torch, on any device, with any patches."""

    def open_it(device: Device = CPU, patches: Iterable[Patch] = (), model: Any = None) -> TorchSession:
        net = small_source.network
        loaded = model or models.load(small_source.folder, net)
        return TorchSession(loaded, net, device, patches, small_source.folder, size)

    return open_it


def test_patches_are_on_while_a_torch_session_is_open_and_off_after_with_the_weights_gone(
    small_source: Source, original: Callable[..., TorchSession]
) -> None:
    net = small_source.network
    model = models.load(small_source.folder, net)

    def kinds() -> list[str]:
        return [type(module).__name__ for module in model.modules()]

    def buffers() -> list[bytes]:
        return [buffer.numpy().tobytes() for buffer in model.buffers()]

    before = kinds(), buffers()
    patches = [patch for patch in table.called_for(net) if patch.name != "qkv-bias"]
    with original(patches=patches, model=model) as session:
        assert [found.patch for found in session.patches] == [patch.name for patch in patches]
        assert all(found.sites > found.carried for found in session.patches)
        assert (kinds(), buffers()) != before
    assert kinds() == before[0]
    assert all(tensor.is_meta for tensor in model.state_dict().values())


def test_weights_are_gone_too_where_a_session_cannot_be_opened(
    small_source: Source, original: Callable[..., TorchSession]
) -> None:
    model = models.load(small_source.folder, small_source.network)
    with pytest.raises(EngineError):
        original(replace(CPU, name="nowhere"), model=model)
    assert all(tensor.is_meta for tensor in model.state_dict().values())


class Journal:
    """A device that notes when its exact arithmetic is on, and models that note when they run."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextlib.contextmanager
    def exact(self) -> Iterator[None]:
        self.lines.append("exact")
        try:
            yield
        finally:
            self.lines.append("as before")

    def listen(self, model: torch.nn.Module, error: BaseException | None = None) -> None:
        def note(*_: object) -> None:
            self.lines.append("run")
            if error:
                raise error

        # timm's models are not run by being called, but their patch embedding is.
        next(part for part in model.modules() if isinstance(part, torch.nn.Conv2d)).register_forward_hook(
            note
        )


@pytest.mark.parametrize("way", ["call", "run", "bind"])
def test_the_devices_exact_arithmetic_is_on_around_every_run_of_torch(
    way: str, small_source: Source, original: Callable[..., TorchSession], size: tuple[int, int]
) -> None:
    journal = Journal()
    model = models.load(small_source.folder, small_source.network)
    journal.listen(model)
    given = images(2, size)
    with original(replace(CPU, exact=journal.exact), model=model) as session:
        assert journal.lines == []
        {"call": session, "run": session.run, "bind": lambda feed: session.bind(feed)()}[way](given)
        assert journal.lines == ["exact", "run", "as before"]


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyboardInterrupt()], ids=repr)
def test_exact_arithmetic_is_off_again_after_an_error(
    error: BaseException,
    small_source: Source,
    original: Callable[..., TorchSession],
    size: tuple[int, int],
) -> None:
    journal = Journal()
    model = models.load(small_source.folder, small_source.network)
    journal.listen(model, error)
    with (
        original(replace(CPU, exact=journal.exact), model=model) as session,
        pytest.raises(type(error)),
    ):
        session.run(images(1, size))
    assert journal.lines == ["exact", "run", "as before"]


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 1 has ...")


@pytest.mark.parametrize("way", ["run", "bind"])
def test_too_little_memory_for_a_run_of_torch_is_told_in_a_sentence(
    way: str, small_source: Source, original: Callable[..., TorchSession], size: tuple[int, int]
) -> None:
    model = models.load(small_source.folder, small_source.network)
    Journal().listen(model, OUT_OF_MEMORY)
    with (
        original(model=model) as session,
        pytest.raises(MemoryShortError, match=r"cpu has too little memory .*20\.00 GiB.*smaller batch"),
    ):
        session.run(images(1, size)) if way == "run" else session.bind(images(1, size))()


def no_room(*_: object, **__: object) -> None:
    raise OUT_OF_MEMORY


def test_too_little_memory_for_the_model_is_told_in_a_sentence(
    original: Callable[..., TorchSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.Module, "to", no_room)
    with pytest.raises(MemoryShortError, match="cpu has too little memory"):
        original()


def test_too_little_memory_for_the_images_is_told_in_a_sentence(
    original: Callable[..., TorchSession], monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    with original() as session, monkeypatch.context() as short:
        short.setattr(torch.Tensor, "to", no_room)
        with pytest.raises(MemoryShortError, match="cpu has too little memory"):
            session.bind(images(1, size))


def test_what_torch_cannot_run_is_a_refusal_and_not_taken_for_too_little_memory(
    small_source: Source, original: Callable[..., TorchSession], size: tuple[int, int]
) -> None:
    model = models.load(small_source.folder, small_source.network)
    Journal().listen(model, RuntimeError("shapes cannot be multiplied"))
    with original(model=model) as session, pytest.raises(EngineError, match="cannot be multiplied") as caught:
        session.run(images(1, size))
    assert not isinstance(caught.value, MemoryShortError)
