"""The weights as the authors' own code loads them: one file, beside the artifact's, in the authors' layout.

The authors' code is in no package, so that nothing here builds or runs their network. Their
``load_state_dict(..., strict=True)`` needs more than the parameters that inference uses: masks of biases,
RoPE periods, second names, and tensors for training. A checkpoint in their layout keeps its own; for others
they are made, and the ledger says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vconv.convert.architectures.base import Capability
from vconv.convert.files.safetensors_file import TensorEntry
from vconv.convert.layouts.base import Extra, Layout, Use
from vconv.convert.layouts.table import LAYOUTS
from vconv.convert.network import Network
from vconv.convert.patches import rope_periods
from vconv.convert.sources.base import AUTHORS, LIBRARYS, Source, changed_outputs
from vconv.convert.sources.regrouping import GIVEN_FILE, decide, write_added
from vconv.convert.weights import values
from vconv.convert.weights.checkpoint import WeightsPlan
from vconv.convert.weights.ledger import ADDED, LEDGER_FILE, MatchedTensor, match_tensors
from vconv.convert.weights.recognition import MLPS, canonical, extras_of
from vconv.convert.weights.regroup import regrouped
from vconv.convert.weights.values import Values
from vconv.errors import InputError
from vconv.types import WEIGHTS_FILE

HOME = "facebook"
"""The home of the authors' layouts, and the folder of their weights in an artifact."""
AUTHORS_WEIGHTS, AUTHORS_LEDGER = f"{HOME}/{WEIGHTS_FILE}", f"{HOME}/{LEDGER_FILE}"
_ADDED_FILE = f"{Path(GIVEN_FILE).parent}/for-authors.safetensors"
_7B = ("dinov3", 4096)
"""Architecture and width of ViT-7B. The authors' code builds it without biases of query, key and value, and
with the tensors that only training uses (facebookresearch/dinov3, dinov3/hub/backbones.py)."""
_KEY = "key.bias"


@dataclass(frozen=True)
class ForAuthors:
    """The plan of a file for the authors' code.

    Args:
        family: its layout.
        plan: the plan of the file.
        entries: every tensor of the checkpoint by its name, and those that are added to them.
        losses: how the outputs differ from the artifact's, where no choice of the user makes them equal.
    """

    family: str
    plan: WeightsPlan
    entries: Mapping[str, TensorEntry]
    losses: tuple[str, ...]


def for_authors(source: Source, path: Path, keep_dtype: bool = False) -> ForAuthors:
    """Plan the file with a checkpoint's weights for the authors' code.

    Args:
        source: the checkpoint; tensors that it lacks are written into its folder.
        path: the file.
        keep_dtype: whether weights in float16 or bfloat16 are stored as they are.

    Raises:
        InputError: the authors' layout of this network is not declared.
        WeightsError: the layout has no place for a tensor that inference uses.
    """
    layout, stored = layout_of(source.network), source.stored
    given = {name: entry for name, entry in source.entries.items() if not name.startswith(ADDED)}
    by_key = {canonical(stored.layout, name): entry for name, entry in given.items()}
    own = {key: entry for key, entry in by_key.items() if key in extras_of(stored)}
    parameters = {entry.name: entry for key, entry in by_key.items() if key not in own}
    biases = values.biases(stored, by_key, {})
    target = _target(layout, source, any(bias.greatest for bias in biases.values()))
    work = decide(stored, target, by_key, biases)
    made = {
        ADDED + key: (key, *_made(key, row, shape, source, target, by_key))
        for key, (row, shape) in extras_of(target).items()
        if key not in own and _needed(row, target)
    }
    work.added |= {name: (value, why) for name, (_, value, why) in made.items()}
    added = write_added(_new(source.folder / _ADDED_FILE), work, parameters)
    matches = match_tensors(stored, parameters)
    matches += [
        MatchedTensor(name, "", name, added[name], proof=work.added[name][1])
        for name in work.replaced.values()
    ]
    placed, dropped = regrouped(matches, stored, target, work.proofs, work.replaced)
    placed += [MatchedTensor(entry.name, key, key, entry) for key, entry in own.items()]
    placed += [MatchedTensor(name, key, name, added[name], proof=why) for name, (key, _, why) in made.items()]
    plan = WeightsPlan(path, placed, dropped, keep_dtype)
    if stored.layout is layout:
        return ForAuthors(layout.family, plan, {**given, **added}, ())
    losses = (
        *work.losses,
        *changed_outputs(source.network, target, source.image_size, positions=source.positions != AUTHORS),
    )
    return ForAuthors(layout.family, plan, {**given, **added}, losses)


