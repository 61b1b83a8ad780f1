"""Source weights, prepared for reading.

Every source gives the same result: a folder that the unmodified library loads as the original, its
configuration, and the place of every tensor in it.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vconv.convert.architectures.outputs import OUTPUTS
from vconv.convert.files.safetensors_file import TensorEntry
from vconv.convert.libraries.base import Library
from vconv.convert.libraries.readers import library_of_config, network
from vconv.convert.libraries.table import LIBRARIES, library_of
from vconv.convert.network import Network
from vconv.convert.sources.regrouping import Regrouped
from vconv.convert.sources.resampled import Resampled
from vconv.convert.sources.sizes import SizeRequest
from vconv.convert.weights.ledger import ADDED, MatchedTensor
from vconv.errors import InputError
from vconv.types import Config

SYNTHETIC = "synthetic"
AUTHORS, LIBRARYS = "authors", "library"
PERIODS = (AUTHORS, LIBRARYS)
"""Choices of the RoPE periods: those of the authors, in bfloat16, or of the library, in float32."""
STORED = "stored"
"""The RoPE periods that a checkpoint stores, which leave no choice."""
_SHOWN = 12
"""Digits of a hash in a label."""


@dataclass(frozen=True)
class Origin:
    """The identity of a source, without paths of this machine.

    Args:
        kind: ``synthetic``, ``file``, ``folder``, or the name of a hub.
        identity: the seed, the hash of the files, or the repository.
        revision: the commit of a repository; empty for the other kinds.
        recipe: the version of the recipe of synthetic weights; None for the other kinds.
    """

    kind: str
    identity: str
    revision: str = ""
    recipe: int | None = None

    @property
    def label(self) -> str:
        """The short name: ``synthetic:SEED``, ``folder:HASH``, ``huggingface:REPOSITORY@REVISION``."""
        return f"{self.kind}:{self.identity}" + f"@{self.revision[:_SHOWN]}" * bool(self.revision)

    @property
    def synthetic(self) -> bool:
        """Whether the weights come from a seed and not from training."""
        return self.kind == SYNTHETIC


@dataclass(frozen=True)
class Source:
    """Source weights, prepared for reading.

    Args:
        origin: the identity of the source.
        folder: a folder that the unmodified library loads as the original.
        entries: every tensor by its name in the checkpoint, and those that were added to it.
        config: the original's configuration.
        preprocessor: its image processor's configuration; empty if the library has none.
        files: sha256 of each weights file of the user, by name.
        licence: name of the licence of the weights.
        from_catalog: names of the configuration files that came from the catalog.
        licence_files: licence texts beside the weights.
        pool: the requested pooling; None for the library's default.
        periods: the requested RoPE periods, of :data:`PERIODS`; :data:`STORED` if the checkpoint stores
            them; None for the authors'.
        positions: whose kernel was requested to resample the position embedding, of
            :data:`vconv.convert.sources.positions.POSITIONS`; None for the library's.
        prefixes: prefixes of training tools that were removed from the names of the tensors.
        state_dict: the entry of the file that holds the state dict; None if the file is one itself.
        size: the requested sizes of images; None for those of the image processor.
        given: both configurations before ``pool`` or ``size`` changed them; None if neither did.
        outputs: the requested outputs; empty for those that the network has.
        regrouped: how the checkpoint was made into the original, if it has another layout.
        resampled: the position embedding that the artifact stores, if it is not the original's.
    """

    origin: Origin
    folder: Path
    entries: Mapping[str, TensorEntry]
    config: Config
    preprocessor: Config
    files: Mapping[str, str]
    licence: str
    from_catalog: tuple[str, ...] = ()
    licence_files: tuple[Path, ...] = ()
    pool: str | None = None
    periods: str | None = None
    positions: str | None = None
    prefixes: tuple[str, ...] = ()
    state_dict: str | None = None
    size: SizeRequest | None = None
    outputs: tuple[str, ...] = ()
    given: tuple[Config, Config] | None = None
    regrouped: Regrouped | None = None
    resampled: Resampled | None = None

    @functools.cached_property
    def network(self) -> Network:
        """The network that the weights belong to, in the layout of its library."""
        return self.with_requests(network(self.config, self.original))

    @property
    def stored(self) -> Network:
        """The same network in the layout of the checkpoint."""
        return self.regrouped.stored if self.regrouped else self.network

    @property
    def original(self) -> Mapping[str, TensorEntry]:
        """Every tensor by its name in the layout of the library."""
        if self.regrouped:
            return self.regrouped.original
        return {name: entry for name, entry in self.entries.items() if not name.startswith(ADDED)}

    @property
    def matches(self) -> tuple[MatchedTensor, ...]:
        """Every tensor that is not where the checkpoint has it, with its place in the artifact.

        All of them, if the checkpoint has another layout than the library; that which is resampled, with its
        replacement.
        """
        matches = self.regrouped.matches if self.regrouped else ()
        return tuple(self.resampled.placed(matches)) if self.resampled else matches

    @property
    def stored_config(self) -> Config:
        """The original's configuration, for the size of the position embedding that the artifact stores."""
        return self.resampled.config if self.resampled else self.config

    @property
    def artifact_network(self) -> Network:
        """The network that the artifact stores, before any patch: the original's, but for the positions."""
        return self.with_requests(network(self.stored_config, self.original))

    @property
    def losses(self) -> tuple[str, ...]:
        """How the outputs differ from those of the network that the checkpoint is from, if they do."""
        if not self.regrouped:
            return ()
        changed = changed_outputs(
            self.stored, self.network, self.image_size, self.pool is None, self.positions != AUTHORS
        )
        return (*self.regrouped.losses, *changed)

    @property
    def image_size(self) -> tuple[int, int]:
        """The (height, width) of the images that the image processor makes."""
        return self.library.image_size(self.config, self.preprocessor)

    @property
    def stored_periods(self) -> tuple[float, ...] | None:
        """The RoPE periods that the checkpoint stores; None if it stores none."""
        return self.regrouped.periods if self.regrouped else None

    def with_requests(self, net: Network) -> Network:
        """Return a network with the RoPE periods that the checkpoint stores, and the requested outputs."""
        return replace(net, stored_periods=self.stored_periods).asking(self.outputs)

    @property
    def own_configurations(self) -> tuple[Config, Config]:
        """Both configurations as they came with the weights, or from the catalog."""
        return self.given or (self.config, self.preprocessor)

    def configured(self, config: Config, preprocessor: Config, **changes: Any) -> Source:
        """Write other configurations into the folder, and return the source that has them."""
        write_configurations(self.folder, config, preprocessor)
        given = self.own_configurations
        return replace(self, config=config, preprocessor=preprocessor, given=given, **changes)

    @property
    def library(self) -> Library:
        """The library that builds the network."""
        return library_of(self.network)

    @property
    def configuration_sha256(self) -> str:
        """Hash of both configurations; together with the hash of the weights, it identifies a model."""
        text = json.dumps([dict(self.config), dict(self.preprocessor)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def require_choice(option: str, given: str, choices: Sequence[str]) -> None:
    """Check that the value of an option is one of its choices.

    Raises:
        InputError: it is not.
    """
    if given not in choices:
        raise InputError(
            f"{option} is not known", got=repr(given), expected=" or ".join(choices), fix="name one of those"
        )


def changed_outputs(
    theirs: Network,
    ours: Network,
    size: tuple[int, int],
    pooling: bool = True,
    positions: bool = True,
) -> list[str]:
    """Return how the outputs of a network change if another home builds it with the same weights.

    Args:
        theirs: the network.
        ours: the same network as the other home builds it.
        size: (height, width) of the images.
        pooling: whether another pooling counts.
        positions: whether it counts that position embeddings are resampled in another way.
    """
    before, after, found = theirs.numbers, ours.numbers, []
    if after.pooling != before.pooling and pooling:
        pooled = f"is {after.pooling}, not {before.pooling}" if OUTPUTS["pooled"].has(ours) else "is left out"
        found.append(f"the output pooled {pooled}")
    if after.epsilon != before.epsilon:
        found.append(f"every LayerNorm adds {after.epsilon:g} to the variance, not {before.epsilon:g}")
    if positions and after.positions and not ours.registers and size != after.image:
        found.append(
            f"for images of {size[0]}x{size[1]}, {ours.library} resamples the position embedding "
            f"of {after.image[0]}x{after.image[1]} in another way than {theirs.layout.home}"
        )
    return found


def write_configurations(folder: Path, config: Config, preprocessor: Config) -> None:
    """Write the files of both configurations into a folder, which is created if needed."""
    folder.mkdir(exist_ok=True)
    files = LIBRARIES[library_of_config(config)].files
    for name, content in zip(files, (config, preprocessor), strict=False):
        (folder / name).write_text(json.dumps(dict(content), indent=2, sort_keys=True) + "\n")


def digest_of(files: Mapping[str, str]) -> str:
    """Return a short hash of files: that of a single file, or one over the hashes of all."""
    digests = sorted(files.values())
    whole = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return whole[:_SHOWN]
