"""A network whose layout is derived: the rooms that need to know more say so, and skip."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from examples import EXAMPLES

import vconv
from vconv.artifact import manifest
from vconv.artifact.artifact import Artifact
from vconv.artifact.manifest import Manifest
from vconv.catalog.systems import SYSTEMS, System
from vconv.convert.architectures.base import Capability, Observed
from vconv.convert.architectures.outputs import output_names, output_shapes
from vconv.convert.files.safetensors_file import read_header
from vconv.convert.layouts.derived import Stored, derived
from vconv.convert.libraries.readers import network
from vconv.convert.network import Network
from vconv.convert.sources.base import Source
from vconv.errors import ArtifactError
from vconv.precisions import PRECISIONS
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.variants import open_original, open_variant
from vconv.runtime.stages.table import in_stages
from vconv.types import WEIGHTS_FILE, Status, silent
from vconv.validators.checks.graphs import check_graph
from vconv.validators.checks.inspected_graph import open_graph
from vconv.validators.faults.table import FAULTS
from vconv.validators.faults.workshop import ArtifactCopy
from vconv.validators.report.card.card import render
from vconv.workflows import page_data

Refused = Callable[..., AbstractContextManager[None]]
ROLES, BLOCKS, GRID = (capability.lack for capability in Capability)
ONE_SIZE = "its graphs take one size"
UNKNOWN = {
    "a feature map without the final norm in a graph": "its division into blocks is not known",
    "wrong LayerNorm epsilon in a graph": ROLES,
    "another pooling in a graph": GRID,
    "patches one token early in a graph": GRID,
    "two output names swapped in a graph": GRID,
    "a value bias dropped from a graph": ROLES,
    "a projection bias dropped from a graph": ROLES,
    "stale positions in a graph": ROLES,
    "a graph without registers": GRID,
    "a graph of another size": GRID,
    "a size fixed by the trace": ONE_SIZE,
    "a Resize in a graph": ONE_SIZE,
    "a transposed query, key or value weight": ROLES,
    "a corrupted block of one weight": ROLES,
    "a gate in the place of what it gates": ROLES,
    "the final norm left out of a graph": ROLES,
}
"""Faults that cannot be made where roles, or the tokens, are not known."""


@pytest.fixture
def system() -> System:
    return SYSTEMS["dinov3-vits16"]


def derived_from(net: Network, shapes: dict[str, tuple[int, ...]]) -> Network:
    """The same network, as if all that is known of it had been observed."""
    layout = derived("toy", net.library, (Stored(key, shape) for key, shape in shapes.items()))
    known = Observed(
        channels=net.known.channels,
        labels=0,
        exact_gelu=True,
        outputs=output_names(net),
        gelus=net.blocks,
        kernels=0,
        shapes_at=lambda size: output_shapes(net, 1, size),
    )
    return replace(net, layout=layout, known=known)


@pytest.fixture
def toy(small_artifact: Path) -> Network:
    """The network of an artifact, as if no layout of it were declared."""
    artifact = Artifact.open(small_artifact)
    shapes = {name: entry.shape for name, entry in artifact.entries.items()}
    return derived_from(artifact.network, shapes)


@pytest.fixture
def everywhere(toy: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every room meet that network."""
    for room in ("vconv.artifact.artifact", "vconv.convert.sources.base"):
        monkeypatch.setattr(f"{room}.network", lambda *given: toy)


def test_it_has_every_tensor_and_no_capability(toy: Network, small_artifact: Path) -> None:
    entries = read_header(small_artifact / WEIGHTS_FILE)
    assert {name: tensor.shape for name, tensor in toy.tensors().items()} == {
        name: entry.shape for name, entry in entries.items()
    }
    assert {tensor.role for tensor in toy.tensors().values()} == {""}
    assert toy.capabilities == frozenset()
    assert [toy.lack(one) for one in Capability] == [ROLES, BLOCKS, GRID]
    assert toy.lack() == ""


def test_a_declared_network_has_every_capability() -> None:
    for system in EXAMPLES.values():
        assert network(system.config).lack(*Capability) == ""


