from __future__ import annotations

import gc
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vconv.catalog.systems import SYSTEMS, System
from vconv.convert.ascend import offline_model
from vconv.convert.ascend.atc import CompileOrder
from vconv.errors import EngineError, InputError, MemoryShortError, UnavailableError
from vconv.runtime.devices.base import Device
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.acl import OfflineSession
from vconv.runtime.engines.onnxruntime import OnnxRuntimeSession
from vconv.types import Array, silent

CPU = find_device("cpu")
STATIC = 2
GEARS = (1, 2, 4)
Open = Callable[..., OfflineSession]


@pytest.fixture
def system() -> System:
    """One system: what is tested here is the same for all."""
    return SYSTEMS["dinov3-vits16"]


@pytest.fixture
def compiled(
    small_artifact: Path, size: tuple[int, int], atc: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Sequence[int]], Path]:
    """The function that compiles an offline model with some gears, or for a static batch; once each."""

    def compile_it(gears: Sequence[int] = ()) -> Path:
        root = tmp_path_factory.getbasetemp() / "compiled" / "-".join(map(str, gears or ["static"]))
        path = root / "artifact" / "om" / "model.om"
        if not path.exists():
            for place in (root / "artifact", root / "scratch"):
                place.mkdir(parents=True)
            for name in ("model.onnx", "model.npu.onnx", "model.safetensors"):
                shutil.copyfile(small_artifact / name, root / "artifact" / name)
            order = CompileOrder.of("Ascend310P3", gears=gears)
            offline_model.make(root / "artifact", root / "scratch", order, size, STATIC, silent)
        return path

    return compile_it


@pytest.fixture
def opened(small_artifact: Path, size: tuple[int, int], npu: Device, acl: Any) -> Open:
    def open_it(path: Path, batch: int | None = None, device: Device = npu) -> OfflineSession:
        return OfflineSession(path, device, small_artifact, size, batch)

    return open_it


@pytest.fixture
def expected(small_artifact: Path, size: tuple[int, int], pixel_values: Array) -> Iterator[dict[str, Array]]:
    with OnnxRuntimeSession(small_artifact / "model.onnx", CPU, small_artifact, size, None) as session:
        yield session.run(pixel_values)


def agree(found: dict[str, Array], expected: dict[str, Array], rows: int) -> None:
    assert list(found) == list(expected)
    for name, array in found.items():
        assert array.dtype == np.float32
        assert array.shape == expected[name][:rows].shape
        np.testing.assert_allclose(array, expected[name][:rows], rtol=0, atol=1e-4)


def test_a_static_model_gives_every_output_by_its_name_and_says_where_it_was(
    compiled: Any, opened: Open, pixel_values: Array, expected: dict[str, Array]
) -> None:
    with opened(compiled(), STATIC) as session:
        assert session.batch == STATIC
        agree(session.run(pixel_values[:STATIC]), expected, STATIC)
        assert {(one.dtype, one.device) for one in session.placed.values()} == {("float32", "npu:0")}
        agree(session(pixel_values), expected, len(pixel_values))


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5])
def test_gears_take_any_batch_filled_up_to_the_next_and_in_pieces_beyond_the_greatest(
    batch: int, compiled: Any, opened: Open, pixel_values: Array, expected: dict[str, Array], acl: Any
) -> None:
    with opened(compiled(GEARS)) as session:
        assert session.batch is None
        forward = session.bind(pixel_values[:batch])
        acl.calls.clear()
        raw = forward()
        pieces = 2 if batch > GEARS[-1] else 1
        assert acl.calls.count("mdl.execute") == acl.calls.count("mdl.set_dynamic_batch_size") == pieces
        agree(session.fetch(raw), expected, batch)


def test_a_bound_batch_is_its_own_whatever_is_bound_after_it(
    compiled: Any, opened: Open, pixel_values: Array, expected: dict[str, Array]
) -> None:
    with opened(compiled(GEARS)) as session:
        first, second = session.bind(pixel_values[:2]), session.bind(pixel_values[2:4])
        raw, other = first(), second()
        agree(session.fetch(raw), expected, 2)
        agree(session.fetch(other), {name: array[2:] for name, array in expected.items()}, 2)
        agree(session.fetch(first()), expected, 2)


