from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engines_here import ENGINES_HERE
from made_pictures import ORIENTATION, REFUSED, TURNED, veiled
from PIL import Image

from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import Manifest
from vconv.errors import InputError
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.base import Session, in_batches
from vconv.runtime.engines.variants import open_variant
from vconv.runtime.inputs.images import natural_image, natural_images, open_images
from vconv.runtime.inputs.preprocessing import preprocess
from vconv.types import Array, Arrays

CPU = find_device("cpu")
AGREEMENT = 1e-5
"""Relative L2 distance of whole tensors under which engines agree: the strict limit of float32."""
SAME_ROWS = 1e-6
"""The same, of one engine with itself at another batch: a matrix product may be split up differently."""


def relative_l2(actual: Array, expected: Array) -> float:
    a, e = torch.from_numpy(actual).double(), torch.from_numpy(expected).double()
    return float(torch.linalg.norm(a - e) / torch.linalg.norm(e))


def assert_agree(actual: Arrays, expected: Arrays, tolerance: float) -> None:
    assert list(actual) == list(expected)
    for name in expected:
        assert actual[name].shape == expected[name].shape
        assert actual[name].dtype == expected[name].dtype == np.float32
        assert relative_l2(actual[name], expected[name]) < tolerance, name


class Doubling(Session):
    """A stand-in that keeps the batches that it was given."""

    engine = "doubling"

    def __init__(self, batch: int | None = None, size: tuple[int, int] = (4, 6)) -> None:
        super().__init__(Path("nowhere"), size, batch)
        self.seen: list[Array] = []

    def bind(self, pixel_values: Array) -> Callable[[], Any]:
        self.seen.append(pixel_values)
        return lambda: 2 * pixel_values

    def fetch(self, raw: Any) -> dict[str, Array]:
        return {"double": raw}


def images(count: int, size: tuple[int, int] = (4, 6)) -> Array:
    return np.random.default_rng(count).standard_normal((count, 3, *size), dtype=np.float32)


@pytest.mark.every_system
@pytest.mark.parametrize("engine", ENGINES_HERE)
def test_an_engine_agrees_with_torch_on_whole_tensors(
    small: Artifact, engine: str, made: Manifest, pixel_values: Array
) -> None:
    with open_variant(small, small.variant("patched-torch-fp32"), CPU) as session:
        expected = session(pixel_values)
    for record in made.variants:
        if record.engine != "torch":
            with open_variant(small, record, CPU, engine) as session:
                assert_agree(session(pixel_values), expected, AGREEMENT)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("engine", ENGINES_HERE)
def test_a_static_graph_gives_the_same_rows_however_many_images(
    small: Artifact, engine: str, count: int, pixel_values: Array
) -> None:
    record = small.variant("onnx-fp32-npu")
    assert record.batch == 2
    with open_variant(small, record, CPU, engine) as session:
        together = session(pixel_values[:count])
        alone = [session(pixel_values[index : index + 1]) for index in range(count)]
    expected = {name: np.concatenate([one[name] for one in alone]) for name in alone[0]}
    assert all(len(value) == count for value in together.values())
    assert_agree(together, expected, SAME_ROWS)


@pytest.mark.every_system
def test_every_variant_has_the_outputs_that_the_manifest_declares(
    small: Artifact, made: Manifest, pixel_values: Array
) -> None:
    declared = {name: (3, *shape[1:]) for name, shape in made.outputs.items()}
    for record in made.variants:
        with open_variant(small, record, CPU) as session:
            outputs = session(pixel_values[:3])
        assert {name: value.shape for name, value in outputs.items()} == declared
        assert list(outputs) == list(declared)


def test_what_is_timed_is_what_is_judged(small: Artifact, made: Manifest, pixel_values: Array) -> None:
    for record in made.variants:
        for engine in [""] if record.engine == "torch" else ENGINES_HERE:
            with open_variant(small, record, CPU, engine) as session:
                timed = session.fetch(session.bind(pixel_values[:2])())
                expected = session.run(pixel_values[:2])
            assert_agree(timed, expected, SAME_ROWS)


