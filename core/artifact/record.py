"""What every record of a manifest is made of: the base of all records, and the types of their fields."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _inside(name: str) -> str:
    """Return a path, or refuse it if it could lead out of the artifact on any operating system."""
    parts = name.split("/")
    if {"", ".", ".."} & set(parts) or set(name) & set("\\:\0"):
        raise ValueError("not a path inside the artifact")
    return name


Inside = Annotated[str, AfterValidator(_inside)]
"""A path inside the artifact, with ``/`` between its parts. Every record identifies a file by this path."""


Count = Annotated[int, Field(ge=0, lt=2**63)]
"""A number of things, such as bytes."""
Length = Annotated[int, Field(ge=1, lt=2**31)]
"""The length of an axis."""
Side = Annotated[int, Field(ge=1, le=2**16)]
"""The height or width of an image: the formats of images go no further."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A hash in hexadecimal."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A part of a whole."""


class Record(BaseModel):
    """A frozen part of a manifest; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
