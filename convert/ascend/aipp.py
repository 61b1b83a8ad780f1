"""A configuration of AIPP, the image preprocessing of Ascend's AI cores: uint8 RGB in, pixel values out.

ATC compiles it into an offline model with ``--insert_op_conf``. Neither mode has a resize here, so that the
image must have the size that the graph takes. For each channel, AIPP computes
``(level - mean_chn - min_chn) * var_reci_chn``. There ``mean_chn`` is a whole number, and the other two are
float16. The whole part of the mean is given as ``mean_chn``, and the rest as ``min_chn``: this loses least.

- Static: these numbers are in the file. With gears by size, AIPP neither crops nor pads, and the size in the
  file is 0.
- Dynamic: the program that runs the model sets the numbers before each run, with aclmdlCreateAIPP,
  aclmdlSetAIPPInputFormat, aclmdlSetAIPPSrcImageSize, aclmdlSetAIPPDtcPixelMean, aclmdlSetAIPPDtcPixelMin,
  aclmdlSetAIPPPixelVarReci and aclmdlSetInputAIPP. The file has the greatest size of a batch in bytes, and
  the numbers as comments. Dynamic is slower. With gears by size, the image would have to be of the greatest
  gear.

Sources: Huawei's "ATC Tool User Guide", "AIPP Configuration: Configuration File Template",
https://www.hiascend.com/document/detail/en/canncommercial/800/devaids/atc/atlasatc_16_0025.html, and the
repository github.com/mirror-cann/ge, ``docs/zh/user_guides/atc_tools/AIPP/``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from vconv.convert.libraries.image_processing import ImageProcessing
from vconv.errors import InputError, UnknownNameError
from vconv.types import CHANNELS

AIPP_FILE = "aipp.cfg"
"""The name of the file beside the graphs."""
Mode = Literal["static", "dynamic"]
"""A value of ``--aipp``."""
STATIC: Mode = "static"
DYNAMIC: Mode = "dynamic"
MODES: tuple[Mode, ...] = (STATIC, DYNAMIC)


def require_mode(mode: str | None, with_preprocessing: bool, by_size: bool) -> Mode | None:
    """Check the value of ``--aipp``, and return the mode of the configuration; None if none is made.

    Args:
        mode: the value; None if it was not given, which is ``static``.
        with_preprocessing: whether a configuration is made.
        by_size: whether the offline model has gears by size.

    Raises:
        UnknownNameError: there is no such mode.
        InputError: no configuration is made, or the mode cannot be used with gears by size.
    """
    if mode is None:
        return STATIC if with_preprocessing else None
    chosen = next((one for one in MODES if one == mode), None)
    if chosen is None:
        raise UnknownNameError("--aipp", mode, MODES, fix="choose one of those")
    if not with_preprocessing:
        raise InputError(
            "--aipp is only for an export with a configuration of AIPP",
            got="no --with-preprocessing",
            expected="--with-preprocessing, which makes aipp.cfg",
            fix="add --with-preprocessing, or leave --aipp out",
        )
    if by_size and mode == DYNAMIC:
        raise InputError(
            "--aipp dynamic and --gears-size exclude each other",
            got="both",
            expected="one of them: with dynamic AIPP, ATC's guide allows images of the greatest gear only",
            fix="use --aipp static",
        )
    return chosen


def configuration(
    steps: ImageProcessing,
    size: tuple[int, int],
    mode: str = STATIC,
    batch: int = 1,
    by_size: bool = False,
) -> str:
    """Return the text of an AIPP configuration.

    Args:
        steps: the steps of the image processor; the resize and the crop are left to the caller.
        size: (height, width) of the images.
        mode: ``static`` or ``dynamic``.
        batch: the greatest batch of the model, for dynamic AIPP.
        by_size: whether the model has gears by size.
    """
    height, width = (0, 0) if by_size else size
    if mode == DYNAMIC:
        nbytes = batch * height * width * CHANNELS
        found = [f"aipp_mode: {mode}", "related_input_rank: 0", f"max_src_image_size: {nbytes}"]
        found += [f"# {line}" for line in ("set these before a run:", "input_format: RGB888_U8")]
        found += [f"# {line}" for line in _normalisation(steps)]
    else:
        found = [
            f"aipp_mode: {mode}",
            "related_input_rank: 0",
            "input_format: RGB888_U8",
            f"src_image_size_w: {width}",
            f"src_image_size_h: {height}",
            "crop: false",
            "csc_switch: false",
            "rbuv_swap_switch: false",
            *_normalisation(steps),
        ]
    return "\n".join(["aipp_op {", *(f"  {line}" for line in found), "}", ""])


def _normalisation(steps: ImageProcessing) -> Iterator[str]:
    for channel, (mean, std) in enumerate(zip(steps.mean, steps.std, strict=True)):
        level = mean / steps.factor
        yield f"mean_chn_{channel}: {int(level)}"
        yield f"min_chn_{channel}: {level - int(level):.9g}"
        yield f"var_reci_chn_{channel}: {steps.factor / std:.9g}"
