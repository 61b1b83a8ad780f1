"""An artifact, drawn for a terminal: the catalog, what an artifact is, an export."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from vconv.display.base import Document, plain, show, sized
from vconv.display.judged import variants
from vconv.types import WEIGHTS_FILE, weights_named


def systems(rows: Iterable[Document]) -> None:
    """Draw the catalog."""
    keys = ("name", "hub_id")
    show(plain(keys, [[row[key] for key in keys] for row in rows]))


def _patches(patches: Iterable[Document]) -> list[tuple[str, str]]:
    return [
        (f"patch {patch['name']}", ("" if patch["applied"] else "not applied: ") + patch["proof"])
        for patch in patches
    ]


def _compiled(variant: Document, files: Document) -> str:
    """Say how an offline model is compiled; nothing of any other variant."""
    offline = variant["offline"]
    if offline is None:
        return ""
    gears = f", gears {', '.join(map(str, offline['gears']))}" if offline["gears"] else ""
    later = "" if variant["file"] in files else "; not hashed: the script beside it makes it later"
    return f", {offline['soc']}, {offline['precision_mode']}{gears}{later}"


def _offline(om: Document | None) -> list[tuple[str, str]]:
    """Say what became of an offline model, if one was asked for."""
    if om is None:
        return []
    made = om["file"] if om["compiled"] else f"{om['file']} is not made: no atc on PATH; om/atc.sh makes it"
    how = f"{om['soc']}, {om['precision_mode']}; not run here: validate it on an NPU"
    return [(f"variant {om['variant']}", f"{made}; {how}")]


def artifact(manifest: Document) -> None:
    """Draw what an artifact is."""
    system, source = manifest["system"], manifest["source"]
    rows = [
        ("system", f"{system['name']} ({system['hub_id']}, {system['library']})"),
        ("weights", weights_named(source["label"], source["synthetic"])),
        ("licence", source["licence"]),
        *(
            ("published", f"{name} came from the catalog, not with the weights")
            for name in source["published"]
        ),
        ("input", f"pixel_values [batch, 3, {manifest['size'][0]}, {manifest['size'][1]}]"),
        *(
            (f"output {name}", str(list(shape)).replace("'", ""))
            for name, shape in manifest["outputs"].items()
        ),
        *_patches(manifest["patches"]),
    ]
    for variant in manifest["variants"]:
        batch = f", batch {variant['batch']}" if variant["batch"] else ""
        opset = f", opset {variant['opset']}, IR {variant['ir_version']}" if variant["opset"] else ""
        nodes = f", {sum(variant['operators'].values())} nodes" if variant["operators"] else ""
        compiled = _compiled(variant, manifest["files"])
        rows.append((f"variant {variant['variant']}", f"{variant['file']}{batch}{opset}{nodes}{compiled}"))
    golden = manifest["golden"]
    recorded = f"{', '.join(golden['images'])}; reference: {golden['reference']}" if golden else "none"
    rows.append(("recorded", recorded))
    for name, record in manifest["files"].items():
        rows.append((f"file {name}", sized(record["nbytes"]) + ", missing" * (name in manifest["missing"])))
    show(plain((), rows))
    if manifest["without_weights"] and WEIGHTS_FILE in manifest["missing"]:
        show("exported without weights: complete it with `vconv fill PATH --weights WHERE`", markup=False)


def exported(document: Document) -> None:
    """Draw the result of an export."""
    counts = document["ledger"]
    peak = document["peak_rss_bytes"]
    show(
        plain(
            (),
            [
                ("artifact", document["artifact"]),
                ("weights", weights_named(document["weights"], document["synthetic"])),
                (
                    "tensors",
                    ", ".join(f"{number} {what}" for what, number in counts.items() if what != "tensors"),
                ),
                *_patches(document["patches"]),
                *_offline(document["om"]),
                ("cost", f"{document['seconds']:.1f} s, peak memory {peak / 1e9:.2f} GB"),
            ],
        )
    )
    if document["variants"]:
        show(variants(document))
    else:
        show("no variant was run: --golden none leaves the reference and its checks out")
    verb = "fill" if document["without_weights"] else "validate"
    where = "" if document["synthetic"] and verb == "validate" else " --weights WHERE"
    show(f"next: vconv {verb} {document['artifact']}{where}", markup=False)


def carded(document: Document) -> None:
    """Draw the result of writing a card."""
    reports = document["reports"]
    show(
        f"{document['file']} ({document['language']}), from vconv.json"
        + "".join(f", {name}" for name in reports),
        markup=False,
    )
    if not reports:
        show(f"without measurements: vconv validate {shlex.quote(document['artifact'])}", markup=False)


def referred(document: Document) -> None:
    """Draw the result of recording a reference."""
    weights = weights_named(document["weights"], document["synthetic"])
    size, digest = sized(document["nbytes"]), document["sha256"][:12]
    rows = [
        ("reference", document["reference"]),
        ("weights", weights),
        ("device", f"{document['device']} ({document['device_model']}), {document['arithmetic']}"),
        ("inputs", ", ".join(document["images"])),
        *((f"floor {name}", f"{value:.1e}") for name, value in document["floor"].items()),
        ("file", f"{document['file']}, {size}, sha256 {digest}"),
    ]
    show(plain((), rows))
    file = shlex.quote(document["file"])
    show(f"next, on the other machine: vconv validate PATH --reference {file}", markup=False)


def filled(document: Document) -> None:
    """Draw the result of filling an artifact."""
    size, digest = sized(document["nbytes"]), document["sha256"][:12]
    show(f"{document['artifact']} has its weights: {size}, sha256 {digest}", markup=False)
    show(f"next: vconv validate {shlex.quote(document['artifact'])}", markup=False)
