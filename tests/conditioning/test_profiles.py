"""Profile files: those shipped, a user's own, and each way in which one can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from diptych.contract import Tower
from diptych.errors import BadRepository, NotFound
from diptych.profile_files import read_profiles
from diptych.profiles import output_of

GOOD = """
name: mine
encoders:
  - {pad: end}
  - {pad: 0, pad_text: "!"}
  - {tower: image}
tensors:
  - {name: prompt_embeds, negative: no_prompt_embeds, encoders: [0, 1], take: states, layer: 1}
  - {name: pooled, encoders: [1], take: embeds}
  - {name: image_embeds, encoders: [2], take: states, layer: 1}
"""

BAD = [
    (GOOD + "extra: 1\n", "profile 'mine': extra: Extra inputs"),
    (GOOD.replace("name: mine", "name: Mine!"), "name: String should match"),
    (GOOD.replace("name: mine\n", ""), "name: Field required"),
    (GOOD + "name: mine\n", "not YAML: 'name' stands twice"),
    ("a: [", "not YAML"),
    ("- a", "whole file: "),
    ("", "whole file: "),
    (GOOD.replace("{pad: end}", "{pad: last}"), "encoders.0.pad"),
    (GOOD.replace("pad: 0", "pad: -1"), "encoders.1.pad"),
    (GOOD.replace("tower: image", "tower: sound"), "encoders.2.tower"),
    (GOOD.replace("{tower: image}", "{tower: image, pad: end}"), "number 2: an image tower has"),
    (GOOD.replace("{pad: end}", '{pad_text: "!"}'), "number 0: pad_text needs a pad"),
    (GOOD.replace("{tower: image}", "{pad: end}"), "more than two text encoders"),
    (GOOD.replace("take: embeds", "take: norm"), "tensor 'pooled': take"),
    (GOOD.replace("name: pooled", "name: prompt_embeds"), "'prompt_embeds' stands twice"),
    (GOOD.replace("no_prompt_embeds", "pooled"), "'pooled' stands twice"),
    (GOOD.replace("encoders: [1]", "encoders: [3]"), "'pooled': encoders: there is no encoder 3"),
    (GOOD.replace("encoders: [1]", "encoders: []"), "tensor 'pooled': encoders"),
    (GOOD.replace("[0, 1]", "[0, 2]"), "'prompt_embeds': encoders: of text and image towers"),
    (GOOD.replace("layer: 1}", "layer: -1}", 1), "tensor 'prompt_embeds': layer"),
    (GOOD.replace("layer: 1}", "layer: true}", 1), "tensor 'prompt_embeds': layer"),
    (GOOD.replace("take: embeds", "take: embeds, layer: 1"), "'pooled': layer: only states"),
    (GOOD.replace("take: embeds", "take: embeds, width: 9"), "'pooled': width: only states"),
    (GOOD.replace("[2], take: states", "[2], take: mask"), "'image_embeds': layer: only states"),
    (GOOD.replace("[2], take: states, layer: 1", "[2], take: pooled"), "an image tower has no"),
    (GOOD.replace("[2], take: states, layer: 1", "[2], take: states"), "only the penultimate"),
    (GOOD.replace("take: embeds", "take: embeds, stacked: true"), "'pooled': stacked: only"),
    (GOOD + "missing_negative: blank\n", "missing_negative"),
]


def test_the_shipped_profiles_name_what_the_pipelines_take() -> None:
    profiles = {one.name: one for one in read_profiles()}
    assert sorted(profiles) == [
        "cascade", "flux", "ip_adapter", "ip_adapter_plus", "kandinsky", "sd15", "sd21", "sd3",
        "sd3-without-t5", "sdxl", "unclip",
    ]  # fmt: skip
    taken = {
        name: [
            output_of(profile.tower_of(rule), rule) or "mask"
            for rule in profile.tensors
            for _ in rule.encoders
        ]
        for name, profile in profiles.items()
    }
    assert taken["sd15"] == taken["sd21"] == ["last_hidden_state"]
    assert taken["sdxl"] == ["penultimate_hidden_state"] * 2 + ["text_embeds"]
    assert taken["sd3"] == ["penultimate_hidden_state"] * 2 + ["text_embeds"] * 2
    assert taken["flux"] == ["pooled"]
    assert taken["unclip"] == ["text_embeds", "last_hidden_state", "mask", "image_embeds"]
    assert taken["cascade"] == ["hidden_state_0", "text_embeds", "image_embeds"]
    assert taken["ip_adapter_plus"] == ["penultimate_hidden_state"]
    skipped = {
        name: output_of(Tower.TEXT, profiles[name].tensors[0], 1) for name in ("sd15", "sdxl")
    }
    assert skipped == {"sd15": "normed_hidden_state_1", "sdxl": "hidden_state_2"}


@pytest.mark.parametrize(("text", "problem"), BAD, ids=[problem for _, problem in BAD])
def test_a_bad_profile_is_refused_by_file_profile_and_field(
    tmp_path: Path, text: str, problem: str
) -> None:
    (tmp_path / "mine.yaml").write_text(GOOD)
    assert read_profiles(tmp_path).get("mine")
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(BadRepository) as caught:
        read_profiles(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'mine.yaml'}: ")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_users_profile_goes_before_the_shipped_one_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text(GOOD.replace("name: mine", "name: sdxl\ndescription: ours"))
    assert read_profiles(tmp_path).get("sdxl").description == "ours"
    (tmp_path / "other.yaml").write_text(GOOD.replace("name: mine", "name: sdxl"))
    with pytest.raises(BadRepository, match=r"other.yaml: name: 'sdxl' stands in mine.yml too"):
        read_profiles(tmp_path)


def test_a_model_that_a_profile_names_must_be_served(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(GOOD.replace("{pad: end}", "{pad: end, model: clip-l}"))
    profiles = read_profiles(tmp_path)
    profiles.check(["other", "clip-l"])
    with pytest.raises(BadRepository, match=r"mine.yaml: profile 'mine': encoders.0.model: 'clip"):
        profiles.check(["other"])
    with pytest.raises(NotFound, match="profile 'yours' is not served; there are: cascade, flux"):
        profiles.get("yours")
    with pytest.raises(BadRepository, match="no such folder of profiles"):
        read_profiles(tmp_path / "nowhere")
