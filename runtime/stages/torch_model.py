"""A torch variant in stages, and every operator of a stage."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vconv.convert.architectures.layer_outputs import layers_of
from vconv.convert.architectures.outputs import Needed
from vconv.convert.libraries.layers import Seen, find_blocks
from vconv.convert.libraries.table import library_of
from vconv.runtime.engines.torch_model import TorchSession, autocast, torch_type
from vconv.runtime.stages.base import TOKENS, Stages, Step, require, stage_names
from vconv.runtime.stages.recording import Recorder, as_array
from vconv.types import Array, Arrays

Pass = Callable[..., Tensor]


class TorchStages(Stages):
    """A torch session in stages. While the embeddings or the head run, the blocks are skipped.

    Args:
        session: the open variant.
        plain: whether attention is computed with plain operators, as in a graph, while steps are listed.

    Raises:
        ArtifactError: the architecture's blocks are not known.
    """

    def __init__(self, session: TorchSession, plain: bool) -> None:
        self._session, self._plain = session, plain
        self._model, self._network = session.outputs.model, session.outputs.network
        require(self._network)
        self._layers = session.outputs.layers
        self._blocks = find_blocks(self._model, self._network)[: Needed.by(self._network).blocks]
        # The head needs the tokens after other blocks than the last only for outputs of these.
        self._keeps = bool(layers_of(self._network))
        self._after: dict[int, Tensor] = {}
        self._seen = Seen()
        self.names = stage_names(len(self._blocks))
        self._beside: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self._images, self._type = torch.empty(0), torch.float32

    def run(self, stage: int, given: Arrays) -> dict[str, Array]:
        """See :meth:`Stages.run`."""
        with self._running():
            return self._forward(stage, given)

    def steps(self, stage: int, given: Arrays) -> list[Step]:
        """See :meth:`Stages.steps`."""
        found: list[Step] = []
        self.visit(stage, given, found.append)
        return found

    def visit(self, stage: int, given: Arrays, take: Callable[[Step], None]) -> None:
        """Run one stage; pass on every operator as soon as it has run, and keep no list.

        Args:
            stage: the index of the stage.
            given: see :meth:`Stages.run`.
            take: receives each step.
        """
        recorder = Recorder(self._model, take)
        plain = library_of(self._network).plain_attention(self._model, self._network) if self._plain else None
        with plain or contextlib.nullcontext(), recorder.inside(self._model), self._running():
            self._forward(stage, given, recorder)

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        session = self._session
        # Not in inference mode, which does not split composed operators into the ones that a graph has.
        with (
            session.refusals(),
            torch.no_grad(),
            session.device.exact(),
            autocast(session.precision, session.device),
        ):
            yield

    def _forward(self, stage: int, given: Arrays, recorder: Recorder | None = None) -> dict[str, Array]:
        ((_, array),) = given.items()
        tensor = torch.from_numpy(np.ascontiguousarray(array)).to(self._session.device.torch_name)
        with contextlib.ExitStack() as recording:
            begin = functools.cache(recording.enter_context)

            def record(tensor: Tensor) -> Tensor:
                if recorder:
                    recorder.start(tensor)
                    begin(recorder)
                return tensor

            if stage == 0:
                self._images = record(tensor.to(torch_type(self._session.precision.dtype)))
                return {TOKENS: as_array(self._embedded(recorder))}
            if stage == len(self.names) - 1:
                return self._ended(tensor, record)
            arguments, options = self._beside[stage - 1]
            tokens = record(tensor.to(self._type))
            with self._reading():
                found = self._blocks[stage - 1](tokens, *arguments, **options)
            if self._keeps:
                self._after[stage] = found
            return {TOKENS: as_array(found)}

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Keep what the running blocks give for outputs of single blocks: the head returns them."""
        if self._layers is None:
            yield
            return
        with self._layers.reading() as seen:
            yield
        self._seen.update(seen)

    def _embedded(self, recorder: Recorder | None) -> Tensor:
        """Run all but the blocks; return the first block's input, and store each block's other arguments."""
        seen: list[Tensor] = []

        def passing(index: int, tokens: Tensor, *arguments: Any, **options: Any) -> Tensor:
            if recorder:
                recorder.stop()
            self._beside[index] = arguments, options
            seen.append(tokens)
            return tokens

        with self._passed_by(passing):
            self._session.outputs.run(self._images)
        self._type = seen[0].dtype
        return seen[0]

    def _ended(self, tokens: Tensor, record: Callable[[Tensor], Tensor]) -> dict[str, Array]:
        """Run the head: all but the blocks, with the given tokens as the last block's result."""

        def passing(index: int, before: Tensor, *arguments: Any, **options: Any) -> Tensor:
            if index == len(self._blocks) - 1:
                return record(tokens.to(self._type))
            return record(self._after[index + 1]) if self._keeps else before

        outputs, attention = self._session.outputs, dict(self._seen.attention)
        with self._passed_by(passing), self._reading():
            given = outputs.run(self._images)
        self._seen.attention.update(attention)  # that of blocks which were skipped now
        named = outputs.named(self._images, given, self._seen)
        return {name: as_array(value) for name, value in zip(self._session.names, named, strict=True)}

    @contextlib.contextmanager
    def _passed_by(self, passing: Pass) -> Iterator[None]:
        before = [vars(block).get("forward") for block in self._blocks]
        for index, block in enumerate(self._blocks):
            block.forward = functools.partial(passing, index)
        try:
            yield
        finally:
            for block, forward in zip(self._blocks, before, strict=True):
                if forward is None:
                    del block.forward
                else:  # a fused block
                    block.forward = forward
