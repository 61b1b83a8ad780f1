"""Offline models through torchair the whole way: exported, made later, checked, loaded and judged."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner, Result

import vconv
from vconv.artifact import manifest
from vconv.catalog.systems import SYSTEMS, System
from vconv.cli import main
from vconv.convert.ascend import offline_model
from vconv.convert.ascend.routes import AIR_ROUTE
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.npu_gelu import SPELLED_OUT, ExactGelu
from vconv.workflows import validate

SOC = "Ascend910B4"
SCRIPTS = ["air/atc.sh", "air/fusion_switch.json", "air/make_air.py", "air/op_precision.ini"]
AIR_MAGIC = b"stand-in air\n"


@pytest.fixture
def system() -> System:
    """One system: what is tested here is the same for all."""
    return SYSTEMS["dinov3-vits16"]


@pytest.fixture
def one_npu(npu: Device, monkeypatch: pytest.MonkeyPatch) -> Device:
    """A machine with an NPU that pyACL alone can use: nothing of torch's or ONNX Runtime's runs there."""
    monkeypatch.setattr("vconv.runtime.devices.npu.count", lambda: 1)
    monkeypatch.setattr("vconv.runtime.devices.npu.make", lambda index, settings: npu)
    monkeypatch.setattr("vconv.runtime.devices.npu_gelu.find", lambda device: ExactGelu(SPELLED_OUT, None))
    return npu


Exported = tuple[Path, dict[str, Any], str]


@pytest.fixture
def exported(
    small_name: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> Callable[..., Exported]:
    """The function that exports, once for each kind; a copy, the document, and what was said last."""

    def export(kind: str, **options: Any) -> Exported:
        root = tmp_path_factory.getbasetemp() / "air" / kind
        if not root.exists():
            said: list[str] = []
            out = root / "artifact"
            document = vconv.export(
                small_name, "synthetic:1", out, format="air", soc=SOC, say=said.append, **options
            )
            (root / "document.json").write_text(json.dumps([document, said]))
        document, said = json.loads((root / "document.json").read_text())
        copy = shutil.copytree(root / "artifact", tmp_path / kind)
        return copy, document, next(line for line in reversed(said) if line.startswith("air/"))

    return export


@pytest.fixture
def pending(exported: Callable[..., Exported], monkeypatch: pytest.MonkeyPatch) -> Exported:
    """An artifact that was exported with neither torchair nor ATC."""
    with monkeypatch.context() as patched:
        patched.setenv("PATH", os.devnull)
        patched.setattr("vconv.convert.ascend.offline_air.installed", lambda: False)
        return exported("pending")


@pytest.fixture
def traced(exported: Callable[..., Exported], torchair: Any, monkeypatch: pytest.MonkeyPatch) -> Exported:
    """An artifact that was exported with torchair and without ATC."""
    with monkeypatch.context() as patched:
        patched.setenv("PATH", os.devnull)
        return exported("traced", batch=2)


@pytest.fixture
def made_already(traced: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph of :func:`traced` in place of a run of the script, which takes seconds."""
    graph = traced[0] / "air" / "model.air"

    def copy(script: Path, *others: object) -> None:
        shutil.copy(graph, script.parent)

    monkeypatch.setattr("vconv.convert.ascend.offline_air._run", copy)


@pytest.fixture
def compiled(exported: Callable[..., Exported], made_already: None, atc: Path) -> Exported:
    """An artifact that was exported with both."""
    return exported("compiled", batch=2)


def of_air(folder: Path) -> list[str]:
    return sorted(f"air/{path.name}" for path in (folder / "air").iterdir())


