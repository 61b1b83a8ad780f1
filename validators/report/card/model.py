"""The parts of a card that come from the manifest alone: the model, its source, and the files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from vconv.artifact.manifest import Manifest
from vconv.catalog import systems
from vconv.catalog.literature import HUGGING_FACE, LICENCES, MODELSCOPE, Work
from vconv.catalog.systems import System
from vconv.convert.architectures.layer_outputs import Layer, find_layer
from vconv.convert.ascend.atc import SCRIPT_FILE
from vconv.validators.report.card.markdown import code, escaped, table
from vconv.validators.report.card.words import Words

FAMILIES = {
    "timm dinov3": "dinov3_vit",
    "timm dinov2": "dinov2",
    "timm vit": "vit",
    "timm convnext": "dinov3_convnext",
}
"""By family of timm: the name of the same family in transformers."""
MODELSCOPE_KIND = "modelscope"
"""The kind of source that is ModelScope."""
_HUBS = {MODELSCOPE_KIND: MODELSCOPE}
"""By kind of source: the hub of a repository that is not the system's; Hugging Face for other kinds."""
SPOKEN = {"apache-2.0": "Apache License 2.0", "dinov3-license": "DINOv3 License"}
"""Names of licences in words, by their identifiers."""


def published_weights(made: Manifest) -> bool:
    """Return whether the weights come from the repository in which the system was published."""
    return bool(made.source.revision) and made.source.identity == made.system.hub_id


def catalog_row(made: Manifest, unlike: bool = False) -> System:
    """Return the catalog's row of a system; if the catalog does not have it, a row from the manifest.

    The repository identifies a system too: the same name with another repository is another system. A network
    that is ``unlike`` the catalog's system of its name shares only the publications about its family.
    """
    known, original = systems.SYSTEMS.get(made.system.name), made.original
    works: tuple[Work, ...] = ()
    if known and known.hub_id == made.system.hub_id:
        if not unlike:
            return known
        works = known.works
    licence = original.licence if original else made.source.licence
    gated = original.gated if original else False
    row = System(made.system.name, made.system.hub_id, made.system.library, {}, licence, gated=gated)
    return replace(row, works=works)


def differences(unlike: Mapping[str, tuple[Any, Any]], words: Words) -> str:
    """Return how a network differs from the catalog's system of its name; empty if it does not."""
    told = (
        words.say("marks", "unlike").format(key=code(key), ours=code(str(ours)), theirs=code(str(theirs)))
        for key, (ours, theirs) in unlike.items()
    )
    return words.say("marks", "and").join(told)


def family(made: Manifest) -> str:
    """Return the family of a network, under one name for all libraries."""
    return FAMILIES.get(made.system.family, made.system.family)


def source_named(made: Manifest) -> str:
    """Return the source of the weights, with its revision if it has one."""
    revision = f" ({code(made.source.revision)})" if made.source.revision else ""
    return code(made.source.label) + revision


def repository(made: Manifest) -> str:
    """Return the repository of the weights; the system's repository if they came from no repository."""
    return made.source.identity if made.source.revision else made.system.hub_id


def licence(name: str) -> str:
    """Return the name of a licence, with a link to its text if the link is known."""
    spoken = SPOKEN.get(name, escaped(name))
    return f"[{spoken}]({LICENCES[name]})" if name in LICENCES else spoken


def routes(made: Manifest, unlike: bool = False) -> list[dict[str, str]]:
    """List the ways to get the weights; only one way if their repository is not the system's.

    There is none if the network is ``unlike`` the catalog's system and its weights came from no repository,
    or if the system has no repository.
    """
    system, named = catalog_row(made), repository(made)
    if not named or (unlike and not made.source.revision):
        return []
    ways = (
        (HUGGING_FACE, *system.mirrors)
        if named == system.hub_id
        else (_HUBS.get(made.source.kind, HUGGING_FACE),)
    )
    folder = f"weights/{made.system.name}"
    return [{"name": way.name, "needs": way.needs, "command": way.command_of(named, folder)} for way in ways]


