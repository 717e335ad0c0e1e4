"""What a run records of itself."""

from __future__ import annotations

import json
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event

from diptych_export.journal import Journal, draw_curves
from diptych_export.recipe import Step


def step(number: int, loss: float = 1.0) -> Step:
    return Step(number, loss, 0.5, 14.0, 1e-3, 2.0, float(number))


def lines(folder: Path) -> list[int]:
    found = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["number"] for line in found]


def test_every_step_is_a_line_at_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run")
    journal.write(step(1))
    [line] = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert Step(**json.loads(line)) == step(1)
    journal.close()


def test_taken_up_earlier_what_came_later_is_cut_off_and_half_a_line_too(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in range(1, 6):
        journal.write(step(number))
    journal.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"number": 6, "lo')
    Journal(tmp_path, after=5).close()
    assert lines(tmp_path) == [1, 2, 3, 4, 5]
    journal = Journal(tmp_path, after=3)
    journal.write(step(4))
    journal.close()
    assert lines(tmp_path) == [1, 2, 3, 4]
    Journal(tmp_path).close()
    assert lines(tmp_path) == []


def test_tensorboard_finds_every_value(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(step(1, loss=0.25))
    journal.close()
    [file] = (tmp_path / "tensorboard").iterdir()
    values = {
        value.tag: value.simple_value
        for event in events(file.read_bytes())
        for value in event.summary.value
    }
    assert values["training/loss"] == 0.25
    assert "training/gradient_norm" in values


def events(content: bytes) -> list[Event]:
    """Records of a TFRecord file: length in 8 bytes, its checksum in 4, data, checksum in 4."""
    found, at = [], 0
    while at < len(content):
        length = int.from_bytes(content[at : at + 8], "little")
        found.append(Event.FromString(content[at + 12 : at + 12 + length]))
        at += 16 + length
    return found


def test_curves_are_a_picture_whatever_there_is_to_show(tmp_path: Path) -> None:
    for count in (0, 1, 250):
        journal = Journal(tmp_path)
        for number in range(1, count + 1):
            journal.write(step(number, loss=1 / number))
        journal.close()
        draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
        assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
