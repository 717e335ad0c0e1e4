"""Text in, token ids out: the same ids the text tower saw in training."""

from __future__ import annotations

import html
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import ftfy
import numpy as np
import numpy.typing as npt
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from diptych.contract import TextSpec, Tokens
from diptych.errors import BadInput, BadRepository

TokenBatch: TypeAlias = npt.NDArray[np.int64]  # [B, L'], one text a row

BUCKET = 8  # tokens; batch lengths are rounded up to it, so that engines meet few shapes

# How OpenAI's tokenizer cuts a cleaned text into words: openai/CLIP, clip/simple_tokenizer.py.
# That pattern ignores case, which for lower-case text means two things only: the long s counts
# as an s after an apostrophe, and the iota subscript U+0345 matches nothing and is lost.
_OPENAI_WORDS = "'[s\u017f]|'t|'re|'ve|'m|'ll|'d|\\p{L}+|\\p{N}|[^\\s\\p{L}\\p{N}\u0345]+"

_PUNCTUATION = dict.fromkeys(map(ord, string.punctuation))


@dataclass(frozen=True, slots=True)
class Tokenized:
    """One text as its tower reads it."""

    tokens: Tokens  # [1..L], int64, start and end tokens included, not padded
    dropped: int  # tokens cut off so that the rest fits; 0 unless truncation was asked for


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a prompt, of any length."""

    text: str  # cleaned
    ids: list[int]  # start and end tokens left out
    starts: list[int]  # where in `text` each of `ids` begins


class TextTokenizer:
    """One model's tokenizer. Safe to call from many threads, which then run in parallel.

    Ids equal those of `transformers`' tokenizer (cleaning "none" and "siglip") or of OpenAI's
    `SimpleTokenizer` (cleaning "openai") but for one thing: the name of a control token inside a
    text, such as "<|endoftext|>", is ordinary text here. The references turn it into the token
    itself, and the tower ignores what follows an end token: a caller could hide the rest of a
    text from moderation.
    """

    def __init__(self, tokenizer_json: Path, spec: TextSpec, *, max_chars: int = 32_768) -> None:
        """Read the tokenizer; `max_chars` bounds the time one text may take (about 0.2 s).

        Raises:
            BadRepository: the file cannot be read, or its ids are not those of `spec`.
        """
        self._spec = spec
        self._max_chars = max_chars
        self._tokenizer = _read(tokenizer_json)
        if spec.cleaning == "openai":
            _split_as_openai(self._tokenizer)
        self._check(tokenizer_json)

    def tokenize(self, text: str, *, truncate: bool = False) -> Tokenized:
        """Turn a text into 1 to L ids; the empty text is its start and end token.

        A truncated text keeps its first L - 1 ids and ends with the end token, as
        `clip.tokenize` and transformers' `truncation=True` do.

        Raises:
            BadInput: at `text`; over `max_chars`, not valid Unicode, or, unless `truncate`,
                longer than the context.
        """
        self.check(text)
        ids = self._encode(text)
        limit = self._spec.context_length
        dropped = max(0, len(ids) - limit)
        if dropped and not truncate:
            raise BadInput.at(
                "text",
                f"is {len(ids):,} tokens long, start and end included; this model takes at most "
                f"{limit:,}; shorten it or allow truncation",
            )
        if dropped:
            ids = [*ids[: limit - 1], self._spec.end_id]
        return Tokenized(np.array(ids, dtype=np.int64), dropped)

    def pieces(self, texts: Sequence[str]) -> list[Piece]:
        """The ids of texts of any length, which `check` has passed, for whoever frames them."""
        cleaned = [_CLEANERS[self._spec.cleaning](text) for text in texts]
        found = self._tokenizer.encode_batch(cleaned, add_special_tokens=False)
        return [
            Piece(text, one.ids, [start for start, _ in one.offsets])
            for text, one in zip(cleaned, found, strict=True)
        ]

    def check(self, text: str) -> None:
        """Refuse what is not even looked at.

        Raises:
            BadInput: at `text`; over `max_chars`, or not valid Unicode.
        """
        if len(text) > self._max_chars:
            problem = f"is {len(text):,} characters long; at most {self._max_chars:,} are allowed"
            raise BadInput.at("text", problem)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            problem = f"is not valid Unicode: character {error.start} is half of a surrogate pair"
            raise BadInput.at("text", problem) from error

    def _encode(self, text: str) -> list[int]:
        text = _CLEANERS[self._spec.cleaning](text)
        # Not encode(): it holds the interpreter lock, 20 ms for a long text; the batch call does
        # not. The fast one leaves out the character offsets, which nobody reads.
        return self._tokenizer.encode_batch_fast([text])[0].ids

    def _check(self, path: Path) -> None:
        spec = self._spec
        start = [] if spec.start_id is None else [spec.start_id]
        if (ids := self._encode("")) != [*start, spec.end_id]:
            problem = f"frames a text with {ids}, the spec with {[*start, spec.end_id]}"
            raise BadRepository(f"{path}: {problem}")
        if (highest := max(self._tokenizer.get_vocab().values())) >= spec.vocabulary:
            raise BadRepository(f"{path}: has an id {highest}, the spec ends at {spec.vocabulary}")


def clean_as_openai(text: str) -> str:
    """What OpenAI's tokenizer does to a text before it looks for words.

    Mojibake mended, HTML entities resolved twice, white space collapsed, lower case: `basic_clean`
    and `whitespace_clean` of openai/CLIP, clip/simple_tokenizer.py.
    """
    if text.isascii() and text.isprintable() and "&" not in text:
        return " ".join(text.split()).lower()  # nothing to mend: 20 times as fast
    mended = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(mended.split()).lower()


def clean_as_siglip(text: str) -> str:
    """What SigLIP's tokenizer does to a text before sentencepiece sees it.

    Lower case, ASCII punctuation removed, white space collapsed: `tokenize` and
    `canonicalize_text` of transformers, models/siglip/tokenization_siglip.py.
    """
    return " ".join(text.replace("\u2581", " ").lower().translate(_PUNCTUATION).split())


_CLEANERS: dict[str, Callable[[str], str]] = {
    "none": str,
    "openai": clean_as_openai,
    "siglip": clean_as_siglip,
}


def pad_tokens(
    batch: Sequence[Tokens], spec: TextSpec, step: int = BUCKET
) -> tuple[TokenBatch, TokenBatch]:
    """Stack texts into `input_ids` and `attention_mask`, both int64 [B, L'].

    L' is the longest text's length rounded up to a multiple of `step`, at most the context length,
    or always the context length where the spec pads to it. The mask is 1 for tokens, 0 for padding.
    `batch` holds at least one text, none longer than the context.
    """
    lengths = np.array([len(tokens) for tokens in batch])
    length = spec.context_length
    if spec.padding == "longest":
        length = min(-(-int(lengths.max()) // step) * step, length)
    present = np.arange(length) < lengths[:, None]
    input_ids = np.full(present.shape, spec.pad_id, dtype=np.int64)
    input_ids[present] = np.concatenate(batch)
    return input_ids, present.astype(np.int64)


def by_length(lengths: Sequence[int], call_tokens: int, step: int = BUCKET) -> list[list[int]]:
    """Which texts to run together: the cheapest way to cut a batch into groups of like length.

    A group costs its texts times its longest, rounded up to a multiple of `step`, and `call_tokens`
    for being a call of its own. Answers indexes into `lengths`, which has at least one.
    """
    rows = sorted(range(len(lengths)), key=lengths.__getitem__)
    padded = [-(-lengths[row] // step) * step for row in rows]
    # A group that stops short of the last text of its length would only pay for one more call.
    ends = [end for end in range(1, len(rows)) if padded[end - 1] != padded[end]] + [len(rows)]
    best: dict[int, tuple[int, int]] = {0: (0, 0)}  # end: its least cost, where its group begins
    for end in ends:
        best[end] = min(
            (cost + (end - begin) * padded[end - 1] + call_tokens, begin)
            for begin, (cost, _) in best.items()
        )
    groups, end = [], len(rows)
    while end:
        begin = best[end][1]
        groups.append(rows[begin:end])
        end = begin
    return groups[::-1]


def _read(path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise BadRepository(f"{path}: not a readable tokenizer.json") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # as ordinary text: see TextTokenizer
    return tokenizer


def _split_as_openai(tokenizer: Tokenizer) -> None:
    """Leave normalising to `clean_as_openai`, and cut words as OpenAI does.

    The file's own normaliser composes what an HTML entity left decomposed, and lower-cases a
    Greek final sigma wrongly.
    """
    words = pre_tokenizers.Split(Regex(_OPENAI_WORDS), behavior="removed", invert=True)
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.normalizer = normalizers.Sequence([])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, to_bytes])
