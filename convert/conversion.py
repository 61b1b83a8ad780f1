"""The steps of a conversion, in order: from source weights to a patched checkpoint and its graphs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vconv.convert.architectures.base import GREATEST_SIDE
from vconv.convert.architectures.sizes import fixed_size, unasked_size
from vconv.convert.ascend import operators
from vconv.convert.ascend.npu_opset import in_npu_opset
from vconv.convert.graphs import tracing
from vconv.convert.graphs.tracing import TracedGraph
from vconv.convert.libraries import models
from vconv.convert.libraries.image_processing import ImageProcessing
from vconv.convert.libraries.readers import network
from vconv.convert.libraries.table import library_of
from vconv.convert.network import Network
from vconv.convert.patches import table
from vconv.convert.patches.base import Patch, WeightsFinding, applied, find_sites
from vconv.convert.sources.base import LIBRARYS, Source, write_configurations
from vconv.convert.sources.positions import with_how
from vconv.convert.weights import checkpoint, ledger, regroup
from vconv.convert.weights.ledger import LEDGER_FILE, Line, MatchedTensor
from vconv.disk import require_space
from vconv.errors import InputError, PatchError
from vconv.types import CHANNELS, CONFIG_FILE, FROM_IMAGES, GRAPHS, WEIGHTS_FILE, Say, silent


@dataclass(frozen=True)
class Decision:
    """Whether a patch is applied to these weights, and why.

    Args:
        patch: the patch.
        applied: whether the patch is applied.
        proof: the reason for this decision, found in the weights or in the model.
        sites: number of places that it changes; 0 if it is not applied.
        carried: number of those places that already have the change after stock loading of the artifact.
    """

    patch: Patch
    applied: bool
    proof: str
    sites: int = 0
    carried: int = 0


@dataclass(frozen=True)
class Prepared:
    """A patched checkpoint whose weights file is not written yet, and whose patches are not counted yet.

    Args:
        network: the network after patching.
        decisions: one for each patch that its architecture needs.
        plan: the plan of its weights file.
    """

    network: Network
    decisions: tuple[Decision, ...]
    plan: checkpoint.WeightsPlan

    @property
    def patches(self) -> list[Patch]:
        """The patches that are applied."""
        return [decision.patch for decision in self.decisions if decision.applied]

    def write(self, stop: Event | None = None, say: Say = silent) -> tuple[tuple[Line, ...], str]:
        """Write the weights file and its ledger: see :meth:`.WeightsPlan.write`."""
        lines, sha256 = self.plan.write(stop, say)
        ledger.save(self.plan.path.with_name(LEDGER_FILE), lines)
        return tuple(lines), sha256

    def counted(self) -> Prepared:
        """Count the places that each patch finds in the model that stock loading will build.

        Raises:
            PatchError: a patch does not find the number of places that the architecture has.
        """
        return replace(self, decisions=tuple(_count(self.plan.path.parent, self.network, self.decisions)))

    def written(
        self, lines: tuple[Line, ...], sha256: str, passes: Mapping[str, tuple[str, ...]] | None = None
    ) -> Conversion:
        """Return the written checkpoint, with the passes that :func:`export_graphs` returned."""
        return Conversion(self.network, self.decisions, self.plan, lines, sha256, passes or {})


@dataclass(frozen=True)
class Conversion(Prepared):
    """A patched checkpoint.

    Args:
        lines: the ledger.
        sha256: SHA-256 of the weights file.
        passes: the names of the passes that were run on each graph, by graph file.
    """

    lines: tuple[Line, ...]
    sha256: str
    passes: Mapping[str, tuple[str, ...]]


def image_size(source: Source) -> tuple[int, int]:
    """Return the (height, width) that a source's preprocessing makes, checked against its network.

    Raises:
        InputError: the size is not a multiple of the patch size, or not the only size that the network takes;
            or the network does not take three channels.
    """
    network, library = source.network, library_of(source.network)
    height, width = library.image_size(source.config, source.preprocessor)
    if network.known.channels != CHANNELS:
        raise InputError(
            "the network does not take colour images",
            got=f"images of {network.known.channels} channels",
            expected=f"{CHANNELS} channels: red, green and blue",
            fix="use a checkpoint for colour images; others are not supported",
        )
    patch = 1 if network.observed else network.numbers.patch
    if not all(patch <= side <= GREATEST_SIDE and side % patch == 0 for side in (height, width)):
        raise InputError(
            "the image size does not fit the patches",
            got=f"{height}x{width}",
            expected=f"multiples of {patch}, at most {GREATEST_SIDE}",
            fix=f"set another size in {library.files[-1]}",
        )
    on_request = unasked_size(network)
    own = on_request or (network.numbers.image if not network.observed and fixed_size(network) else None)
    if own and (height, width) != own and not (on_request and source.size):
        raise InputError(
            "the image size does not fit the position embedding",
            got=f"{height}x{width}",
            expected=f"{own[0]}x{own[1]}",
            fix=f"set that size in {library.files[-1]}"
            + f", or give --size {height},{width}" * bool(on_request),
        )
    if network.observed:
        network.observed.shapes_at((height, width))
    return height, width


def prepare(folder: Path, source: Source, say: Say, keep_dtype: bool = False) -> Prepared:
    """Decide on the patches, and write all files of a patched checkpoint except the weights.

    Args:
        folder: an empty folder.
        source: the source weights.
        say: receives progress messages.
        keep_dtype: whether weights in float16 or bfloat16 are stored as they are, and not widened to float32.

    Raises:
        ArtifactError: the disk has too little free space for the weights.
        WeightsError: the checkpoint does not fit its configuration.
    """
    before = source.network
    matches = ledger.match_tensors(before, source.original, **_fix(source))
    if any(entry.dtype == "F64" for entry in source.entries.values()):
        say("float64 weights are rounded to float32, as the library does when it loads them")
    findings = [(patch, _found(patch, source, matches)) for patch in table.called_for(before)]
    decisions = [Decision(patch, finding.apply, finding.proof) for patch, finding in findings]
    dropped = {key: finding.proof for _, finding in findings for key in finding.drops}
    config: dict[str, Any] = dict(source.stored_config)
    for decision in decisions:
        if decision.applied:
            config = decision.patch.edit_config(before, config)
    config = {key: value for key, value in config.items() if not key.startswith("_")}
    if (config.pop("torch_dtype", None) or config.get("dtype")) and not keep_dtype:
        config["dtype"] = "float32"
    write_configurations(folder, config, source.preprocessor)
    for path in source.licence_files:
        shutil.copyfile(path, folder / path.name)
    if source.regrouped:
        matches, dropped = regroup.without(source.regrouped.matches, dropped)
    matches = with_how(source, matches)
    plan = checkpoint.WeightsPlan(folder / WEIGHTS_FILE, matches, dropped, keep_dtype)
    require_space(folder, plan.nbytes)
    others = ", the others dropped with proof" * bool(dropped)
    say(f"{WEIGHTS_FILE}: {len(plan.kept)} of {len(matches)} tensors{others}")
    return Prepared(source.with_requests(network(config, source.original)), tuple(decisions), plan)


def _fix(source: Source) -> dict[str, str]:
    """Return a special ``fix`` for weights that do not fit a configuration from the catalog; else nothing."""
    if CONFIG_FILE not in source.from_catalog:
        return {}
    return {"fix": f"put the {CONFIG_FILE} of these weights beside them: vconv used the published one"}


def _found(patch: Patch, source: Source, matches: Sequence[MatchedTensor]) -> WeightsFinding:
    if patch.corrective and source.periods == LIBRARYS:
        return WeightsFinding(apply=False, proof=f"left out, as --periods {LIBRARYS} asks")
    return patch.decide(source.network, matches)


def _count(folder: Path, after: Network, decisions: Sequence[Decision]) -> list[Decision]:
    """Count the places that each patch finds in the model that stock loading of the artifact builds."""
    model = models.without_weights(folder, after, FakeTensorMode())
    counted = []
    for decision in decisions:
        if not decision.applied:
            counted.append(decision)
            continue
        sites = find_sites(decision.patch, model, after)
        places = sum(site.calls for site in sites)
        carried = sum(site.calls for site in sites if site.done)
        carriers = decision.patch.carriers(after)
        if "config" in carriers and carried != places:
            raise PatchError(
                f"config.json does not carry the patch {decision.patch.name}",
                got=f"{carried} places patched after stock loading",
                expected=f"{places}",
                fix="use a supported version of transformers (4.57 or 5) or timm (1.0.27 or later)",
            )
        _require_none_left(decision.patch, model, after)
        found = decision.proof or f"{places} of {places} places, carried by {' and '.join(carriers)}"
        counted.append(replace(decision, sites=places, carried=carried, proof=found))
    return counted


def _require_none_left(patch: Patch, model: nn.Module, network: Network) -> None:
    """Check that a patch changes every place, by a count that does not depend on how places are found."""
    if patch.left is None:
        return
    with applied(model, network, [patch]):
        left = patch.left(model, network)
    if left:
        raise PatchError(
            f"the patch {patch.name} does not reach every place",
            got=f"{left} places left",
            expected="none",
            fix="use a supported version of transformers (4.57 or 5) or timm (1.0.27 or later), unmodified",
        )


def export_graphs(
    folder: Path,
    prepared: Prepared,
    size: tuple[int, int],
    batch: int,
    opset: int,
    say: Say,
    any_size: bool = False,
    image_processing: ImageProcessing | None = None,
    npu_opset: int | None = None,
    rank3: bool = False,
) -> dict[str, tuple[str, ...]]:
    """Export an artifact's graphs beside its checkpoint, which may be written at the same time.

    Args:
        folder: the artifact.
        prepared: its checkpoint.
        size: (height, width) of the images.
        batch: the batch size of the static graph.
        opset: the opset of the dynamic graph.
        say: receives progress messages.
        any_size: whether the dynamic graph takes images of any size.
        image_processing: the steps of the image processor, to also export a graph that does them first.
        npu_opset: the opset of the static graph, which is for an NPU; None for the default: see
            :func:`vconv.convert.ascend.npu_opset.in_npu_opset`.
        rank3: whether the static graph has attention over tensors of rank 3.

    Raises:
        InputError: the network has an operator that has no form in the opset for the NPU, or attention of
            another form than the one that is written over tensors of rank 3.

    Returns:
        The names of the passes that were run on each graph, by graph file.
    """
    traced: dict[tuple[int, bool], TracedGraph] = {}
    passes: dict[str, tuple[str, ...]] = {}
    network, patches, entries = prepared.network, prepared.patches, prepared.plan.entries
    # Attention may have no form of rank 3: the graph that is then refused comes first.
    for graph in sorted(GRAPHS, key=lambda graph: rank3 and not graph.for_npu):
        fixed, version = (batch, npu_opset or operators.DEFAULT_NPU_OPSET) if graph.for_npu else (None, opset)
        key = max(version, tracing.LEAST_OPSET), any_size and not fixed
        axes = "dynamic batch, height and width" if key[1] else f"batch {fixed}" if fixed else "dynamic batch"
        say(f"{graph.path}: {axes}, opset {version}")
        if key not in traced:
            traced[key] = tracing.trace(folder, network, patches, size, key[0], entries, key[1])
        path, trace = folder / graph.path, traced[key]
        if graph.for_npu:
            write = partial(_write_for_npu, path, trace, batch, rank3)
            made = in_npu_opset(write, npu_opset, graph.path, say)
        else:
            made = tracing.write_graph(path, trace, None, network.numbers.patch if key[1] else 0)
        passes[graph.path] = made.passes
    if image_processing:
        path, key = folder / FROM_IMAGES.path, (opset, False)
        say(f"{path.name}: images of any size, dynamic batch, opset {opset}")
        if key not in traced:
            traced[key] = tracing.trace(folder, network, patches, size, opset, entries)
        made = tracing.write_graph(path, traced[key], None, image_processing=image_processing)
        passes[path.name] = made.passes
    return passes


def _write_for_npu(path: Path, traced: TracedGraph, batch: int, rank3: bool, npu_opset: int) -> TracedGraph:
    return tracing.write_graph(path, traced, batch, npu_opset=npu_opset, rank3=rank3)
