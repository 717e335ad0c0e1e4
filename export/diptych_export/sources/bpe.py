"""OpenAI's byte-pair encoding: merges in, vocabulary and tokenizer.json out; and in plain Python.

The plain one is the gate's other side. Rules: openai/CLIP, clip/simple_tokenizer.py.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import regex  # type: ignore[import-untyped]
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from diptych.preprocess.text import clean_as_openai
from diptych_export.errors import BadCheckpoint

Merges: TypeAlias = list[tuple[str, str]]

START, END = "<|startoftext|>", "<|endoftext|>"
PUBLISHED = "bpe_simple_vocab_16e6.txt.gz"  # the file of openai/CLIP and open_clip
_FILES = (PUBLISHED, "tokenizer.json", "merges.txt")
_CONTROLS = 2
_LETTERS = 2 * 256  # every byte, and every byte at a word's end
_MAX_BYTES = 2**25  # of a file of merges; the published one unpacks to 3 MB

_WORDS = regex.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+", regex.IGNORECASE
)


def read_merges(folder: Path, tokens: int) -> Merges:
    """The merges beside a checkpoint whose text tower knows `tokens` ids.

    The published file has many more lines than were used, so the tower says how many count.

    Raises:
        BadCheckpoint: no file with merges, or one of another vocabulary.
    """
    path = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if path is None:
        raise BadCheckpoint(f"{folder}: no tokenizer: none of {', '.join(_FILES)}")
    count = tokens - _LETTERS - _CONTROLS
    try:
        merges = _read(path)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise BadCheckpoint(f"{path}: not a readable file of merges") from error
    if len(merges) < count or (path.name != PUBLISHED and len(merges) != count):
        raise BadCheckpoint(f"{path}: has {len(merges)} merges, the text tower needs {count}")
    return merges[:count]


def vocabulary(merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Ids by token: bytes in the order of their letters, those at word ends, merges, controls."""
    letters = sorted(byte_letters())
    ends = [f"{letter}</w>" for letter in letters]
    tokens = [*letters, *ends, *map("".join, merges), START, END]
    return {token: number for number, token in enumerate(tokens)}


def byte_letters() -> list[str]:
    """The printable stand-in of every byte: itself where it has a shape, else from 256 upwards."""
    shapes = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(byte if byte in shapes else next(spare)) for byte in range(256)]


def tokenizer_json(merges: Merges) -> str:
    """What `diptych.preprocess.text` reads for texts cleaned as OpenAI's."""
    ids = vocabulary(merges)
    model = models.BPE(vocab=ids, merges=merges, end_of_word_suffix="</w>", unk_token=END)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(
        (END, ids[END]), (START, ids[START]), trim_offsets=False, add_prefix_space=False
    )
    return tokenizer.to_str()


class PlainTokenizer:
    """The same ids without `tokenizers`: slow, and short enough to be read against the original."""

    def __init__(self, merges: Merges) -> None:
        self._letters = byte_letters()
        self._ids = vocabulary(merges)
        self._rank = {pair: rank for rank, pair in enumerate(merges)}

    def ids(self, text: str, limit: int) -> list[int]:
        """Start, pieces, end: at most `limit`, the last of them always the end."""
        words = _WORDS.findall(clean_as_openai(text))
        pieces = [piece for word in words for piece in self._pieces(word)]
        inner = [self._ids[piece] for piece in pieces][: limit - 2]
        return [self._ids[START], *inner, self._ids[END]]

    def _pieces(self, word: str) -> list[str]:
        """Again and again, join the pair that was learnt first, wherever it stands."""
        letters = [self._letters[byte] for byte in word.encode()]
        pieces = [*letters[:-1], f"{letters[-1]}</w>"]
        while len(pieces) > 1:
            pairs = list(pairwise(pieces))
            best = min(pairs, key=lambda pair: self._rank.get(pair, len(self._rank)))
            if best not in self._rank:
                break
            pieces = _joined(pieces, best)
        return pieces


def _joined(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    done: list[str] = []
    at = 0
    while at < len(pieces):
        whole = tuple(pieces[at : at + 2]) == pair
        done.append("".join(pair) if whole else pieces[at])
        at += 2 if whole else 1
    return done


def _read(path: Path) -> Merges:
    if path.name == "tokenizer.json":
        return [_pair(pair) for pair in json.loads(path.read_bytes())["model"]["merges"]]
    content = path.read_bytes()
    if path.name == PUBLISHED:
        with gzip.open(path) as stream:
            content = stream.read(_MAX_BYTES)
    lines = content.decode("utf-8").split("\n")[1:]  # the first names the version
    return [_pair(line) for line in lines if line.strip()]


def _pair(line: str | Sequence[str]) -> tuple[str, str]:
    pieces = line.split() if isinstance(line, str) else line
    first, second = pieces
    return first, second
