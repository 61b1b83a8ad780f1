"""The system that a name stands for: one of the catalog, or any other backbone that a library builds.

``timm/NAME`` is a network of timm, by timm's own configuration. ``hub:OWNER/NAME[@REVISION]`` is a
repository, and anything else may be a folder; both have a ``config.json``. Their weights are there too,
unless others are named.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vconv.catalog import systems
from vconv.catalog.systems import SYSTEMS, System
from vconv.convert.hubs import table as hubs
from vconv.convert.libraries.base import parameters_without_data, understood
from vconv.convert.libraries.readers import library_of_config
from vconv.convert.sources import configurations
from vconv.convert.sources.licences import licence_of
from vconv.errors import UnknownNameError, WeightsError
from vconv.regular_files import kind_of
from vconv.types import CONFIG_FILE, PREPROCESSOR_FILE, Say, silent

TIMM = "timm/"
"""The owner of timm's repositories on the hub."""
UNSTATED = "not stated"
"""The licence of weights that name none."""


def find_system(
    name: str, hub: str, weights: str | None, offline: bool = False, say: Say = silent
) -> tuple[System, str | None]:
    """Find the system that a name stands for.

    Args:
        name: the name.
        hub: the name of the hub of a repository.
        weights: where the weights are; None for those of the system itself.
        offline: whether to look for a repository only in the hub's cache.
        say: receives progress lines.

    Returns:
        The system, and where its weights are; None for the system's own repository on the hub.

    Raises:
        UnknownNameError: there is no such system; the message lists the nearest names.
        WeightsError: the name is a path without a folder, or the folder, the repository or its configuration
            cannot be used.
    """
    if any(name in (system.name, system.hub_id) for system in SYSTEMS.values()):
        return systems.find(name), weights
    if match := re.fullmatch(r"hub:([^@]*)(?:@(.+))?", name):
        return _of_repository(match, hub, weights, offline, say)
    if name.startswith(TIMM):
        return _of_timm(name), weights
    folder = Path(name)
    if folder.is_dir():
        # The label of a folder's weights never names the folder: a report is for other machines too.
        return _of_folder(folder, _safe(folder.absolute().name), ""), name if weights is None else weights
    hub_ids = [system.hub_id for system in SYSTEMS.values()]
    if len(folder.parts) > 1 and not difflib.get_close_matches(name, hub_ids):
        raise WeightsError(
            f"there is no folder {name}",
            got=kind_of(folder) or "a file" if os.path.lexists(folder) else "nothing of that name",
            expected=f"a folder with a {CONFIG_FILE}, {TIMM}NAME, hub:OWNER/NAME, or a name of `vconv list`",
            fix="check the path",
        )
    return systems.find(name), weights


def _safe(name: str) -> str:
    """Return a name that is one part of a path."""
    return re.sub(r"[^\w.+-]+", "-", name, flags=re.ASCII).strip(".-") or "backbone"


def _of_repository(
    match: re.Match[str], hub: str, weights: str | None, offline: bool, say: Say
) -> tuple[System, str | None]:
    repository, revision = match[1], match[2]
    found = hubs.download(hub, repository, revision, say=say, offline=offline, weights=weights is None)
    system = _of_folder(found.folder, _safe(repository.rpartition("/")[2]), repository)
    return system, f"hub:{repository}@{found.revision}" if weights is None else weights


def _of_folder(folder: Path, name: str, hub_id: str) -> System:
    if not os.path.lexists(folder / CONFIG_FILE):
        raise WeightsError(
            f"{folder} does not describe a network",
            got=f"a folder without {CONFIG_FILE}",
            expected=f"the {CONFIG_FILE} of transformers or timm beside the weights",
            fix="name the folder that has it, or a system of `vconv list` with these weights as --weights",
        )
    config = configurations.encoder_of(folder / CONFIG_FILE)
    library = library_of_config(config)
    beside = folder / PREPROCESSOR_FILE
    return System(
        name=name,
        hub_id=hub_id,
        library=library,
        config=config,
        licence=licence_of(folder) or UNSTATED,
        preprocessor=configurations.own(beside) if beside.is_file() else {},
    )


def _of_timm(name: str) -> System:
    """Return a system of timm: with the tag that the name gives, or with the network's first one."""
    import timm

    network, _, tag = name.removeprefix(TIMM).partition(".")
    if not timm.is_model(network):
        known = [*(system.hub_id for system in SYSTEMS.values()), *(TIMM + one for one in timm.list_models())]
        raise UnknownNameError("system", name, known, fix="`vconv list` shows the catalog")
    tagged = [one for one in timm.list_pretrained(f"{network}.*") if one.startswith(f"{network}.")]
    if tag and f"{network}.{tag}" not in tagged:
        raise UnknownNameError("system", name, [TIMM + one for one in tagged], fix="name one of them")
    config = _timm_config(f"{network}.{tag}" if tag else network)
    settings: Mapping[str, Any] = config["pretrained_cfg"]
    whole = f"{network}.{tag or settings.get('tag', '')}".rstrip(".")
    return System(
        name=_safe(whole),
        hub_id=TIMM + whole,
        library="timm",
        config=config,
        licence=str(settings.get("license") or UNSTATED),
    )


def _timm_config(name: str) -> dict[str, Any]:
    """Return the ``config.json`` that timm publishes with a network's weights."""
    import timm
    from timm.models import _hub as timm_hub

    with (
        tempfile.TemporaryDirectory(prefix="vconv-") as folder,
        parameters_without_data(),
        understood("timm"),
    ):
        write: Any = timm_hub.save_config_for_hf
        write(timm.create_model(name), str(Path(folder) / CONFIG_FILE))
        found: dict[str, Any] = json.loads((Path(folder) / CONFIG_FILE).read_text())
    return found
