"""What turns a job's inputs into vectors: an engine of its own, Triton, or a running gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from diptych import repository
from diptych.canary import prove
from diptych.client import PLAIN, AsyncClient, Credentials
from diptych.contract import Matrix, ModelSpec, Tower, Vector
from diptych.engines.base import EMBEDS, PIXELS, Array, Engine
from diptych.errors import (
    BadInput,
    DiptychError,
    EngineFailed,
    EngineUnavailable,
    NotFound,
)
from diptych.gateway.opening import open_engine
from diptych.job.items import Content
from diptych.job.patience import patiently
from diptych.job.plan import SpaceOf, Wanted
from diptych.preprocess.images import decode_image
from diptych.preprocess.text import TextTokenizer
from diptych.repository import ModelFiles
from diptych.scoring import unit
from diptych.settings import Settings
from diptych.text_calls import TextCalls
from diptych.wire import Options

GATEWAY = "gateway://"

Prepared: TypeAlias = npt.NDArray[Any] | bytes | str  # pixels, tokens; or what a gateway is sent
Answer: TypeAlias = Vector | DiptychError


class Embedder(Protocol):
    """Embeds batches. Implemented by `LocalEmbedder` and `GatewayEmbedder`."""

    @property
    def description(self) -> str:
        """What makes the vectors, for a person."""
        ...

    @property
    def batches(self) -> int:
        """How many batches keep it busy."""
        ...

    def prepare(self, tower: Tower, content: Content) -> Prepared:
        """The part that runs on threads beside the engine.

        Raises:
            BadInput: this content cannot be embedded.
        """
        ...

    async def run(self, tower: Tower, batch: Sequence[Prepared]) -> list[Answer]:
        """A unit vector [D] for each of at least one input, or why it has none.

        Raises:
            EngineUnavailable: nobody answered for as long as patience lasts.
            EngineFailed: the engine itself is wrong.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineChoice:
    """What is to make the vectors. May change from run to run."""

    settings: Settings  # engine, model repository, model, threads, …
    gateway: str = ""  # HOST:PORT; if given, all else is the gateway's affair
    credentials: Credentials = PLAIN  # for the gateway
    model_version: int | None = None  # None: the newest
    patience_s: float = 60.0  # with an engine that is away


def model_files(choice: EngineChoice) -> ModelFiles:
    """The model the choice names, or the only one there is."""
    root, named = choice.settings.repository, choice.settings.model
    names = list(named) or repository.names(root)
    if len(names) != 1:
        raise NotFound(f"{root} has {len(names)} models: {', '.join(names) or 'none'}; name one")
    return repository.load(root, names[0], choice.model_version)


async def space_of(choice: EngineChoice) -> SpaceOf:
    """Where the vectors will lie, without loading an engine.

    Raises:
        DiptychError: there is no such model, or no such gateway.
    """
    if not choice.gateway:
        spec = (await asyncio.to_thread(model_files, choice)).spec
        return SpaceOf(
            model=spec.name,
            model_version=spec.version,
            fingerprint=spec.fingerprint,
            dimensions=spec.embed_dim,
        )
    async with AsyncClient(choice.gateway, credentials=choice.credentials) as client:
        found = [model.space for model in (await client.models()).models]
    name = next(iter(choice.settings.model), found[0].model)
    for space in found:
        if space.model == name:
            return SpaceOf(
                model=space.model,
                model_version=space.version,
                fingerprint=space.fingerprint,
                dimensions=space.dimensions,
            )
    raise NotFound(f"{choice.gateway} does not serve {name!r}")


@asynccontextmanager
async def embedder(choice: EngineChoice, wanted: Wanted) -> AsyncIterator[Embedder]:
    """An embedder that is warm and proved.

    Raises:
        DiptychError: it cannot be opened.
    """
    if choice.gateway:
        space = await space_of(choice)
        async with AsyncClient(choice.gateway, credentials=choice.credentials) as client:
            limits = (await client.models()).limits
            yield GatewayEmbedder(client, space, wanted, choice, limits.image_bytes)
        return
    files = await asyncio.to_thread(model_files, choice)
    engine = await open_engine(files, choice.settings, choice.patience_s)
    try:
        await prove(engine, files.spec)
        tokenizer = TextTokenizer(files.tokenizer, files.spec.text)
        yield LocalEmbedder(files.spec, tokenizer, engine, wanted, choice.patience_s)
    finally:
        await engine.close()


