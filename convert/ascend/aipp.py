"""A configuration of AIPP, the image preprocessing of Ascend's AI cores: uint8 RGB in, pixel values out.

ATC compiles it into an offline model with ``--insert_op_conf``. Static AIPP has no resize, so that the image
must have the size that the graph takes. For each channel, AIPP computes
``(level - mean_chn - min_chn) * var_reci_chn``. There ``mean_chn`` is a whole number, and the other two are
float16. The whole part of the mean is given as ``mean_chn``, and the rest as ``min_chn``: this loses least.

Source: Huawei's "ATC Tool User Guide", "AIPP Configuration: Configuration File Template",
https://www.hiascend.com/document/detail/en/canncommercial/800/devaids/atc/atlasatc_16_0025.html.
"""

from __future__ import annotations

from vconv.convert.libraries.image_processing import ImageProcessing

AIPP_FILE = "aipp.cfg"
"""The name of the file beside the graphs."""


def configuration(steps: ImageProcessing, size: tuple[int, int]) -> str:
    """Return the text of a static AIPP configuration.

    Args:
        steps: the steps of the image processor; the resize and the crop are left to the caller.
        size: (height, width) of the images.
    """
    height, width = size
    lines = [
        "aipp_mode: static",
        "related_input_rank: 0",
        "input_format: RGB888_U8",
        f"src_image_size_w: {width}",
        f"src_image_size_h: {height}",
        "crop: false",
        "csc_switch: false",
        "rbuv_swap_switch: false",
    ]
    for channel, (mean, std) in enumerate(zip(steps.mean, steps.std, strict=True)):
        level = mean / steps.factor
        lines += [
            f"mean_chn_{channel}: {int(level)}",
            f"min_chn_{channel}: {level - int(level):.9g}",
            f"var_reci_chn_{channel}: {steps.factor / std:.9g}",
        ]
    return "\n".join(["aipp_op {", *(f"  {line}" for line in lines), "}", ""])
