from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from engines_here import ENGINES_HERE

from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import Manifest
from vconv.catalog.systems import System
from vconv.convert.libraries.readers import network
from vconv.convert.sources.base import Source
from vconv.errors import ArtifactError, UnavailableError, UnknownNameError
from vconv.precisions import PRECISIONS
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.providers import PROVIDERS, Provider
from vconv.runtime.engines.torch_model import TorchSession
from vconv.runtime.engines.variants import DEFAULT_VARIANT, open_variant
from vconv.types import Array

CPU = find_device("cpu")


def test_every_variant_of_an_artifact_is_found_by_its_name(small: Artifact, made: Manifest) -> None:
    for record in made.variants:
        assert small.variant(record.variant) is record


def test_the_default_variant_is_in_every_artifact(small: Artifact) -> None:
    assert small.variant(DEFAULT_VARIANT).batch is None


def test_an_unknown_variant_is_refused_with_the_nearest(small: Artifact) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown variant .*'onnx-fp23'.*onnx-fp32"):
        small.variant("onnx-fp23")


def test_every_variant_opens_with_its_own_engine_size_and_batch(
    small: Artifact, made: Manifest, size: tuple[int, int]
) -> None:
    assert made.size == size
    for record in made.variants:
        with open_variant(small, record, CPU) as session:
            assert (session.engine, session.size, session.batch) == (record.engine, size, record.batch)


@pytest.mark.parametrize("engine", ENGINES_HERE)
def test_a_graph_opens_in_another_engine_when_asked(small: Artifact, engine: str) -> None:
    with open_variant(small, small.variant("onnx-fp32"), CPU, engine) as session:
        assert session.engine == engine


def test_torch_opens_with_exactly_the_patches_that_were_applied(small: Artifact, made: Manifest) -> None:
    with open_variant(small, small.variant("patched-torch-fp32"), CPU) as session:
        assert isinstance(session, TorchSession)
        found = {patch.patch: (patch.sites, patch.carried) for patch in session.patches}
    assert found == {
        patch.name: (patch.sites, patch.carried_by_config) for patch in made.patches if patch.applied
    }


def test_a_patch_that_no_file_carries_is_put_on_when_the_variant_opens(
    small: Artifact, made: Manifest, pixel_values: Array
) -> None:
    corrective = [patch.name for patch in made.patches if patch.corrective]
    record = small.variant("patched-torch-fp32")
    kept = tuple(name for name in record.patches if name not in corrective)
    with (
        open_variant(small, record, CPU) as right,
        open_variant(small, record.model_copy(update={"patches": kept}), CPU) as wrong,
    ):
        first, second = right(pixel_values)["cls"], wrong(pixel_values)["cls"]
    assert (np.linalg.norm(first - second) / np.linalg.norm(first) > 1e-4) == bool(corrective)


def test_a_torch_variant_opens_in_the_precision_that_is_asked_for(
    small: Artifact, pixel_values: Array
) -> None:
    record = small.variant("patched-torch-fp32")
    for precision, dtype in (("fp32", "float32"), ("fp16", "float16"), ("bf16", "bfloat16")):
        with open_variant(small, record, CPU, precision=PRECISIONS[precision]) as session:
            session.run(pixel_values[:1])
        assert {place.dtype for place in session.placed.values()} == {dtype}


def test_the_patched_network_is_the_original_less_what_patches_took(
    small_artifact: Path, small_source: Source, small_system: System, made: Manifest
) -> None:
    original = network(small_source.config, frozenset(small_source.entries))
    patched = Artifact.open(small_artifact).network
    assert patched.layout is original.layout
    assert (patched.head, patched.blocks) == (original.head, 3)
    if small_system.library == "transformers":
        assert patched.config["hidden_act"] == "gelu_python"
    assert len(original.tensors()) - len(patched.tensors()) == made.ledger["dropped"]


def test_an_artifact_without_its_weights_says_how_to_complete_it(
    small_artifact: Path, made: Manifest, tmp_path: Path
) -> None:
    copy = shutil.copytree(small_artifact, tmp_path / "copy")
    (copy / "model.safetensors").unlink()
    for record in made.variants:
        for engine in [""] if record.engine == "torch" else ENGINES_HERE:
            with pytest.raises(ArtifactError, match=r"has no weights .*fix: .*vconv fill .*copy "):
                open_variant(Artifact(copy, made), record, CPU, engine)
    with pytest.raises(ArtifactError, match="has no weights"):
        _ = Artifact.open(copy).network


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize("provider", ["NoSuchExecutionProvider", "CUDAExecutionProvider"])
def test_a_device_that_onnx_runtime_lacks_is_not_quietly_replaced_by_the_cpu(
    small: Artifact, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if provider in onnxruntime.get_available_providers():
        pytest.skip(f"{provider} is installed here")
    monkeypatch.setitem(PROVIDERS, "cpu", Provider(provider, "cpu"))  # type: ignore[arg-type]
    with pytest.raises(UnavailableError, match=f"no {provider}"):
        open_variant(small, small.variant("onnx-fp32"), CPU)
