"""Telling CANN's compiler not to run harmful passes, and reading which passes it ran.

Sources: Huawei's "ATC Tool User Guide", ``--fusion_switch_file``,
https://www.hiascend.com/document/detail/zh/canncommercial/850/devaids/atctool/atlasatcparam_16_0053.html (the
JSON form; newer passes ignore the form with a line for each pass), and ``--export_compile_stat``, page
atlasatcparam_16_0098 there. The forms of ``fusion_result.json`` are those of files in public repositories.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from vconv.convert.ascend.fusions.table import FUSIONS

SWITCH_FILE = "fusion_switch.json"
RESULT_FILE = "fusion_result.json"
"""The file that ATC writes into its working folder."""
FORM = "it has none of the forms that are known of atc's report"
"""What is said of a text of JSON that is no report of ATC."""
_SECTIONS = ("graph_fusion", "ub_fusion")


def switched_off() -> list[str]:
    """List the passes that can change a result or a precision of a graph that is compiled."""
    return [name for name, fusion in FUSIONS.items() if fusion.off]


def switch_file() -> str:
    """Return the text of a switch file that turns those passes off by name.

    ATC's manual says that only the passes of Huawei's fusion reference can be turned off, and the reference
    does not name GeluONNXFusionPass. The compiler's source refuses to turn off the passes of a list, and the
    list does not name it either. Which of the two holds is not known, so the result is read after the
    compilation: see :func:`effects`.
    """
    off = dict.fromkeys(switched_off(), "off")
    return json.dumps({"Switch": {"GraphFusion": off, "UBFusion": {}}}, indent=2) + "\n"


def effects(text: str) -> dict[str, int]:
    """Read how often each pass changed the graph.

    Args:
        text: the text of a ``fusion_result.json``.

    Returns:
        By name, how often a pass changed the graph; 0 for a pass that found its pattern and changed nothing.
        ATC leaves out a pass that found nothing or was turned off.

    Raises:
        ValueError: the text has none of the known forms; the error says in what it differs.
    """
    found: Counter[str] = Counter()
    try:
        for graph in _graphs(json.loads(text)):
            for section in _SECTIONS:
                for name, counts in graph.get(section, {}).items():
                    found[name] += _count(name, counts["effect_times"])
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ValueError(
            f"it is not JSON: {error.msg}, {where}" if text.strip() else "it is empty"
        ) from error
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{FORM}: {type(error).__name__}: {error}") from error
    return dict(sorted(found.items()))


def _count(name: str, given: Any) -> int:
    """Return how often a pass changed the graph: a number, or the text of one."""
    try:
        return int(given)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"effect_times of {name!s:.60} is {given!r:.40}, not a whole number") from error


def _graphs(document: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the part of each graph: of a list, of an object by graph, or of an object of one graph."""
    parts = document if isinstance(document, list) else [document]
    for part in parts:
        if not isinstance(part, dict):
            raise ValueError(f"{FORM}: {type(part).__name__} in the place of a graph")
        if part.keys() & {*_SECTIONS, "session_and_graph_id"}:
            yield part
        else:
            yield from _graphs(list(part.values()))


def harmful_effects(found: Mapping[str, int]) -> dict[str, int]:
    """Keep the passes that changed the graph although the switch file turns them off."""
    return {name: count for name, count in found.items() if count and name in FUSIONS and FUSIONS[name].off}
