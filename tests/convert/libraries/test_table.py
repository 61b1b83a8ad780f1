from __future__ import annotations

from vconv.catalog.systems import SYSTEMS, System
from vconv.convert.libraries.readers import READERS, network
from vconv.convert.libraries.table import LIBRARIES, library_of


def test_every_library_is_listed_under_its_own_name() -> None:
    assert {name: library.name for name, library in LIBRARIES.items()} == {name: name for name in LIBRARIES}


def test_every_reader_has_a_library_and_every_library_a_layout_and_a_system() -> None:
    assert {reader.library for reader in READERS.values()} == set(LIBRARIES)
    assert {system.library for system in SYSTEMS.values()} == set(LIBRARIES)


def test_a_network_is_built_by_its_systems_library(system: System) -> None:
    assert library_of(network(system.config)).name == system.library


def test_every_librarys_first_file_is_the_configuration() -> None:
    assert {library.files[0] for library in LIBRARIES.values()} == {"config.json"}


def test_a_library_without_a_processor_file_has_none_in_the_catalog(system: System) -> None:
    has_file = "preprocessor_config.json" in LIBRARIES[system.library].files
    assert bool(system.preprocessor) is has_file
