from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vconv.convert.ascend import atc, atc_script
from vconv.convert.ascend.atc import OFFLINE_PRECISIONS, CompileOrder, first_error
from vconv.convert.ascend.routes import ROUTES
from vconv.convert.graphs.tracing import GREATEST_BATCH
from vconv.errors import EngineError, InputError, UnknownNameError

SIZE = (224, 196)
PLAIN = (
    *("atc", "--framework=5", "--model=model.onnx", "--output=model", "--soc_version=Ascend310P3"),
    "--input_format=NCHW",
)


def test_the_command_of_a_static_float32_model_leaves_no_option_to_a_default() -> None:
    assert CompileOrder.of("Ascend310P3").command(SIZE, 2) == (
        *PLAIN,
        "--input_shape=pixel_values:2,3,224,196",
        "--precision_mode_v2=cube_fp16in_fp32out",
        "--fusion_switch_file=fusion_switch.json",
        "--output_type=FP32",
        "--log=error",
    )


def test_the_command_of_a_float16_model_names_its_gears_and_its_float32_operators() -> None:
    assert CompileOrder.of("Ascend310P3", "fp16", (8, 1, 2)).command(SIZE, 2) == (
        *PLAIN,
        "--input_shape=pixel_values:-1,3,224,196",
        "--dynamic_batch_size=1,2,8",
        "--precision_mode_v2=fp16",
        "--keep_dtype=keep_dtype.cfg",
        "--fusion_switch_file=fusion_switch.json",
        "--output_type=FP32",
        "--log=error",
    )


@pytest.mark.parametrize("soc", ["Ascend910B4", "Ascend910B4-1", "Ascend910_9391", "Ascend950PR_9599"])
def test_float32_turns_hf32_convolutions_off(soc: str) -> None:
    order = CompileOrder.of(soc)
    assert order.settings()["op_precision.ini"] == "[ByOpType]\nConv2D=enable_float_32_execution\n"
    assert "--op_precision_mode=op_precision.ini" in order.command(SIZE, 1)


@pytest.mark.parametrize("soc", ["Ascend310P3", "Ascend910A", "Ascend910ProB"])
def test_a_processor_without_hf32_gets_no_hf32_setting(soc: str) -> None:
    assert "op_precision.ini" not in CompileOrder.of(soc).settings()


@pytest.mark.parametrize("precision", OFFLINE_PRECISIONS)
def test_every_precision_is_stated_and_keeps_the_operators_of_its_row(precision: str) -> None:
    order, row = CompileOrder.of("Ascend910B4", precision), OFFLINE_PRECISIONS[precision]
    assert f"--precision_mode_v2={precision}" in order.command(SIZE, 1)
    kept = order.settings().get(atc.KEEP_DTYPE_FILE, "").splitlines()
    assert kept == [f"OpType::{kind}" for kind in ("LayerNorm", "SoftmaxV2", "Erf") if row.keeps]
    named = {argument.split("=", 1)[1] for argument in order.command(SIZE, 1)[1:]}
    assert order.settings().keys() <= named


def test_float16_keeps_the_reductions_and_erf_and_origin_needs_no_list() -> None:
    assert {name: row.keeps for name, row in OFFLINE_PRECISIONS.items()} == {
        "origin": False,
        "fp16": True,
        "mixed_float16": True,
        "cube_fp16in_fp32out": False,
    }


def test_a_variant_is_named_by_its_route_and_its_precision() -> None:
    orders = [
        CompileOrder.of("Ascend910B4", precision, route=route)
        for route in ROUTES.values()
        for precision in OFFLINE_PRECISIONS
    ]
    names = ["om-fp32", "om-fp16", "om-mixed-fp16", "om-cube-fp16"]
    names += ["air-fp32", "air-fp16", "air-mixed-fp16", "air-cube-fp16"]
    assert [order.variant for order in orders] == names
    assert {order.file for order in orders} == {"om/model.om", "air/model.om"}


@pytest.mark.parametrize("gears", [{"gears": (1, 2)}, {"gears_size": ((32, 32), (64, 64))}], ids=str)
def test_gears_are_refused_where_atc_is_not_known_to_take_them(gears: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="is not used with --format air .*CANN 8.0 .*use --format om"):
        CompileOrder.of("Ascend910B4", route=ROUTES["air"], **gears)


@pytest.mark.parametrize("precision", OFFLINE_PRECISIONS)
def test_a_graph_of_ascend_ir_gets_the_options_that_have_an_effect_on_it(precision: str) -> None:
    by_onnx, by_air = (
        CompileOrder.of("Ascend910B4", precision, route=route).command(SIZE, 1) for route in ROUTES.values()
    )
    without = {"--framework", "--model", "--input_format", "--input_shape", "--output_type"}
    kept = [argument for argument in by_onnx if argument.split("=")[0] not in without]
    assert [argument for argument in by_air if argument not in kept] == ["--framework=1", "--model=model.air"]
    assert [*kept] == [argument for argument in by_air if argument in kept]


def test_gears_are_compiled_from_the_dynamic_graph_and_one_batch_from_the_static_graph() -> None:
    assert CompileOrder.of("Ascend910B4").source == "model.npu.onnx"
    assert CompileOrder.of("Ascend910B4", gears=(1, 2)).source == "model.onnx"


