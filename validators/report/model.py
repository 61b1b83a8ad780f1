"""Base classes of every part of a report: frozen models, whose mappings are frozen too."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, NoReturn, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from vconv.artifact.results import TIME

SCHEMA_VERSION: Final = 2
"""Schema version of every new report; see :mod:`vconv.validators.report.upgrade` for older reports."""

Value = TypeVar("Value")


class FrozenDict(dict[str, Value]):
    """A dictionary that cannot be changed after its creation; it can be copied and pickled."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a report cannot be changed: make a new one with model_copy(update=...)")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, Value]]]:
        return type(self), (dict(self),)


FrozenMapping = Annotated[Mapping[str, Value], AfterValidator(FrozenDict)]
"""A mapping from names to values that cannot be changed."""


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _moment(text: str) -> str:
    datetime.strptime(text, TIME)
    return text


Moment = Annotated[str, AfterValidator(_moment)]
"""A time, in UTC: ``20261121T184025``."""
Figure = Annotated[float | None, BeforeValidator(_finite)]
"""A number; None if it is missing, or if JSON cannot hold it: infinite, or NaN."""


class ReportPart(BaseModel):
    """A part of a report: frozen, and limited to the declared keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        from_attributes=True,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )

    def as_json(self) -> dict[str, Any]:
        """Return the part as plain data that JSON can hold, with the keys of the JSON file."""
        return self.model_dump(mode="json")


class Document(ReportPart):
    """A whole report. Subscripts return parts of its JSON form, as when reports were dictionaries."""

    def __getitem__(self, key: str) -> Any:
        """Return a part of the JSON form; deprecated: use the attribute with this name."""
        warnings.warn(
            f"report[{key!r}] is deprecated and will go with the next version: use the attribute .{key}, "
            "or as_json()",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.with_old_keys(self.as_json())[key]

    def with_old_keys(self, document: dict[str, Any]) -> dict[str, Any]:
        """Add the keys that version 0.1.0 used and that have new names now."""
        return document
