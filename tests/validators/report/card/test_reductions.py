"""What a card says of how graphs in reduced precision were planned."""

from __future__ import annotations

import pytest

from vconv.artifact.manifest import Manifest
from vconv.artifact.reduction_records import LossesRecord, RangeRecord, ReductionRecord
from vconv.validators.report.card.card import render
from vconv.validators.report.card.words import LANGUAGES

pytestmark = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)

OF_NONE = ReductionRecord(share=1.0)
LOSSES = LossesRecord(cosine=0.0123, neighbours=0.04, top1=None)


def of_images(made_up: bool) -> ReductionRecord:
    quantised = dict.fromkeys(["q", "k", "v"], RangeRecord(least=-1, greatest=2))
    return ReductionRecord(quantised=quantised, images=9, made_up=made_up, share=0.4449, losses=LOSSES)


def reduced(made: Manifest, **reductions: ReductionRecord) -> Manifest:
    """Return a manifest with two variants in each precision, beside those that it has."""
    graph = next(one for one in made.variants if one.graph)
    more = [
        graph.model_copy(
            update={
                **{"variant": f"onnx-{name}{suffix}", "precision": name, "reduction": reduction},
                **{"path": f"{name}/model{suffix}.onnx", "weights": f"{name}/model.safetensors"},
            }
        )
        for name, reduction in reductions.items()
        for suffix in ("", ".npu")
    ]
    return made.model_copy(update={"variants": (*made.variants, *more)})


def rows_of(text: str, *folders: str) -> list[list[str]]:
    """Return the cells of the table's rows, which begin with a folder."""
    found = [line for line in text.splitlines() if line.startswith(tuple(f"| `{name}/`" for name in folders))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found]


def test_each_precision_has_one_row_with_its_plan_and_what_it_lost(made: Manifest) -> None:
    mixed = ReductionRecord(kept=("first", "second"), images=16, made_up=True, share=0.9, losses=LOSSES)
    found = reduced(made, fp16=OF_NONE, mixed=mixed, int8=of_images(made_up=False))
    text = render(found, [], "en")
    assert rows_of(text, "fp16", "mixed", "int8") == [
        ["`fp16/`", "`float16`", "100.0%", "-", "no images: there is nothing to choose", "-", "-"],
        [
            *("`mixed/`", "`float16`", "90.0%", "2 more nodes in float32", "16 made-up images"),
            *("0.012", "0.04"),
        ],
        ["`int8/`", "`int8`", "44.5%", "3 products quantised", "9 photographs", "0.012", "0.04"],
    ]
    assert "lost: classes" not in text
    assert "1 minus the least cosine" in text


def test_what_a_loss_is_stands_only_where_there_is_one(made: Manifest) -> None:
    text = render(reduced(made, fp16=OF_NONE), [], "en")
    assert rows_of(text, "fp16") == [
        ["`fp16/`", "`float16`", "100.0%", "-", "no images: there is nothing to choose"]
    ]
    assert "1 minus the least cosine" not in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_card_says_which_graphs_for_an_npu_have_operators_that_cann_does_not_list(
    made: Manifest, language: str
) -> None:
    def text(*operators: str) -> str:
        graph = next(one for one in made.variants if one.graph and one.batch)
        assert graph.graph is not None
        counted = graph.graph.model_copy(update={"operators": dict.fromkeys(operators, 2)})
        more = {"reduction": of_images(made_up=False), "path": "int8/model.npu.onnx", "graph": counted}
        variants = (*made.variants, graph.model_copy(update=more))
        return render(made.model_copy(update={"variants": variants}), [], language)

    said = {
        "en": "whether ATC takes `int8/model.npu.onnx` is unverified",
        "zh": "`int8/model.npu.onnx` 尚未验证",
    }
    assert said[language] in text("MatMul", "QuantizeLinear")
    assert said[language] not in text("MatMul")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_command_asks_for_photographs_if_plans_were_made_on_some(made: Manifest, language: str) -> None:
    for made_up in (False, True):
        found = reduced(made, int8=of_images(made_up))
        text = render(found, [], language)
        assert ("--precision int8 --calibration PHOTOGRAPHS" in text) is not made_up
        assert len(rows_of(text, "int8")) == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_card_without_reduced_precision_says_nothing_of_plans(made: Manifest, language: str) -> None:
    text = render(made, [], language)
    assert "variants[].reduction" not in text
    assert "PHOTOGRAPHS" not in text
