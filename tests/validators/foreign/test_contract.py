"""What a graph takes and gives, found out by running it: with functions in the place of graphs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from vconv.artifact.records import TensorRecord
from vconv.errors import EngineError, InputError
from vconv.runtime.engines.adapted import Given, Levels, View
from vconv.types import Array, Arrays
from vconv.validators.foreign.contract import (
    Contract,
    Matched,
    found_out,
)
from vconv.validators.foreign.images import ways
from vconv.validators.foreign.readings import Reading
from vconv.validators.foreign.statement import Statement
from vconv.validators.foreign.views import JudgedOutput, judged, taken_for_another

RANDOM = np.random.default_rng(0)
IMAGES: Array = RANDOM.normal(size=(2, 3, 4, 4)).astype(np.float32)
TOKENS: Array = RANDOM.normal(size=(2, 6, 5)).astype(np.float32)
KNOWN = {
    "pooled": Reading(TOKENS[:, 1] * 2),
    "cls": Reading(TOKENS[:, 0]),
    "patches": Reading(TOKENS[:, 2:]),
    "last_hidden_state": Reading(TOKENS),
    "mean of the patches": Reading(TOKENS[:, 2:].mean(1), "mean of the patches", "pooling", "pooled"),
}
NOTHING = Statement()
MEAN, DEVIATION = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)


def image(*shape: int | str, dtype: str = "float32") -> TensorRecord:
    return TensorRecord(name="x", dtype=dtype, shape=shape or ("batch", 3, 4, 4))


def contract(
    outputs: Mapping[str, Array], stated: Statement = NOTHING, taken: TensorRecord | None = None
) -> Contract:
    """Return the contract of a graph that gives these outputs, whatever it gets."""
    given = ways(taken or image(), MEAN, DEVIATION, stated)
    return found_out(taken or image(), given, lambda images: outputs, IMAGES, KNOWN, stated)


def only(found: Contract) -> tuple[str, str]:
    (one,) = found.outputs
    return one.reading, one.how


@pytest.mark.parametrize("reading", KNOWN)
def test_an_output_is_recognised_by_its_value_whatever_its_name(reading: str) -> None:
    noisy = KNOWN[reading].value * np.float32(1.01)
    assert only(contract({"logits": noisy})) == (reading, "by value")


def test_a_far_output_is_recognised_by_its_name() -> None:
    assert only(contract({"pooler_output": -TOKENS[:, 0]})) == ("pooled", "by name")
    assert only(contract({"/head/last_hidden_state": -TOKENS})) == ("last_hidden_state", "by name")


def test_a_far_output_is_recognised_by_a_shape_that_one_output_alone_has() -> None:
    assert only(contract({"x": -TOKENS})) == ("last_hidden_state", "by shape")


def test_a_far_output_of_a_shape_that_several_have_is_refused_with_the_candidates() -> None:
    with pytest.raises(InputError) as caught:
        contract({"x": -3 * TOKENS[:, 0]})
    assert "it cannot be told what the output x of the graph is" in str(caught.value)
    assert all(name in str(caught.value) for name in ("pooled (", "cls (", "mean of the patches ("))


def test_a_statement_decides_and_its_mistakes_are_refused() -> None:
    def stating(**outputs: str) -> Statement:
        return Statement("a.vconv.toml", outputs=outputs)

    assert only(contract({"x": -TOKENS[:, 0]}, stating(cls="x"))) == ("cls", "stated")
    with pytest.raises(InputError, match="states an unknown output | got nothing"):
        contract({"x": TOKENS}, stating(nothing="x"))
    with pytest.raises(InputError, match="states that x is patches | got another shape"):
        contract({"x": TOKENS}, stating(patches="x"))


def test_an_output_of_no_known_shape_is_left_out_with_the_reason() -> None:
    found = contract({"x": TOKENS, "attention": TOKENS[:, :, :2]})
    assert only(found) == ("last_hidden_state", "by value")
    assert found.unread == {"attention": "nothing that the reference gives has its shape [6, 2]"}
    with pytest.raises(InputError, match="no output of the graph is one of the reference's"):
        contract({"attention": TOKENS[:, :, :2]})


def test_a_map_and_axes_of_one_are_read_as_patches_and_tokens() -> None:
    patches = TOKENS[:, 2:]
    rows = {
        "map": patches.transpose(0, 2, 1).reshape(2, 5, 2, 2),
        "map, channels last": patches.reshape(2, 2, 2, 5),
    }
    for form, value in rows.items():
        (one,) = contract({"x": value}).outputs
        assert (one.reading, one.form) == ("patches", form)
        np.testing.assert_array_equal(View("x", form).read({"x": value}), patches)
    (one,) = contract({"x": TOKENS[:, :1]}).outputs
    assert (one.reading, one.form) == ("cls", "axes of one")
    np.testing.assert_array_equal(View("x", one.form).read({"x": TOKENS[:, :1]}), TOKENS[:, 0])


def test_the_levels_are_those_with_which_the_outputs_are_near() -> None:
    shares = IMAGES * np.array(DEVIATION, np.float32).reshape(-1, 1, 1)
    shares = shares + np.array(MEAN, np.float32).reshape(-1, 1, 1)
    made = {Levels.NORMALISED: IMAGES, Levels.SHARES: shares, Levels.GREY: 255 * shares}
    for levels, wanted in made.items():

        def run(images: Array, wanted: Array = wanted) -> Arrays:
            return {"x": TOKENS if np.allclose(images, wanted, atol=1e-3) else -TOKENS}

        stated = Statement()
        found = found_out(image(), ways(image(), MEAN, DEVIATION, stated), run, IMAGES, KNOWN, stated)
        assert found.given.levels is levels
        np.testing.assert_allclose(found.given.made(IMAGES), wanted, rtol=1e-5, atol=1e-4)


def test_whole_numbers_are_grey_levels_with_the_channels_where_the_graph_declares_them() -> None:
    taken = image("n", "h", "w", 3, dtype="uint8")
    (way,) = ways(taken, MEAN, DEVIATION, Statement())
    assert (way.layout, way.levels) == ("NHWC", Levels.GREY)
    made = way.made(IMAGES)
    assert (made.shape, made.dtype) == ((2, 4, 4, 3), np.uint8)
    shares = IMAGES.transpose(0, 2, 3, 1).astype("f8") * DEVIATION + MEAN
    np.testing.assert_array_equal(made, np.rint(255 * shares).clip(0, 255).astype(np.uint8))


def test_a_layout_that_is_not_declared_is_tried_out() -> None:
    def run(images: Array) -> Arrays:
        if images.shape[3] != 3:
            raise EngineError("no", got="NCHW", expected="NHWC", fix="none")
        return {"x": TOKENS}

    taken = image("n", "a", "b", "c")
    found = found_out(taken, ways(taken, MEAN, DEVIATION, Statement()), run, IMAGES, KNOWN, Statement())
    assert (found.given.layout, found.size, found.batch) == ("NHWC", None, None)


def test_a_graph_that_runs_on_no_images_is_refused() -> None:
    def run(images: Array) -> Arrays:
        raise EngineError("no", got="a wrong shape", expected="another", fix="none")

    with pytest.raises(InputError, match="cannot be run on the reference's images | got a wrong shape"):
        found_out(image(), ways(image(), MEAN, DEVIATION, Statement()), run, IMAGES, KNOWN, Statement())


def _contract(*outputs: Matched) -> Contract:
    given = Given("NCHW", "float32", Levels.NORMALISED, MEAN, DEVIATION)
    return Contract("x", given, (4, 4), None, outputs)


def test_of_tokens_their_parts_are_judged_too() -> None:
    found = judged(_contract(Matched("x", "last_hidden_state", "", "by value", 0.0)), KNOWN, registers=1)
    views = {one.name: one.view for one in found}
    assert list(views) == ["cls", "patches", "last_hidden_state"]
    np.testing.assert_array_equal(views["cls"].read({"x": TOKENS}), TOKENS[:, 0])
    np.testing.assert_array_equal(views["patches"].read({"x": TOKENS}), TOKENS[:, 2:])


def test_what_is_taken_for_an_output_is_judged_as_that_output_unless_the_graph_has_it_too() -> None:
    mean = Matched("m", "mean of the patches", "", "by value", 0.0)
    alone, beside = _contract(mean), _contract(mean, Matched("p", "pooled", "", "by value", 0.0))
    assert taken_for_another(alone, KNOWN) == [mean]
    assert judged(alone, KNOWN, None) == (JudgedOutput("pooled", View("m"), "pooled"),)
    assert taken_for_another(beside, KNOWN) == []
    assert judged(beside, KNOWN, None) == (JudgedOutput("pooled", View("p"), "pooled"),)


def test_every_output_is_judged_even_if_two_are_the_same_thing() -> None:
    right, wrong = (
        Matched(name, "pooled", "", "by value", error) for name, error in (("a", 0.0), ("b", 0.2))
    )
    found = judged(_contract(right, wrong), KNOWN, None)
    assert found == (
        JudgedOutput("pooled", View("a"), "pooled"),
        JudgedOutput("pooled (b)", View("b"), "pooled"),
    )


def test_hidden_states_beside_the_tokens_are_not_judged() -> None:
    found = contract({"hidden_states.0": -TOKENS, "x": TOKENS})
    assert only(found) == ("last_hidden_state", "by value")
    assert found.unread == {
        "hidden_states.0": "nothing that the reference gives of its shape [6, 5] is near it"
    }


def test_what_a_statement_ignores_is_not_judged() -> None:
    stated = Statement("a.vconv.toml", ignore=("y",))
    found = contract({"x": TOKENS, "y": TOKENS[:, 0]}, stated)
    assert only(found) == ("last_hidden_state", "by value")
    assert found.unread == {"y": "a file beside the graph says so"}


def test_a_statement_about_an_output_that_is_not_there_is_refused() -> None:
    for stated in (Statement("a", outputs={"cls": "y"}), Statement("a", ignore=("y",))):
        with pytest.raises(InputError, match="names an output that the graph does not have | got y"):
            contract({"x": TOKENS}, stated)


def test_a_statement_that_contradicts_the_graph_is_refused() -> None:
    with pytest.raises(InputError, match="contradicts the graph | got layout = 'NHWC'"):
        ways(image(), MEAN, DEVIATION, Statement("a", layout="NHWC"))
    whole = image("n", "h", "w", 3, dtype="uint8")
    with pytest.raises(InputError, match="contradicts the graph | got levels = 'normalised'"):
        ways(whole, MEAN, DEVIATION, Statement("a", levels="normalised"))


def test_a_far_graph_is_judged_on_the_first_images_that_it_takes() -> None:
    def run(images: Array) -> Arrays:
        if images.shape[3] != 3:
            raise EngineError("no", got="NCHW", expected="NHWC", fix="none")
        return {"last_hidden_state": -TOKENS}

    taken = image("n", "a", "b", "c")
    found = found_out(taken, ways(taken, MEAN, DEVIATION, NOTHING), run, IMAGES, KNOWN, NOTHING)
    assert (found.given.layout, found.given.levels) == ("NHWC", Levels.NORMALISED)
