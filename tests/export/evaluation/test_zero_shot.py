"""Pictures are of the class whose templates they are nearest to, and every doubt counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest

from diptych.contract import Matrix
from diptych.preprocess.images import decode_image
from diptych_export.data.drawing import picture
from diptych_export.data.pairs import Reject
from diptych_export.data.scenes import TRAINING, one
from diptych_export.errors import BadData
from diptych_export.evaluation.labelled import Labelled, Labels, labels
from diptych_export.evaluation.zero_shot import ZeroShot, class_vectors, zero_shot
from diptych_export.inference import Inference, opened
from tests.drawing import encoded
from tests.export.train.files import tar
from tests.serving import SHAPES

CLASSES = ("blue square", "green triangle", "red circle", "yellow star")
TEMPLATES = ("a {}", "a photo of a {}", "there is a {}")
EACH = 6  # pictures of a class


def drawn(name: str, number: int) -> bytes:
    colour, shape = name.split()
    assert (colour, shape) in TRAINING or name in CLASSES
    return encoded(picture(one(Random(f"{name}/{number}"), (colour, shape)), 96))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("labelled")
    for name in CLASSES:
        own = root / name.replace(" ", "_")
        own.mkdir()
        for number in range(EACH):
            (own / f"{number}.png").write_bytes(drawn(name, number))
    (root / "red_circle/notes.txt").write_text("no picture")
    return root


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures; classes told by number and by name."""
    members = []
    for label, name in enumerate(CLASSES):
        for number in range(EACH):
            key = f"{label}-{number}"
            told = str(label) if number % 2 else name
            members += [(f"{key}.png", drawn(name, number)), (f"{key}.cls", told.encode())]
    members += [("x.png", drawn("red circle", 9)), ("y.png", b"x"), ("y.cls", b"9")]
    return tar(tmp_path_factory.mktemp("shards") / "a.tar", members)


def lines(path: Path, *names: str) -> Path:
    path.write_text("\n".join(names) + "\n")
    return path


async def found(data: Labels, templates: tuple[str, ...] = TEMPLATES) -> ZeroShot:
    async with opened(SHAPES) as model:
        return await zero_shot(model, data, templates)


async def test_a_folder_of_folders_is_classified_by_the_folders_names(folder: Path) -> None:
    data = labels(str(folder), None)
    assert data.classes == CLASSES
    answer = (await found(data)).as_dict()
    assert answer == {
        "top1": 1.0,
        "top5": 1.0,
        "pictures": len(CLASSES) * EACH,
        "classes": len(CLASSES),
        "templates": list(TEMPLATES),
        "skipped": 0,
    }


async def test_shards_give_what_the_folder_gives_and_name_what_they_lack(
    shard: Path, tmp_path: Path
) -> None:
    answer = await found(labels(str(shard), lines(tmp_path / "names", *CLASSES)))
    assert answer.pictures.tolist() == [EACH] * len(CLASSES)
    assert answer.as_dict()["top1"] == 1.0
    assert answer.rejects == [
        Reject(f"{shard}/x", "no cls"),
        Reject(f"{shard}/y", "class '9' is none of 4"),
    ]


async def test_a_class_is_the_unit_mean_of_its_templates_unit_vectors() -> None:
    async with opened(SHAPES) as model:
        [vector] = await class_vectors(model, ["red circle"], TEMPLATES)
        each = await model.texts([template.format("red circle") for template in TEMPLATES])
    mean = each.mean(axis=0)
    np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)


async def test_pictures_go_through_the_preprocessing_that_serves(folder: Path) -> None:
    data = (folder / "red_circle/0.png").read_bytes()
    async with opened(SHAPES) as model:
        [served] = await model.pixels([decode_image(data, SHAPES.spec.image)])
        [ours] = await model.images([data])
    assert np.array_equal(served, ours)


class Told(Inference):
    """Answers with given vectors: four classes far apart, and pictures as they are told."""

    def __init__(self, pictures: list[list[float]]) -> None:
        self.spec = SHAPES.spec.model_copy(update={"logit_scale": 1000.0})
        self._told = np.array(pictures, np.float32)

    async def texts(self, texts: object) -> Matrix:
        return np.eye(4, dtype=np.float32)

    async def pixels(self, pixels: object) -> Matrix:
        return self._told


class Given(Labels):
    """Pictures of class 2."""

    def __iter__(self) -> Iterator[Labelled | Reject]:
        data = drawn("red circle", 0)
        return iter([Labelled(str(number), data, 2) for number in range(3)])


async def test_ties_count_against_the_model_and_steep_probabilities_are_no_ties() -> None:
    """Second best is within five of four; equal to the best is not the best."""
    pictures = [[0.0, 0.0, 1.0, 0.0], [0.9, 0.0, 0.5, 0.0], [0.7, 0.0, 0.7, 0.0]]
    answer = await zero_shot(Told(pictures), Given("told", CLASSES), ("{}",))
    assert answer.top1.tolist() == [0, 0, 1, 0]
    assert answer.top5.tolist() == [0, 0, 3, 0]
    assert answer.confused == {(2, 0): 2}
    [steep] = [mistake for mistake in answer.mistakes if mistake.id == "1"]
    assert [index for index, _ in steep.answers][:2] == [0, 2]


@pytest.mark.parametrize(
    ("source", "names", "said"),
    [
        ("nowhere", None, "nowhere: neither a folder of folders nor webdataset shards"),
        ("a.tar", None, "what it is called: --classes"),
        ("", ("one", "two"), "names 2 classes, .* has 4 folders"),
        ("", ("one", "", "two"), "a class a line is needed, none empty"),
        ("", ("one", "two", "two"), "none twice"),
    ],
)
def test_classes_that_cannot_be_told_are_refused(
    source: str, names: tuple[str, ...] | None, said: str, folder: Path, tmp_path: Path
) -> None:
    path = lines(tmp_path / "names", *names) if names else None
    with pytest.raises(BadData, match=said):
        labels(source or str(folder), path)


async def test_no_usable_picture_at_all_is_an_error_and_not_a_zero(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats/1.png").write_bytes(b"broken")
    with pytest.raises(BadData, match=r"no picture in .* can be used; 1 were skipped"):
        await found(labels(str(tmp_path), None))
