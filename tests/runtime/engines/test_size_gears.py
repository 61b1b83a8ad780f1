"""Offline models with gears by size, on the stand-in for pyACL: no size but a gear runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from vconv.artifact.records import AxisRecord
from vconv.convert.ascend import offline_model
from vconv.convert.ascend.atc import CompileOrder
from vconv.errors import EngineError, InputError
from vconv.runtime.devices.base import Device
from vconv.runtime.engines.acl import OfflineSession
from vconv.types import INPUT, Array, silent
from vconv.validators.accuracy.limits import STRICT
from vconv.validators.accuracy.other_sizes import SizedReference
from vconv.validators.at_other_sizes import failure, judged_at

SIZE, OTHER, NO_GEAR = (16, 16), (8, 24), (16, 24)
BATCH = 2
SIDES = (AxisRecord(least=8, greatest=64, multiple=4),) * 2
Open = Callable[..., OfflineSession]


def graph() -> onnx.ModelProto:
    """Return a graph for images of any size: a mean of one shape, and patches whose number depends on it."""
    kernels = np.random.default_rng(0).standard_normal((5, 3, 4, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", [INPUT, "kernels"], ["patches"], strides=[4, 4]),
        helper.make_node("ReduceMean", ["patches"], ["cls"], axes=[2, 3], keepdims=0),
    ]
    taken = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 3, "height", "width"])
    shapes = {"cls": ["batch", 5], "patches": ["batch", 5, "rows", "columns"]}
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    weights = [numpy_helper.from_array(kernels, "kernels")]
    made = helper.make_graph(nodes, "g", [taken], given, weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def images(size: tuple[int, int], count: int = BATCH) -> Array:
    return np.random.default_rng(sum(size)).standard_normal((count, 3, *size)).astype(np.float32)


def expected(size: tuple[int, int], count: int = BATCH) -> dict[str, Array]:
    session = onnxruntime.InferenceSession(graph().SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(["cls", "patches"], {INPUT: images(size, count)})
    return dict(zip(("cls", "patches"), found, strict=True))


def agree(found: dict[str, Array], size: tuple[int, int], count: int = BATCH) -> None:
    wanted = expected(size, count)
    assert found["patches"].shape == (count, 5, size[0] // 4, size[1] // 4)
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-5)


@pytest.fixture
def model(tmp_path: Path, atc: Path) -> Path:
    """An offline model with two gears by size, compiled by the stand-in for ATC."""
    for name in ("artifact", "scratch"):
        (tmp_path / name).mkdir()
    onnx.save(graph(), tmp_path / "artifact" / "model.onnx")
    order = CompileOrder.of("Ascend910B4", gears_size=(SIZE, OTHER))
    offline_model.make(tmp_path / "artifact", tmp_path / "scratch", order, SIZE, BATCH, silent)
    return tmp_path / "artifact" / "om" / "model.om"


@pytest.fixture
def opened(model: Path, npu: Device, acl: Any) -> Open:
    def open_it(size: tuple[int, int] = SIZE, batch: int = BATCH) -> OfflineSession:
        session = OfflineSession(model, npu, model.parent, size, batch)
        session.sides = SIDES
        return session

    return open_it


@pytest.mark.parametrize("size", [SIZE, OTHER])
def test_every_gear_runs_and_gives_outputs_of_its_own_shape(size: tuple[int, int], opened: Open) -> None:
    with opened() as session:
        assert session.size_gears == (OTHER, SIZE)
        agree(session.run(images(size)), size)
        agree(session(images(size, 3)), size, 3)


def test_batches_of_two_sizes_that_are_bound_at_once_stay_apart(opened: Open, acl: Any) -> None:
    with opened() as session:
        first, second = session.bind(images(SIZE)), session.bind(images(OTHER))
        acl.calls.clear()
        raw, other = first(), second()
        assert acl.calls.count("mdl.set_dynamic_hw_size") == 2 and "rt.memcpy" not in acl.calls
        agree(session.fetch(raw), SIZE)
        agree(session.fetch(other), OTHER)
        agree(session.fetch(first()), SIZE)


def test_a_size_that_is_no_gear_is_refused_with_the_gears(opened: Open) -> None:
    with opened() as session:
        with pytest.raises(EngineError, match=r"images of this size .*got 16,24 .*expected 8,24 or 16,16"):
            session.bind(images(NO_GEAR))
        with pytest.raises(InputError, match="do not fit this variant .*H and W one of 8,24, 16,16"):
            session(images(NO_GEAR))


def test_a_size_that_is_no_gear_is_skipped_with_its_reason_and_no_failure(opened: Open) -> None:
    references = [SizedReference(images(size, 1), expected(size, 1)) for size in (NO_GEAR, OTHER)]
    with opened() as session:
        skipped, judged = judged_at(references, session, STRICT["fp32", "fp32"])
    assert skipped.skipped == "skipped: the model was compiled for 8x24, 16x16 only"
    assert (skipped.reasons, skipped.vector_relative_error) == ((), None)
    assert (judged.skipped, judged.reasons) == ("", ())
    assert judged.vector_relative_error is not None and judged.vector_relative_error < 1e-5
    assert failure([skipped, judged]) == ""


@pytest.mark.parametrize(("size", "batch"), [(NO_GEAR, BATCH), (SIZE, 3)])
def test_a_model_without_the_images_of_the_manifest_is_refused(
    size: tuple[int, int], batch: int, opened: Open
) -> None:
    with pytest.raises(EngineError, match=r"model\.om is not the model that this artifact describes"):
        opened(size, batch)


@pytest.mark.parametrize("call", ["mdl.get_dynamic_hw", "mdl.set_dynamic_hw_size", "mdl.get_cur_output_dims"])
def test_a_call_that_fails_is_one_line_and_nothing_stays_held(call: str, opened: Open, acl: Any) -> None:
    acl.fail_next(call, 507011)
    with pytest.raises(EngineError) as caught, opened() as session:
        session.run(images(SIZE))
    assert str(caught.value).startswith(f"acl.{call} refuses model.om | got return code 507011 ")
    caught.value.__traceback__ = None


def test_the_stand_in_behaves_as_the_pages_say(model: Path, acl: Any) -> None:
    acl.init()
    acl.rt.set_device(0)
    context, _ = acl.rt.create_context(0)
    number, _ = acl.mdl.load_from_file(str(model))
    description = acl.mdl.create_desc()
    acl.mdl.get_desc(description, number)
    dataset = acl.mdl.create_dataset()
    index, _ = acl.mdl.get_input_index_by_name(description, "ascend_mbatch_shape_data")
    assert acl.mdl.get_dynamic_hw(description, 0)[1] != 0
    assert acl.mdl.get_dynamic_hw(description, -1) == ({"hwCount": 2, "hw": [[8, 24], [16, 16]]}, 0)
    assert acl.mdl.get_dynamic_batch(description)[0]["batchCount"] == 0
    assert acl.mdl.get_input_dims(description, 0)[0]["dims"] == [2, 3, -1, -1]
    greatest = [2, 5, 4, 4]
    assert acl.mdl.get_output_dims(description, 1)[0]["dims"] == greatest
    assert acl.mdl.get_cur_output_dims(description, 1)[0]["dims"] == greatest
    assert acl.mdl.set_dynamic_hw_size(number, dataset, index, 24, 8) != 0
    assert acl.mdl.set_dynamic_hw_size(number, dataset, index, 8, 24) == 0
    assert acl.mdl.get_cur_output_dims(description, 1)[0]["dims"] == [2, 5, 2, 6]
    assert acl.mdl.get_output_dims(description, 1)[0]["dims"] == greatest
    for free, thing in (
        (acl.mdl.destroy_dataset, dataset),
        (acl.mdl.destroy_desc, description),
        (acl.mdl.unload, number),
        (acl.rt.destroy_context, context),
    ):
        assert free(thing) == 0
