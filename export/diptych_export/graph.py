"""The two towers as they are exported: scaling and pooling inside, unit length outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from diptych.contract import TEXTS_A_ROW, ImageSpec, TextSpec
from diptych.engines.base import PACKED
from diptych.profiles import states_output
from diptych_export.last_layer import last_layer

Pooled: TypeAlias = Literal["end", "first", "last"]  # which position stands for the text

_MOST_COUNTED = 256  # bfloat16 has every whole number up to it, and some engines count in bfloat16

IMAGE_EMBEDS, TEXT_EMBEDS = "image_embeds", "text_embeds"
PENULTIMATE = "penultimate_hidden_state"


class ImageTower(nn.Module):
    """uint8 [B, S, S, 3] to `outputs`: [B, D], and [B, T, H] where the encoder is a transformer.

    Bytes are scaled in here, so that one byte a value crosses every wire.
    """

    def __init__(
        self, vision: nn.Module, projection: nn.Module, image: ImageSpec, *, states: bool = True
    ) -> None:
        """`vision` answers as transformers' vision models do, with hidden states if `states`."""
        super().__init__()
        self.vision = vision
        self.projection = projection
        self.outputs = (IMAGE_EMBEDS, PENULTIMATE) if states else (IMAGE_EMBEDS,)
        self.offset: Tensor
        self.scale: Tensor
        self.register_buffer("offset", 255 * torch.tensor(image.mean, dtype=torch.float32))
        self.register_buffer("scale", 255 * torch.tensor(image.std, dtype=torch.float32))

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        return self.encode(((pixel_values.float() - self.offset) / self.scale).permute(0, 3, 1, 2))

    def encode(self, values: Tensor) -> tuple[Tensor, ...]:
        """Pixel values as the encoder takes them, [B, 3, S, S], to `outputs`."""
        if PENULTIMATE not in self.outputs:
            return (self.projection(self.vision(pixel_values=values).pooler_output),)
        answer = self.vision(pixel_values=values, output_hidden_states=True)
        return self.projection(self._pooled(answer)), answer.hidden_states[-2]

    def _pooled(self, answer: Any) -> Tensor:
        """[B, H]: the encoder's own `pooler_output`, which of the last layer needs one token."""
        last = last_layer(self.vision)
        if last is None:
            pooled: Tensor = answer.pooler_output
        else:
            inner = answer.hidden_states[-2]
            # A module, for all that torch's annotations know a tensor.
            pooled = self.vision.post_layernorm(last.at(inner[:, :1], inner)[:, 0])  # type: ignore[operator]
        return pooled


class AbsentImage(ImageTower):
    """For a lone text encoder: every picture becomes the same unit vector, so that what expects
    two towers finds two. The spec says that it is none, and it is never asked by a caller."""

    def __init__(self, image: ImageSpec, embed_dim: int) -> None:
        super().__init__(nn.Identity(), nn.Identity(), image, states=False)
        self.one: Tensor
        self.register_buffer("one", torch.eye(1, embed_dim))

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        return (self.one + 0 * pixel_values.flatten(1)[:, :1],)


@dataclass(frozen=True, slots=True)
class Frame:
    """The ids that every text begins and ends with, and no text has inside."""

    start_id: int
    end_id: int
    longest: int  # tokens of a row


def frame(text: TextSpec) -> Frame | None:
    """By which texts that lie side by side are told apart; None where they cannot be."""
    if text.padding != "longest" or text.start_id in (None, text.end_id, text.pad_id):
        return None
    if text.context_length > _MOST_COUNTED:
        return None
    return Frame(text.start_id, text.end_id, text.context_length)


