"""The systems that tests run over: one of each structure, not every size of the catalog."""

from __future__ import annotations

from collections.abc import Mapping

from vconv.catalog.systems import SYSTEMS, System, structures


def _named(*names: str) -> Mapping[str, System]:
    return {name: SYSTEMS[name] for name in names}


EXAMPLES: Mapping[str, System] = _named(
    "dinov3-vits16",
    "vit_small_patch16_dinov3.lvd1689m",
    "dinov2-large",
    "vit_small_patch14_reg4_dinov2.lvd142m",
    "vit-base-patch16-224-in21k",
)
"""The systems that every test of what depends on the system meets."""
FURTHER: Mapping[str, System] = {
    name: system for name, system in structures().items() if name not in EXAMPLES
}
"""One system of each further structure; tests/core/workflows/test_families.py takes it from end to end."""
FURTHER_FIRST = (
    "vit-base-patch16-224",
    "dinov2-giant",
    "dinov3-vits16plus",
    "dinov3-convnext-tiny",
)
"""Those that `make test` takes; the others run in `make test-full`."""
