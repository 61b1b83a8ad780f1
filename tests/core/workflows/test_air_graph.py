from __future__ import annotations

from pathlib import Path

import pytest

from vconv.artifact import manifest
from vconv.artifact.artifact import Artifact
from vconv.errors import ArtifactError
from vconv.workflows.air_graph import provisional, traced


def test_an_artifact_without_such_a_model_is_refused(small: Artifact) -> None:
    with pytest.raises(ArtifactError, match=r"no offline model that torchair makes .*with --format air"):
        traced(small.folder)


def test_the_manifest_is_there_while_the_model_is_made_and_not_afterwards(
    small: Artifact, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt), provisional(small.manifest, tmp_path):
        assert manifest.load(tmp_path) == small.manifest
        raise KeyboardInterrupt
    assert [*tmp_path.iterdir()] == []