@pytest.mark.parametrize(
    "gears", [(4,), (4, 4), (0, 1), (1, GREATEST_BATCH + 1), (-1, 2), tuple(range(1, 102))]
)
def test_gears_that_atc_does_not_support_are_refused(gears: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="--gears cannot be used .*expected 2 to 100 different batches"):
        CompileOrder.of("Ascend910B4", gears=gears)


def test_the_greatest_gear_is_the_greatest_batch_of_the_dynamic_graph() -> None:
    assert CompileOrder.of("Ascend910B4", gears=(1, GREATEST_BATCH)).gears == (1, GREATEST_BATCH)
    assert len(CompileOrder.of("Ascend910B4", gears=range(1, 101)).gears) == 100


def test_an_unknown_precision_is_refused_with_a_list_of_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="om-precision.*origin"):
        CompileOrder.of("Ascend910B4", "force_fp16")


def place_for(order: CompileOrder, folder: Path) -> Path:
    """Write all files that ATC needs into a folder, except the graph."""
    folder.mkdir()
    (folder / order.route.graph).write_bytes(b"")
    for name, text in order.settings().items():
        (folder / name).write_text(text)
    return folder


def fake_atc(folder: Path, body: str) -> dict[str, str]:
    """Make an ``atc`` of a few lines of shell; return an environment that finds it."""
    folder.mkdir()
    (folder / "atc").write_text(f"#!/bin/sh\n{body}\n")
    (folder / "atc").chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def test_the_script_runs_the_same_command_and_leaves_only_the_model_beside_itself(tmp_path: Path) -> None:
    order = CompileOrder.of("Ascend910B4", "fp16", (1, 2))
    place = place_for(order, tmp_path / "a place; with 'signs'")
    command = order.command(SIZE, 1)
    path = place / atc.SCRIPT_FILE
    path.write_text(atc_script.script(command, [*order.settings()]))
    body = 'printf "%s\\n" "$@" > model.om; cat model.onnx keep_dtype.cfg > /dev/null; mkdir kernel_meta'
    environment = fake_atc(tmp_path / "bin", body)
    before = {*place.iterdir()}
    subprocess.run(["sh", str(path)], check=True, cwd="/", env=environment)
    assert {*place.iterdir()} == before | {place / "model.om"}
    assert (place / "model.om").read_text().splitlines() == [*command[1:]]


@pytest.mark.parametrize("body", ["echo half > model.om; exit 7", "true"], ids=["fails", "makes nothing"])
def test_a_script_that_fails_leaves_no_partial_files(body: str, tmp_path: Path) -> None:
    order = CompileOrder.of("Ascend310P3")
    place = place_for(order, tmp_path / "om")
    path = place / atc.SCRIPT_FILE
    path.write_text(atc_script.script(order.command(SIZE, 1), []))
    before = {*place.iterdir()}
    done = subprocess.run(["sh", str(path)], check=False, env=fake_atc(tmp_path / "bin", body))
    assert done.returncode
    assert {*place.iterdir()} == before


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("ATC run failed\nE10007: [--framework] is required.\n", "E10007: [--framework] is required."),
        ("[ERROR] GE: EZ3003: No supported Ops\nE40000: later", "EZ3003: No supported Ops"),
        (
            "starting\nModuleNotFoundError: No module named 'te'\nATC run failed",
            "ModuleNotFoundError: No mod",
        ),
        ("starting\nSegmentation fault\n\n", ""),
        ("", ""),
    ],
)
def test_the_first_error_of_a_log_is_found(log: str, expected: str) -> None:
    found = first_error(log)
    assert found.startswith(expected) and "\n" not in found
    assert bool(found) == bool(expected)
    assert len(first_error("E10007: " + "x" * 5000)) <= 300


@pytest.mark.parametrize(
    ("body", "got"),
    [
        ("echo E10007: nothing; exit 255", "E10007: nothing"),
        ("echo half > model.om; echo EC0010: no decorator >&2; exit 1", "EC0010: no decorator"),
        ("echo start; echo Killed; exit 3", "exit status 3, last line 'Killed'"),
        ("true", "exit status 0, last line ''"),
    ],
)
def test_a_compiler_that_fails_gives_one_line_with_its_first_error(
    body: str, got: str, tmp_path: Path
) -> None:
    fake_atc(tmp_path / "bin", body)
    with pytest.raises(EngineError, match=f"atc did not compile the graph .*{got}") as caught:
        atc.compile_model(tmp_path, (str(tmp_path / "bin" / "atc"),))
    assert "\n" not in str(caught.value)


def test_a_compiler_runs_in_its_place_and_reads_no_input(tmp_path: Path) -> None:
    fake_atc(tmp_path / "bin", "pwd > model.om; cat >> model.om")
    place = place_for(CompileOrder.of("Ascend310P3"), tmp_path / "place")
    atc.compile_model(place, (str(tmp_path / "bin" / "atc"),))
    assert Path((place / "model.om").read_text().strip()).samefile(place)


def test_an_order_is_plain_data() -> None:
    assert CompileOrder.of("Ascend910B4", "fp16", (2, 1)) == CompileOrder.of("Ascend910B4", "fp16", (1, 2))
    assert replace(CompileOrder.of("Ascend910B4"), soc="Ascend910_9391") == CompileOrder.of("Ascend910_9391")
