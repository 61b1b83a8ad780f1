"""The ranking of variants by median latency: variants that do not differ significantly share a rank."""

from __future__ import annotations

import json
from collections.abc import Sequence

from vconv.runtime.devices.base import Device
from vconv.runtime.timing.machine_load import Load
from vconv.runtime.timing.statistics import LEAST_SAMPLES, compare_paired
from vconv.types import Status
from vconv.validators.report.document import LeftOut, Ranking, RankRow, Winner
from vconv.validators.report.rows import LatencyRow, VariantName, VariantRow


def rank(rows: Sequence[VariantRow], machine: Load) -> Ranking:
    """Rank the variants of a report, for each device and batch.

    Variants that passed are processed in the order of their medians. Two variants are distinguishable if
    :func:`vconv.runtime.timing.statistics.compare_paired` finds them different. A variant that is
    distinguishable from the leader of every rank so far leads a new rank, whose number is one more than the
    number of variants before it. Any other variant shares the rank of the fastest leader from which it is not
    distinguishable. Variants that were not judged are listed without a rank, as baselines. Variants that
    failed are left out.

    Args:
        rows: a report's variants, with their ``latency``.
        machine: the load that other processes put on the machine meanwhile.

    Returns:
        The rows in order; ``refused``, the reason why there is no ranking, or None; and ``left_out``, the
        devices and batches without a ranking, with the reason.
    """
    groups = _groups(rows)
    untimed = [row for row in rows if row.timing_refused]
    if not groups:
        reasons = [f"{row.variant} on {row.device} {row.timing_refused}" for row in untimed]
        if rows and all(row.simulated for row in rows):
            reasons = ["the latency of a simulated device says nothing about the real one"]
        return _refused((reasons or ["no variant that passed was timed"])[0])
    if machine.busy is not False:
        what = "the machine was busy:" if machine.busy else "whether the machine was busy is"
        return _refused(f"{what} {machine.reason}")
    ranked: list[RankRow] = []
    left_out: list[LeftOut] = []
    for (device, batch), found in groups.items():
        reason = _refusal([row for row in untimed if row.device == device], found)
        if reason:
            left_out.append(LeftOut(device=device, batch=batch, reason=reason))
        else:
            ranked += _ranked(found)
    refused = None if ranked else "; ".join(dict.fromkeys(one.reason for one in left_out))
    return Ranking(refused=refused, rows=tuple(ranked), left_out=tuple(left_out))


def _refused(reason: str) -> Ranking:
    return Ranking(refused=reason, rows=(), left_out=())


_Timed = tuple[VariantRow, LatencyRow]
"""A variant and one of its timings."""


def _groups(rows: Sequence[VariantRow]) -> dict[tuple[str, int], list[_Timed]]:
    """Group the variants that passed or were not judged by device and batch."""
    groups: dict[tuple[str, int], list[_Timed]] = {}
    for row in rows:
        for timing in row.latency if row.status is not Status.FAILED else ():
            groups.setdefault((row.device, timing.batch), []).append((row, timing))
    return {key: groups[key] for key in sorted(groups) if any(row.passed for row, _ in groups[key])}


def _refusal(untimed: Sequence[VariantRow], found: Sequence[_Timed]) -> str:
    """Return why the variants of one device and batch cannot be ranked; empty if they can."""
    for row in untimed:
        return f"{row.variant} on {row.device} {row.timing_refused}"
    for row, timing in found:
        if row.passed and timing.runs < LEAST_SAMPLES:
            return f"too few samples: {timing.runs} of {row.variant}, {LEAST_SAMPLES} are the least"
    return ""


def _ranked(found: Sequence[_Timed]) -> list[RankRow]:
    """Rank the variants of one device and batch; baselines come last."""
    fastest = sorted(found, key=lambda one: one[1].p50_ms)
    ranks: dict[int, list[_Timed]] = {}
    passed = [one for one in fastest if one[0].passed]
    for place, one in enumerate(passed, start=1):
        shared = (rank for rank, members in ranks.items() if not _told_apart(members[0], one))
        ranks.setdefault(next(shared, place), []).append(one)
    rows = [
        _row(one, rank, tuple(named(other[0]) for other in members if other is not one))
        for rank, members in sorted(ranks.items())
        for one in members
    ]
    return rows + [_row(one, None, ()) for one in fastest if not one[0].passed]


def _told_apart(faster: _Timed, slower: _Timed) -> bool:
    compared = compare_paired(faster[1].samples_ms, slower[1].samples_ms)
    return compared is not None and compared.different


def named(row: VariantName) -> VariantName:
    """Return the part of a row that identifies the variant."""
    return VariantName(artifact=row.artifact, variant=row.variant, engine=row.engine)


def _row(one: _Timed, rank: int | None, tied: tuple[VariantName, ...]) -> RankRow:
    row, timing = one
    return RankRow(
        artifact=row.artifact,
        variant=row.variant,
        engine=row.engine,
        device=row.device,
        batch=timing.batch,
        rank=rank,
        p50_ms=timing.p50_ms,
        interval=timing.p50_ms_interval,
        tied_with=tied,
    )


def winner(
    rows: Sequence[VariantRow], ranking: Ranking, devices: Sequence[str]
) -> tuple[Winner | None, str | None]:
    """Return the first variant of the ranking at the least batch at which all passed variants were timed.

    Args:
        rows: a report's variants.
        ranking: as :func:`rank` returns it.
        devices: the names of the requested devices.

    Returns:
        The winner, with the variants that share its rank, and None; or None and the reason why there is none.
    """
    if ranking.refused:
        return None, ranking.refused
    if len(devices) > 1:
        return None, f"several devices were requested: {', '.join(devices)}; each has a separate ranking"
    (device,) = devices
    batches = [
        {timing.batch for timing in row.latency}
        for row in rows
        if row.device == device and row.passed and not row.timing_refused
    ]
    shared = set.intersection(*batches) if batches else set()
    if not shared:
        return None, f"no batch at which all variants that passed on {device} were timed"
    batch = min(shared)
    for one in ranking.left_out:
        if (one.device, one.batch) == (device, batch):
            return None, one.reason
    first = next(row for row in ranking.rows if (row.device, row.batch) == (device, batch))
    return _winner(first), None


def winners(ranking: Ranking, devices: Sequence[str]) -> tuple[Winner, ...]:
    """Return the first variant of each device at its least ranked batch.

    Args:
        ranking: as :func:`rank` returns it.
        devices: the names of the requested devices; a baseline on another one wins nothing.
    """
    first: dict[str, RankRow] = {}
    for row in ranking.rows:
        if row.rank is not None:
            first.setdefault(row.device, row)
    return tuple(_winner(first[device]) for device in devices if device in first)


def _winner(first: RankRow) -> Winner:
    tied = first.tied_with
    return Winner(**dict(named(first)), tied_with=tied, device=first.device, batch=first.batch)


def loadable(found: Winner, devices: Sequence[Device]) -> Winner:
    """Return a winner of an artifact with the line of Python that opens it.

    Args:
        found: the winner.
        devices: the devices of the run; the line repeats a setting that changes how one computes.
    """
    given = {"device": found.device, "variant": found.variant, "engine": found.engine}
    options = [json.dumps(found.artifact, ensure_ascii=False)]
    options += [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in given.items()]
    for place in devices:
        if place.name == found.device and place.settings.hf32 is not None:
            options.append(f"hf32={json.dumps(list(place.settings.hf32))}")
    return found.model_copy(update={"load": f"vconv.load({', '.join(options)})"})
