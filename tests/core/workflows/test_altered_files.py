"""Files that commands read back, altered field by field: each command works, or refuses with one sentence.

What a file says is altered, and the hashes that guard it are made to fit, as somebody would who means harm.
No alteration may cost more than seconds, or a gigabyte.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import resource
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import made_reports
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vconv
from vconv.artifact import results
from vconv.artifact.artifact import Artifact, read_config
from vconv.artifact.manifest import DIGEST_FILE
from vconv.cli import render
from vconv.convert.weights.ledger import LEDGER_FILE
from vconv.errors import VconvError
from vconv.runtime.devices.table import find_device
from vconv.runtime.inputs.images import natural_image
from vconv.runtime.inputs.preprocessing import load_processor
from vconv.types import CONFIG_FILE, MANIFEST_FILE, PREPROCESSOR_FILE
from vconv.validators.accuracy import golden, reference_file
from vconv.validators.accuracy.golden import GOLDEN_FILE, Reference
from vconv.validators.accuracy.reference_file import Facts
from vconv.validators.latency import winners
from vconv.validators.report import saving
from vconv.validators.report.dataset import StepNote
from vconv.validators.report.journal import JournalTable, open_journal

ONE = pytest.mark.parametrize("system", ["dinov3-vits16"], indirect=True)
OLD = Path(__file__).parents[2] / "data" / "artifact-0.1.0"
SECONDS = 20
GIGABYTE = 10**9
TABLES = {"image": JournalTable("<i8"), "features": JournalTable("<f4", (4,))}
RAW = "raw JSON stands here"
"""A text that is replaced by what no Python value gives."""

VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "a number": 3,
    "a negative number": -1,
    "a fraction": 0.5,
    "a large number": 10**12,
    "a long number": 10**400,
    "a text": "text",
    "an empty text": "",
    "a format": "{0.__class__} {name} %s",
    "a path": "../../etc/passwd",
    "a long text": "x" * 100_000,
    "a zero byte": "a\0b",
    "half a character": "\ud800",
    "control characters": "\x1b]0;owned\x07\n# heading <script>",
    "an empty list": [],
    "a list": [1, "a", None],
    "an empty object": {},
    "an object": {"a": 1},
}
"""By name: what is put in the place of a value."""
RAWS = {
    "NaN": "NaN",
    "infinity": "-Infinity",
    "an overflow": "1e999",
    "a deep list": "[" * 5_000 + "]" * 5_000,
    "a list of forty levels": "[" * 40 + "]" * 40,
    "a deep object": '{"a":' * 5_000 + "1" + "}" * 5_000,
    "many values": "[" + ",".join(["[]"] * 400_000) + "]",
    "nothing": "",
}
"""By name: what is written in the place of a value, as it stands."""
CHANGES = ("delete", "add", "twice", "repeat")
"""Changes of what surrounds a value: it is left out, has an unknown neighbour, or is there twice."""
Place = tuple[str | int, ...]


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Yield the place of every value in a document."""
    yield place
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*place, key))
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*place, index))


def altered(document: Any, place: Place, change: str) -> bytes:
    """Return a document as JSON with one change."""
    whole = json.loads(json.dumps({"": document}))
    holder: Any = whole
    for step in ("", *place)[:-1]:
        holder = holder[step]
    last = ("", *place)[-1]
    raw = RAWS.get(change, "")
    if change in VALUES:
        holder[last] = VALUES[change]
    elif change in RAWS:
        holder[last] = RAW
    elif change == "twice" and isinstance(holder, dict):
        raw = f"1, {json.dumps(last)}: {json.dumps(holder[last])}"
        holder[last] = RAW
    elif change == "repeat" and isinstance(holder, list):
        holder.insert(int(last), holder[last])
    elif change == "add" and isinstance(holder[last], dict):
        holder[last]["unknown"] = 1
    elif place:
        del holder[last]
    text = json.dumps(whole.get("", {}))
    return text.replace(json.dumps(RAW), raw).encode()


@dataclass(frozen=True)
class TypedFile:
    """A file that commands read.

    Args:
        name: its name.
        read: returns what it says.
        write: writes what it is to say, and makes hashes fit.
        uses: what reads it.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[bytes], None]
    uses: tuple[Callable[[], object], ...]


def header_of(path: Path) -> tuple[Any, bytes]:
    """Return the header of a safetensors file, and what follows."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def put_header(path: Path, header: bytes, rest: bytes) -> None:
    path.write_bytes(struct.pack("<Q", len(header)) + header + rest)


def put_manifest(folder: Path, raw: bytes) -> None:
    (folder / MANIFEST_FILE).write_bytes(raw)
    (folder / DIGEST_FILE).write_text(hashlib.sha256(raw).hexdigest())


def info(folder: Path) -> None:
    render.artifact(vconv.info(folder))


def card(folder: Path) -> None:
    vconv.card(folder, force=True)


def opens(folder: Path) -> None:
    vconv.load(folder).close()


