"""What a manifest claims, and how the files of the artifact prove it.

Hashes show that files are the manifest's. They do not show that the manifest is true: whoever changes it can
make them fit. Each claim here is one row of the table. What no file can prove, such as a licence or the hub's
name of a repository, is not judged.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vconv.artifact.artifact import Artifact, read_config
from vconv.artifact.contracts import Interface
from vconv.artifact.manifest import Manifest
from vconv.artifact.records import PatchRecord, TensorRecord, VariantRecord
from vconv.convert.architectures.base import Kind
from vconv.convert.architectures.outputs import meanings
from vconv.convert.layouts.table import LAYOUTS
from vconv.convert.libraries import derivation
from vconv.convert.libraries.readers import network as describe
from vconv.convert.libraries.table import library_of
from vconv.convert.network import Network
from vconv.convert.patches import qkv_bias, rope_periods, table
from vconv.convert.sources.authors import AUTHORS_LEDGER, AUTHORS_WEIGHTS
from vconv.convert.sources.base import AUTHORS, LIBRARYS, STORED, SYNTHETIC
from vconv.convert.sources.positions import authors_kernel, grid_of, librarys_resampling
from vconv.convert.sources.resampled import Resampling
from vconv.convert.weights import ledger
from vconv.convert.weights.ledger import Line
from vconv.convert.weights.pieces import NARROW, WHOLE
from vconv.precisions import PRECISIONS
from vconv.types import (
    BATCH_AXIS,
    CONFIG_FILE,
    FROM_IMAGES,
    PREPROCESSOR_FILE,
    VARIANTS,
    Check,
    Status,
)
from vconv.validators.checks import offline_claims
from vconv.validators.checks.inspected_graph import InspectedGraph
from vconv.validators.checks.rope_tables import differing_table

CLASS = "manifest"
"""The class of fault of a claim that is not true."""
OF_OFFLINE_MODELS = ("manifest: offline model", "manifest: offline files")
"""The checks of the claims that concern an offline model alone."""
_FLOAT32 = "float32"
_STORED = {"F32": "FLOAT", "F16": "FLOAT16", "BF16": "BFLOAT16"}
"""ONNX's name of a type by its name in a weights file."""


@dataclass(frozen=True)
class Evidence:
    """What claims are compared with.

    Args:
        artifact: the artifact.
        graphs: by path, the graphs that keep their bounds.
    """

    artifact: Artifact
    graphs: Mapping[str, InspectedGraph]

    @property
    def made(self) -> Manifest:
        """The manifest."""
        return self.artifact.manifest

    def inspected(self) -> Iterator[tuple[VariantRecord, InspectedGraph]]:
        """Yield the record of every graph, with the graph."""
        for record in self.made.variants:
            if record.path in self.graphs and not record.offline:
                yield record, self.graphs[record.path]


def _differs(what: str, said: object, found: object) -> str:
    return "" if said == found else f"{what} is {said}, its files say {found}"


def _first(findings: Iterator[str]) -> str:
    return next(filter(None, findings), "")


def _system(evidence: Evidence) -> str:
    said, net = evidence.made.system, evidence.artifact.network
    pairs = {
        "library": (said.library, net.library),
        "family": (said.family, net.layout.family),
        "head": (said.head, net.head),
        "pooling": (said.pooling, net.pooling),
    }
    return _first(_differs(name, *pair) for name, pair in pairs.items())


def _source(evidence: Evidence) -> str:
    said = evidence.made.source
    return _differs("whether the weights are synthetic", said.synthetic, said.kind == SYNTHETIC)


def _golden(evidence: Evidence) -> str:
    recorded = any(name.startswith("golden/") for name in evidence.made.files)
    return _differs("whether a reference is recorded", evidence.made.golden is not None, recorded)


def _authors(evidence: Evidence) -> str:
    made = evidence.made
    said = made.authors is not None
    wrong = _differs("whether there are weights for the authors' code", said, AUTHORS_WEIGHTS in made.files)
    if wrong or made.authors is None:
        return wrong
    places = made.authors.path, made.authors.ledger
    wrong = _differs("the files for the authors' code", places, (AUTHORS_WEIGHTS, AUTHORS_LEDGER))
    if wrong:
        return wrong
    layout = LAYOUTS.get(made.authors.family)
    ours = evidence.artifact.network.layout.architecture
    family = layout.family if layout and layout.architecture is ours else f"no layout of {ours.name}"
    return _differs("the layout of the weights for the authors' code", made.authors.family, family)