def run_script(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable}
    command = [folder / "air" / "atc.sh"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def export_again(small_name: str, home: Path) -> Result:
    """Export with the command, into a folder that must be empty afterwards if that fails."""
    home.mkdir()
    arguments = ["--weights", "synthetic:1", "--out", str(home / "out"), "--format", "air", "--soc", SOC]
    return CliRunner().invoke(main, ["export", small_name, *arguments])


def test_without_torchair_the_artifact_has_all_that_makes_the_model(pending: Exported) -> None:
    folder, document, said = pending
    om = document["om"]
    assert (om["variant"], om["file"], om["route"]) == ("air-fp32", "air/model.om", "air")
    assert (om["compiled"], om["lacks"], om["gears"]) == (False, "torchair", [])
    assert said == (
        "air/model.om is not made, because torchair is not installed: run air/atc.sh on a machine with CANN "
        "and torch_npu"
    )
    assert [name for name in document["files"] if name.startswith("air/")] == SCRIPTS == of_air(folder)
    made = manifest.load(folder)
    (record,) = made.made_later
    static = made.variants[2].contract
    assert (record.engine, record.graph, record.batch, record.contract) == ("acl", None, 1, static)


def test_atc_gets_no_option_that_has_no_effect_on_a_graph_of_ascend_ir(pending: Exported) -> None:
    assert pending[1]["om"]["command"] == [
        "atc",
        "--framework=1",
        "--model=model.air",
        "--output=model",
        f"--soc_version={SOC}",
        "--precision_mode_v2=origin",
        "--op_precision_mode=op_precision.ini",
        "--fusion_switch_file=fusion_switch.json",
        "--log=error",
    ]


def test_on_a_cpu_the_model_is_skipped_and_all_else_passes(pending: Exported) -> None:
    report = validate.validate(pending[0], quick=True)
    assert report.status == "passed"
    (row,) = (row for row in report.variants if row.variant == "air-fp32")
    assert (row.status, row.reason) == ("skipped", "acl cannot run here: offline models run on an NPU alone")
    (check,) = (check for check in report.checks if check.name == "air/model.om")
    assert check.status == "skipped" and "not made yet" in check.detail


@pytest.mark.usefixtures("torchair", "atc", "acl", "one_npu")
def test_the_script_makes_the_graph_and_the_model_which_is_judged_on_an_npu(pending: Exported) -> None:
    folder = pending[0]
    done = run_script(folder)
    assert done.returncode == 0, done.stderr
    assert "Erf, 0 Gelu, as in the network" in done.stdout and "W10000" not in done.stdout
    assert of_air(folder) == sorted([*SCRIPTS, "air/fusion_result.json", "air/model.air", "air/model.om"])
    report = validate.validate(folder, quick=True, device="npu")
    (row,) = (row for row in report.variants if row.variant == "air-fp32")
    assert (row.status, row.batches, row.arithmetic) == ("passed", (1,), "fp32")
    assert row.outputs.keys() == manifest.load(folder).outputs.keys()
    assert {check.name for check in report.checks if check.status == "failed"} == set()
    (check,) = (check for check in report.checks if check.name == "air/model.om: fusions")
    assert check.detail.endswith("it ran MatMulBiasAddFusionPass 3 times")


def test_with_torchair_alone_the_graph_is_kept_for_atc(traced: Exported) -> None:
    folder, document, said = traced
    assert of_air(folder) == sorted([*SCRIPTS, "air/model.air"])
    assert (document["om"]["compiled"], document["om"]["lacks"]) == (False, "atc on PATH")
    assert (
        said == "air/model.om is not made, because atc is not on PATH: run air/atc.sh on a machine with CANN"
    )
    assert "air/model.air" in document["files"]
    assert validate.validate(folder, quick=True).status == "passed"


def test_the_graph_computes_the_stock_network_with_the_exact_gelu(traced: Exported) -> None:
    folder = traced[0]
    content = (folder / "air" / "model.air").read_bytes().removeprefix(AIR_MAGIC).split(b"\n", 1)[1]
    program = torch.export.load(io.BytesIO(content)).module()
    stock = stock_model(folder)
    made = manifest.load(folder)
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, *made.size), np.float32))
    with torch.no_grad():
        found = dict(zip(made.outputs, program(images), strict=True))
        expected = stock(images)
    torch.testing.assert_close(found["last_hidden_state"], expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["pooled"], expected[1], rtol=1e-5, atol=1e-5)


def stock_model(folder: Path) -> Any:
    """The library's model with its own GELU kernel and the authors' periods, and the artifact's weights."""
    config = transformers.AutoConfig.from_pretrained(folder / "original")
    assert config.hidden_act == "gelu"
    model = transformers.AutoModel.from_pretrained(folder, config=config).eval()
    periods = manifest.load(folder).rope_periods
    model.rope_embeddings.inv_freq.copy_(1 / torch.tensor(periods))
    return model


