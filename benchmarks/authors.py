"""Files of the authors, converted to both libraries, beside the authors' own code.

The code of facebookresearch/dinov3 and facebookresearch/dinov2 is in no package registry: clone what you want
to compare into one folder and name it with ``--authors FOLDER``. A repository that is not there is left out
and named. For one network of each family, the authors' hubconf builds the network. Every parameter gets
random values, so that every tensor matters, and the state dict is saved as a ``.pth`` file. vconv opens this
file as weights of the system of timm and of the system of transformers. The outputs of these originals, which
no patch touches, are compared with those of the authors' own ``forward_features``. Then each original is
written for the authors' code, as ``--layout facebook`` does: their ``load_state_dict`` must take it strictly,
and their network must give the same bits as before.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from record import finish
from safetensors.torch import load_file
from torch import Tensor, nn

from vconv.catalog.systems import find
from vconv.convert.sources.authors import for_authors
from vconv.convert.sources.table import Request, open_source
from vconv.types import WEIGHTS_FILE
from vconv.validators.accuracy import golden

TIMM, TRANSFORMERS = "timm", "transformers"
CLOSE = 1e-5
"""The greatest difference to transformers, which computes the rotation and the attention in another order."""


@dataclass(frozen=True)
class Case:
    """One network.

    Args:
        repository: the folder of the authors' repository.
        name: the entry point in its hubconf.
        systems: the system of each library.
        side: the side of the images: for DINOv2, the one at which nobody resamples the positions.
        limits: the greatest difference of any element to each library; 0 means bit-equal.
    """

    repository: str
    name: str
    systems: Mapping[str, str]
    side: int
    limits: Mapping[str, float]


EXACT = {TIMM: 0.0, TRANSFORMERS: CLOSE}
CASES = (
    Case(
        "dinov3",
        "dinov3_vits16",
        {TIMM: "vit_small_patch16_dinov3.lvd1689m", TRANSFORMERS: "dinov3-vits16"},
        224,
        EXACT,
    ),
    Case(
        "dinov3",
        "dinov3_vits16plus",
        {TIMM: "vit_small_plus_patch16_dinov3.lvd1689m", TRANSFORMERS: "dinov3-vits16plus"},
        224,
        EXACT,
    ),
    Case(
        "dinov3",
        "dinov3_convnext_tiny",
        {TIMM: "convnext_tiny.dinov3_lvd1689m", TRANSFORMERS: "dinov3-convnext-tiny"},
        224,
        # timm computes the mean of the last patches in another order.
        {TIMM: CLOSE, TRANSFORMERS: CLOSE},
    ),
    Case(
        "dinov2",
        "dinov2_vits14",
        {TIMM: "vit_small_patch14_dinov2.lvd142m", TRANSFORMERS: "dinov2-small"},
        518,
        EXACT,
    ),
    Case(
        "dinov2",
        "dinov2_vits14_reg",
        {TIMM: "vit_small_patch14_reg4_dinov2.lvd142m", TRANSFORMERS: "dinov2-with-registers-small"},
        518,
        EXACT,
    ),
)


def built(folder: Path, case: Case) -> nn.Module:
    """Build a network with the authors' code, and give every parameter random values."""
    model: Any = torch.hub.load(str(folder / case.repository), case.name, source="local", pretrained=False)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            scale = 0.5 if "gamma" in name else 0.02 if value.ndim > 1 else 0.1
            one = "norm" in name and name.endswith("weight")
            value.copy_(one + scale * torch.randn(value.shape, generator=noise))
        for name, value in model.named_buffers():
            if name.endswith("bias_mask"):
                # The authors' own initialisation: query and value have a bias, the key has none.
                third = len(value) // 3
                value.fill_(1)
                value[third : 2 * third] = 0
            if name.endswith("periods"):
                value.copy_(value.bfloat16().float())
    return model.eval()


def tokens(model: Any, images: Tensor) -> Tensor:
    """Return class token, registers and patches of the authors' network, (B, N, D)."""
    with torch.no_grad():
        found = model.forward_features(images)
    registers = next((found[key] for key in ("x_storage_tokens", "x_norm_regtokens") if key in found), None)
    parts = [found["x_norm_clstoken"][:, None], registers, found["x_norm_patchtokens"]]
    return torch.cat([part for part in parts if part is not None], dim=1)


def written_again(folder: Path, case: Case, system: str, original: Path, scratch: Path) -> Any:
    """Write a library's original for the authors' code, and load it into their network, strictly."""
    scratch.mkdir()
    source = open_source(Request(find(system), str(original), allow_lossy=True), scratch)
    path = scratch / "for-authors.safetensors"
    for_authors(source, path).plan.write()
    model: Any = torch.hub.load(str(folder / case.repository), case.name, source="local", pretrained=False)
    model.load_state_dict(load_file(path), strict=True)
    return model.eval()


def compared(folder: Path, case: Case) -> dict[str, float]:
    """Return the greatest difference of an element between the authors' network and each library's.

    The rows ``LIBRARY and back`` are those of the authors' network with the weights that were written for it.
    """
    model = built(folder, case)
    images = torch.randn(2, 3, case.side, case.side, generator=torch.Generator().manual_seed(1))
    expected, found = tokens(model, images), {}
    with tempfile.TemporaryDirectory(prefix="vconv-") as name:
        path = Path(name) / "weights.pth"
        torch.save(model.state_dict(), path)
        for library, system in case.systems.items():
            scratch = Path(name) / library
            scratch.mkdir()
            # The loss is the resampling at the system's own image size; no image here is resampled.
            source = open_source(Request(find(system), str(path), allow_lossy=True), scratch)
            with golden.running(source) as run:
                actual = torch.from_numpy(run(images.numpy())["last_hidden_state"])
            found[library] = float((actual - expected).abs().max())
            again = written_again(
                folder, case, system, source.folder / WEIGHTS_FILE, Path(name) / f"{library}-again"
            )
            found[f"{library} and back"] = float((tokens(again, images) - expected).abs().max())
    return found


def main() -> None:
    """Compare every network whose repository is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--authors", type=Path, required=True, help="the folder with the clones")
    parser.add_argument("--out", type=Path, help="a JSON file to record the result in")
    given = parser.parse_args()
    rows: dict[str, Any] = {}
    passed = True
    for case in CASES:
        if not (given.authors / case.repository / "hubconf.py").is_file():
            print(f"{case.name}: left out, no {case.repository}/hubconf.py in {given.authors}")
            continue
        found = compared(given.authors, case)
        within = all(value <= case.limits.get(library, 0.0) for library, value in found.items())
        passed &= within
        rows[case.name] = {"greatest_difference": found, "limits": dict(case.limits), "passed": within}
        print(f"{case.name}: " + ", ".join(f"{library} {value:.2g}" for library, value in found.items()))
    finish({"networks": rows}, passed and bool(rows), given.out)


if __name__ == "__main__":
    main()