def _size(evidence: Evidence) -> str:
    artifact = evidence.artifact
    library = library_of(artifact.network)
    separate = PREPROCESSOR_FILE in library.files
    processor = read_config(artifact.folder, PREPROCESSOR_FILE) if separate else {}
    found = library.image_size(artifact.config, processor)
    return _differs("the size", tuple(evidence.made.size), tuple(found))


def _variants(evidence: Evidence) -> str:
    known = {variant.name: (variant.engine, variant.path) for variant in (*VARIANTS, FROM_IMAGES)}
    return _first(
        _differs(record.variant, (record.engine, record.path), known.get(record.variant))
        for record in evidence.made.variants
        if record.variant in known
    )


def _precision(evidence: Evidence) -> str:
    kept = {line.stored for line in evidence.artifact.ledger} & NARROW  # widened by the library
    types = {entry.dtype for entry in evidence.artifact.entries.values()} - WHOLE
    stored = {_STORED.get("F32" if name in kept else name, name) for name in types}
    names = {precision.onnx: precision.name for precision in PRECISIONS.values() if precision.onnx}

    def named(types: set[str]) -> str:
        return ", ".join(sorted(names.get(one, one) for one in types))

    def findings() -> Iterator[str]:
        for record in evidence.made.variants:
            if record.engine == "torch":
                yield _differs(f"the precision of {record.variant}", record.precision, named(stored))
        for record, graph in evidence.inspected():
            if record.reduction is None:
                yield _differs(f"the precision of {record.variant}", record.precision, named(_types(graph)))
            else:
                yield _reduced_precision(record, graph)

    return _first(findings())


def _reduced_precision(record: VariantRecord, graph: InspectedGraph) -> str:
    """Compare the precision of a graph in reduced precision with the narrowest type in it."""
    values = (
        *graph.model.graph.initializers.values(),
        *(one for node in graph.model.graph for one in node.outputs),
    )
    types = {value.dtype.name for value in values if value.dtype is not None}
    found = next((name for name in ("INT8", "FLOAT16", "BFLOAT16") if name in types), "FLOAT")
    precision = PRECISIONS.get(record.precision)
    wanted = precision.onnx if precision else record.precision
    return _differs(f"the narrowest type of {record.variant}", wanted, found)


def _types(graph: InspectedGraph) -> set[str]:
    """Return ONNX's names of the types in which a graph uses its weights: after a ``Cast`` if one follows.

    Whole numbers, such as tables of positions, have no precision.
    """
    values = graph.model.graph.initializers.values()
    weights = [value for value in values if isinstance(value.const_value, ir.ExternalTensor)]
    used = [_cast(weight) or weight for weight in weights]
    types = [value.dtype for value in used if value.dtype is not None]
    return {dtype.name for dtype in types if dtype.is_floating_point()}


def _cast(weight: ir.Value) -> ir.Value | None:
    """Return the output of the one node that uses a weight, if it is a ``Cast``."""
    nodes = [use.node for use in weight.uses()]
    return nodes[0].outputs[0] if [node.op_type for node in nodes] == ["Cast"] else None


def _contracts(evidence: Evidence) -> str:
    made, network = evidence.made, evidence.artifact.network

    def findings() -> Iterator[str]:
        for record in evidence.made.variants:
            contract = record.contract
            images = record.variant == FROM_IMAGES.name
            free = record.offline.gears_size if record.offline else contract.batch is None
            any_size = made.source.dynamic_size and bool(free)
            shapes = Interface(network, made.size, contract.batch, any_size and not images, images)
            yield _differs(f"the layout of {record.variant}", contract.layout, shapes.layout)
            yield _differs(f"preprocessing in {record.variant}", contract.preprocessing, images)
            batches = contract.axes.get(BATCH_AXIS)
            axes = shapes.axes(batches.greatest if batches else None)
            yield _differs(f"the axes of {record.variant}", contract.axes, axes)
            wanted = {name: (name, _FLOAT32, shape) for name, shape in shapes.given.items()}
            taken = (shapes.input, shapes.dtype, shapes.taken)
            yield _differs(f"the input of {record.variant}", _declared(contract.input), taken)
            yield _differs(f"the outputs of {record.variant}", set(contract.outputs), set(wanted))
            yield from (
                _differs(f"the output {name} of {record.variant}", _declared(contract.outputs[name]), tensor)
                for name, tensor in wanted.items()
                if name in contract.outputs
            )

    return _first(findings())


def _meanings(evidence: Evidence) -> str:
    return _differs("the meaning of the outputs", evidence.made.meanings, meanings(evidence.artifact.network))


def _declared(tensor: TensorRecord) -> tuple[str, str, tuple[int | str, ...]]:
    return tensor.name, tensor.dtype, tensor.shape


