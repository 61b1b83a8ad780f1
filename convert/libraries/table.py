"""The table of libraries. A new library is one file and one row here."""

from __future__ import annotations

from collections.abc import Mapping

from vconv.convert.libraries import timm_models, transformers_models
from vconv.convert.libraries.base import Library
from vconv.convert.network import Network

LIBRARIES: Mapping[str, Library] = {
    library.name: library for library in (transformers_models.LIBRARY, timm_models.LIBRARY)
}
"""Every library, by name."""


def library_of(network: Network) -> Library:
    """Return the library that builds a network."""
    return LIBRARIES[network.library]
