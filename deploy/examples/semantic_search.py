"""Finds the images nearest to texts, among the vectors that `diptych job run` wrote.

python deploy/examples/semantic_search.py VECTORS HOST:PORT TEXT...

VECTORS is the job's destination, HOST:PORT a gateway that serves the same model: it is held to the
fingerprint that stands in every shard. Needs faiss-cpu and pyarrow.
"""

import json
import sys
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq

from diptych.client import Client
from diptych.wire import Options

destination, address, *texts = sys.argv[1:]
index, ids, space = None, [], {}
for shard in sorted(Path(destination, "shards").glob("*.parquet")):
    table = pq.read_table(shard, columns=["id", "image_vector"], filters=[("status", "=", "ok")])
    space = json.loads(table.schema.metadata[b"diptych"])
    # Exact, and fast up to a few million vectors; beyond, IndexHNSWFlat or an IVF index.
    index = index or faiss.IndexFlatIP(space["dimensions"])
    for vectors in table["image_vector"].chunks:
        rows = vectors.flatten().to_numpy().reshape(len(vectors), -1)
        index.add(rows.astype(np.float32))  # of unit length: the inner product is the cosine
    ids += table["id"].to_pylist()

with Client(address) as client:
    options = Options(model=space["model"], expected_fingerprint=space["fingerprint"])
    queries = client.embed(texts, options).vectors
scores, found = index.search(queries, k=min(3, len(ids)))
for text, row, places in zip(texts, scores, found, strict=True):
    print(text)
    for score, place in zip(row, places, strict=True):
        print(f"  {score:.3f}  {ids[place]}")
