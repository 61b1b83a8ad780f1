"""The report of a bisection: the stage and operator at which a variant departs from its reference."""

from __future__ import annotations

from typing import Literal

from vconv.types import Status
from vconv.validators.report.document import InputsRow, LimitsUsed, ReferenceRow
from vconv.validators.report.model import SCHEMA_VERSION, Document, Figure, FrozenMapping, Moment, ReportPart


class StageRow(ReportPart):
    """The errors of one stage: of the stage alone, ``own``, and accumulated up to the stage, ``total``."""

    stage: str
    own: Figure
    total: Figure


class OperatorRow(ReportPart):
    """One operator of the worst stage: see :class:`vconv.validators.bisect.matching.MatchedOperator`."""

    operator: str
    node: str
    weights: tuple[str, ...]
    shape: tuple[int, ...]
    counterpart: str
    error: Figure
    agrees: bool
    inputs: tuple[int, ...]


class Bisection(Document):
    """The report of a bisection, with the fields of its JSON file."""

    schema_version: Literal[2] = SCHEMA_VERSION
    time: Moment
    host: str
    artifact: str
    weights: str
    synthetic: bool
    variant: str
    engine: str
    device: str
    simulated: bool
    status: Status
    passed: bool
    limits: LimitsUsed
    bound: float
    reference: ReferenceRow
    inputs: InputsRow
    notes: tuple[str, ...]
    sentence: str
    worst_stage: str
    stages: tuple[StageRow, ...]
    operators: tuple[OperatorRow, ...]
    culprit: OperatorRow | None
    environment: FrozenMapping[str | int]


class BisectionResult(Bisection):
    """The return value of :func:`vconv.bisect`: the report, and the paths of its JSON, log and picture."""

    report: str
    log: str
    picture: str