@pytest.mark.usefixtures("acl", "one_npu")
def test_with_both_the_model_is_hashed_loaded_and_its_outputs_have_our_names(compiled: Exported) -> None:
    folder, document, _ = compiled
    kept = ["fusion_result.json", "fusion_switch.json", "make_air.py", "model.om", "op_precision.ini"]
    assert of_air(folder) == [f"air/{name}" for name in kept]
    assert document["om"]["compiled"] and document["om"]["lacks"] is None
    assert set(of_air(folder)) < document["files"].keys()
    images = np.random.default_rng(0).standard_normal((3, 3, *manifest.load(folder).size), np.float32)
    with (
        vconv.load(folder, "npu", "air-fp32") as session,
        vconv.load(folder, variant="onnx-fp32") as other,
    ):
        found, expected = session(images), other(images)
        assert found.keys() == expected.keys()
        for name, array in found.items():
            np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-5)


STOCK = """
import torch, transformers

class Stock(torch.nn.Module):
    def __init__(self):
        super().__init__()
        config = transformers.AutoConfig.from_pretrained(HERE.parent / "original")
        self.model = transformers.AutoModel.from_config(config, attn_implementation="eager").eval()

    def forward(self, images):
        return self.model(images).last_hidden_state


def main()"""


@pytest.mark.usefixtures("torchair", "atc")
def test_a_model_that_lost_its_patch_is_refused_and_nothing_of_it_is_kept(pending: Exported) -> None:
    folder = pending[0]
    script = folder / "air" / "make_air.py"
    text = script.read_text().replace("def main()", STOCK).replace("model=model.module", "model=Stock()")
    script.write_text(text)
    done = run_script(folder)
    assert done.returncode == 1
    gelus = manifest.load(folder).patches[0].sites
    assert done.stderr.splitlines()[-1] == (
        "error: the graph that torchair made computes another GELU than the network | "
        f"got {gelus} Gelu and 0 Erf in dynamo.pbtxt | expected 0 Gelu and {gelus} Erf: torchair turns every "
        "aten.gelu into Gelu, whose form is tanh | "
        "fix: trace the model with vconv.workflows.air_graph.traced, and leave it as it is"
    )
    assert of_air(folder) == SCRIPTS
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


@pytest.mark.usefixtures("made_already", "atc")
def test_a_gelu_that_atc_fused_fails_the_export_in_one_line_and_leaves_nothing(
    small_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATC_FUSES", "fired")
    result = export_again(small_name, tmp_path / "home")
    said = "compute something else | got GeluONNXFusionPass put Gelu in 2 places"
    assert result.exit_code == 1 and said in result.stderr.splitlines()[-1]
    assert [*(tmp_path / "home").iterdir()] == []


@pytest.mark.usefixtures("torchair")
def test_a_failure_of_torchair_fails_the_export_in_one_line_and_leaves_nothing(
    small_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vconv.convert.ascend.offline_air.maker", lambda: "raise RuntimeError('aten.angle')")
    result = export_again(small_name, tmp_path / "home")
    said = "error: torchair did not make the graph of the offline model | got RuntimeError: aten.angle | "
    assert result.exit_code == 1 and result.stderr.splitlines()[-1].startswith(said)
    assert [*(tmp_path / "home").iterdir()] == []


def test_weights_that_torchair_would_write_apart_are_refused_early(
    small_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline_model, "_GRAPH_BYTES", AIR_ROUTE.greatest_bytes - 1000)
    result = export_again(small_name, tmp_path / "home")
    last = result.stderr.splitlines()[-1]
    assert result.exit_code == 2 and "model.onnx" not in result.stderr
    assert "the weights do not fit an offline model's graph" in last
    assert "torchair writes the weights to separate files" in last and "remove --format air" in last


def test_a_script_without_torchair_says_what_it_needs(pending: Exported, atc: Path) -> None:
    done = run_script(pending[0])
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "error: a library is missing | got No module named 'torch_npu'"
    )


def test_the_terminal_and_the_card_say_what_makes_the_model(pending: Exported) -> None:
    shown = " ".join(CliRunner().invoke(main, ["info", str(pending[0])]).stdout.split())
    assert f"air-fp32: air/model.om, {SOC}, origin; not hashed: the script beside it makes it later" in shown
    card = (pending[0] / "README.md").read_text()
    assert "makes air/model.om where CANN and torchair are installed" in card
