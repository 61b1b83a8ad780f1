"""Which layout a checkpoint has: told by the names and shapes that the declared layouts require."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from vconv.convert.architectures.base import CLASSIFIER, GATED_MLP, NO_CLS_POSITION, PLAIN_MLP, sized
from vconv.convert.layouts import foreign
from vconv.convert.layouts.base import Extra, Layout
from vconv.convert.layouts.table import LAYOUTS
from vconv.convert.network import Network
from vconv.errors import WeightsError

Shapes = Mapping[str, tuple[int, ...]]
MLPS = {PLAIN_MLP, GATED_MLP}
_SHOWN = 3
"""Number of tensors of each kind that an error names."""


@dataclass(frozen=True)
class Fit:
    """How the tensors of a checkpoint fit a layout.

    Args:
        network: the network as the checkpoint stores it, if it fits.
        extras: the tensors of the checkpoint that are no parameters, by canonical key.
        missing: canonical keys of tensors that the layout requires, and the checkpoint lacks.
        unexpected: names in the checkpoint that the layout does not know.
        misshaped: canonical keys of tensors of another shape, each with its shape and the required one.
    """

    network: Network
    extras: Mapping[str, Extra]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshaped: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]

    @property
    def faults(self) -> int:
        """Number of tensors that do not fit."""
        return len(self.missing) + len(self.unexpected) + len(self.misshaped)


def canonical(layout: Layout, name: str) -> str:
    """Return the canonical key of a tensor; libraries use different names in memory and on disk."""
    return layout.disk_key(name.removeprefix(layout.prefix))


def fit(layout: Layout, like: Network, shapes: Shapes) -> Fit:
    """Compare a checkpoint with a layout.

    Args:
        layout: the layout.
        like: a network of the same architecture, whose numbers the checkpoint must have.
        shapes: the shape of each tensor of the checkpoint, by name.
    """
    bare = {canonical(layout, name): shape for name, shape in shapes.items()}
    return min((_fit(network, bare) for network in _stored(layout, like, bare)), key=lambda one: one.faults)


def _stored(layout: Layout, like: Network, bare: Shapes) -> Iterator[Network]:
    """Yield the networks that the layout can store with these numbers and the flags that the names show."""
    heads = {head: key for head, key in layout.heads.items() if key in bare}
    rules = [rule for rule in layout.rules if rule.stored[0].replace("{i}", "0") in bare]
    # A plain MLP and a packed gated one may have the same names.
    shown = {flag for rule in rules for flag in rule.when.split()} - MLPS | (like.numbers.flags & MLPS)
    choices = (True, False) if any(rule.plus for rule in layout.rules) else (True,)
    for cls_position in choices if like.numbers.positions else (True,):
        numbers = replace(
            like.numbers,
            positions=like.numbers.patch_positions + (cls_position and like.numbers.positions > 0),
            flags=frozenset(shown if cls_position else {*shown, NO_CLS_POSITION}),
            pooling=layout.pooling or like.numbers.pooling,
            epsilon=layout.epsilon or like.numbers.epsilon,
        )
        head = CLASSIFIER if CLASSIFIER in heads else next(iter(heads), "")
        yield Network(layout, layout.home, {}, numbers, head)


def _fit(network: Network, bare: Shapes) -> Fit:
    wanted = {key: tensor.shape for key, tensor in network.tensors().items()}
    extras = {key: extra for key, (extra, _) in extras_of(network).items() if key in bare}
    wanted |= {key: shape for key, (_, shape) in extras_of(network).items() if key in bare}
    return Fit(
        network,
        extras,
        missing=tuple(key for key in wanted if key not in bare),
        unexpected=tuple(key for key in bare if key not in wanted),
        misshaped={key: (bare[key], shape) for key, shape in wanted.items() if bare.get(key, shape) != shape},
    )


def extras_of(network: Network) -> dict[str, tuple[Extra, tuple[int, ...]]]:
    """Return every tensor that is no parameter and that a file may have, with its shape, by key."""
    found = {}
    for extra in network.layout.extras:
        blocks = range(network.blocks) if "{i}" in extra.stored else range(1)
        for block in blocks:
            number = str(block)
            row = replace(extra, of=extra.of.replace("{i}", number))
            found[extra.stored.replace("{i}", number)] = row, sized(extra.shape, network.numbers)
    return found


def recognise(own: Network, shapes: Shapes, stated: str | None = None) -> Fit:
    """Find the layout of a checkpoint.

    Args:
        own: the network that the checkpoint must hold; its layout is tried first.
        shapes: the shape of each tensor of the checkpoint, by name.
        stated: the home of the layout, if the user states it.

    Returns:
        The first fit without a fault; the nearest one if there is none.

    Raises:
        WeightsError: no layout of this architecture has the stated home.
    """
    known = [layout for layout in LAYOUTS.values() if layout.architecture is own.layout.architecture]
    layouts = [layout for layout in known if stated in (None, layout.home)]
    if not layouts:
        raise WeightsError(
            "no such layout of this network",
            got=repr(stated),
            expected=" or ".join(dict.fromkeys(layout.home for layout in known)),
            fix="name one of those, or leave the layout to be recognised",
        )
    layouts.sort(key=lambda layout: layout is not own.layout)
    return min((fit(layout, own, shapes) for layout in layouts), key=lambda one: one.faults)


def refusal(found: Fit, own: Layout, shapes: Shapes) -> WeightsError:
    """Return the error for a checkpoint that fits no layout, with the nearest one and what differs.

    Args:
        found: the nearest layout.
        own: the layout of the system.
        shapes: the shape of each tensor of the checkpoint, by name.
    """
    family, kinds = found.network.layout.family, []
    other = foreign.recognise((canonical(own, name) for name in shapes), found.network.layout)
    for kind, names in (
        ("missing", found.missing),
        ("unexpected", found.unexpected),
        ("of the wrong shape", tuple(_shaped(*row) for row in found.misshaped.items())),
    ):
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            kinds.append(f"{len(names)} {kind}: {', '.join(names[:_SHOWN])}{more}")
    return WeightsError(
        f"the checkpoint is {other.name}" if other else "the checkpoint fits no known layout of this network",
        got=f"nearest is {family}, with {'; '.join(kinds)}",
        expected=f"the {len(found.network.tensors())} tensors of {family}, or those of another layout",
        fix=other.fix if other else "check that the weights belong to this system and to this config.json",
    )


def _shaped(key: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> str:
    return f"{key} {list(shapes[0])}, not {list(shapes[1])}"