def geometry(made: Manifest) -> dict[str, int] | None:
    """Return how an image becomes tokens, from the shapes of the outputs; None if there are no patches."""
    if not {"patches", "last_hidden_state"} <= made.outputs.keys():
        return None
    height, width = made.size
    grids = {"patches", "last_hidden_state", "registers"} & made.outputs.keys()
    shapes = [made.outputs[name][1:] for name in grids]
    if not all(len(shape) == 2 and all(isinstance(length, int) for length in shape) for shape in shapes):
        return None
    patches, channels = int(made.outputs["patches"][1]), int(made.outputs["patches"][2])
    side = math.isqrt(height * width // patches)
    if not side:
        return None
    return {
        "patch": side,
        "rows": height // side,
        "columns": width // side,
        "patches": patches,
        "registers": int(made.outputs["registers"][1]) if "registers" in made.outputs else 0,
        "tokens": int(made.outputs["last_hidden_state"][1]),
        "width": channels,
    }


def _bracketed(text: str, words: Words) -> str:
    return f"{words.say('marks', 'open')}{text}{words.say('marks', 'close')}"


def model_table(made: Manifest, words: Words) -> str:
    """Lay out the size of the model, its input and its outputs."""
    rows = []
    if made.complexity:
        counts = made.complexity
        rows = [
            [words.say("model", "parameters"), f"{counts.parameters / 1e6:.1f} M"],
            [words.say("model", "multiply_accumulates"), f"{counts.multiply_accumulates / 1e9:.2f} G"],
            [words.say("model", "activations"), f"{counts.activations / 1e6:.1f} M"],
        ]
    rows.append([words.say("model", "input"), code(f"pixel_values [B, 3, {made.size[0]}, {made.size[1]}]")])
    for variant in made.variants:
        sides = variant.contract.sides
        if sides and variant.graph:
            told = words.say("model", "any_size").format(graph=variant.path, **sides[0].model_dump())
            rows.append([words.say("model", "input"), told])
        if variant.contract.preprocessing:
            given = variant.contract.input
            taken = code(f"{given.name} [{', '.join(map(str, given.shape))}]")
            told = words.say("model", "from_images").format(
                graph=variant.path, images=taken, type=given.dtype
            )
            rows.append([words.say("model", "input"), told])
    for name, shape in made.outputs.items():
        written = code(f"{name} [B, {', '.join(map(str, shape[1:]))}]")
        pooled = name == "pooled" and made.system.pooling
        pooling = _bracketed(words.say("pooling", made.system.pooling), words) if pooled else ""
        layer = find_layer(name)
        meaning = made.meanings.get(name, "")
        told = _bracketed(_of_layer(layer, meaning, words), words) if layer and meaning else ""
        rows.append([words.say("model", "output"), written + pooling + told])
    return table([words.say("headings", key) for key in ("what", "content")], rows)


def offline_model(made: Manifest) -> dict[str, str] | None:
    """Return for which processor the offline model is, and how it computes; None if there is none."""
    for variant in made.variants:
        if offline := variant.offline:
            return {
                "folder": offline.route,
                "soc": offline.soc,
                "precision": offline.precision_mode,
                "batches": ", ".join(map(str, offline.gears or (variant.batch,))),
                "sizes": ", ".join(
                    f"{height} x {width}" for height, width in offline.gears_size or [made.size]
                ),
                "script": "" if variant.path in made.files else f"{offline.route}/{SCRIPT_FILE}",
            }
    return None


def of_other_sizes(made: Manifest, words: Words) -> str:
    """List the graphs that take images of other sizes than the image processor makes; empty if none does."""
    found = [one for one in made.variants if one.graph and not one.offline]
    free = [one.path for one in found if one.contract.sides or one.contract.preprocessing]
    return _listed([code(path) for path in free], words) if free else ""


def _of_layer(layer: Layer, meaning: str, words: Words) -> str:
    """Return which block, stage or level an output is of, and whether it has the final norm."""
    for other in ("stage", "level"):
        if f"{other} {layer.block} of " in meaning:
            return words.say("layers", other).format(number=layer.block)
    if layer.kind.cut is None:
        return words.say("layers", "attention").format(block=layer.block)
    place = words.say("layers", "after" if layer.block else "before").format(block=layer.block)
    return words.say("layers", "normed" if layer.kind.normed else "raw").format(place=place)


def patch_notes(made: Manifest, words: Words) -> list[str]:
    """Return a note for the reader on each applied patch."""
    return [
        words.say("patches", patch.name).format(
            sites=patch.sites,
            proof=words.reword("proofs", patch.proof),
            carriers=_listed([words.say("carriers", carrier) for carrier in patch.carriers], words),
        )
        for patch in made.patches
        if patch.applied and patch.name in words.tables["patches"]
    ]


def _listed(names: Sequence[str], words: Words) -> str:
    """Return names as a list in a sentence: one, one and two, or one, two and three."""
    first = words.say("marks", "and").join(names[:-1])
    return words.say("marks", "last").join([*[first] * bool(first), *names[-1:]])


def files(made: Manifest, words: Words) -> str:
    """Lay out the files that the manifest lists."""
    graphs = {variant.path: variant.graph for variant in made.variants if variant.offline is None}
    recorded = {one.path: made.golden.path for one in made.golden.elsewhere} if made.golden else {}
    rows = []
    for name, record in made.files.items():
        size = f"{record.nbytes / 1e6:.2f} MB" if record.nbytes >= 1e5 else f"{record.nbytes / 1e3:.2f} kB"
        meaning = words.of_file(recorded.get(name, name), "files")
        if graph := graphs.get(name):
            meaning += words.say("marks", "graph").format(
                opset=graph.opset, ir=graph.ir_version, nodes=sum(graph.operators.values())
            )
        rows.append([code(name), meaning, size, code(record.sha256)])
    return table([words.say("headings", key) for key in ("file", "content", "size", "sha256")], rows)
