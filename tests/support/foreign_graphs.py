"""Graphs that torch's own exporter writes of a stock model, as it is or changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vconv.convert.libraries import models
from vconv.convert.sources.base import Source

Change = Callable[[nn.Module], object]


class Called(nn.Module):
    """A stock model, and what a colleague makes of it.

    Args:
        model: the stock model.
        read: makes the outputs of the model's tokens and of what else it gives.
        before: makes the model's input of the graph's.
    """

    def __init__(
        self, model: nn.Module, read: Callable[..., Any], before: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.model, self.read, self.before = model, read, before

    def forward(self, images: Tensor) -> Any:
        """Run the model."""
        return self.read(self.model(self.before(images)))


def stock_outputs(found: Any) -> tuple[Tensor, ...]:
    """Return the tensors that a stock model gives."""
    return tuple(found.values()) if hasattr(found, "values") else (found,)


def script(
    source: Source,
    path: Path,
    names: Sequence[str] = ("last_hidden_state", "pooler_output"),
    change: Change | None = None,
    read: Callable[..., Any] = stock_outputs,
    before: Callable[[Tensor], Tensor] = lambda images: images,
    images: Tensor | None = None,
    batch: bool = True,
) -> Path:
    """Export the model of a source by way of TorchScript, opset 17.

    Args:
        source: the source.
        path: the graph to write.
        names: the names of its outputs.
        change: changes the model first.
        read: makes the outputs of what the model gives.
        before: makes the model's input of the graph's.
        images: what the graph takes; normalised images of the source's size by default.
        batch: whether the graph takes any batch.
    """
    model = models.load(source.folder, source.network)
    if change:
        change(model)
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(2, 3, *source.image_size, generator=generator) if images is None else images
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        Called(model, read, before).eval(),
        (given,),
        str(path),
        opset_version=17,
        dynamo=False,
        input_names=["images"],
        output_names=list(names),
        dynamic_axes={name: {0: "batch"} for name in ("images", *names)} if batch else None,
    )
    return path


def tanh_gelus(model: nn.Module) -> None:
    """Replace every exact GELU by the tanh form."""
    replaced = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ in ("GELU", "GELUActivation"):
                setattr(parent, name, nn.GELU("tanh"))
                replaced += 1
    assert replaced


def reversed_channels(model: nn.Module) -> None:
    """Let the model take images in BGR."""
    convolution = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    convolution.weight.data = convolution.weight.data.flip(1).clone()


def blocks_of(model: nn.Module) -> nn.ModuleList:
    """Return the blocks of a transformer."""
    return next(module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) > 1)


def exchanged_blocks(model: nn.Module) -> None:
    """Exchange the weights of two blocks."""
    first, second = blocks_of(model)[0], blocks_of(model)[1]
    kept = {name: value.clone() for name, value in first.state_dict().items()}
    first.load_state_dict({name: value.clone() for name, value in second.state_dict().items()})
    second.load_state_dict(kept)


def _with_positions(model: nn.Module) -> Iterator[nn.Module]:
    for module in model.modules():
        if isinstance(getattr(module, "position_embeddings", None), nn.Parameter):
            yield module


def bilinear_positions(model: nn.Module) -> None:
    """Let a DINOv2 resample its position embedding by another filter."""
    (embeddings,) = _with_positions(model)
    side = round((len(embeddings.position_embeddings[0]) - 1) ** 0.5)  # type: ignore[index, arg-type]

    def resampled(tokens: Tensor, height: int, width: int) -> Tensor:
        stored: Tensor = embeddings.position_embeddings  # type: ignore[assignment]
        patch = int(embeddings.patch_size)  # type: ignore[arg-type]
        grid = stored[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        grid = functional.interpolate(grid, size=(height // patch, width // patch), mode="bilinear")
        return torch.cat([stored[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)

    embeddings.interpolate_pos_encoding = resampled  # type: ignore[assignment]


def nearer_positions(model: nn.Module) -> None:
    """Let a DINOv3 place its patches nearer to each other."""
    rope = next(module for module in model.modules() if "RopePositionEmbedding" in type(module).__name__)
    forward = rope.forward

    def nearer(images: Tensor) -> tuple[Tensor, Tensor]:
        cosine, sine = forward(images)
        angle = 0.9 * torch.atan2(sine, cosine)
        return torch.cos(angle), torch.sin(angle)

    rope.forward = nearer