def test_reading_the_same_outputs_twice_gives_the_same_values(
    small: Artifact, made: Manifest, pixel_values: Array
) -> None:
    for record in made.variants:
        for engine in [""] if record.engine == "torch" else ENGINES_HERE:
            with open_variant(small, record, CPU, engine) as session:
                raw = session.bind(pixel_values[:2])()
                first, second = session.fetch(raw), session.fetch(raw)
            assert all(np.array_equal(first[name], second[name]) for name in made.outputs)


def test_a_bound_batch_can_be_run_again_and_again(
    small: Artifact, made: Manifest, pixel_values: Array
) -> None:
    for record in made.variants:
        for engine in [""] if record.engine == "torch" else ENGINES_HERE:
            with open_variant(small, record, CPU, engine) as session:
                first, second = (session.bind(part) for part in (pixel_values[:2], pixel_values[2:4]))
                results = [session.fetch(run()) for run in (first, second, first)]
                expected = session.run(pixel_values[:2])
            assert_agree(results[-1], expected, SAME_ROWS)


def test_every_output_is_noted_with_its_type_and_place(
    small: Artifact, made: Manifest, pixel_values: Array
) -> None:
    for record in made.variants:
        for engine in [""] if record.engine == "torch" else ENGINES_HERE:
            with open_variant(small, record, CPU, engine) as session:
                assert session.placed == {}
                outputs = session.run(pixel_values[:2])
                assert list(session.placed) == list(outputs)
                assert {place.device for place in session.placed.values()} == {"cpu"}
                assert {place.dtype for place in session.placed.values()} == {"float32"}


@pytest.mark.parametrize("way", ["call", "run", "bind"])
def test_a_closed_session_refuses_to_be_used(
    small: Artifact, way: str, made: Manifest, pixel_values: Array
) -> None:
    for record in made.variants:
        for engine in [""] if record.engine == "torch" else ENGINES_HERE:
            session = open_variant(small, record, CPU, engine)
            session.close()
            use = {"call": session, "run": session.run, "bind": session.bind}[way]
            with pytest.raises(InputError, match="the session is closed .*load it again"):
                use(pixel_values[:2])
            session.close()


def test_a_list_of_images_is_preprocessed(small: Artifact, small_artifact: Path, made: Manifest) -> None:
    photographs = natural_images(3, 20)
    for record in made.variants:
        with open_variant(small, record, CPU) as session:
            assert_agree(session(photographs), session(preprocess(small_artifact, photographs)), SAME_ROWS)


def test_one_picture_has_one_answer_from_a_file_and_as_an_image(small: Artifact, tmp_path: Path) -> None:
    path, exif = tmp_path / "photograph.png", Image.Exif()
    exif[ORIENTATION] = TURNED
    veiled("RGBA").save(path, exif=exif)
    with open_variant(small, small.variant("onnx-fp32"), CPU) as session, Image.open(path) as image:
        expected = session([veiled("RGBA").transpose(Image.Transpose.ROTATE_270)])
        for images in ([image], (image,), open_images([path])):
            assert_agree(session(images), expected, SAME_ROWS)


@pytest.mark.parametrize("mode", REFUSED)
def test_an_image_of_more_than_8_bits_a_channel_is_refused(mode: str, small: Artifact) -> None:
    with (
        open_variant(small, small.variant("onnx-fp32"), CPU) as session,
        pytest.raises(InputError, match=f"image 1 cannot be used . got the mode {mode}, "),
    ):
        session([REFUSED[mode]()])


def test_results_do_not_change_when_the_next_batch_is_run(
    small: Artifact, made: Manifest, pixel_values: Array
) -> None:
    for record in made.variants:
        for engine in [""] if record.engine == "torch" else ENGINES_HERE:
            with open_variant(small, record, CPU, engine) as session:
                first = session(pixel_values[:2])
                kept = {name: value.copy() for name, value in first.items()}
                session(pixel_values[2:4])
            assert all(np.array_equal(first[name], kept[name]) for name in kept)


