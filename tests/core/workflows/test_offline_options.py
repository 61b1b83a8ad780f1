from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vconv import cli
from vconv.cli import main
from vconv.convert.ascend.atc import OFFLINE_PRECISIONS, CompileOrder
from vconv.errors import InputError, UnknownNameError
from vconv.workflows.offline_options import FORMATS, offline_order


def order(**given: Any) -> CompileOrder | None:
    usual = {"format": "om", "soc": "Ascend910B4", "gears": (), "precision": None}
    return offline_order(**{**usual, "without_weights": False, "opset": 18, **given})


def test_graphs_alone_are_exported_unless_more_is_asked_for() -> None:
    assert order(format="onnx", soc=None) is None
    assert order(gears=(2, 1), precision="fp16") == CompileOrder.of("Ascend910B4", "fp16", (1, 2))


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"soc": "Ascend910B4"}, "--soc"),
        ({"gears": (1, 2)}, "--gears"),
        ({"gears_size": ((32, 32), (64, 64))}, "--gears-size"),
        ({"precision": "fp16"}, "--om-prec"),
    ],
)
def test_an_option_of_offline_models_alone_is_refused(given: dict[str, Any], option: str) -> None:
    with pytest.raises(InputError, match=f"{option}.* is only for an offline model .*add --format om"):
        order(**{"format": "onnx", "soc": None, **given})


def test_an_offline_model_is_for_a_processor_that_must_be_named() -> None:
    with pytest.raises(InputError, match="needs the name of a processor .*npu-smi info"):
        order(soc=None)


def test_an_offline_model_has_its_weights_inside_so_that_they_cannot_be_left_out() -> None:
    with pytest.raises(InputError, match="--format om and --without-weights exclude each other"):
        order(without_weights=True)


def test_gears_need_a_dynamic_graph_that_atc_takes_and_one_batch_does_not() -> None:
    with pytest.raises(InputError, match="--gears needs an opset .*got --opset 20 .*leave --opset out"):
        order(gears=(1, 2), opset=20)
    assert order(opset=20) == order()


def test_the_default_precision_is_that_of_the_processor_and_is_said() -> None:
    said: list[str] = []
    orders = [order(soc=soc, say=said.append) for soc in ("Ascend910B4", "Ascend310P3")]
    assert [found.precision.name for found in orders if found] == ["origin", "cube_fp16in_fp32out"]
    assert said == [
        "--om-precision origin: the default for Ascend910B4, of the family 910B",
        "--om-precision cube_fp16in_fp32out: the default for Ascend310P3, of the family 310P",
    ]


SIZES = ((224, 224), (448, 448))


@pytest.mark.parametrize("any_size", [False, True])
@pytest.mark.parametrize("format", FORMATS)
def test_gears_of_both_kinds_exclude_each_other_whatever_else_is_wrong(format: str, any_size: bool) -> None:
    with pytest.raises(InputError, match="--gears and --gears-size exclude each other"):
        order(format=format, soc=None, gears=(1, 2), gears_size=SIZES, any_size=any_size)


def test_gears_by_size_are_compiled_from_the_graph_for_any_size() -> None:
    found = order(gears_size=SIZES, any_size=True)
    assert found == CompileOrder.of("Ascend910B4", gears_size=SIZES)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "--gears-size needs a graph for images of any size .*add --size dynamic"),
        ({"any_size": True, "gears": (1, 2)}, "--gears and --gears-size exclude each other .*E10009"),
        ({"any_size": True, "opset": 20}, "--gears-size needs an opset .*got --opset 20"),
        ({"any_size": True, "gears": (1, 2), "gears_size": ()}, "--gears is not used with --size dynamic"),
    ],
)
def test_gears_by_size_that_cannot_be_compiled_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        order(**{"gears_size": SIZES, **given})


def test_an_unknown_format_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UnknownNameError, match="unknown format .*om"):
        order(format="tflite")


def test_the_command_line_offers_every_format_and_precision() -> None:
    choices = {parameter.name: parameter.type for parameter in cli.main.commands["export"].params}
    assert tuple(choices["format"].choices) == FORMATS  # type: ignore[attr-defined]
    assert tuple(choices["om_precision"].choices) == tuple(OFFLINE_PRECISIONS)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "om"], "--format om needs the name of a processor"),
        (["--format", "air"], "--format air needs the name of a processor"),
        (
            ["--format", "air", "--soc", "Ascend910B4", "--gears", "1,2"],
            "--gears is not used with --format air",
        ),
        (
            ["--format", "air", "--soc", "Ascend910B4", "--size", "dynamic", "--gears-size", "32,32;64,64"],
            "--gears-size is not used with --format air",
        ),
        (
            ["--format", "air", "--soc", "Ascend910B4", "--without-weights"],
            "--format air and --without-weights exclude each other",
        ),
        (["--format", "om", "--soc", "910B4"], "--soc is not the name of a processor"),
        (
            ["--format", "om", "--soc", "Ascend310P3", "--om-precision", "origin"],
            "--om-precision origin is not for Ascend310P3",
        ),
        (["--format", "om", "--soc", "Ascend910B4", "--gears", "1;2"], "--gears takes whole numbers"),
        (["--format", "om", "--soc", "Ascend910B4", "--gears", ""], "separated by commas, not ''"),
        (["--format", "om", "--soc", "Ascend910B4", "--gears", "4"], "--gears cannot be used"),
        (["--soc", "Ascend910B4"], "--soc is only for an offline model"),
        (["--gears-size", "224,224;448,448"], "--gears-size is only for an offline model"),
        (["--gears-size", "224"], "--gears-size is not a list of sizes"),
    ],
)
def test_wrong_use_is_one_line_before_anything_is_made(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(main, ["export", "dinov3-vits16", "--out", str(out), *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr and len(result.stderr.splitlines()) == 1
    assert not out.exists()
