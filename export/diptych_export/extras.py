"""A `Source` in, and what image generators take of it beyond its vectors."""

from __future__ import annotations

from dataclasses import replace

import torch

from diptych.contract import Tower
from diptych_export.errors import BadBuild
from diptych_export.sources.base import Array, Source


def extended(source: Source, *, hidden_states: int, attention_mask: bool) -> Source:
    """`source` whose text tower also gives the states of its last layers, and heeds a mask.

    Raises:
        BadBuild: it has not so many layers, or no final norm.
    """
    try:
        tower = source.text_tower.with_layers(hidden_states)
    except ValueError as error:
        raise BadBuild(f"--hidden-states {hidden_states}: {error}") from error
    if not attention_mask:
        return replace(source, text_tower=tower)
    text = source.text.model_copy(update={"attention_mask": True})
    return replace(source, text_tower=tower, text=text)


@torch.inference_mode()
def zero_image(source: Source) -> dict[str, Array]:
    """What the image tower answers, by output, for pixel values that are zero behind the scaling.

    So generators' pipelines make the negative of an image: `encode_image` of diffusers'
    pipeline_stable_diffusion.py, `get_zero_embed` of pipeline_kandinsky2_2_prior.py. Empty where
    there is no tower.
    """
    if source.numbers.get("absent") is Tower.IMAGE:
        return {}
    size = source.image.size
    answers = source.image_tower.encode(torch.zeros(1, 3, size, size))
    names = source.image_tower.outputs
    return {name: one[0].numpy() for name, one in zip(names, answers, strict=True)}
