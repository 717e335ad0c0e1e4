"""What a person writes after --data in, shards out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from diptych.job.places import expand
from diptych_export.data.pairs import Keys, Shard
from diptych_export.data.tables import CsvShard, ParquetShard
from diptych_export.data.tars import TarShard
from diptych_export.errors import BadData

TAR = r"\.tar(\.\w+)?$|\.tgz$"

_KINDS: tuple[tuple[str, Callable[[str, Keys], Shard]], ...] = (
    (TAR, TarShard),
    (r"\.(csv|tsv)(\.\w+)?$", CsvShard),
    (r"\.(parquet|pq)$", ParquetShard),
)


def shards(patterns: Sequence[str], keys: Keys) -> list[Shard]:
    """Every file that any of `patterns` names, in order, opened by none of this.

    Raises:
        BadData: a pattern fits no file, or a file's name is of no known kind.
    """
    return [_shard(place, keys) for pattern in patterns for place in expand(pattern)]


def _shard(place: str, keys: Keys) -> Shard:
    for suffix, kind in _KINDS:
        if re.search(suffix, place, re.IGNORECASE):
            return kind(place, keys)
    raise BadData(f"{place}: neither .tar (webdataset), .csv, .tsv nor .parquet")
