"""Puts the image vectors that `diptych job run` wrote into a Qdrant collection.

python deploy/examples/into_qdrant.py VECTORS http://HOST:6333 COLLECTION

Points are numbered by their inputs' ids, so that a second run changes nothing. In place of the URL,
a folder holds the collection without a server. Needs qdrant-client and pyarrow.
"""

import json
import sys
import uuid
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from qdrant_client import QdrantClient, models

destination, place, collection = sys.argv[1:]
client = QdrantClient(place) if "://" in place else QdrantClient(path=place)
for shard in sorted(Path(destination, "shards").glob("*.parquet")):
    table = pq.read_table(shard, filters=[("status", "=", "ok")])
    space = json.loads(table.schema.metadata[b"diptych"])
    if not client.collection_exists(collection):
        # Of unit length: the inner product is the cosine, without dividing again.
        how = models.VectorParams(
            size=space["dimensions"],
            distance=models.Distance.DOT,
            datatype=models.Datatype.FLOAT16,
        )
        client.create_collection(collection, vectors_config=how)
    names = table["id"].to_pylist()
    vectors = table["image_vector"].combine_chunks().flatten().to_numpy()
    client.upload_collection(
        collection,
        vectors=vectors.reshape(len(names), -1).astype(np.float32),
        payload=[{"id": name, "fingerprint": space["fingerprint"]} for name in names],
        ids=[str(uuid.uuid5(uuid.NAMESPACE_URL, name)) for name in names],
        wait=True,
    )
print(client.count(collection).count, "points in", collection)