@pytest.mark.usefixtures("everywhere")
def test_faults_that_need_to_know_more_are_skipped_and_the_others_are_made(
    small_artifact: Path, tmp_path: Path
) -> None:
    shop = ArtifactCopy.open(Artifact.open(small_artifact), tmp_path / "shop")
    reasons = {fault.name: fault.skipped(shop) for fault in FAULTS}
    of_reduced = {fault.name for fault in FAULTS if fault.of_reduced}
    assert {name for name in of_reduced if not reasons[name].startswith("it has no ")} == set()
    found = {name: reason for name, reason in reasons.items() if reason and name not in of_reduced}
    assert found == UNKNOWN
    made = {fault.name: fault for fault in FAULTS if not reasons[fault.name] and not fault.patches}
    assert len(made) >= 5
    for fault in made.values():
        fault.inject(shop)
        assert shop.altered(), fault.name
        shop.restore()


def test_a_graph_is_not_judged_by_numbers_that_are_not_known(toy: Network, small_artifact: Path) -> None:
    size = manifest.load(small_artifact).size
    checks = check_graph(open_graph(small_artifact, "model.onnx", WEIGHTS_FILE, toy, size, None))
    skipped = {check.name: check.detail for check in checks if check.status is Status.SKIPPED}
    assert skipped == {"model.onnx: epsilon": ROLES}


@pytest.mark.usefixtures("everywhere")
def test_sessions_have_no_stages_and_say_why(
    toy: Network, small_artifact: Path, small_source: Source
) -> None:
    artifact, cpu = Artifact.open(small_artifact), find_device("cpu")
    graph = open_variant(artifact, artifact.variant("onnx-fp32"), cpu)
    torch = open_original(small_source.folder, toy, artifact.manifest.size, cpu, PRECISIONS["fp32"])
    with graph, torch:
        assert in_stages(graph, cpu, toy) == ROLES
        assert in_stages(torch, cpu, toy) == BLOCKS


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("variant", ["onnx-fp32", "patched-torch-fp32"])
def test_bisect_says_in_a_sentence_why_it_cannot(copied: Path, variant: str, refused: Refused) -> None:
    with refused(ArtifactError, "toy cannot be taken apart into blocks", BLOCKS, "vconv validate"):
        vconv.bisect(copied, variant)


def _found(artifact: Artifact, source: Source) -> Any:
    reference = SimpleNamespace(
        pixel_values=np.zeros((1, 3, *artifact.manifest.size), np.float32),
        outputs={"patches": np.zeros((1, 16, 96), np.float32)},
    )
    return SimpleNamespace(artifact=artifact, source=source, reference=reference, inputs={"images": ["one"]})


@pytest.mark.usefixtures("everywhere")
def test_the_page_has_no_maps_and_no_depths_and_says_why(small_artifact: Path, small_source: Source) -> None:
    found = _found(Artifact.open(small_artifact), small_source)
    gallery = page_data.gallery(found)
    candidate: Any = SimpleNamespace(variant="v", engine="e", device=SimpleNamespace(name="cpu"))
    session: Any = None
    looked = gallery.look(candidate, session, found.reference.outputs)
    assert (looked.rows, looked.reason) == (None, GRID)
    depths = page_data.depths(found, quick=False, places=[find_device("cpu")], say=silent)
    assert (depths.given, depths.reason) == ((), BLOCKS)


@pytest.mark.parametrize(
    ("language", "said"), [("en", "the outputs are not a grid of tokens."), ("zh", "输出不是 token 网格。")]
)
def test_a_card_of_a_network_whose_tokens_are_not_known_says_so(
    made: Manifest, language: str, said: str
) -> None:
    variants = []
    for variant in made.variants:
        pooled = {"pooled": variant.contract.outputs["pooled"]}
        contract = variant.contract.model_copy(update={"outputs": pooled})
        variants.append(variant.model_copy(update={"contract": contract}))
    asked = made.model_copy(update={"variants": tuple(variants)})
    other = asked.model_copy(update={"system": made.system.model_copy(update={"family": "resnet"})})
    assert said in render(other, (), language)
    assert not any(said in render(known, (), language) for known in (made, asked))
