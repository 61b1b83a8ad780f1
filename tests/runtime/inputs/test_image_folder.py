"""A folder of images: what is found in it, in which order, and what becomes of the rest."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from vconv.errors import InputError
from vconv.runtime.inputs import image_folder
from vconv.runtime.inputs.image_folder import find_images, shown, thumbnail
from vconv.runtime.inputs.images import natural_image


def saved(path: Path, seed: int = 0, size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    natural_image(seed).resize(size).save(path)
    return path


def test_images_of_all_sub_folders_are_sorted_by_their_names(tmp_path: Path) -> None:
    names = ["a/z.jpg", "a b/y.PNG", "b/c/x.jpeg", "w.webp", "ünï/中.png", "A.JPEG"]
    for name in names:
        saved(tmp_path / name)
    (tmp_path / "labels.csv").write_text("a,1")
    (tmp_path / "b" / "notes").write_text("")
    said: list[str] = []
    found = find_images(tmp_path, said.append)
    assert list(found.names) == sorted(names)
    assert (found.others, found.closed) == (("b/notes", "labels.csv"), {})
    assert said == [f"2 files of other suffixes are left out of {tmp_path}: b/notes, labels.csv"]


def test_an_image_is_upright_in_its_own_mode_and_has_the_digest_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    natural_image(1).resize((40, 30)).convert("L").save(path, exif=exif)
    image, digest = find_images(tmp_path).read(0)
    assert isinstance(image, Image.Image)
    assert (image.mode, image.size) == ("L", (30, 40))
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_cannot_be_read_says_why_without_a_name_of_this_machine(tmp_path: Path) -> None:
    whole = saved(tmp_path / "0.png").read_bytes()
    (tmp_path / "1.png").write_bytes(whole[:200])
    (tmp_path / "2.png").write_bytes(b"")
    (tmp_path / "3.png").write_bytes(whole[:60] + b"\xff" * 30 + whole[90:])
    (tmp_path / "4.jpg").write_text("no image")
    (tmp_path / "5.png").symlink_to(tmp_path / "nowhere.png")
    found = find_images(tmp_path)
    read = [found.read(index)[0] for index in range(6)]
    assert isinstance(read[0], Image.Image)
    reasons = [reason for reason in read[1:] if isinstance(reason, str)]
    assert len(reasons) == 5
    assert reasons[1] == reasons[3] == "a file that Pillow does not recognise as a picture"
    assert reasons[4] == "no such file"
    assert not any(str(tmp_path) in reason or " object at " in reason or "\n" in reason for reason in reasons)


def test_an_image_that_goes_away_in_the_meantime_cannot_be_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "0.png")
    found = find_images(tmp_path)
    path.unlink()
    assert found.read(0) == ("no such file", "")


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    saved(tmp_path / "data" / "real" / "0.png")
    saved(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "data" / "elsewhere").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "real" / "up").symlink_to(tmp_path / "data")
    found = find_images(tmp_path / "data")
    assert found.names == ("elsewhere/1.png", "real/0.png")
    assert found.closed == {"real/up": "a link to the folder itself"}


def test_folders_may_be_nested_deeper_than_python_calls(tmp_path: Path) -> None:
    depth = sys.getrecursionlimit() + 100
    saved(tmp_path / "0.png")
    deep = [tmp_path]
    for _ in range(depth):
        deep.append(deep[-1] / "a")
        deep[-1].mkdir()
    saved(deep[-1] / "1.png")
    saved(deep[1] / "2.png")
    try:
        assert find_images(tmp_path).names == ("0.png", "a/2.png", "a/" * depth + "1.png")
    finally:
        (deep[-1] / "1.png").unlink()  # pytest cannot remove so deep a folder
        (deep[1] / "2.png").unlink()
        for folder in reversed(deep[1:]):
            folder.rmdir()


def test_a_folder_that_is_reached_twice_is_read_where_it_is_met_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One folder after another with all that is in it: the order in which links are met decides."""
    saved(tmp_path / "1" / "sub" / "0.png")
    (tmp_path / "1" / "link").symlink_to(tmp_path / "2")
    saved(tmp_path / "2" / "1.png")
    scandir = os.scandir

    def in_order(path: Path) -> object:
        return sorted(scandir(path), key=lambda entry: entry.name)

    monkeypatch.setattr(image_folder.os, "scandir", in_order)
    found = find_images(tmp_path)
    assert found.names == ("1/link/1.png", "1/sub/0.png")
    assert found.closed == {"2": "a link to 1/link"}


def test_a_sub_folder_that_cannot_be_read_and_a_pipe_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "0.png")
    saved(tmp_path / "closed" / "1.png")
    os.mkfifo(tmp_path / "pipe.png")
    scandir = os.scandir

    def refusing(path: Path) -> object:
        if path.name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(image_folder.os, "scandir", refusing)
    found = find_images(tmp_path)
    assert found.names == ("0.png",)
    assert found.closed == {"closed": "Permission denied", "pipe.png": "neither a file nor a folder"}


@pytest.mark.parametrize(
    ("name", "got"),
    [
        ("nothing", "got no such folder"),
        ("file.png", "got a file"),
        ("empty", "got no image"),
        ("texts", "got no image"),
        ("broken", r"got a\.png: a file that Pillow does not recognise as a picture"),
    ],
)
def test_a_folder_without_an_image_is_refused(name: str, got: str, tmp_path: Path) -> None:
    saved(tmp_path / "file.png")
    for folder in ("empty", "texts", "broken"):
        (tmp_path / folder).mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a")
    (tmp_path / "broken" / "a.png").write_text("a")
    (tmp_path / "broken" / "b.png").write_bytes(b"")
    with pytest.raises(InputError, match=got):
        find_images(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("a b/ünï 中.png", "a b/ünï 中.png"),
        ("\x1b[31m\n.png", r"\x1b[31m\n.png"),
        (os.fsdecode(b"\xff.png"), r"\udcff.png"),
    ],
)
def test_a_name_can_be_printed_anywhere(name: str, printed: str) -> None:
    assert shown(name) == printed
    assert shown(name).encode()


@pytest.mark.parametrize(("size", "small"), [((640, 320), (160, 80)), ((30, 40), (30, 40))])
def test_a_thumbnail_is_a_small_picture_that_a_page_can_show(
    size: tuple[int, int], small: tuple[int, int]
) -> None:
    image = natural_image(3).resize(size)
    address = thumbnail(image)
    head, _, body = address.partition(",")
    assert head == "data:image/jpeg;base64"
    drawn = Image.open(io.BytesIO(base64.b64decode(body)))
    assert (drawn.format, drawn.size, image.size) == ("JPEG", small, size)
