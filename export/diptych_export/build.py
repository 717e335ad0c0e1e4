"""A `Source` in, one more verified version in a model repository out."""

from __future__ import annotations

from pathlib import Path

from diptych.contract import ModelSpec, Tower
from diptych.repository import ZERO_IMAGE, fingerprint
from diptych_export import repository
from diptych_export.extras import zero_image
from diptych_export.onnx import write_image_graph, write_text_graph
from diptych_export.parity import Gate
from diptych_export.precision import Making, Say, convert
from diptych_export.sources.base import Source
from diptych_export.triton_config import Placement, Target

_ONNXRUNTIME = Placement(Target.ONNXRUNTIME)
_FLOAT32 = Making()


def _silent(line: str) -> None:
    pass


def build(
    source: Source,
    name: str,
    root: Path,
    placement: Placement = _ONNXRUNTIME,
    making: Making = _FLOAT32,
    say: Say = _silent,
) -> ModelSpec:
    """Export both towers, prove them against their source, and publish them in `root`.

    Raises:
        ParityError: an output differs from the source's; `root` is as it was.
        BadRepository: what was made could not be served; `root` is as it was.
    """
    version = repository.next_version(root, name)
    with repository.staging(root) as stage:
        graphs = {tower: repository.graph_path(stage, name, version, tower) for tower in Tower}
        tokenizer = repository.tokenizer_path(stage, name, version)
        tokenizer.write_text(source.tokenizer_json, encoding="utf-8")
        figures = _export(source, graphs, tokenizer, making, say)
        zero = repository.write_zero_image(
            graphs[Tower.IMAGE].with_name(ZERO_IMAGE), zero_image(source)
        )
        spec = ModelSpec(
            name=name,
            version=version,
            fingerprint=fingerprint(
                graphs[Tower.IMAGE], graphs[Tower.TEXT], tokenizer, source.image, source.text
            ),
            image=source.image,
            text=source.text,
            score=source.score,
            precision=making.precision,
            source=source.origin,
            licence=source.licence,
            parity=figures,
            zero_image=zero,
            canary=source.reference.canary(source.image, source.text),
            **source.numbers,
        )
        repository.complete(stage, root, spec, placement)
        repository.publish(stage, root, spec)
    return spec


def _export(
    source: Source, graphs: dict[Tower, Path], tokenizer: Path, making: Making, say: Say
) -> dict[str, float]:
    """Write both graphs as `making` says; answer the gate's figures."""
    say("exporting both towers")
    write_image_graph(source.image_tower, source.image, graphs[Tower.IMAGE], opset=making.opset)
    write_text_graph(source.text_tower, source.text, graphs[Tower.TEXT], opset=making.opset)
    say("asking the source library")
    held = making.calibration
    gate = Gate(
        source,
        tokenizer,
        held.held_pictures if held else (),
        held.held_texts if held else (),
    )
    return convert(graphs, tokenizer, source.text, gate, making, say)
