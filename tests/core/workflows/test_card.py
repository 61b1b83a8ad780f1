"""The model card of every system, from an artifact and its reports."""

from __future__ import annotations

import copy
import errno
import hashlib
import json
import os
import re
import runpy
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from made_pictures import ORIENTATION, TURNED, veiled
from PIL import Image

import vconv
from vconv.artifact import manifest, results
from vconv.artifact.results import CARD_FILE
from vconv.catalog.systems import System
from vconv.errors import ArtifactError, UnknownNameError
from vconv.runtime.inputs.images import natural_image

LANGUAGES = ("en", "zh")


@pytest.fixture
def carded(small_artifact: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """A validated copy of every shrunk system's artifact, to be changed; validated once."""
    kept = tmp_path_factory.getbasetemp() / "carded" / small_artifact.name
    if not kept.exists():
        shutil.copytree(small_artifact, kept)
        vconv.validate(kept, quick=True, budget=1.0)
        with_made_times(kept)
    return shutil.copytree(kept, tmp_path / "carded")


def report_of(folder: Path) -> tuple[Path, dict[str, Any]]:
    (path,) = (folder / "reports").glob("*-validate.json")
    return path, json.loads(path.read_text())


def put(folder: Path, path: Path, document: Mapping[str, Any]) -> None:
    """Save a report, and enter it in the index as its own."""
    path.write_text(json.dumps(document, indent=2) + "\n")
    index = json.loads((folder / "results.json").read_text())
    entries = {entry["file"]: entry for entry in index["reports"]}
    name = f"reports/{path.name}"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    entries[name] = {
        **entries.get(name, {"file": name, "status": "passed", "simulated": False}),
        "sha256": digest,
    }
    (folder / "results.json").write_text(json.dumps({**index, "reports": list(entries.values())}))


MADE_TIMES = {
    "runs": 20,
    **{"mean_ms": 5.25, "std_ms": 0.25, "min_ms": 5.0, "max_ms": 6.0},
    **{"p50_ms": 5.125, "p50_ms_interval": [5.0, 5.5], "p90_ms": 5.5, "p99_ms": None},
    **{"ms_per_image": 5.25, "images_per_second": 190.5, "warnings": [], "samples_ms": [5.25] * 20},
}


def with_made_times(folder: Path) -> None:
    """Replace the latency in a report: a slow machine measures fewer runs, and then has no percentiles."""
    path, document = report_of(folder)
    for row in document["variants"]:
        for timing in row["latency"]:
            timing |= MADE_TIMES
    put(folder, path, document)


def simulated(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report as one of a simulated NPU, with a prediction of its own figures."""
    found = copy.deepcopy(dict(document))
    found["devices"] = {"npu-sim": "simulated Ascend NPU"}
    found["device_settings"] = {
        "npu-sim": {"profile": "910b", "gelu": "tanh", "convolution": "hf32", "matmul": "fp32"}
    }
    for row in found["variants"]:
        row |= {"device": "npu-sim", "simulated": True, "latency": []}
        metrics = ("relative_error", "vector_relative_error")
        errors = {name: dict.fromkeys(metrics, 0.0123) for name in row["outputs"]}
        alone = {name: dict.fromkeys(metrics, 0.0077) for name in row["outputs"]}
        gelu = 12 if row["variant"].startswith("original") else 0
        row["prediction"] = {
            "arithmetic": {"gelu": "tanh", "convolution": "hf32", "matmul": "fp32"},
            "executed": 120,
            "changed": {"gelu": gelu, "convolution": 1, "matmul": 0},
            "outputs": errors,
            "causes": {
                "gelu": {"changed": gelu, "outputs": alone},
                "convolution": {"changed": 1, "outputs": copy.deepcopy(alone)},
            },
            "rest": {name: dict.fromkeys(metrics, 2e-6) for name in row["outputs"]},
        }
    return found


def text_of(folder: Path, lang: str) -> str:
    vconv.card(folder, lang)
    return (folder / "README.md").read_text("utf-8")


def test_export_writes_a_card_that_says_that_nothing_was_validated(small_artifact: Path) -> None:
    text = (small_artifact / "README.md").read_text()
    assert "Not validated yet" in text
    assert "Synthetic weights" in text
    index = json.loads((small_artifact / "results.json").read_text())
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert index == {"reports": [], "card": {"language": "en", "sha256": digest}}


def test_a_validation_refreshes_the_card_in_its_language(copied: Path) -> None:
    vconv.card(copied, "zh")
    found = vconv.validate(copied, quick=True, budget=1.0)
    text = (copied / "README.md").read_text("utf-8")
    assert found.card == str(copied / "README.md")
    assert Path(found.report).name in text
    assert "尚未验证" not in text
    assert "来源与许可证" in text


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_same_inputs_give_the_same_bytes(carded: Path, tmp_path: Path, lang: str) -> None:
    elsewhere = shutil.copytree(carded, tmp_path / "elsewhere")
    first = text_of(carded, lang)
    assert text_of(carded, lang) == first == text_of(elsewhere, lang)


NUMBERS = [
    (("variants", 1, "latency", 0, "p90_ms"), 123456.78, "123456.78"),
    (("variants", 2, "latency", 0, "images_per_second"), 98765.43, "98765.43"),
    (("variants", 1, "outputs", "cls", "mse"), 9.87e-5, "9.87e-05"),
    (("variants", 2, "outputs", "patches", "vector_relative_error"), 8.76e-6, "8.76e-06"),
    (("variants", 1, "output_summary", "cls", "max"), 345.6789, "345.6789"),
    (("preprocessing_ms_per_image",), 7654.32, "7654.32"),
    (("environment", "cores"), 97531, "97531"),
]


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize(("keys", "value", "written"), NUMBERS, ids=[str(row[0][-1]) for row in NUMBERS])
def test_a_number_that_changes_in_a_report_changes_in_the_card_and_only_there(
    carded: Path, lang: str, keys: tuple[Any, ...], value: float, written: str
) -> None:
    before = text_of(carded, lang)
    path, document = report_of(carded)
    place: Any = document
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    put(carded, path, document)
    after = text_of(carded, lang)
    assert after.count(written) == before.count(written) + 1
    changed = [
        (old, new) for old, new in zip(before.splitlines(), after.splitlines(), strict=True) if old != new
    ]
    assert len(changed) == 1
    old, new = ([cell.strip() for cell in re.split(r"\||,|\uff0c| ms", line)] for line in changed[0])
    assert sum(first != second for first, second in zip(old, new, strict=True)) == 1


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize(
    ("keys", "value", "written"),
    [
        (("variants", 2, "prediction", "outputs", "cls", "relative_error"), 0.0456789, "4.5679 %"),
        (
            ("variants", 0, "prediction", "causes", "gelu", "outputs", "cls", "relative_error"),
            0.0345,
            "3.4500 %",
        ),
        (("variants", 3, "prediction", "rest", "patches", "relative_error"), 0.0234, "2.3400 %"),
        (("variants", 1, "outputs", "cls", "cosine"), 0.987654, "0.987654"),
    ],
)
def test_a_predicted_number_changes_in_its_own_place_alone(
    carded: Path, lang: str, keys: tuple[Any, ...], value: float, written: str
) -> None:
    path, document = report_of(carded)
    found, name = simulated(document), path.with_name("29991231T000000-validate.json")
    put(carded, name, found)
    before = text_of(carded, lang)
    place: Any = found
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    put(carded, name, found)
    after = text_of(carded, lang)
    lines = zip(before.splitlines(), after.splitlines(), strict=True)
    ((old, new),) = [(old, new) for old, new in lines if old != new]
    variant, output = (
        found["variants"][keys[1]]["variant"],
        keys[keys.index("outputs" if "outputs" in keys else "rest") + 1],
    )
    assert f"`{variant}`" in new
    assert f"`{output}`" in new
    cells = [first != second for first, second in zip(old.split("|"), new.split("|"), strict=True)]
    assert sum(cells) == 1
    assert written in new.split("|")[cells.index(True)]


def on_an_accelerator(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report of the CPU, on which all passed, and a GPU with an output that is no number."""
    found = copy.deepcopy(dict(document))
    found["devices"] = {"cpu": "a CPU", "cuda:0": "a GPU"}
    there = copy.deepcopy(found["variants"])
    for row in there:
        row["device"] = "cuda:0"
    broken = there[1]["outputs"]["cls"]
    there[1]["outputs"]["cls"] = {
        **{key: broken[key] for key in ("shape", "floor", "limit")},
        "status": "failed",
        "reasons": ["3 values are NaN or Inf"],
    }
    there[1]["status"] = "failed"
    there[1]["output_summary"]["cls"] |= {"min": None, "max": None, "mean": None, "first": [None, 1.0]}
    found["variants"] += there
    found["status"] = "failed"
    return found


def test_a_verdict_is_that_of_its_own_device_and_a_broken_output_is_told(carded: Path) -> None:
    path, document = report_of(carded)
    put(carded, path, on_an_accelerator(document))
    text = text_of(carded, "en")
    assert "- Validation on `cpu`: passed" in text
    assert "- Validation on `cuda:0`: **failed**" in text
    assert "`patched-torch-fp32`, `cls`: 3 values are NaN or Inf" in text
    assert "| NaN/Inf | NaN/Inf | NaN/Inf | NaN/Inf, 1.0000 |" in text
    assert "- 验证结果\uff08`cuda:0`\uff09\uff1a**未通过**" in text_of(carded, "zh")


def test_a_check_that_failed_stands_under_the_verdict(carded: Path) -> None:
    path, document = report_of(carded)
    document["checks"][0] |= {"status": "failed", "detail": "a file | too many", "fault": "files"}
    put(carded, path, document)
    text = text_of(carded, "en")
    assert "- Validation on `cpu`: **failed**" in text
    assert f"  - failed check: {document['checks'][0]['name']}: a file \\| too many" in text


def test_what_qualifies_the_timing_stands_below_it(carded: Path) -> None:
    path, document = report_of(carded)
    document["ranking"]["refused"] = "too few samples"
    document["variants"][1]["latency"][0]["warnings"] = ["it drifts"]
    document["variants"][1]["peak_memory_is"] = "in process"
    put(carded, path, document)
    text = text_of(carded, "en")
    for line in ("of the timing: too few samples", "`patched-torch-fp32`, batch 1: it drifts"):
        assert f"- {line}\n" in text
    assert "peak memory is of the whole process" in text


def test_an_older_report_that_is_gone_does_not_spoil_a_validation(carded: Path) -> None:
    path, _ = report_of(carded)
    path.unlink()
    said: list[str] = []
    found = vconv.validate(carded, quick=True, budget=1.0, say=said.append)
    assert (found.status, found.card) == ("passed", str(carded / "README.md"))
    assert f"reports/{path.name} is left out: no such file" in said


def test_a_kill_between_card_and_index_leaves_a_card_that_is_vconvs(
    carded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = results.write
    calls: list[Path] = []

    def killed(folder: Path, found: Mapping[str, Any]) -> None:
        calls.append(folder)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(folder, found)

    with monkeypatch.context() as patched:
        patched.setattr(results, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            vconv.card(carded, "zh")
    assert vconv.card(carded)["language"] == "en"


def test_a_system_that_no_catalog_knows_is_exported_validated_and_has_a_card(
    small_system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vconv.catalog.systems.SYSTEMS", {})
    vconv.export(replace(small_system, name="mine"), "synthetic:1", tmp_path / "mine")
    assert vconv.validate(tmp_path / "mine", quick=True).passed
    assert "This is `mine`" in (tmp_path / "mine" / "README.md").read_text()


@pytest.mark.parametrize("name", ["../out/r.json", "reports/x](javascript:alert) <img src=x>.json", 3, None])
def test_an_entry_that_names_no_report_is_named_and_left_out(carded: Path, name: object) -> None:
    kept = json.loads((carded / "results.json").read_text())
    entries = [{**kept["reports"][0], "file": name}]
    (carded / "results.json").write_text(json.dumps({**kept, "reports": entries}))
    found = vconv.card(carded)
    (sentence,) = found["left_out"]
    assert sentence.startswith(f"left out of {carded / 'results.json'}, damaged: entry 1 (file: ")
    assert found["reports"] == [] and "Not validated yet" in (carded / "README.md").read_text()
    assert json.loads((carded / "results.json").read_text())["reports"] == entries


def test_a_language_that_is_not_known_any_more_is_the_usual_one(carded: Path) -> None:
    kept = json.loads((carded / "results.json").read_text())
    (carded / "results.json").write_text(json.dumps({**kept, "card": {**kept["card"], "language": "fr"}}))
    assert vconv.card(carded)["language"] == "en"


@pytest.mark.parametrize("damaged", ['{"reports": [], "card": "x"}', '{"reports": 1}', "{}", "3", "{"])
def test_an_index_that_is_damaged_as_a_whole_is_refused(carded: Path, damaged: str) -> None:
    (carded / "results.json").write_text(damaged)
    with pytest.raises(ArtifactError, match=r"cannot read \S*results.json .*delete it"):
        vconv.card(carded)


def numbers(text: str) -> Counter[str]:
    return Counter(re.findall(r"\d+(?:\.\d+)?(?:e[-+]\d+)?", text))


def test_both_languages_give_the_same_figures(carded: Path) -> None:
    path, document = report_of(carded)
    put(carded, path.with_name("29991231T000000-validate.json"), simulated(document))
    tables = [
        "\n".join(line for line in text_of(carded, lang).splitlines() if line.startswith("|"))
        for lang in LANGUAGES
    ]
    english, chinese = (numbers(re.sub(r"1% 分位|1st percentile", "", text)) for text in tables)
    assert english == chinese
    assert len(english) > 100


def figures(document: Any) -> Iterator[float]:
    if isinstance(document, dict):
        document = list(document.values())
    if isinstance(document, list):
        for value in document:
            yield from figures(value)
    elif isinstance(document, (int, float)) and not isinstance(document, bool):
        yield float(document)


def test_every_figure_of_the_measurements_is_one_of_the_reports(carded: Path) -> None:
    path, document = report_of(carded)
    found = simulated(document)
    put(carded, path.with_name("29991231T000000-validate.json"), found)
    values = {*figures(document), *figures(found)}
    ways = ("{:.2f}", "{:.2e}", "{:.6f}", "{:g}", "{:.0f}", "{:.4f}")
    written = {way.format(value) for value in values for way in ways}
    written |= {f"{value / 1e6:.1f}" for value in values} | {f"{100 * value:.4f}" for value in values}
    text = text_of(carded, "en")
    sections = text[text.index("\n## 7.") : text.index("\n## 9.")]
    rows = [line for line in sections.splitlines() if line.startswith("|") and not line.startswith("|---")]
    rows = [row for row in rows if "| p50 (ms) |" not in row and ", 1st percentile |" not in row]
    cells = [cell for row in rows for cell in row.strip("|").split("|") if "`" not in cell]
    # The one figure that a card computes: how many times less the error of the patched model is.
    factor = {f"{0.0123 / 0.0123:.1f}"}
    shown = {number for cell in cells for number in re.findall(r"\d[\d.]*(?:e[-+]\d+)?", cell)}
    assert shown - written - factor == set()
    assert len(shown) > 50


def test_simulated_and_synthetic_follow_what_they_touch(carded: Path) -> None:
    path, document = report_of(carded)
    put(carded, path.with_name("29991231T000000-validate.json"), simulated(document))
    for lang, words in (("en", ("simulated", "synthetic")), ("zh", ("模拟", "合成"))):
        text = text_of(carded, lang)
        section = text[text.index("\n## 8.") : text.index("\n## 9.")]
        _, _, after = section.partition("npu-sim")
        rows = [line for line in after.splitlines() if line.startswith("| `") and "-fp32" in line]
        rows = [row for row in rows if "batch" not in row and "批大小" not in row]
        judged = [row for row in rows if "card" not in row and "page" not in row]
        assert judged
        assert all(words[0] in row for row in judged), judged[0]
        assert text.count(words[1]) >= 4


def test_a_cause_that_changed_nothing_has_a_dash(carded: Path) -> None:
    path, document = report_of(carded)
    put(carded, path.with_name("29991231T000000-validate.json"), simulated(document))
    rows = [line for line in text_of(carded, "en").splitlines() if "| 1.2300 % |" in line]
    patched = [row for row in rows if "patched-torch-fp32" in row]
    original = [row for row in rows if "original-torch-fp32" in row]
    assert all(row.endswith("| 1.2300 % | - | 0.7700 % | 0.0002 % |") for row in patched)
    assert all(row.endswith("| 1.2300 % | 0.7700 % | 0.7700 % | 0.0002 % |") for row in original)
    assert patched
    assert original


def test_the_newest_report_of_a_device_counts_and_comparisons_do_not(carded: Path) -> None:
    path, document = report_of(carded)
    newer = copy.deepcopy(document)
    newer["environment"]["python"] = "3.99.1"
    newer["time"] = "29991231T000000"
    put(carded, path.with_name("29991231T000000-validate.json"), newer)
    put(carded, path.with_name("29991231T000001-compare.json"), {"schema_version": 1, "rows": []})
    assert vconv.card(carded)["reports"] == ["reports/29991231T000000-validate.json"]
    text = (carded / "README.md").read_text()
    assert "3.99.1" in text
    assert path.name not in text


def test_a_report_that_is_damaged_is_named_and_left_out(carded: Path) -> None:
    path, document = report_of(carded)
    name = f"reports/{path.name}"
    path.write_text(json.dumps({**document, "status": "passed indeed"}))
    assert vconv.card(carded)["left_out"] == [f"{name} is left out: was changed"]
    put(carded, path, {**document, "schema_version": 99})
    found = vconv.card(carded)
    assert found["left_out"] == [f"{name} is left out: is not understood: schema version 99"]
    assert found["reports"] == [] and path.name not in (carded / "README.md").read_text()
    path.unlink()
    assert vconv.card(carded)["left_out"] == [f"{name} is left out: no such file"]


HOSTILE = "x`\n# heading <script>alert(1)</script> [a](javascript:b) \x1b[31m {0.__class__} \u202e"


@pytest.mark.parametrize("lang", LANGUAGES)
def test_text_of_a_manifest_is_no_markup_and_no_command(carded: Path, lang: str) -> None:
    made = manifest.load(carded)
    texts = {name: HOSTILE for name in ("name", "hub_id", "family", "pooling")}
    source = {name: HOSTILE for name in ("label", "identity", "licence", "revision")}
    patches = tuple(patch.model_copy(update={"name": HOSTILE, "proof": HOSTILE}) for patch in made.patches)
    made.model_copy(
        update={
            "vconv": HOSTILE,
            "system": made.system.model_copy(update=texts),
            "source": made.source.model_copy(update={**source, "synthetic": False}),
            "patches": patches,
        }
    ).save(carded)
    (carded / "README.md").unlink()
    text = text_of(carded, lang)
    assert "\x1b" not in text and "\u202e" not in text
    assert [line for line in text.splitlines() if line.startswith("# heading")] == []
    body = text.split("\n---\n", 1)[1]  # the front matter is YAML, which huggingface_hub writes
    fenced = re.sub(r"^```.*?^```$", "", body, flags=re.S | re.M)
    shown = re.sub(r"(?<![`\\])(`+)(?!`).*?(?<!`)\1(?!`)", "", fenced, flags=re.S)
    assert re.findall(r"(?<!\\)<script|(?<!\\)\]\(javascript", shown) == []
    (command,) = re.findall(r"^vconv export .*$", text, re.M)
    assert shlex.split(command)[2] == " ".join(HOSTILE.split()).replace("\x1b", "\\x1b").replace(
        "\u202e", "\\u202e"
    )


def test_a_card_that_was_changed_by_hand_is_left_alone(copied: Path) -> None:
    (copied / "README.md").write_text("mine\n")
    said: list[str] = []
    assert vconv.validate(copied, quick=True, budget=1.0, say=said.append).card is None
    assert (copied / "README.md").read_text() == "mine\n"
    assert any("changed by hand" in line for line in said)
    with pytest.raises(ArtifactError, match="is not vconv's"):
        vconv.card(copied)
    vconv.card(copied, force=True)
    assert (copied / "README.md").read_text().startswith("---\n")


def test_an_unknown_language_is_a_sentence(small_artifact: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown language | got 'fr' | expected one of en, zh"):
        vconv.card(small_artifact, "fr")


def test_what_others_wrote_is_text_and_no_markup(carded: Path) -> None:
    path, document = report_of(carded)
    hostile = "a | b <script>alert(1)</script> `c` [d](e)\nf"
    document["variants"][1]["reason"] = hostile
    document["inputs"]["images"] = [hostile]
    document["environment"]["torch"] = hostile
    put(carded, path, document)
    text = text_of(carded, "en")
    assert "<script>" not in text
    assert text.count(r"a \| b \<script\>alert(1)\</script\> \`c\` \[d\](e) f") == 3


@pytest.mark.every_system
@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_front_matter_is_what_hubs_read(carded: Path, lang: str) -> None:
    made = manifest.load(carded)
    data = ModelCard(text_of(carded, lang)).data
    assert data.library_name == made.system.library
    assert data.pipeline_tag == "image-feature-extraction"
    assert {"vconv", "ascend", "npu", "onnx", "synthetic-weights"} <= set(data.tags)
    assert (data.license, data.base_model) == (None, None)


def turned_veil(path: Path) -> None:
    """Save a picture with transparency that is turned by its EXIF orientation."""
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED
    veiled("RGBA").save(path, exif=exif)


def uncommented(script: str) -> str:
    return re.sub(r"# .*?(?=$|: \[)", "#", script, flags=re.MULTILINE)


@pytest.mark.every_system
@pytest.mark.parametrize(
    ("script", "picture"),
    [(0, turned_veil), (1, turned_veil), (2, lambda path: natural_image(7).save(path))],
    ids=["vconv", "library", "onnxruntime"],
)
def test_the_scripts_run_and_give_what_the_artifact_gives(
    carded: Path,
    tmp_path: Path,
    script: int,
    picture: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", text_of(carded, "en"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    chinese = re.findall(r"^```python\n(.*?)^```", text_of(carded, "zh"), re.MULTILINE | re.DOTALL)
    assert [uncommented(one) for one in chinese] == [uncommented(one) for one in blocks]
    photograph = tmp_path / "photograph.png"
    picture(photograph)
    program = tmp_path / "inference.py"
    program.write_text(blocks[script])
    monkeypatch.chdir(carded)
    monkeypatch.setattr(sys, "argv", ["inference.py", str(photograph)])
    found = runpy.run_path(str(program))["outputs"]
    with vconv.load(carded) as session:
        expected = session([Image.open(photograph)])
    printed = capsys.readouterr().out
    compared = [name for name in expected if name in found]
    assert "last_hidden_state" in compared
    for name in compared:
        np.testing.assert_allclose(np.asarray(found[name]), expected[name], rtol=1e-3, atol=2e-5)
        assert f"{name} (" in printed


def test_agreement_on_a_folder_of_images_stands_in_the_card_and_on_the_page(
    copied: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(4):
        natural_image(20 + seed).resize((96, 64)).save(folder / f"{seed}.png")
    (folder / "torn.png").write_bytes(b"no image")
    found = vconv.validate(copied, dataset=folder, quick=True, budget=1.0)
    dataset = found.dataset
    assert dataset is not None
    assert (dataset.images, [row.image for row in dataset.skipped]) == (4, ["torn.png"])
    text = (copied / "README.md").read_text()
    section = text[text.index("Over 4 images of a folder (skipped: 1)") :]
    for row in dataset.variants:
        for output, of in row.outputs.items():
            errors = of.vector_relative_error
            cells = [f"{of.cosine[key]:.6f}" for key in ("p1", "p50")]
            cells += [f"{errors[key]:.2e}" for key in ("p50", "p99", "p100")]
            cells += [f"{row.neighbours.agreement:.6f}", "-"]
            assert f"| `{row.variant}` | `{output}` | {' | '.join(cells)} |" in section
    page = Path(found.page).read_text()
    for worst in dataset.worst:
        assert worst.thumbnail and worst.thumbnail in page
    assert "torn.png" in page


def test_a_card_that_may_not_be_read_does_not_spoil_a_validation(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("vconv.workflows.card.sha256_of", refuse)
    lines: list[str] = []
    report = vconv.validate(copied, quick=True, say=lines.append)
    assert (report.passed, report.card) == (True, None)
    said = f"README.md is left as it was: [Errno 13] Permission denied: '{copied / CARD_FILE}'"
    assert lines[-1] == said


def test_a_card_that_is_no_file_is_not_replaced(copied: Path) -> None:
    (copied / CARD_FILE).unlink()
    os.mkfifo(copied / CARD_FILE)
    with pytest.raises(ArtifactError, match=r"README.md is in the way .* got a named pipe"):
        vconv.card(copied, force=True)
    assert (copied / CARD_FILE).is_fifo()


def test_a_card_of_a_library_that_is_not_known_is_refused(carded: Path) -> None:
    made = manifest.load(carded)
    made.model_copy(update={"system": made.system.model_copy(update={"library": "../../page"})}).save(carded)
    with pytest.raises(UnknownNameError, match="unknown library"):
        vconv.card(carded)
