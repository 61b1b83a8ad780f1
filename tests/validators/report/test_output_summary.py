from __future__ import annotations

import json
import math

import numpy as np
import pytest

from vconv.runtime.engines.base import Placed
from vconv.validators.report.output_summary import SHOWN, summarise_outputs
from vconv.validators.report.rows import OutputSummary

PLACED = {"cls": Placed("bfloat16", "cuda:1"), "patches": Placed("float16", "npu:0")}


def outputs() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(4)
    return {
        "cls": generator.standard_normal((2, 7)).astype(np.float32),
        "patches": generator.standard_normal((2, 5, 7)).astype(np.float32),
    }


def test_every_output_has_its_block_in_order() -> None:
    assert list(summarise_outputs(outputs(), PLACED)) == ["cls", "patches"]


def test_a_block_is_what_python_makes_of_the_numbers() -> None:
    for name, block in summarise_outputs(outputs(), PLACED).items():
        values = [float(value) for value in outputs()[name].flatten()]
        assert block.shape == outputs()[name].shape
        assert (block.min, block.max) == (min(values), max(values))
        assert block.mean == pytest.approx(math.fsum(values) / len(values), rel=1e-12)
        assert block.first == tuple(values[:SHOWN])


def test_a_block_has_the_type_and_place_before_the_output_became_an_array() -> None:
    blocks = summarise_outputs(outputs(), PLACED)
    assert (blocks["cls"].dtype, blocks["cls"].device) == ("bfloat16", "cuda:1")
    assert (blocks["patches"].dtype, blocks["patches"].device) == ("float16", "npu:0")


def test_without_a_note_the_arrays_own_type_is_shown() -> None:
    block = summarise_outputs(outputs(), {})["cls"]
    assert (block.dtype, block.device) == ("float32", "cpu")


def test_the_mean_of_great_numbers_of_half_precision_does_not_overflow() -> None:
    block = summarise_outputs({"cls": np.full((1, 4096), 60000, np.float16)}, {})["cls"]
    assert block.mean == block.max == 60000.0


def test_an_output_with_fewer_values_shows_them_all() -> None:
    assert summarise_outputs({"logits": np.array([[1.5, -2.5]], np.float32)}, {})["logits"].first == (
        1.5,
        -2.5,
    )


def test_what_is_no_number_is_none_as_in_json() -> None:
    block = summarise_outputs({"cls": np.array([[1.0, math.nan]], np.float32)}, {})["cls"]
    assert (block.mean, block.min, block.max, block.first) == (None, None, None, (1.0, None))


def test_blocks_are_json() -> None:
    blocks = summarise_outputs(outputs(), PLACED)
    for block in blocks.values():
        assert OutputSummary.model_validate_json(json.dumps(block.as_json())) == block
