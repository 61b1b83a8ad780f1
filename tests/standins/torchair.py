"""torchair as it behaves where CANN is installed, of the one function that vconv's script calls.

It does what these files say, in the repository github.com/Ascend/torchair:

- ``docs/zh/ascend_ir/features/advanced/dynamo_export.md``: the call; the graph of one piece, so that an
  ``if`` over data is refused; ``NAME.air`` and ``dynamo.pbtxt``; and ``model_relation_config.json`` if
  ``config.export.experimental.auto_atc_config_generated`` is set.
- ``python/torchair/_ge_concrete_graph/export_utils.py``: parameters and buffers of the model become ``Const``
  by their identity, or ``FileConstant`` with a file each if graph and weights have more than 1848 MiB; any
  other tensor stays ``Data``. ``TORCHAIR_INSIDE`` in the environment is another bound, in bytes.
- ``python/torchair/_ge_concrete_graph/ge_converter/aten/``: ``gelu.py`` (``Gelu``, without ``approximate``,
  and Gelu is the tanh form), ``native_layer_norm.py`` (``LayerNormV4``), ``_softmax.py`` (``SoftmaxV2``).
  Other operators have here the name of the operator of torch, in capitals.
- ``python/torchair/npu_export.py``, ``.../utils.py``: a link as path, or a failure to write, is only logged.
- ``docs/zh/context/``, the page whose name ends with ``fusion_switch_file``: the file must exist.

The .air holds the captured program, in which every GELU is the tanh form, so that it can be run.
``TORCHAIR_FAILS`` lets it fail: ``unsupported``, ``silent`` (it writes nothing), ``unreadable`` (no
``dynamo.pbtxt``).
"""

from __future__ import annotations

import io
import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

MAGIC = b"stand-in air\n"
INSIDE = (2048 - 200) * 1024 * 1024
NAMES = {
    "gelu": "Gelu",
    "erf": "Erf",
    "native_layer_norm": "LayerNormV4",
    "_softmax": "SoftmaxV2",
    "convolution": "Conv2D",
}
logger = logging.getLogger("torchair")


class CompilerConfig:
    """The settings that are used here, under their names."""

    def __init__(self) -> None:
        self.fusion_config = SimpleNamespace(fusion_switch_file=None)
        experimental = SimpleNamespace(auto_atc_config_generated=False)
        self.export = SimpleNamespace(experimental=experimental)


def dynamo_export(
    *args: Any,
    model: torch.nn.Module,
    export_path: str = "export_file",
    export_name: str = "export",
    dynamic: bool = False,
    config: Any = None,
    **kwargs: Any,
) -> None:
    config = config or CompilerConfig()
    switches = config.fusion_config.fusion_switch_file
    if switches is not None and not Path(switches).is_file():
        raise FileNotFoundError(f"fusion_switch_file {switches} does not exist")
    place, fails = Path(export_path), os.environ.get("TORCHAIR_FAILS", "")
    if place.is_symlink():
        logger.error("Target file path %s should not be an symbolic link.", place)
        return
    if dynamic or kwargs:
        raise NotImplementedError("the stand-in takes one static shape")
    held = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    tensors = [value for value in vars(model).values() if isinstance(value, torch.Tensor)]
    outside = [tensor for tensor in tensors if id(tensor) not in held]
    with torch.no_grad():
        program = torch.export.export(model, args, strict=True).run_decompositions()
    if fails == "unsupported":
        raise RuntimeError("Unsupported torch op aten._assert_tensor_metadata.default by ge_converter")
    if fails == "silent":
        logger.info("export error!")
        return
    place.mkdir(exist_ok=True, parents=True)
    names = _lowered(program)
    weights = [*model.parameters(), *model.buffers()]
    nbytes = sum(tensor.nbytes for tensor in weights)
    inside = nbytes <= int(os.environ.get("TORCHAIR_INSIDE", INSIDE))
    if not inside:
        for number, tensor in enumerate(weights):
            tensor.detach().numpy().tofile(place / f"weight_{number}")
    names += ["Data"] * (len(args) + len(outside)) + ["Const" if inside else "FileConstant"] * len(weights)
    content = io.BytesIO()
    torch.export.save(program, content)
    header = json.dumps({"shape": list(args[0].shape)}).encode()
    (place / f"{os.path.split(export_name)[-1]}.air").write_bytes(MAGIC + header + b"\n" + content.getvalue())
    if fails == "unreadable":
        print("dump pbtxt failed, of the stand-in", flush=True)
    else:
        nodes = [f'node {{\n  name: "{name}_{at}"\n  op: "{name}"\n}}\n' for at, name in enumerate(names)]
        (place / "dynamo.pbtxt").write_text("".join(nodes))
    if config.export.experimental.auto_atc_config_generated:
        (place / "model_relation_config.json").write_text("{}")


def _lowered(program: Any) -> list[str]:
    """Name the operator of Ascend IR of every call, and let each GELU compute what Gelu computes."""
    names = []
    for node in program.graph.nodes:
        if node.op == "call_function" and hasattr(node.target, "overloadpacket"):
            name = node.target.overloadpacket.__name__
            names.append(NAMES.get(name, name.title().replace("_", "")))
            if name == "gelu":
                node.kwargs = {"approximate": "tanh"}
    program.graph_module.recompile()
    return names
