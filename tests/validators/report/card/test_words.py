from __future__ import annotations

import re
import string
from typing import get_args

import pytest

from vconv.artifact.manifest import DIGEST_FILE, ORIGINAL_FOLDER
from vconv.catalog.systems import SYSTEMS
from vconv.convert.ascend import atc
from vconv.convert.ascend.aipp import AIPP_FILE
from vconv.convert.ascend.fusions.switch_file import RESULT_FILE, SWITCH_FILE
from vconv.convert.ascend.routes import ROUTES
from vconv.convert.libraries.readers import READERS
from vconv.convert.libraries.table import LIBRARIES
from vconv.convert.patches.base import Carrier
from vconv.convert.patches.table import PATCHES
from vconv.convert.sources.authors import AUTHORS_LEDGER, AUTHORS_WEIGHTS
from vconv.convert.weights.ledger import LEDGER_FILE
from vconv.types import (
    CONFIG_FILE,
    FROM_IMAGES,
    GRAPHS,
    MANIFEST_FILE,
    PREPROCESSOR_FILE,
    WEIGHTS_FILE,
    Status,
)
from vconv.validators.accuracy.golden import GOLDEN_FILE
from vconv.validators.accuracy.metrics import METRICS
from vconv.validators.report.card.model import FAMILIES
from vconv.validators.report.card.words import LANGUAGES, TEMPLATES, words_of


def test_every_language_has_the_same_words() -> None:
    english, *others = (words_of(language).tables for language in LANGUAGES)
    for other in others:
        assert {name: table.keys() for name, table in english.items()} == {
            name: table.keys() for name, table in other.items()
        }


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_word_is_filled_in_from_the_same_places(language: str) -> None:
    def places(text: str) -> set[str | None]:
        return {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}

    english = words_of("en").tables
    for name, table in words_of(language).tables.items():
        for key, text in table.items():
            assert places(text) == places(english[name][key]), (name, key)
            assert text.strip()


FILES = (
    *(MANIFEST_FILE, DIGEST_FILE, LEDGER_FILE, CONFIG_FILE, PREPROCESSOR_FILE, WEIGHTS_FILE, GOLDEN_FILE),
    *(graph.path for graph in (*GRAPHS, FROM_IMAGES)),
    *(AIPP_FILE, AUTHORS_WEIGHTS, AUTHORS_LEDGER),
    *(f"{ORIGINAL_FOLDER}/{name}" for library in LIBRARIES.values() for name in library.files),
    *(
        f"{route.name}/{name}"
        for route in ROUTES.values()
        for name in (
            *filter(None, (route.graph, route.maker, atc.MODEL_FILE, atc.SCRIPT_FILE)),
            *(atc.KEEP_DTYPE_FILE, atc.OP_PRECISION_FILE, SWITCH_FILE, RESULT_FILE),
        )
    ),
    *("LICENSE", "LICENCE.md", "license-apache.txt", "NOTICE", "Notice.txt"),
)
"""Every file that an artifact may have."""


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_file_of_an_artifact_has_words(language: str) -> None:
    words = words_of(language)
    assert [name for name in FILES if not words.of_file(name, "files")] == []
    assert words.of_file("LICENCE.md", "files") == words.of_file("LICENSE", "files")
    assert words.of_file("logs/1-validate.log", "repository") == words.tables["repository"]["logs/*.log"]
    assert words.of_file("unheard.of", "files", "repository") == ""


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_of_the_tables_is_without_words(language: str) -> None:
    tables = words_of(language).tables
    assert set(PATCHES) == set(tables["patches"])
    assert set(get_args(Carrier)) == set(tables["carriers"])
    assert {*Status, "reference", "not judged"} == set(tables["statuses"])
    assert set(METRICS) <= set(tables["headings"])
    assert {graph.path for graph in GRAPHS} <= set(tables["files"])
    families = {FAMILIES.get(family, family) for family in READERS}
    assert families == set(tables["families"])


def test_both_templates_show_the_same_things_in_the_same_order() -> None:
    def shown(language: str) -> list[str]:
        text = (TEMPLATES / f"card.{language}.md").read_text("utf-8")
        return re.findall(r"\{\{ [^}]*\}\}|^## \d+", text, re.MULTILINE)

    english, chinese = (shown(language) for language in LANGUAGES)
    assert set(english) == set(chinese)
    assert [one for one in english if one.startswith("##")] == [
        one for one in chinese if one.startswith("##")
    ]


def test_chinese_is_punctuated_as_chinese_is() -> None:
    han = "[\\u4e00-\\u9fff]"
    for text in (
        (TEMPLATES / "card.zh.md").read_text("utf-8"),
        (TEMPLATES / "card.zh.toml").read_text("utf-8"),
    ):
        assert not re.findall(f"{han}[,;:!?]|[,;!?]{han}", text)


@pytest.mark.parametrize(
    ("told", "chinese"),
    [
        (
            "too few samples: 10 of onnx-fp32, 30 are the least",
            "样本过少：onnx-fp32 只有 10 个，至少需要 30 个",  # noqa: RUF001
        ),
        (
            "the machine was busy: other processes took 0.86 of 2 cores: more than 0.15",
            "机器繁忙：其他进程占用了 0.86 个核心（共 2 个），合计超过 0.15 个",  # noqa: RUF001
        ),
        ("original-torch-fp32 on cpu", "CPU 上的 original-torch-fp32"),
        (
            "whether the machine was busy is not known: 0.10 s are too short to tell",
            "无法得知机器是否繁忙：0.10 秒过短，无法判断",  # noqa: RUF001
        ),
    ],
)
def test_what_is_said_of_timing_is_said_in_the_cards_language(told: str, chinese: str) -> None:
    assert words_of("en").reword("timing", told) == told
    assert words_of("zh").reword("timing", told) == chinese


def test_every_source_of_published_figures_is_named_in_chinese() -> None:
    sources = {figures.source for system in SYSTEMS.values() for figures in system.published}
    assert len(sources) == 5
    named = [words_of("zh").reword("sources", source) for source in sources]
    # What is left of the English text are names.
    assert all(re.search("(模型卡|适配页面).*与 [CG]PU 上的结果对比$", one) for one in named)
    assert not [one for one in named if re.search("against|page|card", one)]
