"""A preset's name, or a folder or file of transformers' config, in; a fresh learner out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, CLIPModel, SiglipModel

from diptych.contract import ImageSpec
from diptych_export import layouts
from diptych_export.data import vocabulary
from diptych_export.errors import BadRun
from diptych_export.learner import Learner, Score
from diptych_export.presets import PRESETS, fresh, set_control_ids
from diptych_export.sources import families, openai, pretrained
from diptych_export.sources.architecture import Architecture
from diptych_export.sources.image_rules import image_spec
from diptych_export.sources.text_rules import TextNeeds, text_spec
from diptych_export.sources.weights import one_line

_MODELS: dict[str, Any] = {"clip": CLIPModel, "siglip": SiglipModel}

# Where SigLIP's loss begins: log 10 and -10 (arXiv:2303.15343, §3.2), so that the many pairs
# that do not belong together do not outweigh the few that do.
_SIGMOID_LOG_SCALE, _SIGMOID_BIAS = math.log(10), -10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a person asked for, understood but not yet built."""

    name: str
    preset: Architecture | None = None
    config: Any = None  # else: a CLIPConfig or a SiglipConfig
    folder: Path | None = None  # of the config, where a tokenizer and a processor may lie too

    @property
    def context_length(self) -> int:
        if self.preset is not None:
            return self.preset.context_length
        return int(self.config.text_config.max_position_embeddings)

    @property
    def vocabulary(self) -> int:
        if self.preset is not None:
            return self.preset.vocabulary
        return int(self.config.text_config.vocab_size)

    @property
    def siglip(self) -> bool:
        return self.config is not None and self.config.model_type == "siglip"


def understood(name: str) -> Plan:
    """A preset's name, a folder with config.json, or a JSON file.

    Raises:
        BadRun: neither of these, or a config of another family.
    """
    if name in PRESETS:
        return Plan(name, preset=PRESETS[name])
    path = Path(name)
    if not path.exists():
        raise BadRun(f"--model {name}: neither {', '.join(PRESETS)} nor a folder or JSON file")
    with one_line(name), pretrained.quiet():
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    if config.model_type not in _MODELS:
        raise BadRun(f"--model {name}: model_type {config.model_type}, not {' or '.join(_MODELS)}")
    return Plan(name, config=config, folder=path if path.is_dir() else None)


def tokenizer_for(plan: Plan, given: Path | None) -> Any | None:
    """The tokenizer in the folder `given`, or in the plan's own; None: one is to be learned.

    Raises:
        BadRun: `given` holds none.
    """
    folder = given or plan.folder
    if folder is None or not (folder / "tokenizer_config.json").is_file():
        if given:
            raise BadRun(f"--tokenizer {given}: no tokenizer_config.json")
        return None
    with one_line(str(folder)), pretrained.quiet():
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def learned_tokenizer(plan: Plan, texts: Iterable[str]) -> Any:
    """One in CLIP's format, learned from captions."""
    return vocabulary.learn(texts, plan.context_length, plan.vocabulary)


def begun(plan: Plan, tokenizer: Any, score: Literal["auto", "softmax", "sigmoid"]) -> Learner:
    """Towers freshly initialised from torch's random state, in training mode.

    Raises:
        BadRun: tokenizer, loss and towers do not belong together.
    """
    if plan.siglip and score == "softmax":
        raise BadRun("--loss softmax: checkpoints of SigLIP models are scored by sigmoid")
    own: Score = "sigmoid" if plan.siglip or score == "sigmoid" else "softmax"
    if plan.siglip:  # its text tower learns with all padding in view, so none is masked
        tokenizer.model_input_names = ["input_ids"]
        tokenizer.init_kwargs["model_input_names"] = ["input_ids"]  # which is what is saved
    model = fresh(plan.preset, tokenizer) if plan.preset else _from_config(plan, tokenizer)
    if own == "sigmoid":
        _begin_sigmoid(model)
    return _learner(plan, model, tokenizer, own)


def taken_up(folder: Path) -> Learner:
    """The towers of a checkpoint in transformers' layout, with their weights, for fine-tuning.

    Raises:
        BadCheckpoint: it cannot be read whole.
        BadRun: it is of another family.
    """
    plan = understood(str(folder))
    own = pretrained.read(str(folder))
    score: Score = own.family.score
    return _learner(plan, own.model.train(), own.tokenizer, score)


def _from_config(plan: Plan, tokenizer: Any) -> Any:
    config = plan.config
    if len(tokenizer) > config.text_config.vocab_size:
        has, knows = len(tokenizer), config.text_config.vocab_size
        raise BadRun(f"--tokenizer: has {has} tokens, the text tower of {plan.name} knows {knows}")
    if plan.folder is None or not (plan.folder / "tokenizer_config.json").is_file():
        config.text_config.vocab_size = len(tokenizer)  # learned: no row is left over
    set_control_ids(config.text_config, tokenizer)
    return _MODELS[config.model_type](config)


def _begin_sigmoid(model: Any) -> None:
    if not hasattr(model, "logit_bias"):
        model.logit_bias = nn.Parameter(torch.zeros_like(model.logit_scale))
    with torch.no_grad():
        model.logit_scale.fill_(_SIGMOID_LOG_SCALE)
        model.logit_bias.fill_(_SIGMOID_BIAS)


def _learner(plan: Plan, model: Any, tokenizer: Any, score: Score) -> Learner:
    image = _image(plan)
    text = text_spec(plan.name, tokenizer, _text_needs(plan, model, tokenizer))
    if layouts.is_openclip(model):  # whose rules are OpenAI's own
        image = image.model_copy(update={"rgb": "after_resize", "rounding": "torchvision"})
        text = text.model_copy(update={"cleaning": "openai", "pad_id": 0})
    return Learner(model.train(), tokenizer, image, text, score)


def _text_needs(plan: Plan, model: Any, tokenizer: Any) -> TextNeeds:
    if plan.preset is None:
        return families.text_needs(model, tokenizer)
    return TextNeeds(
        positions=plan.context_length,
        vocabulary=len(tokenizer),
        padding="longest",
        attention_mask=False,
        end_id=tokenizer.eos_token_id,
    )


def _image(plan: Plan) -> ImageSpec:
    """From the processor beside the config, else as the family's first checkpoints have it."""
    if plan.folder and (plan.folder / "preprocessor_config.json").is_file():
        processor = AutoImageProcessor.from_pretrained(plan.folder, local_files_only=True)
        return image_spec(plan.name, processor.to_dict(), processor)
    if plan.preset is not None:
        return _clip_image(plan.preset.image_size)
    image = _clip_image(int(plan.config.vision_config.image_size))
    if not plan.siglip:
        return image
    half = (0.5, 0.5, 0.5)
    return image.model_copy(update={"resize": "squash", "mean": half, "std": half})


def _clip_image(size: int) -> ImageSpec:
    own = {"rgb": "before_resize", "rounding": "huggingface"}
    return openai.image_spec(size).model_copy(update=own)
