"""What a graph takes, and what its outputs are: stated, or found out by running it.

A graph of another exporter has other names. What its input and outputs are is found by running it on the
reference's inputs, and comparing every output with everything that it may be. What is found is part of the
report; a file beside the graph may state it instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vconv.artifact.records import TensorRecord
from vconv.errors import EngineError, InputError
from vconv.printable import shortened
from vconv.runtime.engines.adapted import Given, Levels, View
from vconv.runtime.engines.forms import FORMS
from vconv.types import CHANNELS, Array, Arrays
from vconv.validators.accuracy.metrics import vector_relative_error
from vconv.validators.foreign.readings import Reading
from vconv.validators.foreign.statement import Statement

NEAR = 0.25
"""The greatest vector relative error at which an output is recognised by its value."""
ALIASES: Mapping[str, tuple[str, ...]] = {
    "last_hidden_state": ("last_hidden_state", "hidden_states", "tokens", "features"),
    "pooled": ("pooler_output", "pooled", "pooled_output", "image_embeds", "embedding", "embeddings"),
    "cls": ("cls", "cls_token", "x_norm_clstoken"),
    "patches": ("patches", "patch_tokens", "x_norm_patchtokens"),
    "logits": ("logits",),
}
"""Names that other exporters give to vconv's outputs."""
BY_VALUE, BY_NAME, BY_SHAPE, STATED = "by value", "by name", "by shape", "stated"


@dataclass(frozen=True)
class Matched:
    """What an output of a graph is.

    Args:
        output: the graph's name of the output.
        reading: what it is: a name of :func:`vconv.validators.foreign.readings.readings`.
        form: how it is laid out, of :data:`vconv.runtime.engines.adapted.FORMS`.
        how: how this was found: by value, by name, by shape, or stated.
        error: the vector relative error to the reference; NaN if the output is not finite.
    """

    output: str
    reading: str
    form: str
    how: str
    error: float


@dataclass(frozen=True)
class Contract:
    """The contract of a graph of another exporter.

    Args:
        input: the graph's name of its input.
        given: the images that it takes.
        size: the fixed (height, width); None if both are symbols.
        batch: the fixed batch; None if it is a symbol.
        outputs: what each output is.
        unread: outputs that are nothing that the reference gives, each with the reason.
        stated: whether a file states any part of it.
    """

    input: str
    given: Given
    size: tuple[int, int] | None
    batch: int | None
    outputs: tuple[Matched, ...]
    unread: Mapping[str, str] = field(default_factory=dict)
    stated: bool = False


Run = Callable[[Array], Arrays]
"""Runs a graph on a batch of the images that it takes; returns its outputs by name."""


def declared_layout(image: TensorRecord) -> str:
    """Return the order of the axes that an input declares; empty if it declares no length."""
    if image.shape[1] == CHANNELS and image.shape[3] != CHANNELS:
        return "NCHW"
    return "NHWC" if image.shape[3] == CHANNELS and image.shape[1] != CHANNELS else ""


def declared_size(image: TensorRecord, layout: str) -> tuple[int, int] | None:
    """Return the fixed (height, width) that an input declares; None if either is a symbol."""
    height, width = image.shape[2:] if layout != "NHWC" else image.shape[1:3]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def ways(
    image: TensorRecord, mean: Sequence[float], deviation: Sequence[float], stated: Statement
) -> list[Given]:
    """List the images that an input may take, the most usual first."""
    whole = np.issubdtype(np.dtype(image.dtype), np.integer)
    layouts = [stated.layout] if stated.layout else [declared_layout(image)]
    layouts = layouts if layouts[0] else ["NCHW", "NHWC"]
    levels = [Levels.GREY] if whole else [Levels.NORMALISED, Levels.SHARES, Levels.GREY]
    levels = [Levels(stated.levels)] if stated.levels else levels
    return [
        Given(layout, image.dtype, level, tuple(mean), tuple(deviation))
        for layout in layouts
        for level in levels
    ]


def found_out(
    image: TensorRecord,
    given: Sequence[Given],
    run: Run,
    pixel_values: Array,
    known: Mapping[str, Reading],
    stated: Statement,
) -> Contract:
    """Find out the contract of a graph.

    Args:
        image: the input that takes images.
        given: the images that it may take, the most usual first.
        run: runs the graph.
        pixel_values: the reference's inputs, float32 (N, 3, H, W).
        known: what an output may be: the reference's outputs, and more.
        stated: what a file states.

    Raises:
        InputError: the graph cannot be run on any of these images, or it cannot be told what an output is.
    """
    best: tuple[float, Given, Arrays] | None = None
    refused: list[EngineError] = []
    for way in given:
        try:
            outputs = run(way.made(pixel_values))
        except EngineError as error:
            refused.append(error)
            continue
        nearest = min(
            (near.error for value in outputs.items() for near in _near(*value, known)), default=np.inf
        )
        if best is None or nearest < best[0]:
            best = nearest, way, outputs
        if nearest <= NEAR:
            break
    if best is None:
        raise InputError(
            "the graph cannot be run on the reference's images",
            got=shortened(refused[0].got if refused else "nothing to try"),
            expected=f"images {list(pixel_values.shape[1:])} as {image.name}",
            fix="state its input in a file beside it: see docs/foreign.md",
        )
    nearest, way, outputs = best
    if nearest > NEAR and not stated.levels:
        way = given[0]
        outputs = run(way.made(pixel_values))
    matched, unread = _matched(outputs, known, stated)
    return Contract(
        image.name,
        way,
        declared_size(image, way.layout),
        image.shape[0] if isinstance(image.shape[0], int) else None,
        tuple(matched),
        unread,
        stated.given,
    )


