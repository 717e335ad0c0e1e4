"""Mutual TLS: who is let in by certificate, and to what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from diptych.client import AsyncClient
from diptych.errors import DiptychError, NotAllowed, Unidentified
from diptych.gateway.identity_interceptor import OPEN, methods_of
from diptych.gateway.server import GUARDED, gateway
from diptych.settings import Settings
from tests.certificates import Authority, Pair
from tests.http2 import MESSAGE, call, request
from tests.serving import local

OK, INVALID, DENIED, UNAUTHENTICATED = 0, 3, 7, 16
METHODS = sorted(methods_of(GUARDED))
MODELS = "/diptych.v1.EmbeddingService/ListModels"
KEY = "dpt_s3cret-key-0123456789"
DIGEST = "f1cf1f4a0ea0fa3e4b0b8bd3d5a3ec8a7a4d0f1d7e8a6c5b4a39281706f5e4d3"  # of no key


class Mutual:
    """A gateway that asks for certificates, and one of each kind of caller."""

    def __init__(self, folder: Path) -> None:
        self.authority = authority = Authority(folder)
        self.server = authority.issue("localhost", "127.0.0.1")
        self.search = authority.issue("search.example", file="search")
        self.narrow = authority.issue("narrow@example.org", file="narrow")
        self.common = authority.issue(file="common", common_name="by common name")
        self.nobody = authority.issue("nobody.example", file="nobody", common_name="search.example")
        self.both = authority.issue("search.example", "narrow@example.org", file="both")
        self.callers = folder / "callers.yaml"
        self.callers.write_text(
            "callers:\n"
            "  - {name: search, certificates: ['dns:search.example'], rights: ['*']}\n"
            "  - {name: narrow, certificates: ['email:narrow@example.org'], "
            "rights: [ServerReflection]}\n"
            "  - {name: common, certificates: ['cn:by common name'], rights: ['*']}\n"
            f"  - {{name: keyed, keys: [{{sha256: {DIGEST}}}], rights: ['*']}}\n"
        )
        self.address = ""

    def settings(self) -> Settings:
        return local(
            tls_certificate=self.server.certificate,
            tls_key=self.server.key,
            tls_client_ca=self.authority.file,
            api_keys=self.callers,
            policies=Path(__file__).parents[2] / "deploy" / "examples" / "policies",
        )

    async def code(self, path: str, shown: Pair, *bodies: bytes, **headers: str) -> int | None:
        extra = [
            (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
        ]
        context = self.authority.context(shown)
        address = self.address.replace("127.0.0.1", "localhost")
        return (await call(address, request(path.encode(), *extra), *bodies, tls=context)).code


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def mutual(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mutual]:
    found = Mutual(tmp_path_factory.mktemp("mutual"))
    async with gateway(found.settings()) as running:
        found.address = running.address
        yield found


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("path", METHODS)
async def test_a_certificate_says_who_is_calling_before_a_message_is_read(
    path: str, mutual: Mutual
) -> None:
    for known in (mutual.search, mutual.common):
        assert await mutual.code(path, known, MESSAGE) in (OK, INVALID)
    for unknown in (mutual.nobody, mutual.both):
        assert await mutual.code(path, unknown) == UNAUTHENTICATED
    if "Reflection" not in path:
        assert await mutual.code(path, mutual.narrow) == DENIED
    # A key that is shown decides: a wrong one is not mended by a certificate.
    assert await mutual.code(path, mutual.search, x_api_key="wrong") == UNAUTHENTICATED


@pytest.mark.asyncio(loop_scope="module")
async def test_whoever_connects_gets_health_and_no_other_path(mutual: Mutual) -> None:
    for path in OPEN:
        if path.endswith("Check"):
            assert await mutual.code(path, mutual.nobody, MESSAGE) == OK
    assert await mutual.code("/a.b/C", mutual.nobody) == UNAUTHENTICATED
    assert await mutual.code("/a.b/C", mutual.narrow) == DENIED
    assert await mutual.code("/a.b/C", mutual.search) == 12  # UNIMPLEMENTED


@pytest.mark.asyncio(loop_scope="module")
async def test_a_request_without_its_message_is_refused_not_left_hanging(mutual: Mutual) -> None:
    assert await mutual.code(MODELS, mutual.search, b"") == INVALID


@pytest.mark.asyncio(loop_scope="module")
async def test_every_call_of_a_client_works_by_certificate(mutual: Mutual) -> None:
    credentials = mutual.authority.credentials(mutual.search)
    async with AsyncClient(mutual.address, credentials=credentials) as client:
        assert (await client.embed(["a", "b"])).vectors.shape[0] == 2

        async def inputs() -> AsyncIterator[tuple[str, str]]:
            for number in range(5):
                yield str(number), f"text {number}"

        assert len([one async for one in client.embed_stream(inputs())]) == 5
        assert (await client.score(["a"], ["b", "c"])).results
        assert (await client.models()).models
        [policy] = {policy.name for policy in await client.policies()} & {"shapes"}
        assert (await client.moderate(["a red circle"], policy)).results
    narrow = mutual.authority.credentials(mutual.narrow)
    async with AsyncClient(mutual.address, credentials=narrow) as client:
        with pytest.raises(NotAllowed, match="caller 'narrow' may not call this method"):
            await client.models()
    nobody = mutual.authority.credentials(mutual.nobody)
    async with AsyncClient(mutual.address, credentials=nobody) as client:
        with pytest.raises(Unidentified, match="nor has a certificate of a known caller"):
            await client.models()


@pytest.mark.asyncio(loop_scope="module")
async def test_without_a_certificate_of_the_authority_nobody_connects(mutual: Mutual) -> None:
    stranger = Authority(mutual.authority.folder / "stranger").issue("search.example")
    for shown in (None, stranger):
        credentials = mutual.authority.credentials(shown)
        with pytest.raises(DiptychError):
            async with AsyncClient(
                mutual.address, timeout_s=1, retries=False, credentials=credentials
            ) as client:
                await client.models()
