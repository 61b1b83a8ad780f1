"""What an output of a graph may be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vconv.artifact.records import TensorRecord
from vconv.catalog.systems import System
from vconv.convert.network import Network
from vconv.convert.sources.table import Request, open_source
from vconv.types import Arrays
from vconv.validators.foreign.contract import found_out
from vconv.validators.foreign.images import ways
from vconv.validators.foreign.readings import POOLING, readings
from vconv.validators.foreign.statement import Statement

PATCHES, WIDTH = 9, 12
SHAPE = (2, 3, 4, 4)
IMAGE = TensorRecord(name="x", dtype="float32", shape=SHAPE)

pytestmark = pytest.mark.parametrize("system", ["vit_small_patch16_dinov3.lvd1689m"], indirect=True)


@pytest.fixture
def network(small_system: System, tmp_path: Path) -> Network:
    return open_source(Request(small_system, "synthetic:1"), tmp_path).network


def outputs_of(network: Network, mean: bool) -> Arrays:
    """Return outputs whose pooled one is the mean of the patches, summed in float64, or something else."""
    first = 1 + network.registers
    tokens = np.random.default_rng(0).normal(size=(2, first + PATCHES, WIDTH)).astype(np.float32)
    patches = tokens[:, first:]
    pooled = patches.astype(np.float64).mean(axis=1).astype(np.float32) if mean else tokens[:, 0] * 2
    return {"pooled": pooled, "cls": tokens[:, 0], "patches": patches, "last_hidden_state": tokens}


def test_the_networks_own_pooling_is_no_other_pooling(network: Network) -> None:
    assert readings(network, outputs_of(network, mean=False))["mean of the patches"].fault == POOLING
    found = readings(network, outputs_of(network, mean=True))
    assert "mean of the patches" not in found
    assert found["mean of all tokens"].fault == POOLING


def test_a_graph_that_is_a_little_off_has_the_networks_own_pooled_output(network: Network) -> None:
    outputs = outputs_of(network, mean=True)
    off = outputs["pooled"] * np.float32(1.0004)
    (way, *_) = ways(IMAGE, (0.5,) * 3, (0.5,) * 3, Statement())
    known = readings(network, outputs)
    images = np.zeros(SHAPE, np.float32)
    contract = found_out(IMAGE, [way], lambda _: {"features": off}, images, known, Statement())
    assert [one.reading for one in contract.outputs] == ["pooled"]
