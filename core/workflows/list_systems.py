"""`vconv list`: the systems that vconv can export."""

from __future__ import annotations

from typing import Any

from vconv.catalog import systems


def list_systems() -> list[dict[str, Any]]:
    """Return the systems of the catalog, in its order; no library is imported for this.

    Returns:
        One dictionary a system: ``name``, ``family`` (the title under which its sizes are listed),
        ``hub_id``, ``library``, ``input`` (height and width), ``licence``, and ``gated``, whether the hub
        asks for consent before a download.
    """
    return [
        {
            **{"name": system.name, "family": system.title},
            **{"hub_id": system.hub_id, "library": system.library},
            **{"input": system.input, "licence": system.licence, "gated": system.gated},
        }
        for system in systems.SYSTEMS.values()
    ]
