"""Webdataset shards in, pairs out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from diptych.job.tars import Damage, Sample, samples
from diptych.preprocess.images import LIMITS
from diptych_export.data.pairs import Item, Keys, Pair, Reject


@dataclass(frozen=True, slots=True)
class TarShard:
    """One tar file, streamed; compressed or not."""

    place: str
    keys: Keys

    def read(self, start: int) -> Iterator[Item]:
        for number, sample in enumerate(samples(self.place)):
            if number >= start:
                yield self._item(sample)

    def _item(self, sample: Sample | Damage) -> Item:
        if isinstance(sample, Damage):
            return Reject(sample.place, sample.reason)
        name = f"{self.place}/{sample.key}"
        if sample.oversized:
            return Reject(name, f"{sample.oversized[0]} has over {LIMITS.max_bytes:,} bytes")
        image, text = sample.image(self.keys.image), sample.text(self.keys.text)
        if image is None or text is None:
            lacks = "image" if image is None else "text"
            return Reject(name, f"no {lacks} among: {', '.join(sorted(sample.files)) or 'nothing'}")
        return Pair(name, image, text)
