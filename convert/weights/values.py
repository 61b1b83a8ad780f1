"""Values of small tensors that decide how weights are converted: biases, their masks, periods, aliases."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vconv.convert.architectures.base import QUERY_KEY_VALUE
from vconv.convert.files.safetensors_file import TensorEntry
from vconv.convert.network import Network
from vconv.convert.weights import checkpoint
from vconv.convert.weights.pieces import run_of
from vconv.convert.weights.regroup import runs_of_parts
from vconv.errors import WeightsError

Values = NDArray[np.float32]
Entries = Mapping[str, TensorEntry]
KINDS = {f"{part}.bias".partition("{i}.")[2]: part.partition("{i}.")[2] for part in QUERY_KEY_VALUE}
"""The biases of attention by the end of their part's name, with their names in messages."""


@dataclass(frozen=True)
class Bias:
    """All query, all key or all value biases of a checkpoint, after their mask.

    Args:
        greatest: the greatest magnitude after the mask; 0.0 proves that every element is zero.
        masked: the values of each part that the mask changes, so that the stored bias is not the bias.
    """

    greatest: float
    masked: Mapping[str, Values] = field(default_factory=dict)


def values_of(entry: TensorEntry) -> Values:
    """Return a small tensor as float32.

    Raises:
        WeightsError: a value is not finite.
    """
    return np.frombuffer(b"".join(checkpoint.widened(entry)), "<f4").reshape(entry.shape)


def exact_bytes(value: Values, narrow: Collection[str]) -> tuple[str, bytes]:
    """Return a tensor's bytes in the one narrow type that is given, if it holds every value; else in F32.

    Returns:
        The type, and the bytes.
    """
    exact = np.ascontiguousarray(value, "<f4")
    if set(narrow) == {"BF16"}:
        bits = exact.view("<u4")
        if not (bits & 0xFFFF).any():
            return "BF16", (bits >> 16).astype("<u2").tobytes()
    elif set(narrow) == {"F16"}:
        half = exact.astype("<f2")
        if np.array_equal(half.astype("<f4"), exact):
            return "F16", half.tobytes()
    return "F32", exact.tobytes()


def of_part(part: str, stored: Network, entries: Entries) -> Values:
    """Return the values of a part, in one dimension."""
    runs = runs_of_parts(stored)[part]
    return np.concatenate(
        [values_of(run_of(entries[run.key], run.start, run.count)) for run in runs], dtype=np.float32
    )


def biases(stored: Network, entries: Entries, masks: Mapping[str, str]) -> dict[str, Bias]:
    """Read every query, key and value bias of a checkpoint, with the mask if there is one.

    Args:
        stored: the network as the checkpoint stores it.
        entries: the tensors of the checkpoint, by canonical key.
        masks: the key of the mask of a stored bias, by the key of this bias.

    Returns:
        The biases by kind, of :data:`KINDS`; without those that the checkpoint does not store.

    Raises:
        WeightsError: a bias is not finite, or a mask has a value other than 0 and 1.
    """
    read = {key: _mask(entries[mask]) for key, mask in masks.items()}
    greatest: dict[str, float] = {}
    masked: dict[str, dict[str, Values]] = {}
    for part, runs in runs_of_parts(stored).items():
        kind = part.partition(".")[2].partition(".")[2]
        if kind not in KINDS:
            continue
        (run,) = runs
        span = slice(run.start, run.start + run.count)
        bias = values_of(run_of(entries[run.key], run.start, run.count))
        used = bias * read[run.key][span] if run.key in read else bias
        greatest[kind] = max(greatest.get(kind, 0.0), float(np.abs(used).max(initial=0.0)))
        masked.setdefault(kind, {}).update({} if np.array_equal(used, bias) else {part: used})
    return {kind: Bias(value, masked[kind]) for kind, value in greatest.items()}


def _mask(entry: TensorEntry) -> Values:
    raw = np.concatenate([checkpoint.values(chunk, entry.dtype) for chunk in entry.chunks()])
    wrong = raw[~np.isin(raw, (0.0, 1.0))]
    if len(wrong):
        raise WeightsError(
            "the mask of a bias is not usable",
            got=f"{float(wrong[0])!r} in {entry.name}",
            expected="0 or 1 in every element",
            fix="use a checkpoint whose mask was initialised: 1 for query and value, 0 for key",
        )
    return raw


def periods(entry: TensorEntry, stored: Network) -> tuple[float, ...]:
    """Return the RoPE periods that a checkpoint stores.

    Raises:
        WeightsError: they are not finite numbers above 0.
    """
    raw = np.concatenate([checkpoint.values(chunk, entry.dtype) for chunk in entry.chunks()])
    wrong = raw[~(np.isfinite(raw) & (raw > 0))]
    if len(wrong):
        raise WeightsError(
            "the RoPE periods of the checkpoint are not usable",
            got=f"{float(wrong[0])!r} in {entry.name}",
            expected=f"{stored.numbers.periods} finite numbers above 0",
            fix="use a checkpoint with the periods that it was trained with, or remove them from it",
        )
    return tuple(float(value) for value in raw)


def require_alias(entry: TensorEntry, of: TensorEntry) -> None:
    """Check that a tensor repeats another one.

    Raises:
        WeightsError: it has other elements.
    """
    if not np.array_equal(values_of(entry), values_of(of)):
        raise WeightsError(
            "a tensor has two names and two values",
            got=f"{entry.name} unlike {of.name}",
            expected="the same elements: the authors' model uses one tensor under both names",
            fix="use the checkpoint as it was published",
        )
