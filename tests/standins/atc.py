"""ATC's stand-in: it checks its command line and its input as ATC would, and makes what the other one reads.

``ATC_FAILS`` in the environment lets it fail, in words that ATC has: ``code``, ``silent``, or ``no model``.
``ATC_FUSES`` lets it report that a pass fired although the switch file turns it off (``fired``), or that it
found its pattern and changed nothing (``matched``), or write no report (``silent``). The report has the form
of public files of CANN 8. The page atlasatcparam_16_0098 of the ATC guide says where it lies.
With ``--framework=1`` it reads a graph of Ascend IR, as the stand-in for torchair writes it. The pages for
that are ``--framework.md``, beside those of gears, and in the repository github.com/Ascend/torchair
``docs/zh/ascend_ir/features/advanced/dynamo_export.md``; that gears are refused is on page
atlasatcparam_16_0019 of CANN 8.0.
What it refuses about gears is in the repository github.com/mirror-cann/ge: ``--dynamic_batch_size.md`` and
``--dynamic_image_size.md`` below ``docs/zh/user_guides/atc_tools/CLI_options``, and the numbers of the errors
in ``api/aclgrph/option_utils.cc`` and ``graph/preprocess/multi_batch_options.cc``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import onnx

OPTIONS = {
    *("framework", "model", "output", "soc_version", "input_format", "input_shape", "dynamic_batch_size"),
    "fusion_switch_file",
    *("dynamic_image_size", "precision_mode_v2", "keep_dtype", "op_precision_mode", "output_type", "log"),
}
PRECISIONS = {"fp16", "origin", "cube_fp16in_fp32out", "mixed_float16"}
MAGIC, AIR_MAGIC = b"stand-in om\n", b"stand-in air\n"
WITHOUT_EFFECT = ("input_shape", "input_format", "output_type")
"""Options that have no effect on a graph of Ascend IR."""


def fail(words: str) -> None:
    print("ATC run failed, Please check the detail log, Try 'atc --help' for more information")
    print(words)
    print("        TraceBack (most recent call last):")
    sys.exit(255)


def report(switches: Path) -> None:
    """Write which passes fired: not those that the switch file turns off, as its page (0053) says."""
    switch = json.loads(switches.read_text())["Switch"]
    if not {"GraphFusion", "UBFusion"} <= switch.keys() or {*switch["GraphFusion"].values()} - {"on", "off"}:
        fail("E10055: [--fusion_switch_file] has another form")
    off = {name for name, value in switch["GraphFusion"].items() if value == "off"}
    fuses = os.environ.get("ATC_FUSES", "")
    counts = {"MatMulBiasAddFusionPass": ("3", "3")}
    if fuses == "fired" or "GeluONNXFusionPass" not in off:
        counts["GeluONNXFusionPass"] = ("2", "2")
    if fuses == "matched":
        counts["GeluONNXFusionPass"] = ("0", "2")
    passes = {name: {"effect_times": done, "match_times": found} for name, (done, found) in counts.items()}
    place = Path(os.environ["ASCEND_WORK_PATH"], "FE") if "ASCEND_WORK_PATH" in os.environ else Path()
    if fuses != "silent":
        place.mkdir(parents=True, exist_ok=True)
        of_graph = {"graph_fusion": passes, "ub_fusion": {}}
        (place / "fusion_result.json").write_text(json.dumps({"session_and_graph_id_0_0": of_graph}))


def gears_by_size(given: dict[str, str], dims: list[int]) -> list[list[int]]:
    """Return the (height, width) of --dynamic_image_size; refuse what ATC refuses."""
    text = given.get("dynamic_image_size", "")
    if not text:
        if -1 in dims[1:]:
            fail("E10001: a dynamic height and width need --dynamic_image_size")
        return []
    if "dynamic_batch_size" in given:
        fail("E10009: [--dynamic_batch_size] and [--dynamic_image_size] cannot be given together")
    if given.get("input_format") not in ("NCHW", "NHWC"):
        fail("E10003: --dynamic_image_size needs --input_format NCHW or NHWC")
    if len(dims) != 4 or [place for place, dim in enumerate(dims) if dim == -1] != [2, 3]:
        fail("E10019: with --dynamic_image_size, height and width alone are -1")
    if set(text) - set("0123456789,; "):
        fail("E10001: --dynamic_image_size has other signs than digits, commas and semicolons")
    sizes = [[int(side) for side in pair.split(",")] for pair in text.split(";") if pair]
    if len(sizes) < 2:
        fail("E10035: --dynamic_image_size has fewer than 2 gears")
    if {len(size) for size in sizes} != {2}:
        fail("E10037: the gears of --dynamic_image_size are of several lengths")
    if len({tuple(size) for size in sizes}) < len(sizes):
        fail("E10039: --dynamic_image_size has a gear twice")
    return sizes


def from_onnx(given: dict[str, str]) -> tuple[dict[str, object], bytes]:
    """Return what is known of a graph of ONNX, and the graph; refuse what ATC refuses."""
    model = onnx.load(given["model"], load_external_data=False)
    if any(value.external_data for value in model.graph.initializer):
        fail("E16001: the weights are not in the model")
    name, shape = given["input_shape"].split(":")
    dims = [int(dim) for dim in shape.split(",")]
    gears = [int(gear) for gear in given.get("dynamic_batch_size", "").split(",") if gear]
    own = model.graph.input[0].type.tensor_type.shape.dim
    fixed = [dim.dim_value or -1 for dim in own]
    sizes = gears_by_size(given, dims)
    if name != model.graph.input[0].name or fixed[1:] != dims[1:]:
        fail(f"E10014: the shape [{shape}] of [{name}] is invalid")
    if (dims[0] == -1) != (len(gears) > 1) or fixed[0] not in (-1, dims[0]):
        fail("E10012: --dynamic_batch_size does not go with --input_shape")
    return {"gears": gears, "sizes": sizes, "shape": dims, "air": False}, model.SerializeToString()


def from_air(given: dict[str, str]) -> tuple[dict[str, object], bytes]:
    """Return what is known of a graph of Ascend IR, and the graph; refuse what ATC refuses."""
    content = Path(given["model"]).read_bytes()
    if not content.startswith(AIR_MAGIC):
        fail(f"E16001: [{given['model']}] is no graph of Ascend IR")
    if "dynamic_batch_size" in given or "dynamic_image_size" in given:
        fail("E10001: a .air model does not support dynamic gears")
    for option in WITHOUT_EFFECT:
        if option in given:
            print(f"W10000: [--{option}] has no effect on a .air model")
    header, graph = content.removeprefix(AIR_MAGIC).split(b"\n", 1)
    return {"gears": [], "sizes": [], "shape": json.loads(header)["shape"], "air": True}, graph


def main() -> None:
    print("ATC start working now, please wait for a moment.")
    given = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:])
    wrong = given.keys() - OPTIONS
    if wrong:
        fail(f"E10016: Opname [{sorted(wrong)[0]}] is not a parameter of ATC")
    for required in ("framework", "model", "output", "soc_version", "precision_mode_v2"):
        if not given.get(required):
            fail(f"E10007: [--{required}] is required.")
    if given["framework"] not in ("1", "5") or given["precision_mode_v2"] not in PRECISIONS:
        fail(f"E10001: Value [{given['precision_mode_v2']}] for parameter [--precision_mode_v2] is invalid.")
    for option in ("keep_dtype", "op_precision_mode", "fusion_switch_file"):
        if option in given and not Path(given[option]).is_file():
            fail(f"E10051: [--{option}] names no file")
    header, graph = from_air(given) if given["framework"] == "1" else from_onnx(given)
    fails = os.environ.get("ATC_FAILS")
    if fails == "code":
        fail("EZ3003: No supported Ops kernel and engine are found for [node_conv2d], optype [Conv2D].")
    if fails == "silent":
        sys.exit(3)
    Path("kernel_meta").mkdir()
    report(Path(given["fusion_switch_file"]))
    if fails != "no model":
        header = {**header, "output_type": "float32", "options": given}
        content = MAGIC + json.dumps(header).encode() + b"\n" + graph
        Path(given["output"] + ".om").write_bytes(content)
    print("ATC run success, welcome to the next use.")


main()
