"""What an output of a graph may be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from vconv.artifact.records import TensorRecord
from vconv.catalog.systems import System
from vconv.convert.network import Network
from vconv.convert.sources.table import Request, open_source
from vconv.types import Array, Arrays
from vconv.validators.foreign.contract import distance, found_out
from vconv.validators.foreign.images import ways
from vconv.validators.foreign.readings import POOLING, Reading, readings
from vconv.validators.foreign.statement import Statement

PATCHES, WIDTH = 9, 12
SHAPE = (2, 3, 4, 4)
IMAGE = TensorRecord(name="x", dtype="float32", shape=SHAPE)

pytestmark = pytest.mark.parametrize("system", ["vit_small_patch16_dinov3.lvd1689m"], indirect=True)


@pytest.fixture
def network(small_system: System, tmp_path: Path) -> Network:
    return open_source(Request(small_system, "synthetic:1"), tmp_path).network


def outputs_of(network: Network) -> Arrays:
    """Return outputs whose pooled one is the mean of the patches, but for rounding."""
    first = 1 + network.registers
    tokens = np.random.default_rng(0).normal(size=(2, first + PATCHES, WIDTH)).astype(np.float32)
    patches = tokens[:, first:]
    pooled = patches.mean(axis=1) * np.float32(1 + 1e-6)
    return {"pooled": pooled, "cls": tokens[:, 0], "patches": patches, "last_hidden_state": tokens}


def read_as(features: Array, known: Mapping[str, Reading]) -> str:
    """Return what an output of a graph is taken for."""
    (way, *_) = ways(IMAGE, (0.5,) * 3, (0.5,) * 3, Statement())
    images = np.zeros(SHAPE, np.float32)
    contract = found_out(IMAGE, [way], lambda _: {"features": features}, images, known, Statement())
    (one,) = contract.outputs
    return one.reading


def test_a_graph_that_is_a_little_off_has_the_networks_own_pooled_output(network: Network) -> None:
    outputs = outputs_of(network)
    known = readings(network, outputs)
    mean = known["mean of the patches"].value
    off = mean - 400 * (outputs["pooled"] - mean)
    assert distance(off, mean) < distance(off, outputs["pooled"])
    assert read_as(off, known) == "pooled"


def test_a_mean_that_the_network_does_not_pool_by_is_another_pooling(network: Network) -> None:
    outputs = outputs_of(network)
    known = readings(network, {**outputs, "pooled": 2 * outputs["cls"]})
    assert known["mean of the patches"].fault == POOLING
    assert read_as(known["mean of the patches"].value * np.float32(1.0004), known) == "mean of the patches"
