"""A `Source` in, one more verified version in a model repository out."""

from __future__ import annotations

from pathlib import Path

from diptych.contract import ModelSpec, Tower
from diptych.repository import fingerprint
from diptych_export import parity, repository
from diptych_export.onnx import write_image_graph, write_text_graph
from diptych_export.sources.base import Source
from diptych_export.triton_config import Placement, Target

_ONNXRUNTIME = Placement(Target.ONNXRUNTIME)


def build(source: Source, name: str, root: Path, placement: Placement = _ONNXRUNTIME) -> ModelSpec:
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
        write_image_graph(source.image_tower, source.image, graphs[Tower.IMAGE])
        write_text_graph(source.text_tower, source.text, graphs[Tower.TEXT])
        figures = parity.check(graphs, tokenizer, source.image, source.text, source.reference)
        spec = ModelSpec(
            name=name,
            version=version,
            fingerprint=fingerprint(
                graphs[Tower.IMAGE], graphs[Tower.TEXT], tokenizer, source.image, source.text
            ),
            image=source.image,
            text=source.text,
            score=source.score,
            precision="fp32",
            source=source.origin,
            licence=source.licence,
            parity=figures,
            canary=source.reference.canary(source.image, source.text),
            **source.numbers,
        )
        repository.complete(stage, root, spec, placement)
        repository.publish(stage, root, spec)
    return spec
