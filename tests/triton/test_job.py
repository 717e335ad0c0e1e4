"""An offline job whose engine is a real tritonserver."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np

from diptych.engines.triton_server import TritonServer
from tests.job.making import HOW, rows, run, write_tars


async def test_a_job_through_triton_writes_the_same_vectors(
    triton: TritonServer, served: Path, tmp_path: Path
) -> None:
    source = write_tars(tmp_path / "in", 20, 10)
    far = replace(HOW, engine=f"triton://{triton.address}", repository=served)
    exact = replace(HOW, precision="fp32")  # as ONNX Runtime has it in Triton
    for how, name in ((far, "far"), (exact, "near")):
        status = await asyncio.to_thread(
            run, source, tmp_path / name, how, kind="pair", dtype="float32"
        )
        assert status == 0
    for column in ("image_vector", "text_vector"):
        far_vectors, near_vectors = (
            np.array([row[column] for row in rows(tmp_path / name)]) for name in ("far", "near")
        )
        np.testing.assert_allclose(far_vectors, near_vectors, atol=1e-5)
