"""A conversion, in a straight line: from source weights to a patched checkpoint and its graphs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode

from vconv.convert import checkpoint, ledger, models, onnx_export
from vconv.convert.layouts import LAYOUTS, Network, network
from vconv.convert.ledger import LEDGER_FILE, Line
from vconv.convert.patches import table
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
    given = preprocessor.get("size", config["image_size"])
    sides = [given.get("height", 0), given.get("width", 0)] if isinstance(given, Mapping) else [given] * 2
    if not all(isinstance(side, int) for side in sides):
        raise InputError(
            "the image size is not understood",
            got=repr(given),
            expected="a height and a width",
            fix=f"set size to {{height, width}} in {PREPROCESSOR_FILE}",
        )
    height, width = map(int, sides)
    patch = int(config["patch_size"])
    if height < patch or width < patch or height % patch or width % patch:
        raise InputError(
            "the image size does not fit the patches",
            got=f"{height}x{width}",
            expected=f"multiples of {patch}",
            fix=f"set height and width in {PREPROCESSOR_FILE}",
        )
    fixed = any(slot.role == "position" for slot in LAYOUTS[config["model_type"]].slots)
    if fixed and (height, width) != (config["image_size"],) * 2:
        raise InputError(
            "the image size does not fit the position embedding",
            got=f"{height}x{width}",
            expected=f"{config['image_size']}x{config['image_size']}",
            fix=f"set height and width in {PREPROCESSOR_FILE}",
        )
    return height, width


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
    findings = {patch.name: patch.decide(before, matches) for patch in table.called_for(before)}
    decisions = [
        Decision(patch, findings[patch.name].apply, findings[patch.name].proof)
        for patch in table.called_for(before)
    ]
    dropped = {key: finding.proof for finding in findings.values() for key in finding.drops}
    config: dict[str, Any] = dict(source.config)
    for decision in decisions:
        if decision.applied:
            config = decision.patch.edit_config(config)
    config = {key: value for key, value in config.items() if not key.startswith("_")}
    if config.pop("torch_dtype", None) or config.get("dtype"):
        config["dtype"] = "float32"
    _write_json(folder / CONFIG_FILE, config)
    _write_json(folder / PREPROCESSOR_FILE, source.preprocessor)
    kept = len(matches) - len(dropped)
    say(f"{WEIGHTS_FILE}: {kept} of {len(matches)} tensors, the others dropped with proof")
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
