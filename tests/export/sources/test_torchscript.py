"""An archive is read for its weights; what else lies in it is neither run nor believed."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from diptych_export.sources import torchscript
from tests.export.sources.comparing import refusal
from tests.export.sources.spoiling import Bomb

FLOATS = torch.arange(6, dtype=torch.float32)


@pytest.fixture
def archive(tmp_path: Path) -> Callable[..., Path]:
    """Writes a zip of an archive's layout around any pickle."""

    def write(tree: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
        path = tmp_path / "model.pt"
        with zipfile.ZipFile(path, "w") as zipped:
            zipped.writestr("model/constants.pkl", b"")
            zipped.writestr("model/data.pkl", tree, compression)
            zipped.writestr("model/data/0", FLOATS.numpy().tobytes(), compression)
        return path

    return write


def module(**attributes: str) -> bytes:
    """A module of the archive's own code with attributes that are opcodes of tensors."""
    state = b"".join(_text(name) + code.encode("latin-1") for name, code in attributes.items())
    return b"\x80\x02c__torch__.model\nNet\n)\x81}(" + state + b"ub."


def tensor(
    numbers: int = 6, size: int = 6, stride: int = 1, key: str = "0", kind: str = "FloatStorage"
) -> str:
    """Opcodes as torch/csrc/jit/serialization/pickler.cpp writes them."""
    place = _text("storage") + f"ctorch\n{kind}\n".encode() + _text(key) + _text("cpu")
    storage = b"(" + place + _number(numbers) + b"tQ"
    shape = b"(" + _number(size) + b"t(" + _number(stride) + b"t"
    rest = b"\x89ccollections\nOrderedDict\n)R"
    code = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + _number(0) + shape + rest + b"tR"
    return code.decode("latin-1")


def _text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def _number(value: int) -> bytes:
    return b"J" + value.to_bytes(4, "little")


def test_weights_are_read(archive: Callable[..., Path]) -> None:
    path = archive(module(weight=tensor(), bias=tensor(size=2, stride=3)))
    assert torchscript.is_torchscript(path)
    read = torchscript.read_weights(path)
    assert read.keys() == {"weight", "bias"}
    assert torch.equal(read["weight"], FLOATS)
    assert torch.equal(read["bias"], FLOATS[::3])


def test_state_dicts_are_no_archives(tmp_path: Path) -> None:
    torch.save({"weight": FLOATS}, tmp_path / "zip.pt")
    torch.save({"weight": FLOATS}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert not torchscript.is_torchscript(tmp_path / "zip.pt")
    assert not torchscript.is_torchscript(tmp_path / "old.pt")


@pytest.mark.parametrize(
    "tree",
    [
        pickle.dumps(Bomb()),
        b"cos\nsystem\n(X\x02\x00\x00\x00ls" + b"tR.",
        b"cbuiltins\neval\n.",
        b"ctorch\nload\n.",
        b"ctorch.jit._pickle\nbuild_tensor_from_id\n.",
    ],
)
def test_code_is_refused_and_not_run(
    archive: Callable[..., Path], tree: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "has no place among weights" in refusal(archive(tree))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("tree", "complaint"),
    [
        # A stride of zero makes a tensor of any size from one number.
        (module(weight=tensor(size=2**30, stride=0)), "a tensor (1073741824,) of 6 numbers"),
        (module(weight=tensor(size=3, stride=4)), "out of bounds for storage"),
        (module(weight=tensor(numbers=5)), "storage 0 has 24 bytes, not 5"),
        (module(weight=tensor(key="../../etc/passwd")), "is no storage"),
        (module(weight=tensor(key="7")), "model/data/7"),
        (pickle.dumps([1, 2]), "no tree of modules"),
        (b"\x80\x02", "Ran out of input"),
    ],
)
def test_what_is_no_tree_of_weights(
    archive: Callable[..., Path], tree: bytes, complaint: str
) -> None:
    assert complaint in refusal(archive(tree))


def test_compressed_weights_could_be_of_any_size(archive: Callable[..., Path]) -> None:
    path = archive(module(weight=tensor()), zipfile.ZIP_DEFLATED)
    assert "is compressed, as torch never writes it" in refusal(path)


def test_a_tree_that_holds_itself(archive: Callable[..., Path]) -> None:
    """Memo 0 is the module: its attribute `again` is the module itself."""
    again = b"\x80\x02c__torch__\nNet\n)\x81q\x00}(" + _text("again") + b"h\x00ub."
    assert "no tree of modules" in refusal(archive(again))


def test_what_is_not_a_tensor_is_left_out(archive: Callable[..., Path]) -> None:
    sizes = b"ctorch.jit._pickle\nrestore_type_tag\n(]" + _text("List[int]") + b"tR"
    state = {"training": "\x89", "sizes": sizes.decode("latin-1"), "weight": tensor()}
    assert torchscript.read_weights(archive(module(**state))).keys() == {"weight"}
