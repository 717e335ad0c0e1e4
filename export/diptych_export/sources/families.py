"""The dual encoders that transformers has: what their towers need, and where they differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from transformers import (
    AlignModel,
    AltCLIPModel,
    ChineseCLIPModel,
    CLIPModel,
    MetaClip2Model,
    PreTrainedModel,
    SiglipModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from diptych.contract import ImageSpec, TextSpec
from diptych_export.errors import BadCheckpoint
from diptych_export.graph import ImageTower, Pooled, TextTower, frame
from diptych_export.sources.text_rules import TextNeeds


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture. Sources: modeling_*.py of transformers under the same name."""

    model: type[PreTrainedModel]
    pooled: Pooled  # which position stands for the text
    masked: bool | None  # whether the text tower takes a mask; None: where its tokenizer makes one
    padding: Literal["longest", "max_length"] = "longest"
    score: Literal["softmax", "sigmoid"] = "softmax"
    longest: int | None = None  # tokens per text in training, where no checkpoint says so


FAMILIES: dict[str, Family] = {  # by `model_type` of config.json
    "clip": Family(CLIPModel, "end", masked=False),
    "metaclip_2": Family(MetaClip2Model, "end", masked=False),
    # Its towers learned with padding up to 64 and read the text off at the last place.
    "siglip": Family(SiglipModel, "last", None, padding="max_length", score="sigmoid"),
    "chinese_clip": Family(ChineseCLIPModel, "first", masked=True),
    "altclip": Family(AltCLIPModel, "first", masked=True),
    "align": Family(AlignModel, "first", masked=True, longest=64),  # `AlignProcessor.text_kwargs`
}


def family(where: str, model_type: str) -> Family:
    """The family of a config.json.

    Raises:
        BadCheckpoint: none of ours.
    """
    if model_type == "siglip2":
        raise BadCheckpoint(
            f"{where}: model_type siglip2 is the NaFlex variant, whose pictures keep their shape; "
            "SigLIP 2 of a fixed resolution is served, its model_type is siglip"
        )
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise BadCheckpoint(f"{where}: model_type {model_type!r} is none of {known}")
    return FAMILIES[model_type]


def towers(model: Any, image: ImageSpec, spec: TextSpec) -> tuple[ImageTower, TextTower]:
    """Both towers of `model`, as they are exported; they share its weights."""
    kind, nothing = model.config.model_type, nn.Identity()
    pooled = FAMILIES[kind].pooled
    if kind == "siglip":
        text = TextTower(model.text_model, model.text_model.head, pooled=pooled)
        return ImageTower(model.vision_model, nothing, image), text
    if kind == "align":
        vision = ImageTower(_WholePooled(model.vision_model), nothing, image, states=False)
    else:
        vision = ImageTower(model.vision_model, model.visual_projection, image)
    inner = kind != "altclip"  # whose last state is narrower than those inside
    text = TextTower(
        model.text_model,
        model.text_projection,
        pooled=pooled,
        penultimate=inner,
        frame=frame(spec) if pooled == "end" else None,  # CLIP's own, which sees backwards only
    )
    return vision, text


def text_needs(model: Any, tokenizer: Any) -> TextNeeds:
    """What the text tower of `model` asks of its tokenizer."""
    kind, config = model.config.model_type, model.config.text_config
    own = FAMILIES[kind]
    positions = config.max_position_embeddings
    if kind == "altclip":  # RoBERTa's places begin behind the padding's
        positions -= config.pad_token_id + 1
    masked = own.masked
    if masked is None:
        masked = "attention_mask" in tokenizer.model_input_names
    legacy = kind == "clip" and config.eos_token_id == 2  # see CLIPTextModel.forward
    return TextNeeds(
        positions=min(positions, own.longest or positions),
        vocabulary=config.vocab_size,
        padding=own.padding,
        attention_mask=masked,
        end_id=config.eos_token_id if own.pooled == "end" and not legacy else None,
        highest_ends=legacy,
    )


def scale_and_bias(model: Any) -> tuple[float, float]:
    """What the logits of `model` multiply a cosine with, and add to it."""
    if model.config.model_type == "align":
        return 1.0 / model.temperature.item(), 0.0
    bias = getattr(model, "logit_bias", None)
    return model.logit_scale.exp().item(), 0.0 if bias is None else bias.item()


def picture_size(model: Any) -> int | None:
    """Pixels per side that the image tower takes; None where it takes any."""
    if model.config.model_type == "align":
        return None
    size = model.config.vision_config.image_size
    return int(size if isinstance(size, int) else size[0])


class _WholePooled(nn.Module):
    """ALIGN's image tower with its pooling written as what it is: over the whole last map.

    AlignVisionModel asks for windows of 2,560 places, cut off at the edge of a map of 81; engines
    disagree whether what is beyond the edge counts.
    """

    def __init__(self, vision: Any) -> None:
        super().__init__()
        self.vision = vision
        self.largest = vision.config.pooling_type == "max"

    def forward(self, pixel_values: Tensor) -> BaseModelOutputWithPooling:
        last = self.vision(pixel_values=pixel_values).last_hidden_state
        pooled = last.amax(dim=(2, 3)) if self.largest else last.mean(dim=(2, 3))
        return BaseModelOutputWithPooling(last_hidden_state=last, pooler_output=pooled)
