"""A conversion, in a straight line: from source weights to a patched checkpoint and its graphs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode

from vconv.convert import checkpoint, ledger, models, onnx_export
from vconv.convert.layouts import Network, network
from vconv.convert.ledger import LEDGER_FILE, Line
from vconv.convert.patches import qkv_bias, table
from vconv.convert.patches.base import Patch, find_sites
from vconv.convert.sources import CONFIG_FILE, PREPROCESSOR_FILE, Source
from vconv.errors import InputError, PatchError
from vconv.types import WEIGHTS_FILE, Config, Say

DYNAMIC_GRAPH, NPU_GRAPH = "model.onnx", "model.npu.onnx"


@dataclass(frozen=True)
class Decision:
    """Whether a patch is applied to these weights, and why.

    Args:
        patch: the patch.
        applied: whether it is.
        proof: what was found.
        sites: places that it changes; 0 if it is not applied.
        carried: how many of them stock loading of the artifact changes by itself.
    """

    patch: Patch
    applied: bool
    proof: str
    sites: int = 0
    carried: int = 0


@dataclass(frozen=True)
class Conversion:
    """A patched checkpoint.

    Args:
        network: what it is.
        decisions: one for each patch that its architecture calls for.
        lines: the ledger.
        sha256: of the weights file.
    """

    network: Network
    decisions: tuple[Decision, ...]
    lines: tuple[Line, ...]
    sha256: str

    @property
    def patches(self) -> list[Patch]:
        """The patches that are applied."""
        return [decision.patch for decision in self.decisions if decision.applied]


def image_size(preprocessor: Config, config: Config) -> tuple[int, int]:
    """Return the (height, width) that an image processor makes, checked against the patch size.

    Raises:
        InputError: the size is no multiple of the patch, or another than the position embedding's.
    """
    size = preprocessor.get("size", config["image_size"])
    if isinstance(size, Mapping):
        height, width = size.get("height", 0), size.get("width", 0)
    else:
        height = width = int(size)
    patch = int(config["patch_size"])
    if height < patch or width < patch or height % patch or width % patch:
        raise InputError(
            "the image size does not fit the patches",
            got=f"{height}x{width}",
            expected=f"multiples of {patch}",
            fix=f"set height and width in {PREPROCESSOR_FILE}",
        )
    if "rope_theta" not in config and (height, width) != (config["image_size"],) * 2:
        raise InputError(
            "the image size does not fit the position embedding",
            got=f"{height}x{width}",
            expected=f"{config['image_size']}x{config['image_size']}",
            fix=f"set height and width in {PREPROCESSOR_FILE}",
        )
    return int(height), int(width)


def convert_weights(folder: Path, source: Source, say: Say) -> Conversion:
    """Write the patched checkpoint, its configuration and its ledger.

    Args:
        folder: an empty folder.
        source: the source weights.
        say: takes progress.

    Raises:
        WeightsError: the checkpoint does not fit its configuration, or holds NaN or Inf.
        PatchError: a patch does not find what the architecture must have.
    """
    before = network(source.config, frozenset(source.entries))
    matches = ledger.match(before, source.entries)
    proof = qkv_bias.prove(before, matches)
    dropped = {key: str(proof) for key in qkv_bias.biases(before)} if proof.strip else {}
    decisions = [
        Decision(
            patch, patch is not qkv_bias.PATCH or proof.strip, str(proof) if patch is qkv_bias.PATCH else ""
        )
        for patch in table.called_for(before)
    ]
    config: dict[str, Any] = dict(source.config)
    for decision in decisions:
        if decision.applied:
            config = decision.patch.edit_config(config)
    _write_json(folder / CONFIG_FILE, config)
    _write_json(folder / PREPROCESSOR_FILE, source.preprocessor)
    say(f"{WEIGHTS_FILE}: {len(matches)} tensors, {len(dropped)} dropped with proof")
    lines, sha256 = checkpoint.write(folder / WEIGHTS_FILE, matches, dropped)
    ledger.save(folder / LEDGER_FILE, lines)
    after = network(config, frozenset(source.entries))
    return Conversion(after, tuple(_count(folder, after, decisions)), tuple(lines), sha256)


def _write_json(path: Path, content: Config) -> None:
    path.write_text(json.dumps(dict(content), indent=2, sort_keys=True) + "\n")


def _count(folder: Path, after: Network, decisions: list[Decision]) -> list[Decision]:
    """Count what each patch finds in the model that stock loading of the artifact builds."""
    model = models.without_weights(folder, after, FakeTensorMode())
    counted = []
    for decision in decisions:
        if not decision.applied:
            counted.append(decision)
            continue
        sites = find_sites(decision.patch, model, after)
        carried = sum(site.done for site in sites)
        if "config" in decision.patch.carriers and carried != len(sites):
            raise PatchError(
                f"config.json does not carry the patch {decision.patch.name}",
                got=f"{carried} places patched after stock loading",
                expected=f"{len(sites)}",
                fix="use a supported version of transformers (4.57 or 5)",
            )
        carriers = " and ".join(decision.patch.carriers)
        found = decision.proof or f"{len(sites)} of {len(sites)} places, carried by {carriers}"
        counted.append(replace(decision, sites=len(sites), carried=carried, proof=found))
    return counted


def export_graphs(
    folder: Path, conversion: Conversion, size: tuple[int, int], batch: int, opset: int, say: Say
) -> dict[str, int | None]:
    """Export an artifact's graphs beside its checkpoint.

    Args:
        folder: the artifact.
        conversion: its checkpoint.
        size: (height, width) of the images.
        batch: the batch of the static graph.
        opset: of the dynamic graph.
        say: takes progress.

    Returns:
        The graphs by file name, each with the batch that it is fixed to, or None.
    """
    say(f"{DYNAMIC_GRAPH}: dynamic batch, opset {opset}")
    onnx_export.export_graph(
        folder / DYNAMIC_GRAPH, conversion.network, conversion.patches, size, None, opset
    )
    say(f"{NPU_GRAPH}: batch {batch}")
    onnx_export.export_npu_graph(folder / NPU_GRAPH, conversion.network, conversion.patches, size, batch)
    return {DYNAMIC_GRAPH: None, NPU_GRAPH: batch}
