"""The kinds of source, and the one function that opens any of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vconv.catalog.systems import System
from vconv.convert.architectures.base import Capability
from vconv.convert.hubs import table as hubs
from vconv.convert.libraries.timm_features import are_levels
from vconv.convert.sources import local, synthetic
from vconv.convert.sources.asked_outputs import asking
from vconv.convert.sources.base import PERIODS, Origin, Source, require_choice
from vconv.convert.sources.positions import resampled_otherwise, with_positions
from vconv.convert.sources.recipes.table import LATEST
from vconv.convert.sources.sized import sized
from vconv.convert.sources.sizes import SizeRequest
from vconv.errors import InputError, WeightsError
from vconv.types import Say, silent

DEFAULT_HUB = "huggingface"
POOLS = ("cls", "avg")
"""Choices of the pooling of timm's systems."""
_OR_ALLOW = "choose a system of another library, or accept the loss with --allow-lossy"


@dataclass(frozen=True)
class Request:
    """The request of a user.

    Args:
        system: the catalog row.
        weights: a file, a folder, ``synthetic[:SEED]`` or ``hub:REPOSITORY[@REVISION]``; None for the
            system's own repository on the hub.
        hub: the name of the hub.
        pool: a pooling other than the library's default; None for the default.
        periods: the choice of the RoPE periods, of :data:`PERIODS`; None for those of the authors.
        offline: whether to look for a repository only in the cache.
        size: the sizes of images; None for those of the original's image processor.
        outputs: the names of the outputs; empty for those that the network has.
        weights_layout: the home of the layout of the weights; None to recognise it.
        allow_lossy: whether a conversion from another layout may change the outputs.
        state_dict: the entry of a training checkpoint that has several state dicts; None for the only one.
        recipe: the version of the recipe of synthetic weights.
        positions: whose kernel resamples the position embedding, of
            :data:`vconv.convert.sources.positions.POSITIONS`; None for the library's.
    """

    system: System
    weights: str | None = None
    hub: str = DEFAULT_HUB
    pool: str | None = None
    periods: str | None = None
    offline: bool = False
    size: SizeRequest | None = None
    outputs: tuple[str, ...] = ()
    weights_layout: str | None = None
    allow_lossy: bool = False
    state_dict: str | None = None
    recipe: int = LATEST
    positions: str | None = None


def ways(system: System) -> str:
    """Return one sentence about how to give the weights of a system."""
    gate = f" (accept its licence on the hub first: {system.licence})" if system.gated else ""
    return (
        f"give `--weights FOLDER` or `--weights FILE`, downloaded with "
        f"`hf download {system.hub_id} --local-dir FOLDER`{gate}, "
        f"or try the tool with `--weights synthetic[:SEED]`"
    )


def _open_synthetic(request: Request, match: re.Match[str], scratch: Path, say: Say) -> Source:
    seed = "0" if match[1] is None else match[1]
    if not re.fullmatch(r"\d{1,9}", seed):
        raise WeightsError(
            "this is not a seed",
            got=repr(request.weights),
            expected="synthetic:SEED, a whole number",
            fix="try synthetic:0",
        )
    return synthetic.draw(request.system, int(seed), request.recipe, scratch, say)


def _open_hub(request: Request, match: re.Match[str], scratch: Path, say: Say) -> Source:
    system = request.system
    if match[2] == "":
        raise WeightsError(
            "the revision is empty",
            got=repr(request.weights),
            expected="hub:OWNER/NAME@REVISION",
            fix="name a branch, a tag or a commit after the @, or omit the @",
        )
    found = hubs.download(
        request.hub,
        match[1],
        match[2],
        gated=system.gated and match[1] == system.hub_id,
        licence=system.licence,
        say=say,
        offline=request.offline,
    )
    origin = Origin(found.hub, found.repository, found.revision)
    return local.open_local(
        system, found.folder, scratch, say, ways(system), origin, request.weights_layout, request.state_dict
    )


def _open_path(request: Request, match: re.Match[str], scratch: Path, say: Say) -> Source:
    path = Path(match[0])
    if not path.exists():
        raise WeightsError(
            f"no weights at {path}",
            got="no such file or folder",
            expected="a file or a folder",
            fix=ways(request.system),
        )
    return local.open_local(
        request.system,
        path,
        scratch,
        say,
        ways(request.system),
        stated=request.weights_layout,
        state_dict=request.state_dict,
    )


