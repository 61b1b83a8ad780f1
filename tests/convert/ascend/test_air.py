from __future__ import annotations

from pathlib import Path

import pytest

from vconv.convert.ascend import air
from vconv.convert.ascend.air import Expected
from vconv.errors import EngineError


def pbtxt(key: str = "op", **counts: int) -> str:
    """A readable graph, in the words of torchair's tests: ``op: "Data"``."""
    names = [name for name, count in counts.items() for _ in range(count)]
    return "".join(f'node {{\n  name: "{name}"\n  {key}: "{name}"\n}}\n' for name in names)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder ``air`` of an artifact."""
    folder = tmp_path / "artifact" / "air"
    folder.mkdir(parents=True)
    return folder


def write(folder: Path, readable: str) -> None:
    (folder / "model.air").write_bytes(b"graph")
    (folder / "dynamo.pbtxt").write_text(readable)


@pytest.mark.parametrize("key", ["op", "type"])
def test_a_graph_with_the_gelus_of_the_network_is_kept_and_nothing_else(key: str, place: Path) -> None:
    with air.output(place / "model.air", Expected(erfs=3)) as folder:
        write(folder, pbtxt(key, Data=1, Const=9, Erf=3, Gelu=0))
        (folder / "kernel_meta").mkdir()
    assert [path.name for path in place.iterdir()] == ["model.air"]
    assert [path.name for path in place.parent.iterdir()] == ["air"]


def test_a_gelu_that_the_network_defines_by_tanh_may_be_there(place: Path) -> None:
    with air.output(place / "model.air", Expected(erfs=0, gelus=2)) as folder:
        write(folder, pbtxt(Data=1, Gelu=2))
    assert (place / "model.air").is_file()


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"Data": 1, "Gelu": 3}, "another GELU .*got 3 Gelu and 0 Erf .*expected 0 Gelu and 3 Erf"),
        ({"Data": 1, "Gelu": 1, "Erf": 2}, "another GELU .*got 1 Gelu and 2 Erf"),
        ({"Data": 1, "Erf": 2}, "another GELU .*got 0 Gelu and 2 Erf"),
        ({"Data": 2, "Erf": 3}, "does not hold the weights .*got 2 inputs and 0 weights"),
        ({"Data": 1, "RefData": 1, "Erf": 3}, "does not hold the weights .*got 2 inputs"),
        ({"Data": 1, "FileConstant": 5, "Erf": 3}, "does not hold the weights .*got 1 inputs and 5 weights"),
    ],
    ids=["all fused", "one fused", "one lost", "a tensor as input", "a weight as input", "weights outside"],
)
def test_another_graph_is_refused_and_removed(counts: dict[str, int], said: str, place: Path) -> None:
    with (
        pytest.raises(EngineError, match=said) as caught,
        air.output(place / "model.air", Expected(erfs=3)) as folder,
    ):
        write(folder, pbtxt(**counts))
    assert "\n" not in str(caught.value)
    assert [*place.iterdir()] == [] and [*place.parent.iterdir()] == [place]


@pytest.mark.parametrize("missing", ["model.air", "dynamo.pbtxt"])
def test_torchair_that_writes_nothing_and_raises_nothing_is_noticed(missing: str, place: Path) -> None:
    with (
        pytest.raises(EngineError, match=f"torchair wrote no graph .*got no {missing}"),
        air.output(place / "model.air", Expected(erfs=3)) as folder,
    ):
        write(folder, pbtxt(Data=1, Erf=3))
        (folder / missing).unlink()
    assert [*place.parent.iterdir()] == [place]


def test_a_graph_beyond_2_gb_is_refused(place: Path) -> None:
    with (
        pytest.raises(EngineError, match=r"model\.air is too large for atc .*got 2\.15 GB"),
        air.output(place / "model.air", Expected(erfs=3)) as folder,
    ):
        write(folder, pbtxt(Data=1, Erf=3))
        with (folder / "model.air").open("r+b") as file:
            file.truncate(2**31)  # a hole: it takes no room on the disk
