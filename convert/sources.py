"""Where weights come from: a file, a folder, or a seed.

Whatever the source, the result is the same: a folder that stock transformers loads as the original, its
configuration, and the place of every tensor in it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vconv.catalog import System
from vconv.convert import recipe, safetensors_file
from vconv.convert.layouts import network
from vconv.convert.safetensors_file import Entry
from vconv.errors import WeightsError
from vconv.types import MANIFEST_FILE, WEIGHTS_FILE, Config, Say, silent

CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
_PICKLES = (".bin", ".pth", ".pt")
_SYNTHETIC = re.compile(r"synthetic(?::(\d{1,9}))?")


@dataclass(frozen=True)
class Source:
    """Source weights, ready to be read.

    Args:
        label: what to call them, without a name of this machine: ``synthetic:SEED``, ``folder:HASH``.
        folder: a folder that stock transformers loads as the original.
        entries: every tensor by its name in the checkpoint.
        config: the original's configuration.
        preprocessor: its image processor's configuration.
        sha256: of the weights file.
        published: names of the configuration files that came from the catalog.
    """

    label: str
    folder: Path
    entries: Mapping[str, Entry]
    config: Config
    preprocessor: Config
    sha256: str
    published: tuple[str, ...] = ()

    @property
    def configuration_sha256(self) -> str:
        """Hash of both configurations: with the weights' own, what makes two sources one model."""
        text = json.dumps([dict(self.config), dict(self.preprocessor)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def synthetic(self) -> bool:
        """Whether the weights come from a seed and not from training."""
        return is_synthetic(self.label)


def is_synthetic(label: str) -> bool:
    """Tell whether a source's label says that its weights come from a seed."""
    return label.startswith("synthetic")


def ways(system: System) -> str:
    """Say in one sentence how a system's weights can be given."""
    gate = f" (accept its licence on the hub first: {system.licence})" if system.gated else ""
    return (
        f"give `--weights FOLDER` or `--weights FILE.safetensors`, downloaded with "
        f"`hf download {system.hub_id} --local-dir FOLDER`{gate}, "
        f"or try the tool with `--weights synthetic[:SEED]`"
    )


def open_source(system: System, weights: str | None, scratch: Path, say: Say = silent) -> Source:
    """Make source weights ready to be read.

    Args:
        system: the catalog row.
        weights: a safetensors file, a folder, ``synthetic`` or ``synthetic:SEED``; None for not given.
        scratch: an existing, empty folder for what must be written; the source needs it as long as it lives.
        say: takes progress.

    Returns:
        The source; no tensor has been read, except for the hash.

    Raises:
        WeightsError: there are no such weights, or they are not sound.
    """
    if weights is None:
        raise WeightsError(
            f"no weights for {system.name}",
            got="none",
            expected="a file, a folder or a seed",
            fix=ways(system),
        )
    match = _SYNTHETIC.fullmatch(weights)
    if match:
        return _synthetic(system, int(match[1] or 0), scratch, say)
    if weights.startswith("synthetic:"):
        raise WeightsError(
            "not a seed", got=repr(weights), expected="synthetic:SEED, a whole number", fix="try synthetic:0"
        )
    path = Path(weights)
    if not path.exists():
        raise WeightsError(
            f"no weights at {weights}", got="nothing there", expected="a file or a folder", fix=ways(system)
        )
    return _local(system, path, scratch, say)


def _synthetic(system: System, seed: int, scratch: Path, say: Say) -> Source:
    say(f"drawing synthetic weights from seed {seed}")
    config = dict(system.config)
    path = scratch / WEIGHTS_FILE
    sha256 = safetensors_file.write(path, recipe.planned(network(config), seed))
    return _finish(f"synthetic:{seed}", path, scratch, config, dict(system.preprocessor), sha256)


def _local(system: System, path: Path, scratch: Path, say: Say) -> Source:
    kind = "folder" if path.is_dir() else "file"
    file = path / WEIGHTS_FILE if path.is_dir() else path
    if not file.is_file():
        others = sorted(other.name for other in path.iterdir() if other.suffix in (".safetensors", *_PICKLES))
        raise WeightsError(
            f"no weights in {path}",
            got=f"no {WEIGHTS_FILE}" + (f", but {others[0]}" if others else ""),
            expected=f"a folder with {WEIGHTS_FILE}",
            fix=ways(system),
        )
    if file.suffix in _PICKLES:
        raise WeightsError(
            f"cannot read {path}",
            got="a pickle, which can run code when it is read",
            expected="a .safetensors file",
            fix="load it with the library that it came from and save it as safetensors",
        )
    if (file.parent / MANIFEST_FILE).exists():
        raise WeightsError(
            f"{path} is an artifact",
            got="patched weights",
            expected="the original's",
            fix="give the weights that the artifact was made from",
        )
    config, preprocessor = dict(system.config), dict(system.preprocessor)
    published = [CONFIG_FILE, PREPROCESSOR_FILE]
    if path.is_dir():
        published = [name for name in published if not (path / name).is_file()]
        config = _own(path / CONFIG_FILE, config, say)
        preprocessor = _own(path / PREPROCESSOR_FILE, preprocessor, say)
    if config.get("model_type") != system.config["model_type"]:
        raise WeightsError(
            f"{path} holds another architecture",
            got=config.get("model_type"),
            expected=system.config["model_type"],
            fix="name the system that these weights belong to; `vconv list` shows them",
        )
    safetensors_file.read_header(file)
    say(f"hashing {file.name}")
    link = scratch / WEIGHTS_FILE
    link.symlink_to(file.resolve())
    sha256 = sha256_of(file)
    source = _finish(f"{kind}:{sha256[:12]}", link, scratch, config, preprocessor, sha256)
    return replace(source, published=tuple(published))


def _finish(
    label: str, file: Path, scratch: Path, config: dict[str, Any], preprocessor: dict[str, Any], sha256: str
) -> Source:
    for name, content in ((CONFIG_FILE, config), (PREPROCESSOR_FILE, preprocessor)):
        (scratch / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    return Source(label, scratch, safetensors_file.read_header(file), config, preprocessor, sha256)


def _own(path: Path, published: dict[str, Any], say: Say) -> dict[str, Any]:
    """Return a folder's own configuration, or, saying so, the published one where it has none."""
    if not path.is_file():
        say(f"no {path.name} beside the weights: using the published one")
        return published
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"cannot read {path}", got=str(error), expected="a JSON object", fix="download the file again"
        ) from error
    if not isinstance(content, dict):
        raise WeightsError(
            f"cannot use {path}",
            got=f"a {type(content).__name__}",
            expected="a JSON object",
            fix="download it again",
        )
    return content


def sha256_of(path: Path) -> str:
    """Return a file's sha256 in hexadecimal, reading it as a stream."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
