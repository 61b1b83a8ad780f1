"""Export and validate image encoders of timm and transformers that nobody picked; say why some do not work.

A committed rule draws the encoders. Of timm, it takes one network of every module; of transformers, every
``model_type`` with a model that takes one ``pixel_values``, at the default size of its configuration. Each
has synthetic weights and at most 400 million parameters. Rows are recorded one by one: a run that was
interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from record import finish
from torch import nn

MOST_PARAMETERS = 400_000_000
LEAST_SHARE = 0.95
"""The share of encoders that must be exported and validated."""
LEAST_ENCODERS = 80
SECONDS = 900
"""The time that one encoder may take."""
TANH = 1e-5
"""The strict limit in fp32, which a tanh GELU must exceed."""


REFUSALS = (
    RuntimeError,
    NotImplementedError,
    AssertionError,
    ImportError,
    ValueError,
    TypeError,
    AttributeError,
)
"""The exceptions of libraries that lack a package or cannot build a model from its defaults."""


def drawn_order(name: str) -> str:
    """Return a key that puts names in an order that nobody chose."""
    return hashlib.sha256(name.encode()).hexdigest()


def of_timm() -> Iterator[str]:
    """Yield one network of every module of timm: the first that is not too large, in the drawn order."""
    import timm

    for module in timm.list_modules():
        for name in sorted(timm.list_models(module=module), key=drawn_order):
            if name.startswith("test_") or timm.models.model_entrypoint(name).__module__.endswith("_test"):
                continue
            model = built(name, partial(timm.create_model, name))
            if model and parameters(model) <= MOST_PARAMETERS and takes_images(model):
                yield f"timm/{name}"
                break


def built(name: str, make: Callable[[], nn.Module]) -> nn.Module | None:
    """Build a model without data; None if its library cannot, for example without a further package."""
    try:
        with torch.device("meta"):
            return make()
    except REFUSALS as error:
        print(f"{name}: not drawn, its library does not build it: {error}", file=sys.stderr)
        return None


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def takes_images(model: Any) -> bool:
    return tuple((model.pretrained_cfg or {}).get("input_size", (3,)))[:1] == (3,)


def of_transformers() -> Iterator[str]:
    """Yield every type of model that takes one tensor of pixel values, if its default is not too large."""
    import transformers

    from vconv.convert.libraries.transformers_beyond import BEYOND

    for name in sorted(transformers.CONFIG_MAPPING):
        if not BEYOND.knows(name):
            continue
        config = transformers.CONFIG_MAPPING[name]
        model = built(name, lambda config=config: transformers.AutoModel.from_config(config()))
        if model and parameters(model) <= MOST_PARAMETERS:
            yield f"transformers/{name}"


def source_of(name: str, folder: Path) -> str:
    """Return the name to export: for a type of transformers, a folder with its default configuration."""
    library, _, kind = name.partition("/")
    if library == "timm":
        return name
    import transformers

    place = folder / kind
    place.mkdir()
    transformers.CONFIG_MAPPING[kind]().save_pretrained(place)
    return str(place)


def tried(name: str) -> dict[str, Any]:
    """Export and validate one encoder; count its GELUs, and measure what their tanh form would do."""
    import vconv
    from vconv.artifact.artifact import Artifact
    from vconv.errors import VconvError

    row: dict[str, Any] = {"exported": False, "validated": False, "why": ""}
    with tempfile.TemporaryDirectory(prefix="coverage-") as scratch:
        folder = Path(scratch)
        try:
            vconv.export(source_of(name, folder), "synthetic:0", folder / "artifact")
            row["exported"] = True
            document = vconv.validate(folder / "artifact", quick=True)
            row["validated"] = document.status == "passed"
            artifact = Artifact.open(folder / "artifact")
            counts = artifact.manifest.complexity
            row |= {
                "parameters": counts.parameters if counts else None,
                "outputs": list(artifact.manifest.outputs),
            }
            row |= {"gelus": artifact.network.gelus, "tanh": tanh_error(artifact)}
        except VconvError as error:
            row["why"] = str(error)
    return row


def tanh_error(artifact: Any) -> float | None:
    """Return the worst error of an output if every exact GELU were computed in its tanh form."""
    import numpy as np

    from vconv.convert.patches.gelu_erf import realised_by
    from vconv.runtime.devices.table import find_device
    from vconv.runtime.engines.torch_kinds import PATCHED_FP32
    from vconv.runtime.engines.variants import open_variant
    from vconv.validators.accuracy import golden

    if not artifact.network.gelus:
        return None
    pixel_values, expected = golden.load(artifact.folder / golden.GOLDEN_FILE)
    tanh = {"gelu-erf": realised_by(lambda: nn.GELU("tanh"))}
    record = artifact.variant(PATCHED_FP32)
    with open_variant(artifact, record, find_device("cpu"), patches=tanh) as session:
        found = session(pixel_values)
    return max(
        float(np.linalg.norm(found[key].astype(np.float64) - value) / np.linalg.norm(value))
        for key, value in expected.items()
    )


def in_a_process(name: str) -> dict[str, Any]:
    """Try one encoder in another process, so that a crash or a long run costs one row."""
    began = time.perf_counter()
    command = [sys.executable, __file__, "--only", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {
            "exported": False,
            "validated": False,
            "why": f"not done after {SECONDS} s",
            "seconds": SECONDS,
        }
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        row: dict[str, Any] = json.loads(lines[-1])
    else:
        why = (done.stderr.strip().splitlines() or ["no message"])[-1]
        row = {"exported": False, "validated": False, "why": f"crash: {why:.300}"}
    return {**row, "seconds": round(time.perf_counter() - began, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="a JSON file to record the rows in, and to go on from")
    parser.add_argument("--most", type=int, help="the number of new rows to add in this run")
    parser.add_argument("--only", help="print the row of one encoder")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(tried(options.only)))
        return
    names = [*of_timm(), *of_transformers()]
    known = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    rows: dict[str, Any] = {name: row for name, row in known.get("rows", {}).items() if name in names}
    for name in [name for name in sorted(names, key=drawn_order) if name not in rows][: options.most]:
        rows[name] = in_a_process(name)
        print(f"{name:44} {'yes' if rows[name]['validated'] else 'NO'} {rows[name]['why'][:150]}", flush=True)
        if options.out:
            options.out.write_text(json.dumps({"drawn": len(names), "rows": rows}, indent=2) + "\n")
    good = [row for row in rows.values() if row["validated"]]
    blind = [name for name, row in rows.items() if row.get("gelus") and not (row["tanh"] or 0) > TANH]
    print(f"{len(good)} of {len(rows)} are exported and validated, of {len(names)} that were drawn")
    print(f"a tanh GELU stays within {TANH} in {len(blind)}: {', '.join(blind) or 'none'}")
    passed = len(rows) == len(names) >= LEAST_ENCODERS and len(good) >= LEAST_SHARE * len(rows) and not blind
    finish({"drawn": len(names), "rows": rows}, passed=passed, out=options.out)


if __name__ == "__main__":
    main()
