"""Weights that are not finite: noted while the user's files are read, and refused by their names there.

Files are read once to be hashed or rewritten, before anything is made of them. Which of their tensors the
network uses is known only later: a buffer that is left out may hold an infinity.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from vconv.convert.files.safetensors_file import TensorEntry
from vconv.convert.network import Network
from vconv.convert.weights import checkpoint
from vconv.convert.weights.recognition import canonical
from vconv.errors import WeightsError

_EXPONENTS = {"BF16": 0x7F80, "F16": 0x7C00}
"""By narrow type: the bits of its exponent; all of them are set in NaN and Inf."""


def is_finite(chunk: bytes, dtype: str) -> bool:
    """Return whether raw bytes of a tensor hold only finite numbers, in float32; other types always do."""
    if exponent := _EXPONENTS.get(dtype):
        return not ((np.frombuffer(chunk, "<u2") & exponent) == exponent).any()
    return dtype not in ("F32", "F64") or bool(np.isfinite(checkpoint.values(chunk, dtype)).all())


class NotFinite:
    """The tensors of the user's files that are not finite."""

    def __init__(self) -> None:
        self._found: dict[str, WeightsError] = {}

    def read(self, file: str, key: str, name: str, dtype: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the bytes of a tensor, and note whether it is finite.

        Args:
            file: the name of the user's file.
            key: the name of the tensor in that file.
            name: its name without the prefixes of training tools.
            dtype: its type.
            chunks: its bytes.
        """
        for chunk in chunks:
            if name not in self._found and not is_finite(chunk, dtype):
                self._found[name] = checkpoint.not_finite(file, key, dtype)
            yield chunk

    def entry(self, entry: TensorEntry, name: str, file: str) -> Iterator[bytes]:
        """Yield the bytes of a tensor of a safetensors file: see :meth:`read`."""
        return self.read(file, entry.name, name, entry.dtype, entry.chunks())

    def content(self, file: Path, entries: Iterable[TensorEntry]) -> Iterator[bytes]:
        """Yield the whole content of a safetensors file, which ends with the last of its tensors."""
        ordered = sorted(entries, key=lambda entry: (entry.offset, entry.nbytes))
        with file.open("rb") as opened:
            yield opened.read(ordered[0].offset)
        for entry in ordered:
            yield from self.entry(entry, entry.name, file.name)

    def refuse(self, network: Network) -> None:
        """Refuse the weights if a tensor that the network has is not finite.

        Raises:
            WeightsError: one is not.
        """
        wanted = network.tensors()
        for name, error in self._found.items():
            if canonical(network.layout, name) in wanted:
                raise error
