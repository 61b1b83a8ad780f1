"""Source weights, ready to be read, wherever they came from.

Whatever the source, the result is the same: a folder that the stock library loads as the original, its
configuration, and the place of every tensor in it.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vconv.convert.files.safetensors_file import TensorEntry
from vconv.convert.libraries.base import Library
from vconv.convert.libraries.readers import find_reader, network
from vconv.convert.libraries.table import LIBRARIES, library_of
from vconv.convert.network import Network
from vconv.types import Config

SYNTHETIC = "synthetic"
AUTHORS, LIBRARYS = "authors", "library"
PERIODS = (AUTHORS, LIBRARYS)
"""Whose RoPE periods a network is to have: its authors', in bfloat16, or its library's, in float32."""
_SHOWN = 12
"""Digits of a hash that a label shows."""


@dataclass(frozen=True)
class Origin:
    """What a source is, without a name of this machine.

    Args:
        kind: ``synthetic``, ``file``, ``folder``, or the name of a hub.
        identity: the seed, the hash of the files, or the repository.
        revision: the commit of a repository; empty for the other kinds.
    """

    kind: str
    identity: str
    revision: str = ""

    @property
    def label(self) -> str:
        """What to call it: ``synthetic:SEED``, ``folder:HASH``, ``huggingface:REPOSITORY@REVISION``."""
        return f"{self.kind}:{self.identity}" + f"@{self.revision[:_SHOWN]}" * bool(self.revision)

    @property
    def synthetic(self) -> bool:
        """Whether the weights come from a seed and not from training."""
        return self.kind == SYNTHETIC


@dataclass(frozen=True)
class Source:
    """Source weights, ready to be read.

    Args:
        origin: where they come from.
        folder: a folder that the stock library loads as the original.
        entries: every tensor by its name in the checkpoint.
        config: the original's configuration.
        preprocessor: its image processor's configuration; empty where the library has none.
        files: sha256 of each weights file, as the user has it, by name.
        licence: name of the licence of the weights.
        published: names of the configuration files that came from the catalog.
        licence_files: licence texts that came with the weights.
        pool: the pooling that was asked for in place of the library's own; None for its own.
        periods: the RoPE periods that were asked for, of :data:`PERIODS`; None for the authors'.
    """

    origin: Origin
    folder: Path
    entries: Mapping[str, TensorEntry]
    config: Config
    preprocessor: Config
    files: Mapping[str, str]
    licence: str
    published: tuple[str, ...] = ()
    licence_files: tuple[Path, ...] = ()
    pool: str | None = None
    periods: str | None = None

    @functools.cached_property
    def network(self) -> Network:
        """What the weights are."""
        return network(self.config, self.entries)

    @property
    def library(self) -> Library:
        """The library that builds them."""
        return library_of(self.network)

    @property
    def configuration_sha256(self) -> str:
        """Hash of both configurations: with the weights' own, what makes two sources one model."""
        text = json.dumps([dict(self.config), dict(self.preprocessor)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def write_configurations(folder: Path, config: Config, preprocessor: Config) -> None:
    """Write the configuration files of a configuration's library."""
    files = LIBRARIES[find_reader(config).library].files
    for name, content in zip(files, (config, preprocessor), strict=False):
        (folder / name).write_text(json.dumps(dict(content), indent=2, sort_keys=True) + "\n")


def digest_of(files: Mapping[str, str]) -> str:
    """Return one short hash for files: a single file's own, or one over all of theirs."""
    digests = sorted(files.values())
    whole = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return whole[:_SHOWN]
