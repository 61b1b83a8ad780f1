from __future__ import annotations

from typing import Any

import pytest

from vconv.convert.libraries import timm_sizes

SIZE = (96, 64)
VIT: dict[str, Any] = dict(embed_dim=48, depth=1, num_heads=2, img_size=48)
SWIN: dict[str, Any] = dict(embed_dim=16, depths=(1,), num_heads=(1,), img_size=28)
DYNAMIC = {"dynamic_img_size": True, "img_size": [48, 48]}
BUILT = {"img_size": [96, 64]}
WAYS: list[tuple[str, dict[str, Any], bool, list[dict[str, Any]]]] = [
    ("resnet18", dict(layers=(1, 1, 1, 1)), False, [{}]),
    ("deit3_small_patch16_224", VIT, True, [DYNAMIC]),
    ("eva02_tiny_patch14_224", {**VIT, "patch_size": 16}, True, [DYNAMIC]),
    ("swin_tiny_patch4_window7_224", SWIN, True, [BUILT]),
    ("xcit_nano_12_p16_224", dict(depth=1), True, [BUILT]),
    ("xcit_nano_12_p16_224", dict(depth=1), False, [{}]),
]
"""By name and ``model_args``: whether timm builds the network for one size, and what is tried."""


@pytest.mark.parametrize(("name", "args", "fixed", "expected"), WAYS)
def test_a_network_takes_another_size_by_timms_own_options(
    name: str, args: dict[str, Any], fixed: bool, expected: list[dict[str, Any]]
) -> None:
    settings = {"input_size": [3, 48, 48], "fixed_input_size": fixed}
    config = {"architecture": name, "model_args": args, "pretrained_cfg": settings}
    found = [made for made, _ in timm_sizes.resized_beyond(config, {}, SIZE)]
    assert [made["model_args"] for made in found[: len(expected)]] == [{**args, **one} for one in expected]
    for made in found:
        assert made["pretrained_cfg"]["input_size"] == [3, *SIZE]
        assert timm_sizes.image_size(made, {}) == SIZE
