"""Towers and tokenizer in, a folder in the Hugging Face layout out, and back."""

from __future__ import annotations

from pathlib import Path

from transformers import CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from diptych_export.dual import MEAN, STD
from diptych_export.errors import BadCheckpoint

_WEIGHTS = "model.safetensors"


def processor_for(model: CLIPModel, tokenizer: CLIPTokenizer) -> CLIPProcessor:
    """CLIP's own steps, at the size of `model`: what its training data went through."""
    side: int = model.vision_model.embeddings.image_size
    images = CLIPImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=list(MEAN),
        image_std=list(STD),
    )
    return CLIPProcessor(image_processor=images, tokenizer=tokenizer)


def save(model: CLIPModel, processor: CLIPProcessor, folder: Path) -> None:
    """Write what `CLIPModel.from_pretrained` and `CLIPProcessor.from_pretrained` open."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def load(folder: Path) -> tuple[CLIPModel, CLIPProcessor]:
    """Read what `save` wrote.

    Raises:
        BadCheckpoint: no safetensors there; a pickle is never opened.
    """
    if not (folder / _WEIGHTS).is_file():
        raise BadCheckpoint(f"{folder}: no {_WEIGHTS}")
    model = CLIPModel.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    return model.eval(), CLIPProcessor.from_pretrained(folder, local_files_only=True)
