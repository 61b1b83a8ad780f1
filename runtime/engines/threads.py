"""The number of threads that an engine computes with on a CPU."""

from __future__ import annotations

from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_SHARING = "topology/core_cpus_list"
"""The file of a CPU that lists the CPUs of its core, the same for each (Linux: cputopology.rst)."""


def physical_cores(cpus: Path = _CPUS) -> int | None:
    """Return the number of the machine's cores, without their further hardware threads; None if not known.

    Args:
        cpus: the folder in which Linux describes the CPUs.
    """
    try:
        found = {path.read_text() for path in cpus.glob(f"cpu[0-9]*/{_SHARING}")}
    except OSError:
        return None
    return len(found) or None


def of_onnxruntime(intra_op: int) -> int | None:
    """Return the threads of an operator in ONNX Runtime on a CPU; None if not known.

    Its setting 0, the default, stands for one thread on each physical core of the machine, however many of
    them the process may use: https://onnxruntime.ai/docs/performance/tune-performance/threading.html.

    Args:
        intra_op: the session's setting ``intra_op_num_threads``.
    """
    return intra_op or physical_cores()
