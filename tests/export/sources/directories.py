"""Small checkpoints with random weights, as transformers' own `save_pretrained` writes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AlignConfig,
    AlignModel,
    AltCLIPConfig,
    AltCLIPModel,
    BertTokenizer,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    GemmaTokenizer,
    MetaClip2Config,
    MetaClip2Model,
    SiglipConfig,
    SiglipModel,
    SiglipTokenizer,
    XLMRobertaTokenizer,
)
from transformers.models.chinese_clip.image_processing_pil_chinese_clip import (
    ChineseCLIPImageProcessorPil,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.efficientnet.image_processing_pil_efficientnet import (
    EfficientNetImageProcessorPil,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from tests.export.sources import vocabularies
from tests.preprocess.references import openai_vocabulary

SIZE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
SIZE |= {"num_attention_heads": 2}
PICTURES: dict[str, Any] = SIZE | {"image_size": 48, "patch_size": 12}
NOISE = 0.6  # weights drawn wide, so that inputs differ in their vectors


def clip(folder: Path, **changes: Any) -> Path:
    """OpenAI's, as first published on the hub: the end token is the highest id, 2 stands for it."""
    tokenizer = clip_tokenizer()
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 24,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": 2,
    }
    config = CLIPConfig(
        text_config=SIZE | text | changes, vision_config=PICTURES, projection_dim=24
    )
    return _saved(folder, CLIPModel(config), tokenizer, clip_pictures())


def clip_by_id(folder: Path) -> Path:
    """CLIP whose config names the end token."""
    return clip(folder, eos_token_id=clip_tokenizer().eos_token_id, hidden_act="gelu")


def metaclip2(folder: Path) -> Path:
    tokenizer = xlm_tokenizer(model_max_length=24)
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 24}
    ends = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    config = MetaClip2Config(
        text_config=SIZE | text | ends, vision_config=PICTURES, projection_dim=24
    )
    return _saved(folder, MetaClip2Model(config), tokenizer, clip_pictures(48))


def siglip(folder: Path, inputs: tuple[str, ...] = ("input_ids",), length: int = 16) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pieces = folder / "spiece.model"
    pieces.write_bytes(vocabularies.sentence_pieces())
    tokenizer = SiglipTokenizer(
        str(pieces), model_max_length=length, model_input_names=list(inputs)
    )
    text = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": length}
    model = SiglipModel(SiglipConfig(text_config=SIZE | text, vision_config=PICTURES))
    return _saved(folder, model, tokenizer, siglip_pictures())


def siglip_masked(folder: Path) -> Path:
    """SigLIP whose tokenizer makes a mask, which its text tower then heeds."""
    return siglip(folder, ("input_ids", "attention_mask"))


def siglip_of_64(folder: Path) -> Path:
    """SigLIP that reads as many tokens as the published ones."""
    return siglip(folder, length=64)


def siglip2(folder: Path) -> Path:
    """SigLIP 2 of a fixed resolution: SigLIP's towers with Gemma's tokenizer."""
    vocabulary, merges = vocabularies.gemma_pieces()
    pairs: Any = merges
    tokenizer = GemmaTokenizer(
        vocab=vocabulary,
        merges=pairs,
        model_max_length=16,
        padding_side="right",
        add_bos_token=False,
        add_eos_token=True,
        model_input_names=["input_ids"],
    )
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 16}
    model = SiglipModel(SiglipConfig(text_config=SIZE | text, vision_config=PICTURES))
    return _saved(folder, model, tokenizer, siglip_pictures())


def chinese_clip(folder: Path) -> Path:
    tokenizer = bert_tokenizer(model_max_length=24)
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 40}
    config = ChineseCLIPConfig(text_config=SIZE | text, vision_config=PICTURES, projection_dim=24)
    pictures = ChineseCLIPImageProcessorPil(
        size={"height": 48, "width": 48}, do_center_crop=False, crop_size=None
    )
    return _saved(folder, ChineseCLIPModel(config), tokenizer, pictures)


def altclip(folder: Path) -> Path:
    tokenizer = xlm_tokenizer()
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 26, "project_dim": 20}
    config = AltCLIPConfig(text_config=SIZE | text, vision_config=PICTURES, projection_dim=24)
    return _saved(folder, AltCLIPModel(config), tokenizer, clip_pictures())


def align(folder: Path) -> Path:
    tokenizer = bert_tokenizer()
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 128}
    # The public one is an EfficientNet-B7: here a tenth as wide and a third as deep.
    vision = {"width_coefficient": 0.1, "depth_coefficient": 0.3, "hidden_dim": 32}
    config = AlignConfig(text_config=SIZE | text, vision_config=vision, projection_dim=32)
    pictures = EfficientNetImageProcessorPil(
        size={"height": 72, "width": 72},
        crop_size={"height": 64, "width": 64},
        do_center_crop=True,
        include_top=False,
        rescale_factor=1 / 127.5,
        rescale_offset=True,
        do_normalize=False,
        resample=2,
    )
    model = AlignModel(config)
    settle(model.vision_model, 64)
    return _saved(folder, model, tokenizer, pictures)


def settle(vision: Any, side: int) -> None:
    """Let pictures through: as drawn, their differences die out in untrained batch norms."""
    random = torch.Generator().manual_seed(0)
    for weights in vision.parameters():
        if weights.ndim == 4:
            torch.nn.init.kaiming_normal_(weights, generator=random)
    vision.train()
    with torch.no_grad():
        for _ in range(3):
            vision(pixel_values=torch.randn(16, 3, side, side, generator=random))
    vision.eval()


FAMILIES: dict[str, Callable[[Path], Path]] = {
    "clip": clip,
    "clip by id": clip_by_id,
    "metaclip 2": metaclip2,
    "siglip": siglip,
    "siglip masked": siglip_masked,
    "siglip of 64": siglip_of_64,
    "siglip 2": siglip2,
    "chinese clip": chinese_clip,
    "altclip": altclip,
    "align": align,
}


def clip_tokenizer() -> CLIPTokenizer:
    merges: Any = vocabularies.merges()
    vocabulary = {token: i for i, token in enumerate(openai_vocabulary(merges))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def xlm_tokenizer(**settings: Any) -> XLMRobertaTokenizer:
    return XLMRobertaTokenizer(vocab=list(vocabularies.unigram_pieces()), **settings)


def bert_tokenizer(**settings: Any) -> BertTokenizer:
    vocabulary = {piece: i for i, piece in enumerate(vocabularies.word_pieces())}
    return BertTokenizer(vocab=vocabulary, **settings)


def clip_pictures(short: int = 52) -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(
        size={"shortest_edge": short}, crop_size={"height": 48, "width": 48}
    )


def siglip_pictures() -> SiglipImageProcessorPil:
    return SiglipImageProcessorPil(size={"height": 48, "width": 48}, resample=2)


def _saved(folder: Path, model: Any, tokenizer: Any, pictures: Any) -> Path:
    """Write all three, after giving every weight a size at which it matters."""
    random = torch.Generator().manual_seed(0)
    for name, weights in model.named_parameters():
        if weights.ndim in (1, 2) and not re.search("norm|_bn", name.lower()):
            weights.data.normal_(0, NOISE / max(1, weights[0].numel()) ** 0.25, generator=random)
    if hasattr(model, "logit_scale"):
        model.logit_scale.data.fill_(2.5)
    if hasattr(model, "logit_bias"):
        model.logit_bias.data.fill_(-7.5)
    if hasattr(model, "temperature"):
        model.temperature.data.fill_(0.05)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pictures.save_pretrained(folder)
    return folder
