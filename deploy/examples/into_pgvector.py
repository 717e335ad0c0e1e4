"""Puts the image vectors that `diptych job run` wrote into PostgreSQL, under an index of pgvector.

python deploy/examples/into_pgvector.py VECTORS postgresql://USER@HOST/DATABASE TABLE

Rows that are there already stay as they are. Needs psycopg 3 and pyarrow, and pgvector 0.5 or newer
in the database. To search: SELECT id FROM TABLE ORDER BY vector <#> '[…]' LIMIT 10, with the
vector of a query of the same fingerprint; <#> is the inner product, negated.
"""

import json
import sys
from pathlib import Path

import psycopg
import pyarrow.parquet as pq
from psycopg.sql import SQL, Identifier, Literal

destination, database, name = sys.argv[1:]
table, made = Identifier(name), False
with psycopg.connect(database) as connection:
    for shard in sorted(Path(destination, "shards").glob("*.parquet")):
        rows = pq.read_table(shard, filters=[("status", "=", "ok")])
        space = json.loads(rows.schema.metadata[b"diptych"])
        if not made:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            columns = "(id text PRIMARY KEY, fingerprint text NOT NULL, vector vector({}) NOT NULL)"
            connection.execute(
                SQL("CREATE TABLE IF NOT EXISTS {} " + columns).format(
                    table, Literal(space["dimensions"])
                )
            )
            connection.execute(
                SQL("CREATE TEMPORARY TABLE coming (LIKE {}) ON COMMIT DROP").format(table)
            )
            made = True
        with connection.cursor().copy("COPY coming FROM STDIN") as copy:
            for row in rows.select(["id", "image_vector"]).to_pylist():
                vector = "[" + ",".join(map(str, row["image_vector"])) + "]"
                copy.write_row((row["id"], space["fingerprint"], vector))
    connection.execute(
        SQL("INSERT INTO {} SELECT * FROM coming ON CONFLICT DO NOTHING").format(table)
    )
    connection.execute(
        SQL("CREATE INDEX IF NOT EXISTS {} ON {} USING hnsw (vector vector_ip_ops)").format(
            Identifier(name + "_vector"), table
        )
    )
    [count] = connection.execute(SQL("SELECT count(*) FROM {}").format(table)).fetchone()
print(count, "rows in", name)
