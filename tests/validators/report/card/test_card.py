"""What a card says of a report, in either language."""

from __future__ import annotations

import re
from typing import Any

import made_reports
import pytest
from made_reports import output, timing, variant

from vconv.artifact.manifest import Manifest
from vconv.artifact.reduction_records import ReductionRecord
from vconv.catalog.systems import SYSTEMS
from vconv.validators.report.card.card import render
from vconv.validators.report.card.evidence import DeviceEvidence, SavedReport, newest
from vconv.validators.report.rows import OutputSummary, VariantRow

BUSY = "the machine was busy: other processes took 0.86 of 2 cores: more than 0.15"
SHAPE: dict[str, Any] = {"shape": (1, 2), "dtype": "float32", "device": "cpu"}
SCRIPT = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)


def evidence(**environment: str) -> list[DeviceEvidence]:
    """Return the report of a busy machine that ran too little."""
    few = timing(1, 2.0, runs=4, warnings=["outliers: 3 of 40 samples are above 5.1 ms"])
    row = variant(
        "onnx-fp32",
        few,
        timing_refused="too few samples: 10 of onnx-fp32, 30 are the least",
        skipped_batches=[{"batch": 8, "reason": "needs about 12.3 GB, 4.5 GB are free"}],
    )
    reference = variant(
        "original-torch-fp32",
        timing(1, 3.0, runs=4),
        status="skipped",
        reason="not judged: it is the reference",
        outputs={"cls": output(status="skipped")},
    )
    report = made_reports.report(
        row,
        reference,
        ranking={"refused": BUSY, "rows": [], "left_out": []},
        speed_up_baseline="original-torch-fp32 on cpu",
        environment={"vconv": "0.2.0", **environment},
    )
    return newest([SavedReport("reports/20261120T000000-validate.json", report)])


def card_of(made: Manifest, *rows: VariantRow, language: str = "en", **environment: str) -> str:
    """Return the card of a report with these rows."""
    report = made_reports.report(*rows, environment={"vconv": "0.2.0", **environment})
    return render(made, newest([SavedReport("reports/20261120T000000-validate.json", report)]), language)


def test_what_is_said_of_timing_is_chinese_in_a_chinese_card(made: Manifest) -> None:
    text = render(made, evidence(), "zh")
    for said in (
        "机器繁忙：其他进程占用了 0.86 个核心（共 2 个），合计超过 0.15 个",  # noqa: RUF001
        "批大小 8：约需 12.3 GB，可用 4.5 GB",  # noqa: RUF001
        "`onnx-fp32`：样本过少：onnx-fp32 只有 10 个，至少需要 30 个",  # noqa: RUF001
        "批大小 1：离群值：40 个样本中有 3 个超过 5.1 ms",  # noqa: RUF001
    ):
        assert said in text


def test_comments_in_the_code_of_a_chinese_card_are_chinese(made: Manifest) -> None:
    processor = SYSTEMS["dinov2-large"].preprocessor
    text = render(made.model_copy(update={"size": (224, 224)}), [], "zh", processor=processor)
    comments = re.findall(r"#\s*(.*)", "\n".join(SCRIPT.findall(text)))
    assert len(comments) > 5
    assert [one for one in comments if not re.search(r"[\u4e00-\u9fff]", one)] == []


def test_a_card_has_no_speed_up_and_no_percentile_that_the_samples_do_not_carry(made: Manifest) -> None:
    text = render(made, evidence(), "en")
    assert "| `onnx-fp32` | 1 | 4 | 2.00 | 2.00 | 2.00 | 2.00 | 2.00 | 500.00 |" in text
    assert "Speed-ups are over" not in text and "| p90" not in text and "| p99" not in text


@pytest.mark.parametrize(("language", "word"), [("en", "reference"), ("zh", "参考")])
def test_the_reference_is_called_so_and_not_skipped(made: Manifest, language: str, word: str) -> None:
    assert f"| `original-torch-fp32` | `cls` | - | - | - | {word} |" in render(made, evidence(), language)


def test_what_is_said_of_the_floor_holds_for_errors_below_it(made: Manifest) -> None:
    text = " ".join(render(made, evidence(), "en").split())
    assert (
        "the reference's own distance between float32 and float64. No limit is set below it; an error may be "
        "smaller, where a variant rounds as the reference does." in text
    )