def prepares(folder: Path) -> None:
    load_processor(folder)([natural_image(0).resize((70, 66))])


class Kept:
    """An artifact with reports of every kind, a reference and a journal; altered, read, and put back."""

    def __init__(self, artifact: Path, folder: Path) -> None:
        self.folder = shutil.copytree(artifact, folder / "artifact")
        without_reports = shutil.ignore_patterns("reports", results.RESULTS_FILE)
        self.old = shutil.copytree(OLD, folder / "old", ignore=without_reports)
        self.reference, self.journal = folder / "reference.safetensors", folder / "journal"
        row = made_reports.variant(
            "onnx-fp32",
            made_reports.timing(),
            artifact=str(self.folder),
            outputs={"cls": made_reports.output(cosine=1.0, relative_error=0.0)},
            output_summary={
                "cls": {"shape": [1, 2], "dtype": "float32", "device": "cpu"}
                | {"min": 0.0, "max": 1.0, "mean": 0.5, "first": [0.0]}
            },
            limit={"precision": "fp32", "arithmetic": "fp32", "bounds": {"cosine": 0.9}, "source": "a test"},
            launches={"operators": {"Conv": 1}, "total": 1, "how": "nodes"},
        )
        saving.save(self.folder, made_reports.report(row), "validate", "log")
        compared = {"artifact": str(self.folder), "variant": "onnx-fp32", "batch": 1, "p50_ms": 1.0}
        saving.save(self.folder, made_reports.comparison(compared), "compare", "log")
        saving.save(self.folder, made_reports.bisection(), "bisect", "log")
        made = Artifact.open(self.folder).manifest
        assert made.golden
        inputs, outputs = golden.load(self.folder / GOLDEN_FILE)
        facts = {"device": "cpu", "device_model": "a model", "arithmetic": "fp32", "environment": {}}
        reference_file.save(
            self.reference,
            Reference("original", inputs, outputs, made.golden.floor, {}),
            made,
            Facts.model_validate({**facts, "images": made.golden.images, "time": "20261121T184025"}),
        )
        with open_journal(self.journal, TABLES, StepNote) as journal:
            note = {"content": "a hash", "skipped": [[1, "no image"]]}
            failed = {"features": {"count": 1, "first": [0, "too far"]}}
            journal.append({"image": np.arange(2), "features": np.ones((2, 4))}, {**note, "failed": failed})
        self._before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def restore(self) -> None:
        """Put every file back."""
        for path, content in self._before.items():
            if not path.exists() or path.read_bytes() != content:
                path.write_bytes(content)

    def files(self) -> dict[str, TypedFile]:
        """Return what is altered, by name."""
        described = (partial(info, self.folder), partial(card, self.folder))
        opened = partial(opens, self.folder)
        ranked = (lambda: winners.ranked(self.folder, find_device("cpu")),)
        manifest, ledger, config = (self.folder / name for name in (MANIFEST_FILE, LEDGER_FILE, CONFIG_FILE))
        index, recorded = self.folder / results.RESULTS_FILE, self.folder / GOLDEN_FILE
        processor, old = self.folder / PREPROCESSOR_FILE, self.old / MANIFEST_FILE
        of_old = (partial(info, self.old), partial(card, self.old), partial(opens, self.old))
        found = [
            self._json(manifest, partial(put_manifest, self.folder), (*described, opened)),
            self._json(old, partial(put_manifest, self.old), of_old, "manifest of schema 1"),
            self._json(processor, processor.write_bytes, (described[1], partial(prepares, self.folder))),
            self._json(index, index.write_bytes, (*described, *ranked, lambda: saving.probe(self.folder))),
            self._json(ledger, ledger.write_bytes, (lambda: Artifact.open(self.folder).ledger,)),
            self._json(config, config.write_bytes, (lambda: read_config(self.folder),)),
            self._header(recorded, (lambda: golden.recorded(Artifact.open(self.folder)),)),
            self._header(self.reference, (self._reference,)),
            TypedFile("reference", self._told, self._put_told, (self._reference,)),
            TypedFile("journal", self._line, self._put_line, (self._journal,)),
        ]
        for path in sorted((self.folder / "reports").glob("*.json")):
            found.append(self._json(path, self._put_report(path), (*described, *ranked)))
        return {one.name: one for one in found}

    def _json(
        self,
        path: Path,
        write: Callable[[bytes], object],
        uses: tuple[Callable[[], object], ...],
        name: str = "",
    ) -> TypedFile:
        name = name or path.stem.partition("-")[2] or path.name
        return TypedFile(
            name, lambda: json.loads(self._before[path]), lambda raw: (write(raw), None)[1], uses
        )

    def _header(self, path: Path, uses: tuple[Callable[[], object], ...]) -> TypedFile:
        header, rest = header_of(path)
        return TypedFile(
            f"header of {path.name}", lambda: header, lambda raw: put_header(path, raw, rest), uses
        )

    def _put_report(self, path: Path) -> Callable[[bytes], None]:
        def put(raw: bytes) -> None:
            path.write_bytes(raw)
            index = json.loads(self._before[self.folder / results.RESULTS_FILE])
            for entry in index["reports"]:
                entry["sha256"] = hashlib.sha256((self.folder / entry["file"]).read_bytes()).hexdigest()
            (self.folder / results.RESULTS_FILE).write_text(json.dumps(index))

        return put

    def _told(self) -> Any:
        return json.loads(header_of(self.reference)[0]["__metadata__"]["vconv_reference"])

    def _put_told(self, raw: bytes) -> None:
        header, rest = header_of(self.reference)
        header["__metadata__"]["vconv_reference"] = raw.decode("utf-8", "surrogatepass")
        put_header(self.reference, json.dumps(header).encode(), rest)

    def _line(self) -> Any:
        return json.loads(self._before[self.journal / "journal"].partition(b" ")[2])

    def _put_line(self, raw: bytes) -> None:
        line = hashlib.sha256(raw).hexdigest().encode() + b" " + raw + b"\n"
        (self.journal / "journal").write_bytes(line)

    def _reference(self) -> None:
        reference_file.load(self.reference, Artifact.open(self.folder).manifest)

    def _journal(self) -> None:
        with open_journal(self.journal, TABLES, StepNote) as journal:
            assert len(list(journal.notes())) == journal.steps