def test_running_copies_nothing_from_the_host_and_allocates_nothing(
    compiled: Any, opened: Open, pixel_values: Array, acl: Any
) -> None:
    with opened(compiled(), STATIC) as session:
        forward = session.bind(pixel_values[:STATIC])
        acl.calls.clear()
        forward()
        assert {name for name in acl.calls if "context" not in name} == {"mdl.execute"}


def test_a_batch_that_is_not_bound_any_more_is_freed_though_the_session_is_open(
    compiled: Any, opened: Open, pixel_values: Array, acl: Any
) -> None:
    with opened(compiled(GEARS)) as session:
        before = acl.held()
        for _ in range(3):
            session.run(pixel_values[:3])
        gc.collect()
        assert acl.held() == before


def test_closing_frees_what_is_bound_and_what_was_bound_cannot_be_run_after(
    compiled: Any, opened: Open, pixel_values: Array, acl: Any
) -> None:
    session = opened(compiled(GEARS))
    forward = session.bind(pixel_values)
    raw = forward()
    session.close()
    assert acl.held() == {}
    session.close()
    for use in (forward, lambda: session.fetch(raw), lambda: session.bind(pixel_values)):
        with pytest.raises(InputError, match="the session is closed"):
            use()


def test_what_torch_has_set_up_is_used_and_left_alone(
    compiled: Any, opened: Open, pixel_values: Array, acl: Any
) -> None:
    assert (acl.init(), acl.rt.set_device(0)) == (0, 0)
    own, _ = acl.rt.create_context(0)
    with opened(compiled(), STATIC) as session:
        assert acl.rt.get_context() == (own, 0)
        session.run(pixel_values[:STATIC])
        assert acl.rt.get_context() == (own, 0)
    assert acl.rt.get_context() == (own, 0)
    assert not {"rt.reset_device", "finalize"} & {*acl.calls}
    acl.rt.destroy_context(own)


@pytest.mark.parametrize(
    "call",
    [
        *("init", "rt.set_device", "rt.create_context", "rt.set_context", "mdl.load_from_file"),
        *("mdl.create_desc", "mdl.get_desc", "mdl.get_dynamic_batch", "mdl.get_input_dims"),
        *("mdl.get_input_index_by_name", "mdl.get_output_dims", "rt.malloc", "create_data_buffer"),
        *("mdl.create_dataset", "mdl.add_dataset_buffer", "rt.memcpy", "mdl.set_dynamic_batch_size"),
        "mdl.execute",
    ],
)
def test_a_call_that_fails_is_one_line_with_its_name_and_code_and_nothing_stays_held(
    call: str, compiled: Any, opened: Open, pixel_values: Array, acl: Any
) -> None:
    path = compiled(GEARS)
    acl.fail_next(call, 507011)
    with pytest.raises(EngineError) as caught, opened(path) as session:
        session.run(pixel_values)
    code = "no pointer" if "create_d" in call else "return code 507011"
    assert str(caught.value).startswith(f"acl.{call} refuses model.om | got {code} ")
    assert "\n" not in str(caught.value) and not isinstance(caught.value, MemoryShortError)
    caught.value.__traceback__ = None


@pytest.mark.parametrize(("call", "code"), [("rt.malloc", 207001), ("mdl.load_from_file", 200000)])
def test_too_little_memory_is_told_from_other_refusals(
    call: str, code: int, compiled: Any, opened: Open, pixel_values: Array, acl: Any
) -> None:
    path = compiled(GEARS)
    acl.fail_next(call, code)
    with pytest.raises(MemoryShortError, match="use a smaller batch") as caught, opened(path) as session:
        session.run(pixel_values)
    caught.value.__traceback__ = None


@pytest.mark.parametrize("gears", [(), GEARS], ids=["static", "gears"])
def test_a_model_that_is_not_the_one_of_the_manifest_is_refused(
    gears: Sequence[int], compiled: Any, opened: Open
) -> None:
    path = compiled(gears)
    with pytest.raises(EngineError, match=r"model\.om is not the model .*images \[\d|images \[None"):
        opened(path, 3)


