"""Which variant is fastest: by medians, and only as far as the samples tell variants apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vconv.runtime.timing.machine_load import Load
from vconv.runtime.timing.statistics import LEAST_SAMPLES, compare_paired
from vconv.types import Status

Row = Mapping[str, Any]
_NAMES = ("artifact", "variant", "engine")


def rank(rows: Sequence[Row], machine: Load) -> dict[str, Any]:
    """Put the variants of a report in order, for each device and batch.

    Variants that passed are taken from the fastest median on. One is told apart from a faster one where
    :func:`vconv.runtime.timing.statistics.compare_paired` finds them different. A variant that is told apart
    from every leader of a rank so far leads the next one, whose number counts all that are before it; any
    other shares the rank of the fastest leader that it is not told apart from. Those that were not judged are
    listed without a rank, as a baseline; those that failed are left out.

    Args:
        rows: a report's variants, with their ``latency``.
        machine: what others took of the machine meanwhile.

    Returns:
        ``refused``, the reason why there is no ranking, or None; ``rows``, in order; and ``left_out``: by
        device and batch, why some of it is missing.
    """
    groups = _groups(rows)
    untimed = [row for row in rows if row["timing_refused"]]
    if not groups:
        reasons = [f"{row['variant']} on {row['device']} {row['timing_refused']}" for row in untimed]
        if rows and all(row["simulated"] for row in rows):
            reasons = ["how long an imitation takes says nothing of the device that it imitates"]
        return {"refused": (reasons or ["no variant that passed was timed"])[0], "rows": [], "left_out": []}
    if machine.busy is not False:
        what = "the machine was busy" if machine.busy else "whether the machine was busy is not known"
        return {"refused": f"{what}: {machine.reason}", "rows": [], "left_out": []}
    ranked: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    for (device, batch), found in groups.items():
        reason = _refusal([row for row in untimed if row["device"] == device], found)
        if reason:
            left_out.append({"device": device, "batch": batch, "reason": reason})
        else:
            ranked += _ranked(found)
    refused = None if ranked else "; ".join(dict.fromkeys(one["reason"] for one in left_out))
    return {"refused": refused, "rows": ranked, "left_out": left_out}


_Timed = tuple[Row, Row]
"""A variant and one of its timings."""


def _groups(rows: Sequence[Row]) -> dict[tuple[str, int], list[_Timed]]:
    """Gather what is compared: variants that passed, or were not judged, by device and batch."""
    groups: dict[tuple[str, int], list[_Timed]] = {}
    for row in rows:
        for timing in row["latency"] if row["status"] != Status.FAILED else ():
            groups.setdefault((row["device"], timing["batch"]), []).append((row, timing))
    return {key: groups[key] for key in sorted(groups) if any(_passed(row) for row, _ in groups[key])}


def _passed(row: Row) -> bool:
    return bool(row["status"] == Status.PASSED)


def _refusal(untimed: Sequence[Row], found: Sequence[_Timed]) -> str:
    """Say why a device and batch cannot be ranked; empty if they can."""
    for row in untimed:
        return f"{row['variant']} on {row['device']} {row['timing_refused']}"
    for row, timing in found:
        if _passed(row) and timing["runs"] < LEAST_SAMPLES:
            return f"too few samples: {timing['runs']} of {row['variant']}, {LEAST_SAMPLES} are the least"
    return ""


def _ranked(found: Sequence[_Timed]) -> list[dict[str, Any]]:
    """Rank the variants of one device and batch; baselines come last."""
    fastest = sorted(found, key=lambda one: one[1]["p50_ms"])
    ranks: dict[int, list[_Timed]] = {}
    passed = [one for one in fastest if _passed(one[0])]
    for place, one in enumerate(passed, start=1):
        shared = (rank for rank, members in ranks.items() if not _told_apart(members[0], one))
        ranks.setdefault(next(shared, place), []).append(one)
    rows = [
        _row(one, rank, [_names(other[0]) for other in members if other is not one])
        for rank, members in sorted(ranks.items())
        for one in members
    ]
    return rows + [_row(one, None, []) for one in fastest if not _passed(one[0])]


def _told_apart(faster: _Timed, slower: _Timed) -> bool:
    compared = compare_paired(faster[1]["samples_ms"], slower[1]["samples_ms"])
    return compared is not None and compared.different


def _names(row: Row) -> dict[str, str]:
    return {key: row[key] for key in _NAMES}


def _row(one: _Timed, rank: int | None, tied: list[dict[str, str]]) -> dict[str, Any]:
    row, timing = one
    return {
        "device": row["device"],
        "batch": timing["batch"],
        "rank": rank,
        **_names(row),
        "p50_ms": timing["p50_ms"],
        "interval": timing["p50_ms_interval"],
        "tied_with": tied,
    }


def winner(
    rows: Sequence[Row], ranking: Mapping[str, Any], devices: Sequence[str]
) -> tuple[dict[str, Any] | None, str | None]:
    """Name the first of a ranking at the least batch at which all that passed on a device were timed.

    Args:
        rows: a report's variants.
        ranking: as :func:`rank` returns it.
        devices: names of those that were asked for.

    Returns:
        The winner, with those that share its rank, and None; or None and the reason why there is none.
    """
    if ranking["refused"]:
        return None, ranking["refused"]
    if len(devices) > 1:
        return None, f"several devices were asked for: {', '.join(devices)}; each has a ranking of its own"
    (device,) = devices
    batches = [
        {timing["batch"] for timing in row["latency"]}
        for row in rows
        if row["device"] == device and _passed(row) and not row["timing_refused"]
    ]
    shared = set.intersection(*batches) if batches else set()
    if not shared:
        return None, f"no batch at which all variants that passed on {device} were timed"
    batch = min(shared)
    for one in ranking["left_out"]:
        if (one["device"], one["batch"]) == (device, batch):
            return None, one["reason"]
    first = next(row for row in ranking["rows"] if (row["device"], row["batch"]) == (device, batch))
    return {**_names(first), "tied_with": first["tied_with"]}, None
