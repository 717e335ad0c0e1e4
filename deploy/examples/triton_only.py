"""Scores pictures against texts with Triton alone, without the gateway.

python deploy/examples/triton_only.py HOST:PORT REPOSITORY/NAME TEXT TEXT... -- PICTURE PICTURE...
"""

import sys
from pathlib import Path

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import np_to_triton_dtype

from diptych import repository
from diptych.preprocess.images import decode_image
from diptych.preprocess.text import TextTokenizer, pad_tokens


def embed(client: InferenceServerClient, model: str, tensor: str, batch: np.ndarray) -> np.ndarray:
    """One vector a row, of unit length: Triton's are not."""
    tower = model.rpartition("_")[2]
    wanted = InferRequestedOutput(f"{tower}_embeds")  # what is not asked for is not computed
    given = InferInput(tensor, batch.shape, np_to_triton_dtype(batch.dtype))
    answer = client.infer(model, [given.set_data_from_numpy(batch)], outputs=[wanted])
    vectors = answer.as_numpy(f"{tower}_embeds")
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


address, place, *rest = sys.argv[1:]
texts, pictures = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
files = repository.load(Path(place).parent, Path(place).name)
spec, tokenizer = files.spec, TextTokenizer(files.tokenizer, files.spec.text)
pixels = np.stack([decode_image(Path(p).read_bytes(), spec.image) for p in pictures])
tokens, _ = pad_tokens([tokenizer.tokenize(text).tokens for text in texts], spec.text)
with InferenceServerClient(address) as client:
    images = embed(client, f"{spec.name}_image", "pixel_values", pixels)
    captions = embed(client, f"{spec.name}_text", "input_ids", tokens)
for picture, row in zip(pictures, images @ captions.T, strict=True):
    print(picture, *(f"{cosine:.4f}" for cosine in row))
