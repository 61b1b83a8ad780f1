"""The size of images that a user asks for: fixed, dynamic, or both."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vconv.convert.architectures.base import GREATEST_SIDE
from vconv.errors import InputError

DYNAMIC = "dynamic"
_FORM = re.compile(rf"(?:({DYNAMIC})(?::(?=\d)|$))?(?:(\d{{1,5}}),(\d{{1,5}}))?")


@dataclass(frozen=True)
class SizeRequest:
    """The sizes of images that graphs are asked to take.

    Args:
        fixed: (height, width) of the static graph, and of the images that the image processor makes; None for
            the size of the original's image processor.
        dynamic: whether the dynamic graph takes images of any size.
    """

    fixed: tuple[int, int] | None = None
    dynamic: bool = False

    @classmethod
    def read(cls, text: str) -> SizeRequest:
        """Read ``H,W``, ``dynamic``, or ``dynamic:H,W``.

        Raises:
            InputError: it is none of these.
        """
        match = _FORM.fullmatch(text.replace(" ", ""))
        if match is None or not any(match.groups()):
            raise InputError(
                "--size is not a size",
                got=repr(text),
                expected="H,W, such as 336,224, or dynamic, or dynamic:H,W",
                fix="give height and width in pixels, or the word dynamic",
            )
        fixed = (int(match[2]), int(match[3])) if match[2] else None
        return cls(fixed, bool(match[1]))

    def require_fitting(self, patch: int) -> None:
        """Check that the fixed size consists of whole patches.

        Args:
            patch: side of a patch, in pixels.

        Raises:
            InputError: it does not.
        """
        if self.fixed is None or all(
            patch <= side <= GREATEST_SIDE and side % patch == 0 for side in self.fixed
        ):
            return
        greatest = GREATEST_SIDE // patch
        near = [patch * min(max(1, round(side / patch)), greatest) for side in self.fixed]
        raise InputError(
            "--size does not fit the patches",
            got="{},{}".format(*self.fixed),
            expected=f"multiples of {patch}, at most {greatest * patch}",
            fix="give --size {},{}".format(*near),
        )
