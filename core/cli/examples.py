"""The examples below the options in a command's help."""

from __future__ import annotations

from collections.abc import Mapping

_DINOV3, _DINOV2 = "artifacts/dinov3-vits16", "artifacts/dinov2-large"
EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "info": (_DINOV3,),
    "export": (
        "dinov3-vits16 --weights FOLDER",
        "dinov2-large --weights hub:facebook/dinov2-large@main",
        "dinov3-vits16 --weights synthetic --batch 4 --out try",
        "dinov2-small --weights FOLDER --outputs cls,feature_map:3,6,9,12",
    ),
    "validate": (
        f"{_DINOV3} --weights FOLDER",
        f"{_DINOV3} --quick",
        f"{_DINOV3} --device npu-sim --profile 310p",
        f"{_DINOV3} --device all --full",
        f"{_DINOV3} --reference gpu.safetensors",
        f"{_DINOV3} --dataset photographs --quick",
    ),
    "reference": (f"{_DINOV3} --device cuda --out gpu.safetensors",),
    "card": (f"{_DINOV3} --lang zh", f"{_DINOV3} --page gitcode --out dinov3-page"),
    "compare": (f"{_DINOV3} {_DINOV2}", f"{_DINOV3} --engine onnxruntime --engine openvino"),
    "selftest": ("", f"{_DINOV3} --weights FOLDER"),
    "bisect": (_DINOV3, f"{_DINOV3} --variant patched-torch-fp32"),
    "msprobe": (f"{_DINOV3} --device npu-sim --out dumps",),
    "fill": (f"{_DINOV3} --weights FOLDER",),
    "doctor": ("", "--probe --device npu:0"),
}
"""Arguments of example calls, by command."""

HELP = """Convert, export and validate vision transformers for Ascend NPUs.

\b
vconv export dinov3-vits16 --weights FOLDER
vconv validate artifacts/dinov3-vits16 --weights FOLDER

`vconv COMMAND --help` shows the options of a command. In bash, `eval
"$(_VCONV_COMPLETE=bash_source vconv)"` turns on the completion of systems and artifacts. For zsh and fish,
replace bash_source by zsh_source or fish_source.
"""
"""The first paragraphs of `vconv --help`."""
