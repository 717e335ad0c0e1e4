"""Small generators with random weights, as diffusers makes, saves and runs them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    PriorTransformer,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UnCLIPPipeline,
    UnCLIPScheduler,
    UNet2DConditionModel,
    UNet2DModel,
)
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tests.export.sources import vocabularies
from tests.preprocess.references import openai_vocabulary

WIDTH, CONTEXT, PICTURE = 32, 77, 32
SIZE: dict[str, Any] = {"hidden_size": WIDTH, "intermediate_size": 64, "num_attention_heads": 2}
NOISE = 0.6  # weights drawn wide, so that prompts differ in their states

CALM = 0.3  # for what is clipped to black and white else

Image = npt.NDArray[np.float32]  # [64, 64, 3], 0..1


def tokenizer(pad: str = "<|endoftext|>") -> CLIPTokenizer:
    merges: Any = vocabularies.merges()
    vocabulary = {token: number for number, token in enumerate(openai_vocabulary(merges))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT, pad_token=pad)


def text_encoder() -> Any:
    """As Stable Diffusion 1.5 has it, and SDXL for its first."""
    return drawn(CLIPTextModel(_text_config()), 1)


def text_encoder_2() -> Any:
    """As SDXL has it for its second, and unCLIP and Kandinsky for their only one."""
    return drawn(CLIPTextModelWithProjection(_text_config(hidden_act="gelu")), 2)


def image_encoder() -> Any:
    sizes: dict[str, Any] = {"image_size": PICTURE, "patch_size": 8, "projection_dim": WIDTH}
    config = CLIPVisionConfig(**SIZE, **sizes, num_hidden_layers=2)
    return drawn(CLIPVisionModelWithProjection(config), 3)


def pictures() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(
        size={"shortest_edge": PICTURE}, crop_size={"height": PICTURE, "width": PICTURE}
    )


def saved(folder: Path) -> Path:
    """All encoders, as a public repository of a pipeline holds them."""
    text_encoder().save_pretrained(folder / "text_encoder")
    tokenizer().save_pretrained(folder / "tokenizer")
    text_encoder_2().save_pretrained(folder / "text_encoder_2")
    tokenizer("!").save_pretrained(folder / "tokenizer_2")
    image_encoder().save_pretrained(folder / "image_encoder")
    pictures().save_pretrained(folder / "feature_extractor")
    return folder


def stable_diffusion() -> Any:
    return quiet(
        StableDiffusionPipeline(
            vae=_vae(),
            text_encoder=text_encoder(),
            tokenizer=tokenizer(),
            unet=drawn(UNet2DConditionModel(**_unet(), cross_attention_dim=WIDTH), 4),
            scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
            safety_checker=None,
            feature_extractor=pictures(),
            image_encoder=image_encoder(),
            requires_safety_checker=False,
        )
    )


def stable_diffusion_xl() -> Any:
    conditions: dict[str, Any] = {
        "cross_attention_dim": 2 * WIDTH,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": WIDTH + 6 * 8,
    }
    return quiet(
        StableDiffusionXLPipeline(
            vae=_vae(),
            text_encoder=text_encoder(),
            text_encoder_2=text_encoder_2(),
            tokenizer=tokenizer(),
            tokenizer_2=tokenizer("!"),
            unet=drawn(UNet2DConditionModel(**_unet(), **conditions), 5),
            scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
            add_watermarker=False,
        )
    )


def unclip() -> Any:
    prior: Any = PriorTransformer(
        num_attention_heads=2, attention_head_dim=8, embedding_dim=WIDTH, num_layers=1
    )
    prior.clip_std.data.fill_(1)
    decoder = UNet2DConditionModel(
        sample_size=16,
        in_channels=3,
        out_channels=6,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        block_out_channels=(16, 32),
        norm_num_groups=8,
        layers_per_block=1,
        cross_attention_dim=24,
        attention_head_dim=4,
        resnet_time_scale_shift="scale_shift",
        class_embed_type="identity",
    )
    finer = UNet2DModel(
        sample_size=64,
        in_channels=6,
        out_channels=3,
        layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D"),
        up_block_types=("ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D"),
        block_out_channels=(8, 16),
        norm_num_groups=8,
    )
    projection = UnCLIPTextProjModel(
        clip_embeddings_dim=WIDTH, time_embed_dim=4 * 16, cross_attention_dim=24
    )
    return quiet(
        UnCLIPPipeline(
            prior=drawn(prior, 6, CALM),
            decoder=drawn(decoder, 7, CALM),
            text_encoder=text_encoder_2(),
            tokenizer=tokenizer("!"),
            text_proj=drawn(projection, 8, CALM),
            super_res_first=drawn(finer, 9, CALM),
            super_res_last=finer,
            prior_scheduler=UnCLIPScheduler(
                variance_type="fixed_small_log",
                prediction_type="sample",
                num_train_timesteps=1000,
                clip_sample_range=5.0,
            ),
            decoder_scheduler=UnCLIPScheduler(
                variance_type="learned_range",
                prediction_type="epsilon",
                num_train_timesteps=1000,
            ),
            super_res_scheduler=UnCLIPScheduler(
                variance_type="fixed_small_log",
                prediction_type="epsilon",
                num_train_timesteps=1000,
            ),
        )
    )


def with_adapter(pipeline: Any) -> Any:
    """The same pipeline, its UNet given an IP-Adapter: both halves of one, with random weights."""
    random, unet = torch.Generator().manual_seed(10), pipeline.unet
    layers: dict[str, torch.Tensor] = {}
    names = [name for name in unet.attn_processors if "attn2" in name]
    for number, name in enumerate(names):
        module = unet.get_submodule(name.removesuffix(".processor"))
        for part in ("to_k_ip", "to_v_ip"):
            shape = module.to_k.weight.shape
            layers[f"{2 * number + 1}.{part}.weight"] = torch.randn(shape, generator=random)
    projection = {
        "proj.weight": torch.randn(4 * WIDTH, WIDTH, generator=random),
        "proj.bias": torch.zeros(4 * WIDTH),
        "norm.weight": torch.ones(WIDTH),
        "norm.bias": torch.zeros(WIDTH),
    }
    unet._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": layers}])
    return pipeline


def picture(pipeline: Any, *prompt: str, **settings: Any) -> Image:
    """What it makes from noise that is always the same, in a few steps."""
    steps: dict[str, Any] = {"num_inference_steps": 3, "height": 64, "width": 64}
    if isinstance(pipeline, UnCLIPPipeline):
        steps = dict.fromkeys(
            ("prior_num_inference_steps", "decoder_num_inference_steps",
             "super_res_num_inference_steps"), 2
        )  # fmt: skip
    noise = torch.Generator().manual_seed(0)
    found = pipeline(*prompt, generator=noise, output_type="np", **steps, **settings)
    return np.asarray(found.images[0], np.float32)


def furthest(one: Image, other: Image) -> float:
    """The largest difference of any channel of any pixel."""
    return float(np.abs(one - other).max())


def drawn(model: Any, seed: int, noise: float = NOISE) -> Any:
    """Every weight drawn anew, of a size at which it matters; norms stay as they are."""
    random = torch.Generator().manual_seed(seed)
    for name, weights in model.named_parameters():
        if "norm" not in name and "layrnorm" not in name:
            scale = noise / max(1, weights[0].numel()) ** (0.25 if weights.ndim <= 2 else 0.5)
            weights.data.normal_(0, scale if weights.ndim > 1 else 0.1, generator=random)
    return model.eval()


def quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _text_config(**changes: Any) -> CLIPTextConfig:
    own = tokenizer()
    return CLIPTextConfig(
        **SIZE,
        num_hidden_layers=3,
        vocab_size=len(own),
        max_position_embeddings=CONTEXT,
        projection_dim=WIDTH,
        bos_token_id=own.bos_token_id,
        eos_token_id=own.eos_token_id,
        **changes,
    )


def _vae() -> Any:
    blocks: Sequence[str] = ["DownEncoderBlock2D"] * 2
    library: Any = AutoencoderKL  # whose types mypy has not
    vae = library(
        in_channels=3,
        out_channels=3,
        down_block_types=tuple(blocks),
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=8,
        latent_channels=4,
    )
    return drawn(vae, 11)


def _unet() -> dict[str, Any]:
    return {
        "sample_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": (16, 32),
        "norm_num_groups": 8,
        "attention_head_dim": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }
