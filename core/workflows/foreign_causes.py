"""Why a graph of another exporter fails: by its checks, by hypotheses, or stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vconv.convert.architectures.outputs import output_names
from vconv.convert.libraries import models
from vconv.errors import InputError, VconvError
from vconv.precisions import FP32, PRECISIONS
from vconv.runtime.devices.table import find_device
from vconv.runtime.engines.torch_model import TorchSession
from vconv.runtime.stages.adapted import AdaptedStages
from vconv.runtime.stages.graph import GraphStages
from vconv.runtime.stages.torch_model import TorchStages
from vconv.types import Say, Status, silent
from vconv.validators.accuracy import golden
from vconv.validators.bisect.hypotheses import conclude, diagnosis
from vconv.validators.bisect.localisation import Departure, localise
from vconv.validators.faults import classes
from vconv.validators.report.document import DiagnosisRow
from vconv.validators.report.rows import VariantRow
from vconv.workflows.bisected_variant import IMAGES, bound_of
from vconv.workflows.foreign import ForeignGraph


def explain_failures(
    graphs: Sequence[ForeignGraph], rows: Sequence[VariantRow], say: Say
) -> list[DiagnosisRow]:
    """Name the causes of failures; look for one stage by stage, where no check and no hypothesis names it.

    Args:
        graphs: the graphs.
        rows: the results of their runs.
        say: receives progress lines.
    """
    found = conclude([check for graph in graphs for check in graph.checks], rows)
    for graph in graphs:
        failed = [
            row for row in rows if row.variant == graph.name and row.status is Status.FAILED and row.limit
        ]
        told = any(check.status is Status.FAILED for check in graph.checks)
        if failed and not told and not failed[0].diagnosis and not failed[0].device_simulated:
            found += _located(graph, failed[0], say)
    return found


def _located(graph: ForeignGraph, failed: VariantRow, say: Say) -> list[DiagnosisRow]:
    """Compare a graph with its reference stage by stage; return the cause of its failure, if it is found."""
    assert failed.limit is not None
    say(f"nothing seen explains {graph.name}: looking where it departs")
    try:
        departure = _departure(graph, failed, bound_of(failed.limit, "its limits"))
    except VconvError as error:
        say(f"where it departs was not found: {error.what}, got {error.got}")
        return []
    sentence = departure.sentence(graph.name)
    say(sentence)
    fault = departure.fault
    if fault == "weights" and departure.culprit is not None:
        # The operator where it departs reads a weight, whose role says more.
        weights = departure.matches[departure.culprit].weights
        fault = classes.of_tensor(graph.judge.network, weights[0])
    return [diagnosis(fault, graph.name, sentence)] if fault else []


def _departure(graph: ForeignGraph, failed: VariantRow, bound: float) -> Departure:
    judge, cpu = graph.judge, find_device("cpu")
    views, source = {one.name: one.view for one in graph.judged}, judge.source
    own = tuple(name for name in output_names(judge.network) if name in views)
    if not own:
        raise InputError(
            f"{graph.name} cannot be compared stage by stage",
            got=f"outputs {', '.join(views)}",
            expected="an output of the network itself",
            fix="export the tokens, or another output of the network, as well",
        )
    network = replace(source, outputs=own).network
    inner = GraphStages(
        *(graph.file.path, network, cpu, failed.engine, graph.file.precision),
        names=graph.weights.keys,
        images=graph.contract.input,
    )
    stages = AdaptedStages(inner, graph.contract.given, {name: views[name] for name in own})
    model = models.load(source.folder, network)
    golden.correct(model, source)
    exact = PRECISIONS[FP32]
    with TorchSession(model, network, cpu, (), source.folder, source.image_size, exact) as session:
        images = judge.reference.pixel_values
        count = graph.contract.batch or min(IMAGES, len(images))
        batch = np.ascontiguousarray(np.resize(images, (count, *images.shape[1:])))
        first = (failed.precision, failed.arithmetic) == ("fp32", "fp32")
        return localise(TorchStages(session, plain=True), stages, batch, bound, first, silent)
