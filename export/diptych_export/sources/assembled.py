"""Weights under OpenAI's names and their architecture in, a `Source` out."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from diptych.contract import ImageSpec, TextSpec
from diptych_export.graph import ImageTower, TextTower, frame
from diptych_export.resnet import ResNetSize
from diptych_export.sources import bpe
from diptych_export.sources.architecture import Architecture
from diptych_export.sources.base import Source
from diptych_export.sources.convert import text_tower, vision_tower
from diptych_export.sources.published import PublishedReference
from diptych_export.sources.trial import numbers
from diptych_export.sources.weights import refuse_names


def assembled(
    where: str,
    state: Mapping[str, Tensor],
    whole: Architecture,
    image: ImageSpec,
    merges: bpe.Merges,
    *,
    origin: str,
    licence: str,
) -> Source:
    """Both towers with the weights of `state`.

    Raises:
        BadCheckpoint: a weight is missing, left over, or of another shape.
    """
    refuse_names(where, "missing", [] if "logit_scale" in state else ["logit_scale"])
    text = _text_spec(whole, merges)
    towers = _towers(where, state, whole, image, text)
    bias = state.get("logit_bias")
    logits = {
        "logit_scale": state["logit_scale"].exp().item(),
        "logit_bias": 0.0 if bias is None else bias.item(),
    }
    return Source(
        image=image,
        text=text,
        image_tower=towers[0],
        text_tower=towers[1],
        tokenizer_json=bpe.tokenizer_json(merges),
        reference=PublishedReference(state, whole, image, text, merges),
        numbers=numbers(where, *towers, image, text) | logits,
        score="softmax" if bias is None else "sigmoid",  # only SigLIP's loss has a bias
        origin=origin,
        licence=licence,
    )


def _text_spec(whole: Architecture, merges: bpe.Merges) -> TextSpec:
    """`tokenize` of openai/CLIP, clip/clip.py: zeros behind the end token."""
    ids = bpe.vocabulary(merges)
    return TextSpec(
        context_length=whole.context_length,
        cleaning="openai",
        padding="longest",
        pad_id=0,
        start_id=ids[bpe.START],
        end_id=ids[bpe.END],
        vocabulary=whole.vocabulary,
        attention_mask=False,
    )


def _towers(
    where: str,
    state: Mapping[str, Tensor],
    whole: Architecture,
    image: ImageSpec,
    spec: TextSpec,
) -> tuple[ImageTower, TextTower]:
    vision, text = vision_tower(where, state, whole), text_tower(where, state, whole)
    if isinstance(whole.vision, ResNetSize):
        pictures = ImageTower(vision, nn.Identity(), image, states=False)
    else:
        pictures = ImageTower(vision.vision_model, vision.visual_projection, image)
    return pictures, TextTower(text.text_model, text.text_projection, frame=frame(spec))
