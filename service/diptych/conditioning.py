"""Prompts, pictures and a profile in; the tensors of one batch out: what `Condition` does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from diptych.batching import Answer
from diptych.conditioner import Conditioner, How
from diptych.conditioning_tensors import Encoded, image_tensors, outputs_of, text_tensors
from diptych.contract import Tower
from diptych.encoder import Reading
from diptych.engines.base import Array
from diptych.errors import BadInput, one_reason
from diptych.profiles import Profile, output_of
from diptych.prompts import PromptReader, PromptTokens
from diptych.states import Outputs
from diptych.wishes import Bounds, Texts, Wish, check, named, negative_skip, negative_texts


@dataclass(frozen=True, slots=True)
class Readings:
    """How one prompt was read, by each text encoder in turn."""

    prompt: list[PromptTokens]
    negative: list[PromptTokens]  # empty where there is none, or it was not encoded


@dataclass(slots=True)
class Conditioned:
    tensors: dict[str, Array] = field(default_factory=dict)  # float32 or bool, batch first
    readings: list[Readings] = field(default_factory=list)  # one a prompt
    chunks: int = 0  # that every prompt has, empty ones included
    decode_s: float = 0.0  # reading all prompts
    answers: list[Answer[Outputs]] = field(default_factory=list)  # of every row, for its timings


async def condition(
    profile: Profile,
    models: Mapping[int, Conditioner],
    wish: Wish,
    reading: Reading,
    bounds: Bounds,
) -> Conditioned:
    """The tensors that `profile` declares. `models`: one for each encoder of `used`.

    Raises:
        BadInput: naming the field of the request; `clip_skip` or `profile` where a model lacks
            an output, with how to build it again.
        DiptychError: as `States.get`.
    """
    check(profile, models, wish)
    found = Conditioned()
    if wish.prompts:
        await _Prompts(profile, models, wish, reading, bounds).encode(found)
    if wish.images:
        await _pictures(profile, models, wish, reading, found)
    return found


class _Prompts:
    """The prompts of one call under every text encoder."""

    def __init__(
        self,
        profile: Profile,
        models: Mapping[int, Conditioner],
        wish: Wish,
        reading: Reading,
        bounds: Bounds,
    ) -> None:
        self._profile = profile
        self._models = models
        self._wish = wish
        self._reading = reading
        self._bounds = bounds
        self._readers: dict[int, PromptReader] = {
            number: models[number].reader(profile.encoders[number])
            for number in profile.of(Tower.TEXT)
        }

    async def encode(self, found: Conditioned) -> None:
        profile, wish = self._profile, self._wish
        began = asyncio.get_running_loop().time()
        positives = [
            (one.text, one.text if one.text_2 is None else one.text_2) for one in wish.prompts
        ]
        read = await self._read_all(positives, "text")
        unread = await self._read_all(negative_texts(profile, wish), "negative")
        every = [own for one in (*read, *unread) for own in (one or {}).values()]
        found.chunks = max(own.chunks for own in every)
        found.decode_s = asyncio.get_running_loop().time() - began
        self._check_size(len(read) + len(unread), found.chunks)
        skips = wish.clip_skip, negative_skip(profile, wish)
        with one_reason():
            async with asyncio.TaskGroup() as group:
                tasks = [
                    [group.create_task(self._encode(one, skip, found)) for one in part]
                    for part, skip in zip((read, unread), skips, strict=True)
                ]
        positive, negative = ([task.result() for task in part] for part in tasks)
        whole = [one for one in positive if one is not None]
        for rule in profile.tensors:
            if profile.tower_of(rule) is Tower.TEXT:
                found.tensors |= text_tensors(rule, whole, negative, skips)
        blank: list[dict[int, PromptTokens] | None] = [None] * len(read)
        found.readings = [
            Readings(list((one or {}).values()), list((other or {}).values()))
            for one, other in zip(read, unread or blank, strict=True)
        ]

    async def _read_all(
        self, texts: Sequence[Texts | None], place: str
    ) -> list[dict[int, PromptTokens] | None]:
        """By prompt, then by encoder."""
        wish = self._wish
        cut = wish.long_prompt in ("cut", "refuse") or not self._profile.chunks
        how = How(wish.is_weighted, wish.long_prompt == "refuse", 1 if cut else self._bounds.chunks)
        found: list[dict[int, PromptTokens] | None] = []
        for index, own in enumerate(texts):
            one: dict[int, PromptTokens] = {}
            for (number, reader), text in zip(self._readers.items(), own or (), strict=False):
                model = self._models[number]
                try:
                    one[number] = await model.read(reader, text, how, self._reading)
                except BadInput as exc:
                    suffix = "_2" if one and own and own[0] != own[1] else ""
                    field = f"prompts[{index}].{place}{suffix}"
                    raise BadInput.at(field, exc.violations[0].problem) from None
            found.append(one if own else None)
        return found

    def _check_size(self, texts: int, chunks: int) -> None:
        specs = [self._models[number].spec for number in self._readers]
        numbers = sum(spec.text.context_length * spec.text_hidden_size for spec in specs)
        if (size := 4 * texts * chunks * numbers) > (most := self._bounds.reply_bytes):
            problem = f"make about {size:,} bytes of tensors; at most {most:,} are given at once"
            raise BadInput.at("prompts", problem)

    async def _encode(
        self, read: Mapping[int, PromptTokens] | None, skip: int, found: Conditioned
    ) -> dict[int, Encoded] | None:
        if read is None:
            return None
        encoded = {}
        for number, tokens in read.items():
            ids, mask, weights = self._readers[number].chunks(tokens, found.chunks)
            outputs = outputs_of(self._profile, number, skip)
            masked = self._profile.encoders[number].masked
            answers = await self._models[number].texts(
                ids, mask, outputs, self._reading, masked=masked
            )
            found.answers += answers
            encoded[number] = Encoded(answers, mask, weights)
        return encoded


async def _pictures(
    profile: Profile,
    models: Mapping[int, Conditioner],
    wish: Wish,
    reading: Reading,
    found: Conditioned,
) -> None:
    places = [f"images[{index}]" for index in range(len(wish.images))]
    for number in profile.of(Tower.IMAGE):
        outputs = outputs_of(profile, number, 0)
        answers = await models[number].images(wish.images, outputs, reading, places)
        found.answers += answers
        for rule in profile.tensors:
            if rule.encoders != (number,):
                continue
            name = output_of(Tower.IMAGE, rule) or ""
            positive = np.stack([answer.result[name] for answer in answers])
            negative = None
            if not wish.unguided:
                negative = _negative_image(profile, models[number], name, positive)
            found.tensors |= image_tensors(rule, positive, negative)


def _negative_image(profile: Profile, model: Conditioner, name: str, positive: Array) -> Array:
    if profile.negative_image == "zeros":
        return np.zeros_like(positive)
    if model.zero_image is None or name not in model.zero_image:
        raise BadInput.at(
            "profile",
            f"{profile.name!r} gives the zero image, which {named(model)} lacks: build it again",
        )
    return np.repeat(model.zero_image[name][None], len(positive), axis=0)