class LocalEmbedder:
    """Decodes and tokenizes here; the engine gets batches exactly as they are given.

    Not `Encoder`, whose batches are made of whatever happens to wait: the last bits of a vector
    depend on its batch, and a job that is resumed has to write the same bits.
    """

    def __init__(
        self,
        spec: ModelSpec,
        tokenizer: TextTokenizer,
        engine: Engine,
        wanted: Wanted,
        patience_s: float,
    ) -> None:
        self.description = engine.description
        self.batches = engine.in_flight
        self._spec = spec
        self._tokenizer = tokenizer
        self._engine = engine
        self._wanted = wanted
        self._patience_s = patience_s
        self._free = asyncio.Semaphore(engine.in_flight)
        self._text_calls = TextCalls.on(engine, spec)

    def prepare(self, tower: Tower, content: Content) -> Prepared:
        wanted, spec = self._wanted, self._spec
        if tower is spec.absent:
            raise BadInput.at(tower, f"{spec.name!r} is a lone encoder, without {tower} tower")
        if isinstance(content, bytes):
            return decode_image(content, spec.image, exif=wanted.exif, exact=wanted.exact_images)
        return self._tokenizer.tokenize(content, truncate=wanted.truncate).tokens

    async def run(self, tower: Tower, batch: Sequence[Prepared]) -> list[Answer]:
        async with self._free:
            try:
                return [*await self._embed(tower, batch)]
            except EngineFailed:
                return [await self._alone(tower, one) for one in batch]

    async def _alone(self, tower: Tower, one: Prepared) -> Answer:
        """One input of a batch that failed. It is to blame if the engine is well otherwise."""
        try:
            [vector] = await self._embed(tower, [one])
            return cast(Vector, vector)
        except EngineFailed as failure:
            await prove(self._engine, self._spec)
            return failure

    async def _embed(self, tower: Tower, batch: Sequence[Any]) -> Matrix:
        if tower is Tower.IMAGE:
            name = EMBEDS[tower]
            answer = await self._call(tower, {PIXELS: np.stack(batch)}, name)
            return unit(answer[name])
        vectors = np.empty((len(batch), self._spec.embed_dim), np.float32)
        for rows in self._text_calls.cut([len(one) for one in batch]):
            call = self._text_calls.call([batch[row] for row in rows])
            vectors[rows] = unit(call.embeds(await self._call(tower, call.inputs, call.output)))
        return vectors

    async def _call(self, tower: Tower, inputs: dict[str, Array], output: str) -> dict[str, Array]:
        run = partial(self._engine.run, tower, inputs, [output])
        return await patiently(run, self._patience_s)


class GatewayEmbedder:
    """Sends encoded images and texts to a running gateway, one EmbedStream a batch, at bulk
    priority: the gateway reads only as fast as online traffic leaves it time.

    The last bits are the gateway's affair: the same at every run if it is `--deterministic`.
    """

    batches = 4  # two for its engine, two on the way

    def __init__(
        self,
        client: AsyncClient,
        space: SpaceOf,
        wanted: Wanted,
        choice: EngineChoice,
        max_image_bytes: int,
    ) -> None:
        self.description = f"gateway {choice.gateway}"
        self._client = client
        self._patience_s = choice.patience_s
        self._max_image_bytes = max_image_bytes
        self._options = Options(
            model=space.model,
            expected_fingerprint=space.fingerprint,
            truncate=wanted.truncate,
            exif=wanted.exif,
            priority="bulk",
        )

    def prepare(self, tower: Tower, content: Content) -> Prepared:
        # Beyond the transport's limit it would end the stream, and its neighbours with it.
        if isinstance(content, bytes) and len(content) > self._max_image_bytes:
            limit = f"at most {self._max_image_bytes:,} are allowed"
            raise BadInput.at("image", f"has {len(content):,} bytes; {limit}")
        if isinstance(content, str) and content != content.encode(errors="replace").decode():
            raise BadInput.at("text", "is not valid Unicode")
        return content

    async def run(self, tower: Tower, batch: Sequence[Prepared]) -> list[Answer]:
        return await patiently(lambda: self._stream(batch), self._patience_s)

    async def _stream(self, batch: Sequence[Any]) -> list[Answer]:
        async def inputs() -> AsyncIterator[tuple[str, bytes | str]]:
            for number, one in enumerate(batch):
                yield str(number), one

        answers: dict[int, Answer] = {}
        async for found in self._client.embed_stream(inputs(), self._options):
            result = found.result
            if isinstance(result, DiptychError):
                if not isinstance(result, BadInput | EngineFailed):
                    raise result
                answers[int(found.id)] = result
            else:
                answers[int(found.id)] = result.astype(np.float32, copy=False)
        if len(answers) != len(batch):
            raise EngineUnavailable("the gateway ended a stream half-way")
        failures = [found for found in answers.values() if isinstance(found, EngineFailed)]
        if len(failures) == len(batch) > 1:
            raise failures[0]  # not the inputs' fault
        return [answers[number] for number in range(len(batch))]
