from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from vconv.backends import without_torch_npu
from vconv.convert.ascend import offline_air, offline_model
from vconv.convert.ascend.atc import CompileOrder
from vconv.convert.ascend.routes import AIR_ROUTE, ONNX_ROUTE
from vconv.convert.files.safetensors_file import TensorEntry
from vconv.errors import EngineError, InputError

ORDER = CompileOrder.of("Ascend910B4", "fp16", route=AIR_ROUTE)


def test_torchair_is_found_without_being_imported(stand_ins: Any) -> None:
    assert not offline_air.installed()
    stand_ins.add("torchair", "", "raise SystemExit")
    assert not offline_air.installed(), "torchair needs torch_npu"
    stand_ins.add("torch_npu", "2.13.0", "raise SystemExit")
    assert offline_air.installed()
    with without_torch_npu():
        assert offline_air.installed()


def test_torchair_inside_torch_npu_is_found(stand_ins: Any) -> None:
    stand_ins.add("torch_npu", "2.13.0", "raise SystemExit")
    assert not offline_air.installed()
    (stand_ins.folder / "torch_npu" / "dynamo" / "torchair").mkdir(parents=True)
    assert offline_air.installed()


def test_the_scripts_are_written_with_the_settings_and_the_names_of_ascend_ir(tmp_path: Path) -> None:
    offline_air.write_scripts(tmp_path, ORDER, (224, 224), 1)
    place = tmp_path / "air"
    names = ["atc.sh", "fusion_switch.json", "keep_dtype.cfg", "make_air.py"]
    assert sorted(path.name for path in place.iterdir()) == names
    kept = (place / "keep_dtype.cfg").read_text().splitlines()
    kinds = ["LayerNormV4", "LayerNormV3", "SoftmaxV2", "Erf"]
    assert kept == [f"OpType::{kind}" for kind in kinds]
    ast.parse((place / "make_air.py").read_text())
    lines = (place / "atc.sh").read_text().splitlines()
    made = lines.index('if [ ! -f "$here"/model.air ]; then')
    assert lines[made + 1] == '  "${PYTHON:-python3}" "$here"/make_air.py'
    assert lines.index("atc \\") > made
    assert 'ln -s "$here"/model.air "$here"/fusion_switch.json "$here"/keep_dtype.cfg .' in lines


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise RuntimeError('Unsupported torch op')", "RuntimeError: Unsupported torch op"),
        (
            "import sys\nsys.exit('error: no graph | got none | expected one')",
            "no graph; got none; expected one",
        ),
        ("", "nothing was said"),
    ],
    ids=["an exception", "an error of ours", "no graph"],
)
def test_a_failure_of_the_script_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    script = tmp_path / "make_air.py"
    script.write_text(text)
    with pytest.raises(EngineError) as caught:
        offline_air._run(script, ORDER, tmp_path)
    assert caught.value.got == said and "\n" not in str(caught.value)


def weights(nbytes: int, dtype: str, width: int) -> list[TensorEntry]:
    return [TensorEntry("weight", Path(), dtype, (nbytes // width,), 0, nbytes)]


@pytest.mark.parametrize(
    ("route", "dtype", "width", "greatest"),
    [
        (ONNX_ROUTE, "F32", 4, 2**31 - 2**24 - 4),
        (AIR_ROUTE, "F32", 4, 1848 * 2**20 - 2**24),
        (AIR_ROUTE, "BF16", 2, (1848 * 2**20 - 2**24) // 2),
    ],
    ids=["onnx", "air", "air, widened"],
)
def test_weights_beyond_the_bound_of_the_route_are_refused_and_weights_just_below_are_not(
    route: Any, dtype: str, width: int, greatest: int
) -> None:
    offline_model.require_fitting(route, weights(greatest, dtype, width))
    with pytest.raises(InputError, match=f"do not fit .*{route.bound} .*remove --format {route.name}"):
        offline_model.require_fitting(route, weights(greatest + width, dtype, width))
