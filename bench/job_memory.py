"""Whether an offline job's memory stays flat: peaks over few inputs and over a hundred times more.

    python -m bench.job_memory --inputs 2000 200000

Small JPEGs in webdataset tars, embedded by the small model that is shipped. Status 1 if the peaks
differ by more than a tenth.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.job_data import command, small_jpeg, webdataset

_PER_TAR = 1000
_MOST = 1.1  # of the largest peak to the smallest


def main() -> None:
    reader = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    reader.add_argument("--inputs", type=int, nargs="+", default=[2000, 200_000])
    reader.add_argument("--shard-size", type=int, default=1000)
    options = reader.parse_args()
    drawn = [small_jpeg(number) for number in range(_PER_TAR)]
    with tempfile.TemporaryDirectory() as name:
        peaks = [
            _peak(Path(name) / str(inputs), inputs, options.shard_size, drawn)
            for inputs in options.inputs
        ]
    differ = max(peaks) / min(peaks)
    print(f"the largest peak is {differ:.3f} of the smallest", flush=True)
    sys.exit(0 if differ <= _MOST else 1)


def _peak(root: Path, inputs: int, shard_size: int, drawn: list[bytes]) -> int:
    """Bytes."""
    source = webdataset(root / "in", inputs, _PER_TAR, lambda number: drawn[number % len(drawn)])
    flags = ["--shard-size", str(shard_size)]
    began = time.monotonic()
    process = subprocess.Popen(command(source, root / "out", *flags), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    took_s = time.monotonic() - began
    assert status == 0, f"status {status}"
    peak = usage.ru_maxrss * 1024
    print(f"{inputs:,} inputs: {peak / 2**20:.1f} MiB at most, {took_s:.1f} s", flush=True)
    return peak


if __name__ == "__main__":
    main()
