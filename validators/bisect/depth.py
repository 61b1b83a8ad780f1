"""Error against depth: how far a variant's output is from the reference's after each block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vconv.convert.network import Network
from vconv.errors import VconvError
from vconv.runtime.engines.base import Session
from vconv.runtime.stages.base import Stages
from vconv.runtime.stages.table import in_stages
from vconv.types import INPUT, Array, Arrays
from vconv.validators.bisect.localisation import distance, traversed
from vconv.validators.outcome import Looked
from vconv.validators.report.rows import DepthRow
from vconv.validators.validation import Candidate

QUICK = "not measured: --quick leaves it out"
NO_ORIGINAL = "the original's weights are not here, and its outputs between blocks were not recorded"


@dataclass(frozen=True)
class Depths:
    """The reference's outputs after each stage, to compare variants with; or why there are none.

    Args:
        pixel_values: the image that is used, float32 (1, 3, H, W).
        given: the reference's outputs, by stage, in order.
        network: the patched network.
        reason: why there is nothing to compare variants with; empty if there is.
    """

    pixel_values: Array | None = None
    given: tuple[tuple[str, Arrays], ...] = ()
    network: Network | None = None
    reason: str = ""

    @classmethod
    def of(cls, reference: Stages, pixel_values: Array, network: Network) -> Depths:
        """Run a reference stage by stage on the first image of a batch, float32 (N, 3, H, W)."""
        one = pixel_values[:1]
        return cls(one, tuple((name, found) for name, _, found in traversed(reference, one)), network)

    def look(self, candidate: Candidate, session: Session, outputs: Arrays) -> Looked[DepthRow]:
        """Measure a variant's error after each stage, run on the output of its previous stage.

        Args:
            candidate: the variant.
            session: the open session of the variant.
            outputs: the outputs of the whole variant; not used here.

        Returns:
            The vector relative error of each stage; or the reason why it was not measured.
        """
        if self.network is None:
            return Looked(None, self.reason)
        try:
            stages = in_stages(session, candidate.device, self.network)
            if isinstance(stages, str):
                return Looked(None, stages)
            return Looked(self._errors(stages, session.batch or 1), "")
        except VconvError as error:
            return Looked(None, f"{error.what}: {error.got}")

    def _errors(self, stages: Stages, batch: int) -> tuple[DepthRow, ...]:
        assert self.pixel_values is not None
        found: Arrays = {INPUT: np.repeat(self.pixel_values, batch, axis=0)}
        rows = []
        for place, (name, expected) in enumerate(self.given):
            found = stages.run(place, found)
            first = {output: value[:1] for output, value in found.items()}
            rows.append(DepthRow(stage=name, error=distance(first, expected)))
        return tuple(rows)