def _near(output: str, value: Array, known: Mapping[str, Reading]) -> Iterator[Matched]:
    """Yield everything of the right shape that an output may be, with its error."""
    for form, row in FORMS.items():
        if row.axes not in (None, value.ndim) or (form == "axes of one" and 1 not in value.shape[1:]):
            continue
        read = row.read(value)
        for name, reading in known.items():
            if read.shape == reading.value.shape:
                yield Matched(output, name, form, BY_VALUE, _distance(read, reading.value))


def _distance(actual: Array, expected: Array) -> float:
    return max(
        vector_relative_error(a.astype(np.float64), e.astype(np.float64))
        for a, e in zip(actual, expected, strict=True)
    )


def _matched(
    outputs: Arrays, known: Mapping[str, Reading], stated: Statement
) -> tuple[list[Matched], dict[str, str]]:
    found: list[Matched] = []
    unread: dict[str, str] = {}
    for output, value in outputs.items():
        near = sorted(_near(output, value, known), key=lambda one: (np.isnan(one.error), one.error))
        one = _stated(output, near, known, stated) or _by_value(near) or _by_name(output, near, known)
        one = one or _by_shape(near, known, taken={match.reading for match in found})
        if one is not None:
            found.append(one)
        elif near:
            raise _ambiguous(output, near)
        else:
            unread[output] = f"nothing that the reference gives has its shape {list(value.shape[1:])}"
    if not found:
        told = ", ".join(f"{name} {list(value.shape)}" for name, value in outputs.items())
        raise InputError(
            "no output of the graph is one of the reference's",
            got=told,
            expected=", ".join(
                f"{name} {list(one.value.shape)}" for name, one in known.items() if not one.fault
            ),
            fix="name the network that the graph computes with --against, or export one of these outputs",
        )
    return found, unread


def _stated(
    output: str, near: Sequence[Matched], known: Mapping[str, Reading], stated: Statement
) -> Matched | None:
    reading = next((name for name, there in stated.outputs.items() if there == output), None)
    if reading is None:
        return None
    if reading not in known:
        raise InputError(
            f"{stated.path} states an unknown output",
            got=reading,
            expected=f"one of {', '.join(known)}",
            fix="name one of those",
        )
    fits = [one for one in near if one.reading == reading]
    if not fits:
        raise InputError(
            f"{stated.path} states that {output} is {reading}",
            got="another shape",
            expected=list(known[reading].value.shape),
            fix="correct the file",
        )
    return Matched(output, reading, fits[0].form, STATED, fits[0].error)


def _by_value(near: Sequence[Matched]) -> Matched | None:
    """Return the nearest of what an output may be, if it is near and nothing else is about as near."""
    if not near or not near[0].error <= NEAR:
        return None
    return near[0]


def _by_name(output: str, near: Sequence[Matched], known: Mapping[str, Reading]) -> Matched | None:
    for one in near:
        names = (one.reading, *ALIASES.get(one.reading, ()))
        if not known[one.reading].fault and output.lower().rpartition("/")[2] in names:
            return Matched(output, one.reading, one.form, BY_NAME, one.error)
    return None


def _by_shape(near: Sequence[Matched], known: Mapping[str, Reading], taken: set[str]) -> Matched | None:
    """Return the only output of the network that has this shape; two of the same values count as one."""
    own = [one for one in near if not known[one.reading].fault and one.reading not in taken]
    own.sort(key=lambda one: list(known).index(one.reading))
    if not own or any(_distance(known[own[0].reading].value, known[one.reading].value) for one in own[1:]):
        return None
    one = own[0]
    return Matched(one.output, one.reading, one.form, BY_SHAPE, one.error)


def _ambiguous(output: str, near: Sequence[Matched]) -> InputError:
    told = "; ".join(f"{one.reading} ({one.error:.2g} from it)" for one in near)
    return InputError(
        f"it cannot be told what the output {output} of the graph is",
        got=f"it is near nothing that the reference gives, and has the shape of {told}",
        expected=f"an output within {NEAR} of the reference's, or with a name such as last_hidden_state",
        fix="state it in a file beside the graph: see docs/foreign.md",
    )


def taken_for_another(contract: Contract, known: Mapping[str, Reading]) -> list[Matched]:
    """List the outputs that are something that is easily taken for an output of the network.

    One that is stated is meant so. One beside the output of the network that it is taken for does no harm.
    """
    given = {one.reading for one in contract.outputs}
    return [
        one
        for one in contract.outputs
        if known[one.reading].fault and one.how != STATED and known[one.reading].instead_of not in given
    ]


def views(contract: Contract, known: Mapping[str, Reading], registers: int | None) -> dict[str, View]:
    """Return where the outputs that are judged are in those of a graph.

    Args:
        contract: the contract of the graph.
        known: what an output may be.
        registers: the number of register tokens of a network with tokens; None for another network.

    Returns:
        By the name of what is judged. Of tokens, their parts are judged too. What is taken for an output of
        the network is judged as that output.
    """
    found: dict[str, View] = {}
    for one in contract.outputs:
        if not known[one.reading].fault or one.how == STATED:
            found.setdefault(one.reading, View(one.output, one.form))
    for one in taken_for_another(contract, known):
        found.setdefault(known[one.reading].instead_of, View(one.output, one.form))
    tokens = found.get("last_hidden_state")
    if tokens and registers is not None:
        parts = {
            "cls": replace(tokens, tokens=(0, 1), single=True),
            "registers": replace(tokens, tokens=(1, 1 + registers)),
            "patches": replace(tokens, tokens=(1 + registers, None)),
        }
        for name, view in parts.items():
            if name in known:
                found.setdefault(name, view)
    return {name: found[name] for name in known if name in found}