@pytest.mark.parametrize("engine", ENGINES_HERE)
def test_an_array_that_is_read_only_or_not_contiguous_is_taken(
    small: Artifact, engine: str, pixel_values: Array
) -> None:
    reversed_twice = np.asfortranarray(pixel_values[:2])
    reversed_twice.setflags(write=False)
    for name, chosen in (("patched-torch-fp32", ""), ("onnx-fp32", engine), ("onnx-fp32-npu", engine)):
        with (
            warnings.catch_warnings(),
            open_variant(small, small.variant(name), CPU, chosen) as session,
        ):
            warnings.simplefilter("error")
            assert_agree(session(reversed_twice), session(pixel_values[:2]), SAME_ROWS)


@pytest.mark.parametrize(("count", "batch"), [(1, 2), (2, 2), (3, 2), (5, 2), (5, 3), (4, 1), (2, 8)])
def test_batches_are_whole_and_the_last_is_filled_up_and_cut(count: int, batch: int) -> None:
    session, given = Doubling(batch), images(count)
    outputs = session(given)
    assert {len(seen) for seen in session.seen} == {batch}
    assert len(session.seen) == -(-count // batch)
    assert np.array_equal(outputs["double"], 2 * given)
    filled = np.concatenate(session.seen)
    assert np.array_equal(filled[:count], given)
    assert all(np.array_equal(row, given[-1]) for row in filled[count:])


def test_a_dynamic_variant_runs_all_images_at_once() -> None:
    session = Doubling()
    session(images(7))
    assert [len(seen) for seen in session.seen] == [7]


def test_in_batches_joins_every_output() -> None:
    found = in_batches(lambda part: {"a": part[:, 0], "b": part.sum(axis=(1, 2, 3))}, images(5), 2)
    assert np.array_equal(found["a"], images(5)[:, 0])
    assert found["b"] == pytest.approx(images(5).sum(axis=(1, 2, 3)), abs=1e-5)


@pytest.mark.parametrize(
    "shape",
    [(3, 4, 6), (1, 4, 6, 3), (1, 1, 4, 6), (1, 3, 6, 4), (1, 3, 8, 8), (0, 3, 4, 6), (1, 1, 3, 4, 6), ()],
)
def test_an_array_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    session = Doubling()
    with pytest.raises(InputError, match=r"do not fit.*expected \[B, 3, 4, 6\]"):
        session(np.zeros(shape, np.float32))
    assert not session.seen


@pytest.mark.parametrize("dtype", ["float16", "float64", "uint8", "int64", ">f4"])
def test_an_array_of_another_type_is_refused(dtype: str) -> None:
    session = Doubling()
    with pytest.raises(InputError, match="expected float32"):
        session(np.zeros((1, 3, 4, 6), dtype))
    assert not session.seen


def test_a_tensor_is_taken_as_an_array() -> None:
    assert np.array_equal(Doubling()(torch.ones(2, 3, 4, 6))["double"], np.full((2, 3, 4, 6), 2, np.float32))


def test_one_image_that_is_not_in_a_list_is_refused() -> None:
    with pytest.raises(InputError, match="list of PIL images"):
        Doubling()(natural_image(0))


@pytest.mark.parametrize("given", ["cat.jpg", None, object()])
def test_what_is_no_image_at_all_is_named(small: Artifact, given: Any) -> None:
    with (
        open_variant(small, small.variant("onnx-fp32"), CPU) as session,
        pytest.raises(InputError, match=f"got a {type(given).__name__} .*pass PIL images"),
    ):
        session(given)


def test_an_empty_list_of_images_is_refused(small: Artifact) -> None:
    with (
        open_variant(small, small.variant("onnx-fp32"), CPU) as session,
        pytest.raises(InputError),
    ):
        session([])


def test_a_list_of_arrays_is_refused_and_not_normalised_again(small: Artifact, pixel_values: Array) -> None:
    with (
        open_variant(small, small.variant("onnx-fp32"), CPU) as session,
        pytest.raises(InputError),
    ):
        session(list(pixel_values[:2]))
