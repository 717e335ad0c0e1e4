"""Processes that train together learn what one would from the joint batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_two_processes_in_chunks_compute_the_gradients_of_one_on_the_joint_batch() -> None:
    """Through the command that the README names."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    command += ["-m", "bench.two_processes", "--json", "--pairs", "32"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    ) as process:
        try:
            said, _ = process.communicate(timeout=100)
        finally:
            process.terminate()  # it ends its workers, where a kill would leave them
    assert process.returncode == 0
    found = [json.loads(line) for line in said.splitlines()]
    assert [facts["loss"] for facts in found] == ["softmax", "sigmoid"]
    for facts in found:
        assert facts["processes"] == facts["chunks"] == 2
        assert facts["parameters"] > 40
        assert facts["loss_difference"] < 1e-5
        assert facts["largest_difference"] < 1e-5