def _graphs(evidence: Evidence) -> str:
    def findings() -> Iterator[str]:
        for record, graph in evidence.inspected():
            said, model = record.graph, graph.model
            if said is None:
                yield f"{record.variant} is a graph without a description"
                continue
            yield _differs(f"the opset of {record.variant}", said.opset, model.opset_imports.get("", 0))
            yield _differs(f"the IR version of {record.variant}", said.ir_version, model.ir_version)
            yield _differs(f"the operators of {record.variant}", said.operators, graph.operators)

    return _first(findings())


def _ledger(evidence: Evidence) -> str:
    return _differs("the ledger's summary", evidence.made.ledger, ledger.summary(evidence.artifact.ledger))


def _of_parameters(evidence: Evidence) -> Iterator[Line]:
    """Yield the lines of the source's parameters: no statistics, no whole numbers, and no other encoder's.

    A tensor with several names has one line among them.
    """
    network = evidence.artifact.network
    others = {key for key, tensor in network.tensors().items() if tensor.kind is not Kind.PARAMETER}
    if network.observed:
        others |= set(derivation.integers_and_tied(network)[1])
    for line in evidence.artifact.ledger:
        if line.target not in others and line.proof != ledger.NOT_OF_THE_ENCODER:
            yield line


def _parameters(evidence: Evidence) -> str:
    said = evidence.made.complexity
    if evidence.made.source.layout is None:
        own = (line for line in _of_parameters(evidence) if not line.source.startswith(ledger.ADDED))
        found = sum(math.prod(line.shape) for line in own)
    else:
        tensors = _original(evidence).tensors().values()
        found = sum(math.prod(tensor.shape) for tensor in tensors)
    return _differs("the number of parameters", said.parameters, found) if said else ""


def _original(evidence: Evidence) -> Network:
    """Return the network of the original's own configuration."""
    return describe(evidence.artifact.original(CONFIG_FILE), evidence.artifact.entries)


def _patches(evidence: Evidence) -> str:
    made, network = evidence.made, evidence.artifact.network
    applied = tuple(record.name for record in made.patches if record.applied)
    named = [record.name for record in made.patches]
    wanted = [patch.name for patch in table.called_for(network)]

    def findings() -> Iterator[str]:
        yield _differs("the list of patches", named, wanted)
        yield from (_patch(record, evidence) for record in made.patches)
        yield from (
            _differs(f"the patches of {record.variant}", record.patches, applied) for record in made.variants
        )

    return _first(findings())


def _patch(record: PatchRecord, evidence: Evidence) -> str:
    patch, artifact = table.PATCHES[record.name], evidence.artifact
    network = artifact.network
    if not _is_applied(record.name, evidence):
        return _differs(f"{record.name} applied", record.applied, False)
    sites, carriers = patch.expected(network), patch.carriers(network)
    if patch.edit_config(network, dict(artifact.config)) != dict(artifact.config):
        return f"{record.name} is applied, but config.json does not carry it"
    pairs = {
        "applied": (record.applied, True),
        "corrective": (record.corrective, patch.corrective),
        "places": (record.sites, sites),
        "places in the configuration": (record.carried_by_config, sites if "config" in carriers else 0),
        "carriers": (record.carriers, carriers),
    }
    return _first(_differs(f"{name} of {record.name}", *pair) for name, pair in pairs.items())


def _is_applied(patch: str, evidence: Evidence) -> bool:
    """Return whether the files have a patch that the network needs."""
    network = evidence.artifact.network
    if patch == qkv_bias.PATCH.name:
        if evidence.made.source.layout is not None:
            return bool(qkv_bias.biases(_original(evidence))) and not qkv_bias.biases(network)
        endings = tuple(network.layout.biases)
        dropped = [line.source for line in evidence.artifact.ledger if line.action == "dropped"]
        return any(network.layout.disk_key(name).endswith(endings) for name in dropped)
    return not (table.PATCHES[patch].corrective and evidence.made.source.periods == LIBRARYS)


def _periods(evidence: Evidence) -> str:
    network = evidence.artifact.network
    base = network.rope_base
    if base is None:
        return _differs("the RoPE periods", evidence.made.rope_periods, None)
    applied = evidence.artifact.applies(rope_periods.PATCH.name)
    authors = rope_periods.of(network)
    periods = authors if applied else rope_periods.unrounded(base, network.head_dim)

    def findings() -> Iterator[str]:
        if evidence.made.source.periods == STORED and not _in_ledger(evidence.made.rope_periods, evidence):
            yield "the RoPE periods are not those that the ledger says the checkpoint stores"
        yield _differs(
            "the RoPE periods", evidence.made.rope_periods, tuple(authors.tolist()) if applied else None
        )
        for record, graph in evidence.inspected():
            differing = differing_table(graph, periods.double().numpy())
            yield f"{record.variant} was traced with other RoPE periods: {differing}" if differing else ""

    return _first(findings())


