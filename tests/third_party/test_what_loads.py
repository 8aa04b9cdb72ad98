"""Files that other packages write: loaded with their own features, assumed aloud, or refused.

A case that is marked ``wrong`` has the keys and shapes of another network: what is assumed tells.
"""

import re

import pytest

from tests.third_party.cases import others_warn
from tests.third_party.cases import package as imported
from tests.third_party.what_loads import CASES, FILES, PAGE, seen, seen_features

MODULES = {"open-clip-torch": "open_clip", "sentence-transformers": "sentence_transformers"}


def test_the_page_has_a_row_for_every_case():
    rows = PAGE.read_text(encoding="utf-8").splitlines()
    listed = [each.split(" | ")[0].removeprefix("| ") for each in rows if each.startswith("| ")]
    assert [each for each in listed if each != "file"] == [case.name for case in (*CASES, *FILES)]


def test_every_case_that_another_network_spoils_says_what_is_assumed():
    spoilt = [case for case in CASES if case.wrong]
    assert len(spoilt) >= 10
    assert all(case.assumes and not case.refuses for case in spoilt)


@pytest.mark.parametrize("case", FILES, ids=lambda case: f"{case.package}-{case.name}")
def test_a_file_of_features(case, tmp_path):
    imported(MODULES.get(case.package, case.package))
    found = seen_features(case, tmp_path)
    if case.refuses:
        assert case.refuses in found.refused
        return
    assert found.refused == ""
    assert case.assumes in " ".join(found.assumed)
    assert bool(case.assumes) == bool(found.assumed)
    assert found.difference <= (0.02 if case.name == "half precision" else 1e-6)


@others_warn
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.package}-{case.name}")
def test_a_file_of_another_package(case, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for package in case.package.split(", "):
        imported(MODULES.get(package, package))
    found = seen(case, tmp_path)
    if case.refuses:
        assert re.search(case.refuses, found.refused)
        return
    assert found.refused == ""
    assert len(found.assumed) == len(case.assumes)
    assert all(words in said for words, said in zip(case.assumes, found.assumed, strict=True))
    assert (found.difference > 1e-4) if case.wrong else (found.difference <= 1e-5)