def test_a_batch_that_a_static_model_does_not_take_is_refused(
    compiled: Any, opened: Open, pixel_values: Array
) -> None:
    with (
        opened(compiled(), STATIC) as session,
        pytest.raises(EngineError, match=r"acl refuses model\.om .*got 3 .*expected 2"),
    ):
        session.bind(pixel_values[:3])


def test_a_file_that_is_no_offline_model_is_refused(tmp_path: Path, opened: Open) -> None:
    (tmp_path / "model.om").write_bytes(b"not one")
    with pytest.raises(EngineError, match=r"acl\.mdl\.load_from_file refuses model\.om"):
        opened(tmp_path / "model.om", 1)


def test_a_model_that_is_not_made_yet_says_what_makes_it(tmp_path: Path, opened: Open) -> None:
    with pytest.raises(UnavailableError, match=r"model\.om is not made yet .*run om/atc\.sh"):
        opened(tmp_path / "om" / "model.om", 1)


def test_only_an_npu_with_cann_runs_offline_models(
    small_artifact: Path, size: tuple[int, int], npu: Device, tmp_path: Path
) -> None:
    assert "an NPU alone" in OfflineSession.lack(CPU)
    assert "comes with CANN" in OfflineSession.lack(npu)
    for device in (CPU, npu):
        with pytest.raises(UnavailableError, match="acl cannot run here"):
            OfflineSession(tmp_path / "model.om", device, small_artifact, size, 1)


def test_a_pyacl_without_its_libraries_says_so(
    small_artifact: Path, size: tuple[int, int], npu: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "libascendcl.so: cannot open shared object file"
    (tmp_path / "acl.py").write_text(f"raise ImportError({said!r})")
    (tmp_path / "model.om").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UnavailableError, match=f"acl cannot be imported .*{said}"):
        OfflineSession(tmp_path / "model.om", npu, small_artifact, size, 1)


@pytest.mark.usefixtures("acl")
def test_an_npu_with_cann_lacks_nothing(npu: Device) -> None:
    assert OfflineSession.lack(npu) == ""


def test_the_stand_in_refuses_wrong_use(acl: Any, compiled: Any) -> None:
    assert acl.rt.malloc(4, 0) == (0, 100001)
    assert (acl.init(), acl.init()) == (0, 100002)
    assert acl.rt.malloc(4, 0) == (0, 107002)
    acl.rt.set_device(0)
    context, _ = acl.rt.create_context(0)
    place, code = acl.rt.malloc(4, 0)
    assert code == 0 and acl.create_data_buffer(place, 5) == 0
    host = np.zeros(8, np.uint8)
    assert acl.rt.memcpy(place, 8, host.ctypes.data, 8, 1) == 145012
    assert acl.rt.memcpy(place, 4, host.ctypes.data, 4, 2) == 100000
    assert (acl.rt.free(place), acl.rt.free(place)) == (0, 100000)
    model, code = acl.mdl.load_from_file(str(compiled(GEARS)))
    description = acl.mdl.create_desc()
    assert (code, acl.mdl.get_desc(description, model)) == (0, 0)
    dataset = acl.mdl.create_dataset()
    index, _ = acl.mdl.get_input_index_by_name(description, "ascend_mbatch_shape_data")
    assert acl.mdl.set_dynamic_batch_size(model, dataset, index, 3) == 145013
    assert acl.mdl.execute(model, dataset, dataset) == 145012
    assert (acl.mdl.unload(model), acl.mdl.unload(model)) == (0, 100000)
    for free, thing in ((acl.mdl.destroy_desc, description), (acl.mdl.destroy_dataset, dataset)):
        assert free(thing) == 0
    assert acl.rt.destroy_context(context) == 0


def test_the_stand_in_for_atc_refuses_a_command_that_is_not_atcs(atc: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [atc / "atc", "--modell=x"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 255 and "E10016" in done.stdout
