"""Policy files: what may stand in one, and the one line that says what may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from diptych.errors import BadRepository
from diptych.policies import Verdict
from diptych.policy_files import fitting, read_policies, read_policy

OURS, THEIRS = "a" * 64, "b" * 64

GOOD = """
name: weapons
version: "3"
templates: ["{}", "a photo of {}"]
concepts:
  - name: gun
    prompts: [a gun, a rifle]
    measure: softmax
    contrast: [a toy]
    threshold: 0.8
    text_threshold: 0.9
    action: block
    severity: 9
  - name: knife
    prompts: [a knife]
    templates: []
    threshold: 0.25
    action: flag
    severity: 3
examples:
  - image: gun.png
    verdict: block
    concepts: [gun]
  - text: a spoon
    verdict: pass
"""


def written(folder: Path, text: str, name: str = "weapons.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_policy_is_what_its_file_says(tmp_path: Path) -> None:
    policy = read_policy(written(tmp_path, GOOD)).policy
    gun, knife = policy.concepts
    assert (policy.name, policy.version) == ("weapons", "3")
    assert (gun.measure, gun.threshold, gun.text_threshold) == ("softmax", 0.8, 0.9)
    assert (knife.measure, knife.threshold, knife.text_threshold) == ("cosine", 0.25, None)
    assert policy.templates_of(gun) == ("{}", "a photo of {}")
    assert policy.templates_of(knife) == ()
    assert [example.verdict for example in policy.examples] == [Verdict.BLOCK, Verdict.PASS]


def swap(old: str, new: str) -> str:
    assert GOOD.count(old) >= 1, old
    return GOOD.replace(old, new, 1)


MALFORMED = [
    (swap("templates:", "colour: red\ntemplates:"), "colour: Extra inputs"),
    (swap("severity: 9", "severity: 9\n    weight: 2"), "concept 'gun': weight: Extra inputs"),
    (swap("name: knife", "name: gun"), "concepts: 'gun' stands twice"),
    (swap("name: gun", "name: Gun!"), "concept 'Gun!': name: "),
    (swap("  - name: gun\n    prompts", "  - prompts"), "concept 0: name: Field required"),
    (swap("threshold: 0.8", "threshold: .nan"), "concept 'gun': threshold: .*finite"),
    (swap("threshold: 0.8", "threshold: .inf"), "concept 'gun': threshold: .*finite"),
    (swap("threshold: 0.8", 'threshold: "0.8"'), "concept 'gun': threshold: .*number"),
    (swap("threshold: 0.8", "threshold: yes"), "concept 'gun': threshold: .*number"),
    (swap("threshold: 0.8", "threshold: 1.5"), "concept 'gun': threshold: 1.5 is not above 0"),
    (swap("threshold: 0.8", "threshold: 0"), "concept 'gun': threshold: 0.0 is not above 0"),
    (swap("text_threshold: 0.9", "text_threshold: 2"), "concept 'gun': text_threshold: 2.0 is not"),
    (swap("threshold: 0.25", "threshold: -2"), "concept 'knife': threshold: -2.0 is not above -1"),
    (swap("    threshold: 0.25\n", ""), "concept 'knife': threshold: is needed"),
    (swap("[a gun, a rifle]", "[]"), "concept 'gun': prompts: .*at least 1"),
    (swap("[a gun, a rifle]", "[a gun, ' ']"), "concept 'gun': prompts.1: is blank"),
    (swap("[a gun, a rifle]", "[a gun, 7]"), "concept 'gun': prompts.1: .*string"),
    (swap("[a gun, a rifle]", "[a gun, a gun]"), "concept 'gun': prompts: 'a gun' stands twice"),
    (swap("[a toy]", "[a gun]"), "concept 'gun': contrast: 'a gun' is among the prompts"),
    (swap("    contrast: [a toy]\n", ""), "concept 'gun': contrast: measure softmax needs"),
    (swap("softmax", "sigmoid"), "concept 'gun': contrast: measure sigmoid does not heed it"),
    (swap("softmax", "closeness"), "concept 'gun': measure: "),
    (swap("templates: []", "templates: [a b]"), "concept 'knife': templates: 'a b' must hold {} "),
    (swap('["{}", "a photo', '["{} {}", "a photo'), "templates: '{} {}' must hold {} once"),
    (swap("action: flag", "action: pass"), "concept 'knife': action: "),
    (swap("action: flag", "action: burn"), "concept 'knife': action: "),
    (swap("    action: flag\n", ""), "concept 'knife': action: Field required"),
    (swap("severity: 3", "severity: 11"), "concept 'knife': severity: .*10"),
    (swap("severity: 3", "severity: 2.5"), "concept 'knife': severity: .*integer"),
    (swap('version: "3"', "version: 3"), "version: .*string"),
    (swap("name: weapons\n", ""), "name: Field required"),
    (swap("name: weapons", f"name: weapons\nfingerprint: {'g' * 64}"), "fingerprint: "),
    (swap("name: weapons", "name: weapons\nother_spaces: maybe"), "other_spaces: "),
    (swap("text: a spoon\n    ", ""), "examples.1.text: is needed, or image"),
    (swap("verdict: pass", "verdict: fine"), "examples.1.verdict: "),
    (swap("concepts: [gun]\n", "concepts: [bow]\n"), "examples: number 0: no concept 'bow'"),
    (swap("verdict: block", "verdict: pass"), r"examples.0.concepts: \['gun'\] does not go with"),
    (swap("severity: 9", "severity: 9\n    severity: 8"), "not YAML: 'severity' stands twice"),
    (swap("concepts:\n  -", "concepts:\n  - 5\n  -"), "concept 0: "),
    (swap("softmax", "logit").replace("0.8", "1.0e+7"), "concept 'gun': threshold: .* at most 1e"),
    (swap('version: "3"', "version: 2026-13-45"), "not YAML: "),
    (swap('version: "3"', "version: 2026-01-05"), "version: .*string"),
    (swap('version: "3"', f"version: {'3' * 65}a"), "version: .*64"),
    (swap("name: knife", f"name: {'k' * 65}"), "concept 'k*': name: "),
    (swap("severity: 9", "severity: 9\n    5: 9"), "concept 'gun': 5: "),
    ("name: *who\n", "not YAML: "),
    ("name: !!python/object/apply:os.getcwd []\n", "not YAML: "),
    ("[" * 5000, "not YAML: "),
    ("name: [", "not YAML: "),
    ("- a\n- b\n", "whole file: "),
    ("", "whole file: "),
]


@pytest.mark.parametrize(("text", "problem"), MALFORMED, ids=[said for _, said in MALFORMED])
def test_what_is_malformed_is_said_in_one_line_with_file_concept_and_field(
    tmp_path: Path, text: str, problem: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(BadRepository, match=f"^{path}: {problem}") as caught:
        read_policies(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_digest_changes_with_what_verdicts_depend_on_and_with_nothing_else(
    tmp_path: Path,
) -> None:
    def digest(text: str) -> str:
        return read_policy(written(tmp_path, text)).policy.digest

    usual = digest(GOOD)
    for same in (
        swap('version: "3"', 'version: "4"\ndescription: other words'),
        swap("text: a spoon", "text: a fork"),
        swap("[a gun, a rifle]", '["a gun", "a rifle"] # as before'),
        swap("    templates: []\n", "").replace("a knife]", "a knife]\n    templates: []"),
    ):
        assert digest(same) == usual
    for other in (
        swap("0.25", "0.250001"),
        swap("a rifle", "a  rifle"),
        swap("a toy", "a doll"),
        swap("a photo of", "a picture of"),
        swap("    templates: []\n", ""),
        swap("action: flag", "action: review"),
        swap("severity: 3", "severity: 4"),
        swap("softmax", "logit"),
        swap("name: knife", "name: blade"),
    ):
        assert digest(other) != usual


def test_bytes_that_are_no_text_are_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(BadRepository, match="not YAML"):
        read_policies(tmp_path)


def test_a_name_stands_in_one_file_for_each_space(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    written(tmp_path, GOOD + f"fingerprint: {OURS}\n", "ours.yml")
    files = read_policies(tmp_path)
    assert [file.path.name for file in files] == ["ours.yml", "weapons.yaml"]
    assert fitting(files, OURS)["weapons"].fingerprint == OURS
    assert fitting(files, THEIRS)["weapons"].fingerprint is None
    written(tmp_path, GOOD, "again.yaml")
    with pytest.raises(BadRepository, match=r"name: 'weapons' stands in again.yaml too"):
        read_policies(tmp_path)


def test_thresholds_of_another_space_are_refused_unless_the_file_allows_them(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, GOOD + f"fingerprint: {OURS}\n")
    file = read_policy(path)
    assert fitting([file], THEIRS) == {}
    assert f"{path}: fingerprint: calibrated on {OURS}, not on {THEIRS}" in str(file.misfit(THEIRS))
    allowed = read_policy(written(tmp_path, GOOD + f"fingerprint: {OURS}\nother_spaces: allow\n"))
    assert list(fitting([allowed], THEIRS)) == ["weapons"]


def test_a_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(BadRepository, match="nowhere: no such folder of policies"):
        read_policies(Path("nowhere"))
