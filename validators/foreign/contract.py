"""What a graph takes, and what its outputs are: stated, or found out by running it.

A graph of another exporter has other names. What its input and outputs are is found by running it on the
reference's inputs, and comparing every output with everything that it may be. What is found is part of the
report; a file beside the graph may state it instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vconv.artifact.records import TensorRecord
from vconv.errors import EngineError, InputError
from vconv.printable import shortened
from vconv.runtime.engines.adapted import Given
from vconv.runtime.engines.forms import FORMS
from vconv.types import Array, Arrays
from vconv.validators.accuracy.metrics import vector_relative_error
from vconv.validators.foreign.images import declared_size
from vconv.validators.foreign.readings import Reading
from vconv.validators.foreign.statement import Statement

NEAR = 0.25
"""The greatest vector relative error at which an output is recognised by its value."""
SAME = 1e-5
"""The greatest vector relative error of two readings of the same values, summed in another order."""
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
    ran: list[tuple[float, Given, Arrays]] = []
    refused: list[EngineError] = []
    for way in given:
        try:
            outputs = run(way.made(pixel_values))
        except EngineError as error:
            refused.append(error)
            continue
        near = (one.error for value in outputs.items() for one in _near(*value, known))
        ran.append((min(near, default=np.inf), way, outputs))
        if ran[-1][0] <= NEAR:
            break
    if not ran:
        raise InputError(
            "the graph cannot be run on the reference's images",
            got=shortened(refused[0].got if refused else "nothing to try"),
            expected=f"images {list(pixel_values.shape[1:])} as {image.name}",
            fix="state its input in a file beside it: see docs/foreign.md",
        )
    # If none is near, the graph is judged on the most usual images that it takes.
    _, way, outputs = ran[-1] if ran[-1][0] <= NEAR else ran[0]
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
                yield Matched(output, name, form, BY_VALUE, distance(read, reading.value))


def distance(actual: Array, expected: Array) -> float:
    """Return the greatest vector relative error over the images of two arrays (N, ...) of one shape."""
    return max(
        vector_relative_error(a.astype(np.float64), e.astype(np.float64))
        for a, e in zip(actual, expected, strict=True)
    )


def _matched(
    outputs: Arrays, known: Mapping[str, Reading], stated: Statement
) -> tuple[list[Matched], dict[str, str]]:
    """Return what each output is, by the surest way: stated, by value, by name, by shape; and the rest."""
    _require_sense(outputs, known, stated)
    near = {
        output: sorted(_near(output, value, known), key=lambda one: (np.isnan(one.error), one.error))
        for output, value in outputs.items()
        if output not in stated.ignore
    }
    unread = dict.fromkeys(stated.ignore, "a file beside the graph says so")
    found: dict[str, Matched] = {}
    ways: tuple[Callable[[str], Matched | None], ...] = (
        lambda output: _stated(output, near[output], known, stated),
        lambda output: _by_value(near[output], known),
        lambda output: _by_name(output, near[output], known),
        lambda output: _by_shape(near[output], known, {one.reading for one in found.values()}),
    )
    for way in ways:
        for output in near:
            if output not in found and (one := way(output)) is not None:
                found[output] = one
    taken = {one.reading for one in found.values()}
    for output in (name for name in near if name not in found):
        shape = list(outputs[output].shape[1:])
        own = {one.reading for one in near[output] if not known[one.reading].fault}
        if own - taken:
            raise _ambiguous(output, near[output])
        told = f"has its shape {shape}" if not own else f"of its shape {shape} is near it"
        unread[output] = f"nothing that the reference gives {told}"
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
    return [found[name] for name in outputs if name in found], unread


def _require_sense(outputs: Arrays, known: Mapping[str, Reading], stated: Statement) -> None:
    """Refuse a statement about an output that the graph, or the reference, does not have."""
    for reading in stated.outputs:
        if reading not in known:
            raise InputError(
                f"{stated.path} states an unknown output",
                got=reading,
                expected=f"one of {', '.join(known)}",
                fix="name one of those",
            )
    for output in (*stated.outputs.values(), *stated.ignore):
        if output not in outputs:
            raise InputError(
                f"{stated.path} names an output that the graph does not have",
                got=output,
                expected=f"one of {', '.join(outputs)}",
                fix="name one of those",
            )


def _stated(
    output: str, near: Sequence[Matched], known: Mapping[str, Reading], stated: Statement
) -> Matched | None:
    reading = next((name for name, there in stated.outputs.items() if there == output), None)
    if reading is None:
        return None
    fits = [one for one in near if one.reading == reading]
    if not fits:
        raise InputError(
            f"{stated.path} states that {output} is {reading}",
            got="another shape",
            expected=list(known[reading].value.shape),
            fix="correct the file",
        )
    return Matched(output, reading, fits[0].form, STATED, fits[0].error)


def _by_value(near: Sequence[Matched], known: Mapping[str, Reading]) -> Matched | None:
    """Return the nearest of what an output may be, if it is near; rather an output of the network's own."""
    if not near or not near[0].error <= NEAR:
        return None
    nearest = known[near[0].reading].value

    def is_same(value: Array) -> bool:
        return value.shape == nearest.shape and distance(value, nearest) <= SAME

    own = [one for one in near if not known[one.reading].fault and is_same(known[one.reading].value)]
    return own[0] if own else near[0]


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
    if not own or any(distance(known[own[0].reading].value, known[one.reading].value) for one in own[1:]):
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
