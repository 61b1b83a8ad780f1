"""``optimum-cli export onnx``, in a virtual environment that the user names: it pins older libraries."""

from __future__ import annotations

import subprocess
from pathlib import Path

from vconv.convert.exporters.base import Exporter, ExporterError, Job

TASK, CLASSES_TASK = "feature-extraction", "image-classification"


def export(job: Job) -> Path:
    """Export with optimum-cli, in its default configuration.

    Raises:
        ExporterError: there is no optimum-cli in the environment, or it fails.
    """
    if job.environment is None or not (program := job.environment / "bin" / "optimum-cli").is_file():
        raise ExporterError(
            "optimum-cli needs a separate virtual environment",
            got="none" if job.environment is None else f"{job.environment} without bin/optimum-cli",
            expected="a folder with bin/optimum-cli",
            fix="make one with `python -m venv FOLDER` and `FOLDER/bin/pip install optimum-onnx`, and "
            "name it as --exporters optimum=FOLDER",
        )
    task = CLASSES_TASK if job.network.head == "classifier" else TASK
    options = ["--model", str(job.folder.absolute()), "--task", task, "--no-post-process"]
    command = [str(program), "export", "onnx", *options, str(job.target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    graphs = sorted(job.target.glob("*.onnx"))
    if not graphs:
        raise ExporterError(
            "optimum-cli wrote no graph",
            got=f"{(done.stderr.strip().splitlines() or ['no message'])[-1]:.200}",
            expected="a graph",
            fix="leave optimum out of --exporters",
        )
    return graphs[0]


EXPORTER = Exporter("optimum", export, ("transformers",), separate=True)
