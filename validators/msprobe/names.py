"""Names of dumped tensors, as `msprobe offline_dump` gives them and as its comparison reads them.

Sources: ``infer/offline/compare/msquickcmp/common/dump_data.py`` and ``onnx_model/onnx_dump_data.py`` there
for what is written; ``msaccucmp/cmp_utils/reg_manager.py``, ``cmp_utils/constant/const_manager.py`` and
``dump_parse/dump.py`` for what is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx

LONGEST = 255
"""The greatest number of characters of a file's name; a longer one is in a table beside the files."""
MAPPING_FILE = "mapping.csv"
"""That table: the name of a file, a comma, the name that it would have."""
QUANTISED = (
    *("_quant", "_quant_layer", "_anti_quant", "_anti_quant_layer", "_weight_quant"),
    *("_dequant", "_dequant_layer"),
    *("AscendQuant", "AscendWeightQuant", "AntiQuant", "AscendDequant"),
)
"""Parts of a name by which msprobe takes all files of a folder for those of a quantised model."""
_REFUSED = re.compile(r"[^A-Za-z0-9_-]")
_SHORT = 120
"""Characters of an operator's name in the name of a target file, which no table can replace."""


def in_file(name: str) -> str:
    """Return a node's name as msprobe has it in the name of a file."""
    return name.replace(".", "_").replace("/", "_")


@dataclass(frozen=True)
class NodeName:
    """The names of one node.

    Args:
        node: its name in the graph, or ``OPERATOR_POSITION`` as msprobe calls a node without one.
        file: its name in names of files, unique among the nodes.
    """

    node: str
    file: str

    @property
    def origin(self) -> str:
        """The name by which a mapping of operators leads to its files."""
        return self.node if in_file(self.node) == self.file else self.file

    @property
    def renamed(self) -> bool:
        """Whether a mapping that others made, with the node's own name, leads to no file."""
        return self.origin != self.node

    @property
    def operator(self) -> str:
        """Its name as an operator of an offline model, short enough for the name of a target file."""
        return self.origin if len(self.file) <= _SHORT else self.file[-_SHORT:]


def node_names(nodes: Iterable[onnx.NodeProto]) -> list[NodeName]:
    """Return the names of a graph's nodes, in order.

    msprobe replaces ``.`` and ``/`` by ``_``. Where that gives one name to two nodes, a character that its
    reader refuses, or a word by which it takes the whole folder for that of a quantised model, the name is
    changed further: then no file is compared that belongs to another node.
    """
    found: list[NodeName] = []
    used: set[str] = set()
    for position, node in enumerate(nodes):
        own = node.name or f"{node.op_type}_{position}"
        plain = _REFUSED.sub("_", in_file(own))
        if any(word in plain for word in QUANTISED):
            plain = re.sub("(?i)quant", "qnt", plain)
        chosen, count = plain, 2
        while chosen[-_SHORT:] in used:
            chosen, count = f"{plain}_{count}", count + 1
        used.add(chosen[-_SHORT:])
        found.append(NodeName(own, chosen))
    return found


def golden_file(name: str, index: int, timestamp: int) -> str:
    """Return the name of the file of one output of a node: ``NAME.INDEX.MICROSECONDS.npy``."""
    return f"{name}.{index}.{timestamp}.npy"


def target_file(operator_type: str, name: str, task: int, timestamp: int) -> str:
    """Return the name of the file of an operator: ``TYPE.NAME.TASK.STREAM.MICROSECONDS``, in stream 1."""
    return f"{operator_type}.{in_file(name)}.{task}.1.{timestamp}"


def shortened(wanted: str, number: int, timestamp: int) -> str:
    """Return the name of a file whose wanted name is too long: digits alone, as msprobe writes it."""
    return wanted if len(wanted) <= LONGEST else f"{timestamp}{number}.npy"


def mapping_text(files: Mapping[str, str]) -> str:
    """Return the text of :data:`MAPPING_FILE`.

    Args:
        files: the name of each file by the name that it would have.
    """
    return "".join(f"{file},{wanted}\n" for wanted, file in files.items())
