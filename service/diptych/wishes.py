"""What one call of `Condition` asks for, and whether its profile and models can give it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from diptych.conditioner import Conditioner
from diptych.conditioning_tensors import outputs_of
from diptych.contract import Tower
from diptych.errors import BadInput
from diptych.profiles import Profile

Picture: TypeAlias = bytes | npt.NDArray[np.uint8]  # an encoded image, or ready pixels [S, S, 3]
Texts: TypeAlias = tuple[str, str]  # for the first text encoder, and for the second


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt and its negative, each with what the second text encoder is told instead."""

    text: str
    text_2: str | None = None
    negative: str | None = None
    negative_2: str | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """What one call asks for."""

    prompts: Sequence[Prompt] = ()
    images: Sequence[Picture] = ()
    clip_skip: int = 0
    is_weighted: bool = True
    long_prompt: Literal["usual", "chunks", "cut", "refuse"] = "usual"
    unguided: bool = False


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one call may ask for."""

    chunks: int  # of one prompt; what is beyond is dropped
    reply_bytes: int  # of all tensors, in float32


def used(profile: Profile, wish: Wish) -> list[int]:
    """The encoders, as indexes, that have something to do.

    Raises:
        BadInput: at `prompts` or `images`; there are none, or the profile has no use for them.
    """
    given = {Tower.TEXT: ("prompts", wish.prompts), Tower.IMAGE: ("images", wish.images)}
    for tower, (place, inputs) in given.items():
        if inputs and not profile.of(tower):
            raise BadInput.at(place, f"profile {profile.name!r} has no {tower} encoder")
    found = [n for tower, (_, inputs) in given.items() if inputs for n in profile.of(tower)]
    if not found:
        places = [place for tower, (place, _) in given.items() if profile.of(tower)]
        raise BadInput.at(places[0], f"profile {profile.name!r} needs {' or '.join(places)}")
    return sorted(found)


def check(profile: Profile, models: Mapping[int, Conditioner], wish: Wish) -> None:
    """Everything but the inputs themselves. `models`: one for each encoder of `used`.

    Raises:
        BadInput: naming the field of the request; `clip_skip` or `profile` where a model lacks
            an output, with how to build it again.
    """
    if wish.clip_skip and not (profile.skips and wish.prompts):
        raise BadInput.at("clip_skip", f"must be 0: profile {profile.name!r} has none to leave out")
    if wish.long_prompt == "chunks" and not profile.chunks:
        problem = f"profile {profile.name!r} takes prompts of one chunk; cut or refuse them"
        raise BadInput.at("long_prompt", problem)
    for number, model in models.items():
        encoder = profile.encoders[number]
        if encoder.masked and not model.spec.text.attention_mask:
            problem = f"{profile.name!r} needs a text tower that takes a mask, unlike that of "
            raise BadInput.at(
                "profile", f"{problem}{named(model)}: build it again with --attention-mask"
            )
        for skip in (wish.clip_skip, negative_skip(profile, wish)):
            for output in outputs_of(profile, number, skip):
                if not model.states.has(encoder.tower, output):
                    raise _lacking(profile, model, output, skip)
    own = [models[number] for number in profile.of(Tower.TEXT) if number in models]
    lengths = sorted({model.spec.text.context_length for model in own})
    if len(lengths) > 1:
        problem = f"models of profile {profile.name!r} take {lengths} tokens, not as many"
        raise BadInput.at("encoders", problem)


def _lacking(profile: Profile, model: Conditioner, output: str, skip: int) -> BadInput:
    layer = output.rpartition("_")[2]
    if layer.isdecimal():
        remedy = f"build it again with --hidden-states {int(layer) + 1}"
    else:
        remedy = "build it again, from a checkpoint that has it"
    problem = f"profile {profile.name!r} takes {output}, which {named(model)} lacks: {remedy}"
    if skip and layer.isdecimal():
        return BadInput.at("clip_skip", f"of {skip} {problem}")
    return BadInput.at("profile", problem)


def named(model: Conditioner) -> str:
    """For a message."""
    return f"model {model.spec.name!r} version {model.spec.version}"


def negative_skip(profile: Profile, wish: Wish) -> int:
    """Layers left out of negative prompts."""
    return wish.clip_skip if profile.negative_skips else 0


def negative_texts(profile: Profile, wish: Wish) -> list[Texts | None]:
    """The negative of each prompt, None for one that is to be zeros; or no list at all.

    Raises:
        BadInput: one is given where `unguided` wants none.
    """
    given = [one.negative is not None or one.negative_2 is not None for one in wish.prompts]
    if wish.unguided and any(given):
        field = f"prompts[{given.index(True)}].negative"
        raise BadInput.at(field, "must be left out where unguided is set")
    if wish.unguided or (profile.missing_negative == "none" and not any(given)):
        return []
    found: list[Texts | None] = []
    for one, is_given in zip(wish.prompts, given, strict=True):
        if not is_given and profile.missing_negative == "zeros":
            found.append(None)
            continue
        first = one.negative or ""
        found.append((first, first if one.negative_2 is None else one.negative_2))
    return found
