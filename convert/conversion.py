"""A conversion, in a straight line: from source weights to a patched checkpoint and its graphs."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode

from vconv.convert import cann, checkpoint, ledger, models, onnx_export
from vconv.convert.layouts.base import ANY_SIZE, Network
from vconv.convert.layouts.table import network
from vconv.convert.ledger import LEDGER_FILE, Line
from vconv.convert.libraries.table import library_of
from vconv.convert.patches import table
from vconv.convert.patches.base import Patch, find_sites
from vconv.convert.room import require_room
from vconv.convert.sources.base import Source
from vconv.errors import InputError, PatchError
from vconv.types import GRAPHS, WEIGHTS_FILE, Config, Say


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


def image_size(source: Source) -> tuple[int, int]:
    """Return the (height, width) that a source's preprocessing makes, checked against its network.

    Raises:
        InputError: the size is no multiple of the patch, or not the one that the network is fixed to.
    """
    network, library = source.network, library_of(source.network)
    height, width = library.image_size(source.config, source.preprocessor)
    patch, numbers = network.numbers.patch, network.numbers
    if height < patch or width < patch or height % patch or width % patch:
        raise InputError(
            "the image size does not fit the patches",
            got=f"{height}x{width}",
            expected=f"multiples of {patch}",
            fix=f"set another size in {library.files[-1]}",
        )
    if ANY_SIZE not in numbers.flags and (height, width) != numbers.image:
        raise InputError(
            "the image size does not fit the position embedding",
            got=f"{height}x{width}",
            expected=f"{numbers.image[0]}x{numbers.image[1]}",
            fix=f"set that size in {library.files[-1]}",
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
    before = source.network
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
            config = decision.patch.edit_config(before, config)
    config = {key: value for key, value in config.items() if not key.startswith("_")}
    if config.pop("torch_dtype", None) or config.get("dtype"):
        config["dtype"] = "float32"
    for name, content in zip(source.library.files, (config, source.preprocessor), strict=False):
        _write_json(folder / name, content)
    for path in source.licence_files:
        shutil.copyfile(path, folder / path.name)
    require_room(folder, 4 * sum(math.prod(pair.entry.shape) for pair in matches))
    kept = len(matches) - len(dropped)
    say(
        f"{WEIGHTS_FILE}: {kept} of {len(matches)} tensors"
        + ", the others dropped with proof" * bool(dropped)
    )
    lines, sha256 = checkpoint.write(folder / WEIGHTS_FILE, matches, dropped)
    ledger.save(folder / LEDGER_FILE, lines)
    after = network(config, source.entries)
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
        carriers = decision.patch.carriers(after)
        if "config" in carriers and carried != len(sites):
            raise PatchError(
                f"config.json does not carry the patch {decision.patch.name}",
                got=f"{carried} places patched after stock loading",
                expected=f"{len(sites)}",
                fix="use a supported version of transformers (4.57 or 5)",
            )
        found = decision.proof or f"{len(sites)} of {len(sites)} places, carried by {' and '.join(carriers)}"
        counted.append(replace(decision, sites=len(sites), carried=carried, proof=found))
    return counted


def export_graphs(
    folder: Path, conversion: Conversion, size: tuple[int, int], batch: int, opset: int, say: Say
) -> None:
    """Export an artifact's graphs beside its checkpoint.

    Args:
        folder: the artifact.
        conversion: its checkpoint.
        size: (height, width) of the images.
        batch: the batch of the static graph.
        opset: of the dynamic graph.
        say: takes progress.
    """
    for graph in GRAPHS:
        fixed, version = (batch, cann.GREATEST_OPSET) if graph.for_npu else (None, opset)
        say(f"{graph.file}: {f'batch {fixed}' if fixed else 'dynamic batch'}, opset {version}")
        onnx_export.export_graph(
            folder / graph.file, conversion.network, conversion.patches, size, fixed, version
        )
