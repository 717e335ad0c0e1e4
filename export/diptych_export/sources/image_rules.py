"""transformers' image processor in, `ImageSpec` out. Every setting is read, none is assumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from PIL.Image import Resampling

from diptych.contract import ImageSpec, Triple
from diptych_export.errors import BadCheckpoint

Filter: TypeAlias = Literal["lanczos", "bilinear", "bicubic"]

FILTERS: dict[int, Filter] = {
    Resampling.LANCZOS: "lanczos",
    Resampling.BILINEAR: "bilinear",
    Resampling.BICUBIC: "bicubic",
}
_NEEDED = ("size", "resample", "image_mean", "image_std")


def image_spec(where: str, written: Mapping[str, Any], processor: Any) -> ImageSpec:
    """The rules of `processor`, which was read from the settings `written` in the checkpoint.

    Raises:
        BadCheckpoint: a setting is missing, or one the serving side has no rule for.
    """
    place = f"{where}: image processor"
    if missing := [name for name in _NEEDED if written.get(name) is None]:
        raise BadCheckpoint(f"{place}: {', '.join(missing)} missing")
    if not processor.do_resize or getattr(processor, "do_pad", None):
        raise BadCheckpoint(f"{place}: only resizing makes pictures square; do_resize is needed")
    if processor.resample not in FILTERS:
        raise BadCheckpoint(f"{place}: resample {processor.resample} is none of {FILTERS}")
    resize, resize_to, size = _sizes(place, processor)
    mean, std = _scaling(place, processor)
    return ImageSpec(
        size=size,
        resize=resize,
        resize_to=resize_to,
        interpolation=FILTERS[processor.resample],
        rgb="before_resize",
        rounding="huggingface",
        mean=mean,
        std=std,
    )


def _sizes(place: str, processor: Any) -> tuple[Literal["shortest", "squash"], int, int]:
    """How a picture is resized, to what, and the side of the square that is left."""
    asked = {key: value for key, value in dict(processor.size).items() if value is not None}
    crop = dict(processor.crop_size) if getattr(processor, "do_center_crop", None) else None
    if crop and crop["height"] != crop["width"]:
        raise BadCheckpoint(f"{place}: crop_size {crop} is no square")
    if asked.keys() == {"shortest_edge"} and crop:
        return "shortest", asked["shortest_edge"], crop["height"]
    if asked.keys() == {"height", "width"} and asked["height"] == asked["width"]:
        return "squash", asked["height"], crop["height"] if crop else asked["height"]
    raise BadCheckpoint(f"{place}: size {asked} and crop_size {crop} make no square")


def _scaling(place: str, processor: Any) -> tuple[Triple, Triple]:
    """Mean and deviation of values in 0..1 that do in one step what the processor does in four.

    It rescales, shifts by 1 (`rescale_offset`), normalises, and divides by the deviation once
    more (`include_top`); the last two are EfficientNet's, which is ALIGN's:
    transformers, models/efficientnet/image_processing_pil_efficientnet.py.
    """
    gain = 255.0 * (processor.rescale_factor if processor.do_rescale else 1.0)
    shift = 1.0 if processor.do_rescale and getattr(processor, "rescale_offset", False) else 0.0
    ones = (1.0, 1.0, 1.0)
    stds = _triple(place, processor.image_std)
    means = _triple(place, processor.image_mean) if processor.do_normalize else (0.0, 0.0, 0.0)
    first = stds if processor.do_normalize else ones
    again = stds if getattr(processor, "include_top", False) else ones
    if gain <= 0 or min(stds) <= 0:
        raise BadCheckpoint(f"{place}: image_std {stds}, rescale_factor {processor.rescale_factor}")
    mean = [(mean + shift) / gain for mean in means]
    std = [one * two / gain for one, two in zip(first, again, strict=True)]
    return _triple(place, mean), _triple(place, std)


def _triple(place: str, values: Any) -> Triple:
    numbers = [float(value) for value in values]
    if len(numbers) != 3:
        raise BadCheckpoint(f"{place}: {len(numbers)} numbers in image_mean or image_std, not 3")
    return numbers[0], numbers[1], numbers[2]