@pytest.fixture
def kept(small_artifact: Path, tmp_path: Path) -> Kept:
    return Kept(small_artifact, tmp_path / "kept")


@contextlib.contextmanager
def no_more_than(nbytes: int) -> Iterator[None]:
    """Refuse this process more memory than it has, and some bytes: MemoryError is then raised, or worse."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def hold(file: TypedFile, place: Place, change: str) -> None:
    """Alter a file and use it: nothing may be raised but a sentence, and soon."""
    file.write(altered(file.read(), place, change))
    for use in file.uses:
        start = time.perf_counter()
        with contextlib.suppress(VconvError), no_more_than(GIGABYTE):
            use()
        assert time.perf_counter() - start < SECONDS


@ONE
def test_what_is_not_altered_is_not_refused(kept: Kept) -> None:
    """Whatever refuses everything would pass every other test here."""
    for file in kept.files().values():
        file.write(json.dumps(file.read()).encode())
        with no_more_than(GIGABYTE):
            for use in file.uses:
                use()
        kept.restore()


def test_more_than_a_gigabyte_is_noticed() -> None:
    greedy = TypedFile("", dict, lambda raw: None, (lambda: bytearray(2 * GIGABYTE),))
    with pytest.raises(MemoryError):
        hold(greedy, (), "null")
    assert len(bytearray(2 * GIGABYTE)) == 2 * GIGABYTE


@ONE
@pytest.mark.parametrize("examples", [100, pytest.param(5_000, marks=pytest.mark.full)])
def test_no_altered_file_gives_more_than_a_sentence(
    kept: Kept, examples: int, capsys: pytest.CaptureFixture[str]
) -> None:
    files = kept.files()
    known = {name: list(places(file.read())) for name, file in files.items()}

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def alter(data: st.DataObject) -> None:
        file = files[data.draw(st.sampled_from(sorted(files)))]
        place = data.draw(st.sampled_from(known[file.name]))
        change = data.draw(st.sampled_from((*VALUES, *RAWS, *CHANGES)))
        try:
            hold(file, place, change)
        finally:
            kept.restore()

    alter()
    shown = capsys.readouterr().out
    assert "\x1b]" not in shown


COMMANDS = (("info",), ("card", "--force"), ("validate", "--quick", "--offline"))
SAMPLE = [
    (MANIFEST_FILE, ("variants", 1, "contract"), "an object"),
    (MANIFEST_FILE, ("golden", "floor"), "a large number"),
    (CONFIG_FILE, ("hidden_size",), "a large number"),
    (PREPROCESSOR_FILE, ("size",), "a large number"),
    (results.RESULTS_FILE, ("reports",), "many values"),
]
"""By file: a value, and what is put in its place."""


@ONE
@pytest.mark.full
@pytest.mark.parametrize(("name", "place", "change"), SAMPLE)
def test_the_command_line_gives_no_more_than_a_sentence(
    kept: Kept, name: str, place: Place, change: str
) -> None:
    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (8 * GIGABYTE, 8 * GIGABYTE))

    try:
        file = kept.files()[name]
        assert place in list(places(file.read()))
        file.write(altered(file.read(), place, change))
        for command, *options in COMMANDS:
            ended = subprocess.run(
                [sys.executable, "-m", "vconv", command, str(kept.folder), *options],
                capture_output=True,
                text=True,
                timeout=120,
                preexec_fn=bounded,
            )
            assert ended.returncode in (0, 1, 2), ended.stderr
            assert "Traceback" not in ended.stderr
    finally:
        kept.restore()