class TextTower(nn.Module):
    """int64 [B, L'], and where the tower takes one a mask alike, to `outputs`.

    [B, D], then [B, L', H], [B, L', H] and [B, H]: the last hidden state has passed the final
    norm, the penultimate has not, and `pooled` is the last one where the text is read off, not
    projected: what image generators condition on.

    With a `frame`, a row may hold several texts side by side, each from its start token to its end
    token. No token sees one of another text, each text's places count from 0, and `packed_embeds`
    [B, TEXTS_A_ROW, D] are the texts' in their order. A row of one text is what it always was.
    """

    def __init__(
        self,
        text: nn.Module,
        projection: nn.Module,
        *,
        pooled: Pooled = "end",
        penultimate: bool = True,
        layers: int = 0,
        frame: Frame | None = None,
    ) -> None:
        """`text` answers as transformers' text models do; with a `frame` it is CLIP's, which sees
        backwards only and takes `position_ids`.

        `pooled` "end" is its own `pooler_output`, at the end token; `penultimate` is to be False
        where the inner states are of another width than the last. Of so many last `layers`, the
        states are outputs as they are and after the final norm, `text.final_layer_norm`.
        """
        super().__init__()
        self.text = text
        self.projection = projection
        self.pooled = pooled
        self.layers = layers
        self.frame = frame
        names = (TEXT_EMBEDS, "last_hidden_state", PENULTIMATE, "pooled")
        self.outputs = tuple(name for name in names if penultimate or name != PENULTIMATE)
        self.outputs += tuple(name for _, _, name in self._more())
        self.outputs += () if frame is None else (PACKED,)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        if self.frame is None:
            answer = self.text(
                input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True
            )
        else:
            seen, places = _told_apart(input_ids, attention_mask, self.frame)
            answer = self.text(
                input_ids=input_ids,
                attention_mask=_added(seen)[:, None],
                position_ids=places,
                output_hidden_states=True,
            )
        last = answer.last_hidden_state
        if self.pooled == "end":
            pooled = answer.pooler_output
        else:
            pooled = last[:, 0 if self.pooled == "first" else -1]
        states = [last, answer.hidden_states[-2]] if PENULTIMATE in self.outputs else [last]
        more = [
            self.text.final_layer_norm(answer.hidden_states[-1 - layer])  # type: ignore[operator]
            if norm
            else answer.hidden_states[-1 - layer]
            for layer, norm, _ in self._more()
        ]
        if self.frame is None:
            return (self.projection(pooled), *states, pooled, *more)
        packed = self.projection(self._at_ends(answer, _ends(input_ids, self.frame), seen))
        return (packed[:, 0], *states, pooled, *more, packed)

    def _at_ends(self, answer: Any, ends: Tensor, seen: Tensor) -> Tensor:
        """The last states [B, TEXTS_A_ROW, H] at `ends`, and zeros where there is none.

        An engine that leaves out what no output asked for needs computes the last layer for these
        alone.
        """
        last = last_layer(self.text)
        if last is None:
            found: Tensor = ends @ answer.last_hidden_state
        else:
            inner, places = answer.hidden_states[-2], ends.argmax(-1)
            mask = _added(_taken(seen, places))[:, None]
            made = last.at(_taken(inner, places), inner, mask)
            # As above: a module.
            found = self.text.final_layer_norm(made) * ends.sum(-1, keepdim=True)  # type: ignore[operator]
        return found

    def with_layers(self, layers: int) -> TextTower:
        """The same tower, which also gives the states of its last `layers`.

        Raises:
            ValueError: it has not so many, or no final norm.
        """
        if layers and not isinstance(getattr(self.text, "final_layer_norm", None), nn.Module):
            raise ValueError("this text tower has no final norm, and so no clip-skip")
        if layers > (most := len(self.text.encoder.layers) if layers else 0):  # type: ignore[union-attr, arg-type]
            raise ValueError(f"this text tower has {most} layers")
        penultimate = PENULTIMATE in self.outputs
        return TextTower(
            self.text,
            self.projection,
            pooled=self.pooled,
            penultimate=penultimate,
            layers=layers,
            frame=self.frame,
        )

    def _more(self) -> list[tuple[int, bool, str]]:
        return more_states(self.layers)


class AbsentText(TextTower):
    """As `AbsentImage`, for a lone image encoder."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__(nn.Identity(), nn.Identity())
        self.outputs = (TEXT_EMBEDS,)
        self.one: Tensor
        self.register_buffer("one", torch.eye(1, embed_dim))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        return (self.one + 0 * input_ids[:, :1],)

    def with_layers(self, layers: int) -> TextTower:
        if layers:
            raise ValueError("there is no text tower")
        return self


def _told_apart(ids: Tensor, heeded: Tensor | None, frame: Frame) -> tuple[Tensor, Tensor]:
    """1 where a token sees the column's, else 0, [B, L, L]; its place in its own text, [B, L]."""
    earlier = _earlier(ids, frame)
    text = _counted(ids == frame.start_id, earlier)  # which one each token is of
    seen = torch.where(text[:, None, :] == text[:, :, None], earlier, 0.0)
    own_place = seen.sum(-1).long() - 1
    if heeded is not None:
        seen = torch.where(heeded[:, None, :] != 0, seen, 0.0)
    return seen, own_place


def _added(seen: Tensor) -> Tensor:
    """What CLIP's attention adds to its weights."""
    return torch.where(seen > 0, 0.0, float("-inf"))


def _ends(ids: Tensor, frame: Frame) -> Tensor:
    """1 at the first `TEXTS_A_ROW` end tokens of each row, one after the other, else 0:
    [B, TEXTS_A_ROW, L]."""
    ends = ids == frame.end_id
    number = torch.where(ends, _counted(ends, _earlier(ids, frame)), 0.0)
    wanted = torch.arange(1, TEXTS_A_ROW + 1, device=ids.device).to(number.dtype)
    return (number[:, None, :] == wanted[:, None]).float()


def _taken(values: Tensor, places: Tensor) -> Tensor:
    """Of [B, L, N] those at the places [B, P]: [B, P, N]."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[-1]))


def _earlier(ids: Tensor, frame: Frame) -> Tensor:
    """1 where the column's place is the row's or before it, else 0: [L, L].

    Cut from the longest, so that ids of more tokens do not fit, and engines refuse them.
    """
    place = torch.arange(frame.longest, device=ids.device)[: ids.shape[1]]
    return (place[None, :] <= place[:, None]).float()


def _counted(marked: Tensor, earlier: Tensor) -> Tensor:
    """How many places of [B, L] are marked up to each.

    In floating point, and sums as products: OpenVINO 2026.4 adds integers wrongly where there are
    more than 32 rows.
    """
    return marked.float() @ earlier.T


def more_states(layers: int) -> list[tuple[int, bool, str]]:
    """The outputs that so many last layers add: layers left out, whether normed, the name."""
    every = ((layer, norm) for layer in range(layers) for norm in (False, True))
    named = ((layer, norm, states_output(layer, norm=norm)) for layer, norm in every)
    return [one for one in named if one[2] not in ("last_hidden_state", PENULTIMATE)]