@pytest.mark.parametrize("version", ["4.57.0", "5.1.0"])
def test_the_scripts_are_for_the_version_of_transformers_that_was_validated(
    made: Manifest, version: str
) -> None:
    processor = SYSTEMS["dinov2-large"].preprocessor
    made = made.model_copy(update={"size": (224, 224)})
    text = render(made, evidence(transformers=version), "en", processor=processor)
    _, stock, alone = SCRIPT.findall(text)
    classic = version.startswith("4.")
    assert ("image.resize((width, height)" in alone) is classic
    assert ("Image.alpha_composite" in alone) is not classic
    assert ('image = image.convert("RGB")' in stock) is classic


def test_outputs_that_are_no_grid_and_patches_that_are_not_known_are_left_out(made: Manifest) -> None:
    variants = tuple(
        one.model_copy(
            update={
                "contract": one.contract.model_copy(
                    update={
                        "outputs": {
                            name: tensor.model_copy(update={"shape": ("batch", 7)})
                            for name, tensor in one.contract.outputs.items()
                        }
                    }
                )
            }
        )
        for one in made.variants
    )
    patches = tuple(patch.model_copy(update={"name": "mine", "applied": True}) for patch in made.patches)
    text = render(made.model_copy(update={"variants": variants, "patches": patches}), [], "en")
    assert "`patches [B, 7]`" in text
    assert "One image becomes" not in text and "mine" not in text
    assert "How an image becomes tokens is not known" not in text


@pytest.mark.parametrize(("where", "said"), [("isolated", "one variant"), ("in process", "whole process")])
def test_a_card_says_which_process_peak_memory_is_that_of(made: Manifest, where: str, said: str) -> None:
    def lines(nbytes: int | None) -> list[str]:
        row = variant("onnx-fp32", timing(1, 2.0), peak_memory_is=where, peak_rss_bytes=nbytes)
        report = made_reports.report(row, environment={"vconv": "0.2.0"})
        text = render(made, newest([SavedReport("reports/20261120T000000-validate.json", report)]), "en")
        return [line for line in text.splitlines() if line.startswith("- peak memory is")]

    (line,) = lines(10**9)
    assert said in line
    assert lines(None) == []


def test_a_card_names_the_variants_if_peak_memory_is_not_that_of_one_kind_of_process(made: Manifest) -> None:
    apart = variant("onnx-fp32", timing(1, 2.0), peak_memory_is="isolated", peak_rss_bytes=10**9)
    within = variant("onnx-fp16", timing(1, 2.0), peak_memory_is="in process", peak_rss_bytes=10**9)
    skipped = variant("onnx-bf16", status="skipped", peak_memory_is="isolated", peak_rss_bytes=10**9)
    text = card_of(made, apart, within, skipped)
    assert "- `onnx-fp32`: peak memory is of a process that runs one variant" in text
    assert "- `onnx-fp16`: peak memory is of the whole process" in text


def test_what_came_out_stands_once_if_several_engines_ran_the_variant(made: Manifest) -> None:
    summary = {"cls": OutputSummary(**SHAPE, min=0.0, max=1.0, mean=0.5, first=(0.5, 1.0))}
    rows = [
        variant("patched-torch-fp32", timing(1, 2.0), engine=engine, output_summary=summary)
        for engine in ("torch", "torch-compiled")
    ]
    assert card_of(made, *rows).count("What came out of `patched-torch-fp32`") == 1


def test_the_reason_of_a_skipped_variant_is_chinese_in_a_chinese_card(made: Manifest) -> None:
    row = variant("onnx-fp16", status="skipped", reason="engine computes fp32")
    assert "该引擎实际以 fp32 计算" in card_of(made, row, language="zh")


def test_the_packages_of_a_card_have_the_engines_that_were_timed(made: Manifest) -> None:
    rows = [variant("onnx-fp32", timing(1, 2.0), engine="openvino")]
    assert "openvino==2026.4.0" in card_of(made, *rows, openvino="2026.4.0")
    assert "openvino==" not in card_of(made, variant("onnx-fp32", timing(1, 2.0)), openvino="2026.4.0")


def test_that_no_npu_ran_a_reduced_graph_is_not_said_after_a_validation_on_one(made: Manifest) -> None:
    reduction = ReductionRecord(share=1.0)
    more = made.model_copy(
        update={"variants": (*made.variants, made.variants[-1].model_copy(update={"reduction": reduction}))}
    )
    for device, said in (("cpu", True), ("npu-sim", True), ("npu:0", False)):
        text = card_of(more, variant("onnx-fp32", timing(1, 2.0), device=device))
        assert ("No NPU has run these graphs" in text) is said
