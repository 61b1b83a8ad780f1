from __future__ import annotations

from pathlib import Path

import pytest

from vconv.runtime.doctor.cann import PAIRS, find_toolkit, goes_with


def write(file: Path, text: str = "") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_no_toolkit_is_none(tmp_path: Path) -> None:
    assert find_toolkit({}, [tmp_path]) is None
    assert find_toolkit({"ASCEND_HOME_PATH": str(tmp_path / "gone")}, [tmp_path]) is None


@pytest.mark.parametrize("name", ["ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"])
def test_the_toolkit_that_the_environment_names_goes_before_the_usual_ones(name: str, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "usual" / "cann").mkdir(parents=True)
    found = find_toolkit({name: str(tmp_path / "own")}, [tmp_path / "usual"])
    assert found is not None and found.folder == tmp_path / "own" and found.sourced


@pytest.mark.parametrize(
    ("folder", "script"),
    [("cann", "cann/set_env.sh"), ("ascend-toolkit/latest", "ascend-toolkit/set_env.sh")],
    ids=["from 8.5 on", "before"],
)
def test_an_installed_toolkit_is_found_with_its_script(folder: str, script: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir(parents=True)
    found = find_toolkit({}, [tmp_path])
    assert found is not None and found.folder == tmp_path / folder
    assert (found.set_env, found.sourced) == (None, False)
    write(tmp_path / script)
    found = find_toolkit({}, [tmp_path])
    assert found is not None and found.set_env == tmp_path / script


INFO = "package_name=Ascend-cann-toolkit\nversion=9.0.0\ninnerversion=V100R001\narch=aarch64\n"
COMPONENT = "Version=7.6.0.1.220\nversion_dir=8.0.0\ntimestamp=1\n"


@pytest.mark.parametrize(
    ("files", "version"),
    [
        ({"aarch64-linux/ascend_toolkit_install.info": INFO, "opp/version.info": COMPONENT}, "9.0.0"),
        ({"x86_64-linux/ascend_toolkit_install.info": INFO}, "9.0.0"),
        ({"opp/version.info": COMPONENT}, "8.0.0"),
        ({"version.info": "Version=8.5.0\n"}, "8.5.0"),
        ({"opp/version.info": "timestamp=1\n"}, ""),
        ({}, ""),
    ],
    ids=["toolkit and component", "x86", "component", "plain", "no version", "no file"],
)
def test_the_version_is_the_toolkits_own(files: dict[str, str], version: str, tmp_path: Path) -> None:
    for name, text in files.items():
        write(tmp_path / "cann" / name, text)
    (tmp_path / "cann").mkdir(exist_ok=True)
    found = find_toolkit({}, [tmp_path])
    assert found is not None and found.version == version


@pytest.mark.parametrize(
    ("torch_npu", "cann", "fits"),
    [
        ("2.9.0", "8.5.0", True),
        ("2.9.0.post2", "9.0.0", True),
        ("2.9.0.post6", "9.1.0", True),
        ("2.9.0.post6", "9.1.0.1", True),
        ("2.9.0.post8", "9.1.3", True),
        ("2.9.0.post8", "9.10.0", False),
        ("2.9.0.post2", "8.5.0", False),
        ("2.13.0", "9.1.0", None),
        ("2.9.0", "", None),
    ],
)
def test_a_pair_is_known_to_fit_or_not_or_is_not_known(torch_npu: str, cann: str, fits: bool | None) -> None:
    assert goes_with(torch_npu, cann) is fits


def test_every_pair_is_of_a_torch_that_vconv_supports() -> None:
    assert all(tuple(map(int, version.split(".")[:2])) >= (2, 9) for version in PAIRS)