_KINDS: tuple[tuple[str, Callable[[Request, re.Match[str], Path, Say], Source]], ...] = (
    (r"synthetic(?::(.*))?", _open_synthetic),
    (r"hub:([^@]*)(?:@(.*))?", _open_hub),
    (r"(?s:.*)", _open_path),
)
"""Forms of ``--weights``, each with the function that opens it; the first match is used."""


def open_source(request: Request, scratch: Path, say: Say = silent) -> Source:
    """Prepare source weights for reading.

    Args:
        request: the request of the user.
        scratch: an existing, empty folder for files to write; it must exist as long as the source is used.
        say: receives progress lines.

    Returns:
        The source; tensors have been read only to be hashed or rewritten.

    Raises:
        WeightsError: there are no such weights, or they are not valid.
        InputError: the pooling of the library's models is fixed, the network has no RoPE, it does not take
            images of the requested size, or it has not a requested output.
    """
    weights = f"hub:{request.system.hub_id}" if request.weights is None else request.weights
    opener, match = next(
        (opener, match) for pattern, opener in _KINDS if (match := re.fullmatch(pattern, weights))
    )
    source = opener(request, match, scratch, say)
    pool = request.pool or _pooling_to_keep(source, say)
    if pool:
        source = _pooled(source, pool)
    if request.size:
        source = sized(source, request.size)
    if request.outputs:
        source = _with_outputs(source, request.outputs)
    if request.positions:
        source = with_positions(source, request.positions)
    fix = f"give --positions authors, {_OR_ALLOW}" if resampled_otherwise(source) else _OR_ALLOW
    refuse_losses(source.losses, request.allow_lossy, fix)
    return _with_periods(source, request.periods) if request.periods else source


def _with_outputs(source: Source, names: tuple[str, ...]) -> Source:
    """Ask for outputs; of a network of timm whose blocks are not known, ask timm for its feature maps."""
    network = source.network
    if network.observed and source.library.features and are_levels(names):
        asked = source.library.features(source.config, names)
        return source.configured(asked, source.preprocessor, outputs=names)
    return replace(source, outputs=asking(network, names).asked)


def _pooling_to_keep(source: Source, say: Say) -> str | None:
    """Return the pooling of the network that the weights are from, if the library can be told to keep it."""
    theirs = source.stored.numbers.pooling if source.regrouped else ""
    if theirs in POOLS and source.library.pooled_by and source.network.numbers.pooling != theirs:
        say(f"the output pooled is {theirs}, as in the weights' layout, not {source.library.name}'s default")
        return theirs
    return None


def refuse_losses(losses: Sequence[str], allowed: bool, fix: str) -> None:
    """Refuse a conversion to another layout that changes outputs, unless the user allows it.

    Raises:
        WeightsError: there are losses that are not allowed.
    """
    if losses and not allowed:
        raise WeightsError(
            "this conversion changes the outputs",
            got="; ".join(losses),
            expected="a conversion after which the network computes the same",
            fix=fix,
        )


def _pooled(source: Source, pool: str) -> Source:
    library = source.library
    require_choice("--pool", pool, POOLS)
    if library.pooled_by is None or source.network.stages:
        raise InputError(
            "--pool does not apply to this system",
            got=f"a system of {library.name}, whose pooled output is always {source.network.pooling}",
            expected="a system of timm",
            fix="omit --pool, and pool the outputs cls or patches yourself",
        )
    lack = source.network.lack(Capability.TOKEN_GRID)
    if lack:
        raise InputError(
            "--pool does not apply to this system", got=lack, expected="a class token", fix="omit --pool"
        )
    return source.configured(library.pooled_by(source.config, pool), source.preprocessor, pool=pool)


def _with_periods(source: Source, periods: str) -> Source:
    require_choice("--periods", periods, PERIODS)
    if source.stored_periods is not None:
        raise InputError(
            "--periods does not apply to these weights",
            got=repr(periods),
            expected="no choice: the weights store their RoPE periods",
            fix="omit --periods",
        )
    if source.network.rope_base is None:
        raise InputError(
            "--periods does not apply to this system",
            got=f"the architecture {source.network.layout.family}, which has no RoPE",
            expected="a DINOv3",
            fix="omit --periods",
        )
    return replace(source, periods=periods)
