from __future__ import annotations

import json
import subprocess
import sys

from vconv.catalog.systems import SYSTEMS


def test_the_systems_are_those_of_the_catalog_and_no_library_is_imported_for_them() -> None:
    program = (
        "import json, sys, vconv; found = vconv.list_systems();"
        "print(json.dumps([found, sorted({'torch', 'transformers', 'timm', 'numpy'} & sys.modules.keys())]))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    found, imported = json.loads(said)
    assert imported == []
    assert [row["name"] for row in found] == list(SYSTEMS)
    assert found[0] == {
        **{"name": "dinov3-vits16", "family": "DINOv3 ViT"},
        **{"hub_id": "facebook/dinov3-vits16-pretrain-lvd1689m"},
        **{"library": "transformers", "input": [224, 224], "licence": "dinov3-license", "gated": True},
    }