def _new(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    return path


def layout_of(net: Network) -> Layout:
    """Return the layout in which the authors of a network store it.

    Raises:
        InputError: it is not declared.
    """
    lack = net.lack(Capability.ROLES)
    found = () if lack else LAYOUTS.values()
    for layout in found:
        if layout.home == HOME and layout.architecture is net.layout.architecture:
            return layout
    homes = sorted({row.home for row in found if row.architecture is net.layout.architecture})
    raise InputError(
        f"--layout {HOME} does not apply to this network",
        got=lack or f"a network with the layouts of {' and '.join(homes)}",
        expected="a DINOv2 or DINOv3, whose authors' layout is declared",
        fix="omit --layout",
    )


def _target(layout: Layout, source: Source, biased: bool) -> Network:
    """Return the network as the authors' code builds it."""
    ours = source.network.numbers
    if source.stored.layout is layout:
        flags = source.stored.numbers.flags
    else:
        flags = ours.flags & MLPS
        flags |= {"registers"} if ours.registers else set()
        flags |= {"qkv_bias"} if biased or not _is_7b(source.network) else set()
    numbers = replace(
        ours,
        positions=ours.patch_positions + 1 if ours.positions else 0,
        flags=frozenset(flags | {"mask_token"}),
        pooling=layout.pooling,
        epsilon=layout.epsilon or ours.epsilon,
    )
    return Network(layout, HOME, {}, numbers, "")


def _needed(row: Extra, target: Network) -> bool:
    """Return whether the authors' code requires a tensor that is no parameter."""
    if row.use is Use.BIAS_MASK:
        return row.of in target.tensors()
    return row.use is not Use.TRAINING or _is_7b(target)


def _is_7b(net: Network) -> bool:
    return (net.layout.architecture.name, net.numbers.width) == _7B


def _made(
    key: str,
    row: Extra,
    shape: tuple[int, ...],
    source: Source,
    target: Network,
    entries: Mapping[str, TensorEntry],
) -> tuple[Values, str]:
    """Return the values of a tensor that is no parameter, and what it is made from."""
    if row.use is Use.BIAS_MASK:
        mask = np.ones((3, shape[0] // 3), np.float32)
        keys = values.biases(source.stored, entries, {}).get(_KEY)
        if keys and keys.greatest:
            return mask.reshape(shape), "1 everywhere: the key biases are not zero"
        mask[1] = 0
        return mask.reshape(shape), "1 for query and value, 0 for key"
    if row.use is Use.PERIODS:
        return _periods(source), "the RoPE periods of the reference"
    if row.use is Use.ALIAS:
        (part,) = (part for group in target.groups() for part in group.parts if group.stored[0].key == row.of)
        return values.of_part(part, source.stored, entries), f"the same elements as {row.of}"
    begin = np.ones if key.endswith(".weight") else np.zeros
    return begin(shape, np.float32), "only training uses it; as the authors' code initialises it"


def _periods(source: Source) -> Values:
    net = source.network
    if source.periods == LIBRARYS:
        return rope_periods.unrounded(float(net.rope_base or 0.0), net.head_dim).float().numpy()
    return rope_periods.of(net).numpy()
