"""Draw labelled scenes for the policy `shapes`: pictures, captions and a table that says which.

python deploy/examples/draw_red_triangles.py FOLDER [SCENES [SEED]]

A third are red triangles of every size, a third what is easily taken for one, a third anything.
The column `size` is for `diptych-export evaluate --groups`.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from random import Random

from diptych_export.data import captions
from diptych_export.data.drawing import picture
from diptych_export.data.scenes import PAIRS, Pair, one

RED_TRIANGLE: Pair = ("red", "triangle")
OTHERS = [pair for pair in PAIRS if pair != RED_TRIANGLE]
NEAR = [pair for pair in OTHERS if pair[0] in ("red", "orange", "pink", "brown")]
NEAR += [pair for pair in OTHERS if pair[1] == "triangle"]
SIDES_PX = (64, 128, 224)


def draw(folder: Path, scenes: int = 600, seed: int = 0) -> Path:
    """Write the pictures and `labelled.csv` into `folder`; the same seed draws the same."""
    rng = Random(f"red triangles/{seed}")
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "labelled.csv"
    with table.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["image", "text", "size", "red-triangle"])
        for number in range(scenes):
            pair = (RED_TRIANGLE, rng.choice(NEAR), rng.choice(OTHERS))[number % 3]
            scene = one(rng, pair)
            size, truth = scene.things[0].size, int(pair == RED_TRIANGLE)
            name = f"{number:05d}.png"
            picture(scene, rng.choice(SIDES_PX)).save(folder / name)
            rows.writerow([name, "", size, truth])
            rows.writerow(["", captions.single(rng, scene), size, truth])
    return table


if __name__ == "__main__":
    draw(Path(sys.argv[1]), *(int(number) for number in sys.argv[2:]))
