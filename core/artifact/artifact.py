"""An artifact on disk, with the contents of its files. Each file is read once."""

from __future__ import annotations

import functools
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vconv import documents
from vconv.artifact import manifest
from vconv.artifact.manifest import Manifest
from vconv.artifact.records import VariantRecord
from vconv.catalog import systems
from vconv.convert.architectures.outputs import is_output
from vconv.convert.files.safetensors_file import TensorEntry, read_header
from vconv.convert.libraries.readers import network
from vconv.convert.network import Network
from vconv.convert.sources.asked_outputs import asking
from vconv.convert.sources.base import STORED
from vconv.convert.weights import ledger
from vconv.convert.weights.ledger import LEDGER_FILE, Line
from vconv.disk import require_utf8
from vconv.errors import ArtifactError, OutputsError, UnknownNameError
from vconv.types import CONFIG_FILE, PREPROCESSOR_FILE, WEIGHTS_FILE, Config

INSIDE = "a place inside the artifact, whose files are all listed"
AGAIN = "export the artifact again, or fetch it again"


def is_inside(place: str | Path, folder: Path) -> bool:
    """Return whether a place, which need not exist, is an artifact's folder or in it, also through links."""
    return Path(os.path.realpath(place)).is_relative_to(os.path.realpath(folder))


def _require_known(outputs: Sequence[str]) -> None:
    wrong = [name for name in outputs if not is_output(name) or outputs.count(name) > 1]
    if wrong:
        raise ArtifactError(
            "the manifest does not name outputs",
            got=f"source.outputs with {wrong[0]!r:.80}",
            expected="names of outputs, each once",
            fix=AGAIN,
        )


def _asked(net: Network, outputs: Sequence[str]) -> Network:
    """Return a network with the outputs that the manifest says were asked for."""
    try:
        return asking(net, outputs) if outputs else net
    except OutputsError as error:
        raise ArtifactError(
            "the manifest does not name outputs of its network",
            got=f"source.outputs with {', '.join(outputs)}: {error.got}",
            expected=error.expected,
            fix=AGAIN,
        ) from error


@dataclass(frozen=True)
class Artifact:
    """An artifact on disk. Each of its files is read at the first use, and only once.

    Args:
        folder: the artifact's folder.
        manifest: the artifact's manifest.
    """

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> Artifact:
        """Open an artifact.

        Raises:
            ArtifactError: there is no artifact, or its manifest is damaged.
        """
        require_utf8(Path(path), "the artifact")
        return cls(Path(path), manifest.load(Path(path)))

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def name(self) -> str:
        """The name of the artifact's system."""
        return self.manifest.system.name

    @functools.cached_property
    def digest(self) -> str:
        """The hash of the artifact's manifest, read from the digest file beside the manifest."""
        return manifest.digest(self.folder)

    @functools.cached_property
    def config(self) -> Config:
        """The artifact's own, patched ``config.json``."""
        return read_config(self.folder)

    @functools.cached_property
    def entries(self) -> Mapping[str, TensorEntry]:
        """The header of the weights file: every tensor by name.

        Raises:
            ArtifactError: the artifact has no weights.
            WeightsError: the weights are damaged.
        """
        self.require_weights()
        return read_header(self.folder / WEIGHTS_FILE)

    @functools.cached_property
    def network(self) -> Network:
        """The patched network, which the artifact's own configuration and weights describe.

        Raises:
            ArtifactError: the artifact has no weights, its configuration is not a JSON object, or its
                manifest names an output that its network does not have, or one twice.
            WeightsError: the weights are damaged.
        """
        self.require_weights()
        _require_known(self.manifest.source.outputs)
        net, made = network(self.config, self.entries), self.manifest
        stored = made.rope_periods if made.source.periods == STORED else None
        return _asked(replace(net, stored_periods=stored), made.source.outputs)

    @functools.cached_property
    def ledger(self) -> tuple[Line, ...]:
        """The ledger: one line for each tensor of the source."""
        return tuple(ledger.load(self.folder / LEDGER_FILE))

    def original(self, file: str) -> Config:
        """Return one of the original's own configurations; empty if the original has no such file.

        Raises:
            ArtifactError: the file is missing, or is not a JSON object.
        """
        record = self.manifest.original
        path = record.configurations.get(file) if record else None
        return read_config(self.folder, path) if path else {}

    @functools.cached_property
    def processor(self) -> Config:
        """The settings of the artifact's image processor; empty if there is no file of them.

        Raises:
            ArtifactError: the file is not a JSON object.
        """
        file = PREPROCESSOR_FILE if self.manifest.system.library == "transformers" else CONFIG_FILE
        return read_config(self.folder, file) if (self.folder / file).is_file() else {}

    @functools.cached_property
    def unlike(self) -> dict[str, tuple[Any, Any]]:
        """How the network differs from the catalog's system of its name; empty if it does not, or if none is.

        Raises:
            ArtifactError: a configuration is missing, or is not a JSON object.
        """
        system = systems.SYSTEMS.get(self.name)
        if system is None or system.hub_id != self.manifest.system.hub_id:
            return {}
        if self.manifest.original is None:
            return systems.unlike(system, self.config, patched=True)
        return systems.unlike(system, self.original(CONFIG_FILE))

    def variant(self, name: str) -> VariantRecord:
        """Find a variant by its name.

        Raises:
            UnknownNameError: the artifact has no such variant.
        """
        records = {record.variant: record for record in self.manifest.variants}
        if name not in records:
            raise UnknownNameError("variant", name, records, fix="choose one that the artifact has")
        return records[name]

    def path(self, record: VariantRecord) -> Path:
        """Return the path of a variant's file."""
        return self.folder / record.path

    def applies(self, patch: str) -> bool:
        """Return whether the patch of this name was applied."""
        return any(record.name == patch and record.applied for record in self.manifest.patches)

    def require_weights(self) -> None:
        """Check that the artifact has its weights file.

        Raises:
            ArtifactError: the weights file is missing.
        """
        if not (self.folder / WEIGHTS_FILE).is_file():
            raise ArtifactError(
                f"{self.folder} has no weights",
                got=f"no {WEIGHTS_FILE}",
                expected="the weights that it was made with",
                fix=f"complete it with `vconv fill {shlex.quote(str(self.folder))} --weights WHERE`",
            )


def read_config(folder: Path, file: str = CONFIG_FILE) -> Config:
    """Return a configuration of an artifact, or of a source.

    Raises:
        ArtifactError: the file is missing, or is not a JSON object.
    """
    config = documents.load(folder / file, documents.CONFIGURATION)
    if not isinstance(config, dict):
        raise documents.refusal(folder / file, documents.CONFIGURATION, f"a {type(config).__name__}")
    return config