def _positions(evidence: Evidence) -> str:
    made, net = evidence.made, evidence.artifact.network
    asked = made.source.positions == AUTHORS
    resampled = [line for line in evidence.artifact.ledger if line.action == "resampled"]
    if wrong := _differs("whether the authors' kernel was asked for", asked, bool(resampled)):
        return wrong
    if made.positions is None and not asked:
        return ""  # as in manifests of earlier versions, which do not say it
    how = librarys_resampling(net, made.size)
    if asked:
        if wrong := _differs(
            "the size that the embedding is stored for", tuple(made.size), net.numbers.image
        ):
            return wrong
        original, kernel, patch = _original(evidence), authors_kernel(net), net.numbers.patch
        if kernel is None:
            return f"the authors' kernel was asked for, but a {net.layout.family} has no such choice"
        stored, grid = grid_of(original.numbers.image, patch), grid_of(made.size, patch)
        how = Resampling(AUTHORS, kernel, stored, grid)
    said = made.positions.model_dump() if made.positions else None
    return _differs("how the position embedding is resampled", said, how.as_record if how else None)


def _in_ledger(periods: tuple[float, ...] | None, evidence: Evidence) -> bool:
    """Return whether a tensor whose values were used elsewhere has the bytes of these periods."""
    exact = np.array(periods or (), np.float32)
    found = {
        "F32": exact.astype("<f4").tobytes(),
        "F64": exact.astype("<f8").tobytes(),
        "F16": exact.astype("<f2").tobytes(),
        "BF16": (exact.view(np.uint32) >> 16).astype("<u2").tobytes(),
    }
    digests = {dtype: hashlib.sha256(raw).hexdigest() for dtype, raw in found.items()}
    folded = (line for line in evidence.artifact.ledger if line.action == "folded")
    return any(line.sha256 == digests.get(line.dtype) for line in folded)


def _offline_model(evidence: Evidence) -> str:
    return offline_claims.command_differs(evidence.made)


def _offline_files(evidence: Evidence) -> str:
    return offline_claims.files_differ(evidence.made, evidence.artifact.folder, evidence.graphs)


@dataclass(frozen=True)
class Claim:
    """One thing that a manifest says of the artifact.

    Args:
        wrong: returns how the files contradict it; empty if they do not.
        proof: what it is compared with.
    """

    wrong: Callable[[Evidence], str]
    proof: str


CLAIMS: Mapping[str, Claim] = {
    "system": Claim(_system, "the configuration and the weights describe this library, family and head"),
    "source": Claim(_source, "its kind says whether it is synthetic"),
    "golden": Claim(_golden, "there is a recording, or none"),
    "authors": Claim(_authors, "there are weights for their code in a layout of this network, or none"),
    "size": Claim(_size, "the image processor makes images of this size"),
    "variants": Claim(_variants, "each variant that every artifact has is run from its own file"),
    "precision": Claim(_precision, "the types of the weights in the file and in each graph"),
    "contracts": Claim(_contracts, "the network's outputs at this size"),
    "meanings": Claim(_meanings, "the names of the outputs say the block and whether there is a norm"),
    "graphs": Claim(_graphs, "opset, IR version and operators are counted in each graph"),
    "ledger": Claim(_ledger, "the lines of the ledger are counted"),
    "parameters": Claim(_parameters, "the elements of the source's tensors are counted in the ledger"),
    "patches": Claim(_patches, "the network calls for them; configuration and ledger carry them"),
    "positions": Claim(
        _positions, "the sizes in both configurations, the library's kernel, and what the ledger says"
    ),
    "periods": Claim(
        _periods, "the periods are computed again from the configuration, and the graphs' tables from them"
    ),
    "offline model": Claim(_offline_model, "the command that compiles it says the same"),
    "offline files": Claim(
        _offline_files, "the script runs that command, and the settings are those that the record asks for"
    ),
}
"""Every claim that files can prove, by name."""


def check_claims(evidence: Evidence) -> list[Check]:
    """Compare every claim of a manifest with the files; return one check if all of them are true."""
    wrong = {name: claim.wrong(evidence) for name, claim in CLAIMS.items()}
    failed = [Check(f"manifest: {name}", Status.FAILED, what, CLASS) for name, what in wrong.items() if what]
    return failed or [Check("manifest", Status.PASSED, f"the files prove its {', '.join(CLAIMS)}")]
