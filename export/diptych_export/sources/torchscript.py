"""A TorchScript archive in, its weights out, without running anything that is in it.

`torch.jit.load` compiles the code that an archive brings. The weights need none of it: they lie as
raw bytes beside a pickle of the module tree, which is read here with every name refused but those
of a tree and its tensors.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_STORAGES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_MAX_DEPTH = 32  # modules inside modules


def is_torchscript(path: Path) -> bool:
    """Whether `path` is a zip with code beside its weights; `torch.save` writes none."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_weights(path: Path) -> dict[str, Tensor]:
    """Every tensor of the module tree by its dotted name, as `state_dict()` names them.

    Raises:
        pickle.UnpicklingError: the archive holds anything but a tree of modules and tensors.
        Exception: of many kinds; the archive is broken.
    """
    with zipfile.ZipFile(path) as archive:
        top = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        stream = io.BytesIO(_stored(archive, top))
        tree = _Unpickler(stream, archive, top.removesuffix(".pkl")).load()
    return dict(_tensors(tree, "", 0))


class _Module:
    """Stands for every class that the archive's own code defines: attributes, no behaviour."""

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """The layout that torch writes: torch/csrc/jit/serialization/pickler.cpp."""

    def __init__(self, stream: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(stream)
        self._archive = archive
        self._folder = folder

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        known = {
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch.jit._pickle", "restore_type_tag"): _untagged,
            ("collections", "OrderedDict"): OrderedDict,
        }
        if (module, name) in known:
            return known[module, name]
        if module == "torch.jit._pickle" and name.startswith("build_") and name.endswith("list"):
            return list
        raise pickle.UnpicklingError(f"{module}.{name} has no place among weights")

    def persistent_load(self, pid: Any) -> Tensor:
        """One storage: ("storage", dtype, key, device, count)."""
        _, dtype, key, _, count = pid
        if not (isinstance(key, str) and key.isdecimal() and isinstance(dtype, torch.dtype)):
            raise pickle.UnpicklingError(f"{pid!r} is no storage")
        content = bytearray(_stored(self._archive, f"{self._folder}/{key}"))
        if len(content) != count * dtype.itemsize:
            raise pickle.UnpicklingError(f"storage {key} has {len(content)} bytes, not {count}")
        return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


def _untagged(value: object, _: object) -> object:
    """A list or dictionary without the type that TorchScript notes beside it."""
    return value


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """An entry as torch writes weights: not compressed, so no larger than the file."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise pickle.UnpicklingError(f"{name} is compressed, as torch never writes it")
    return archive.read(name)


def _tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: object) -> Tensor:
    if math.prod(size) > storage.numel():  # a stride of 0 would make much of little
        raise pickle.UnpicklingError(f"a tensor {size} of {storage.numel()} numbers")
    return storage.as_strided(size, stride, offset)  # refuses what lies outside the storage


def _tensors(node: Any, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if depth > _MAX_DEPTH or not isinstance(getattr(node, "state", None), dict):
        raise pickle.UnpicklingError("no tree of modules")
    for name, child in node.state.items():
        if isinstance(child, Tensor):
            yield f"{prefix}{name}", child
        elif isinstance(child, _Module) and getattr(child, "state", None):
            yield from _tensors(child, f"{prefix}{name}.", depth + 1)
