"""What every exporter gets, and gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vconv.errors import VconvError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vconv.convert.network import Network

GRAPH = "model.onnx"
"""The file that an exporter writes, if it can be told."""


class ExporterError(VconvError):
    """An exporter that cannot export a model."""


@dataclass(frozen=True)
class Job:
    """One model to export.

    Args:
        folder: a folder that the stock library loads.
        network: the network in it.
        size: (height, width) of the images.
        target: an empty folder for the graph.
        environment: the folder of a virtual environment with the exporter, if it needs a separate one.
        changed: changes the model before it is exported; by default it stays as it is.
    """

    folder: Path
    network: Network
    size: tuple[int, int]
    target: Path
    environment: Path | None = None
    changed: Callable[[nn.Module], object] | None = None

    def model(self, **options: Any) -> nn.Module:
        """Load the model as a user of its library does, ready for inference.

        Args:
            options: further arguments of timm's ``create_model``; none for transformers.
        """
        if self.network.library == "timm":
            from vconv.convert.libraries.timm_described import create

            model: nn.Module = create(self.folder, pretrained=True, **options).eval()
        else:
            from vconv.convert.libraries import models

            model = models.load(self.folder, self.network).eval()
        if self.changed:
            self.changed(model)
        return model

    def images(self) -> Tensor:
        """Return images to trace with, (1, 3, H, W), the same in every call."""
        import torch

        generator = torch.Generator().manual_seed(0)
        return torch.randn(1, 3, *self.size, generator=generator)


@dataclass(frozen=True)
class Exporter:
    """An exporter.

    Args:
        name: its name, as for ``--exporters``.
        export: exports a model; returns the graph.
        libraries: the libraries whose models it takes.
        lack: returns what this installation lacks to run it; empty if nothing is missing.
        separate: whether it runs in a separate virtual environment, which the user names.
    """

    name: str
    export: Callable[[Job], Path]
    libraries: tuple[str, ...]
    lack: Callable[[], str] = str
    separate: bool = False
