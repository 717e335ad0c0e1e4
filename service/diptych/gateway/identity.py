"""Who is calling, and what it may do: keys and certificates against the file of callers."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from diptych.contract import Priority
from diptych.errors import BadAccess, NotAllowed, Unidentified
from diptych.gateway.callers import Callers, Credential, read_callers
from diptych.gateway.watching import State, state_of
from diptych.metrics import Metrics
from diptych.quotas import OF_CALL, Quota

KEY_HEADERS = ("authorization", "x-api-key")

_SCHEME = "bearer "
_MAX_KEY = 512  # characters; longer ones are refused unread

# Of gRPC's authentication context: the names a certificate is issued to, and our prefix for each.
_NAMES = {"peer_dns": "dns", "peer_uri": "uri", "peer_ip": "ip", "peer_email": "email"}
_COMMON_NAME = "x509_common_name"

log = logging.getLogger(__name__)


def current() -> str | None:
    """The name of the caller whose call is being served; None where callers are not known.

    For the handler and whatever it awaits or starts. In `intercept_service` a caller who shows a
    certificate is not known yet.
    """
    admitted = OF_CALL.get()
    return admitted.name if admitted is not None else None


def highest(priority: Priority) -> Priority:
    """What a call gets that asks for `priority`: no more than its caller may have."""
    admitted = OF_CALL.get()
    return max(priority, admitted.priority) if admitted is not None else priority


class Admitted:
    """One call of a known caller: what it rests on for as long as it is open."""

    __slots__ = ("_callers", "_id", "_identity", "_path", "credential", "quota")

    def __init__(self, identity: Identity, found: str, path: str, credential: Credential) -> None:
        self._identity = identity
        self._callers = identity.callers
        self._id = found
        self._path = path
        self.credential = credential
        self.quota = identity.quotas[credential.caller.name]

    @property
    def name(self) -> str:
        return self.credential.caller.name

    @property
    def priority(self) -> Priority:
        return self.credential.priority

    def check(self) -> None:
        """Look again: a stream may outlive the key it was opened with.

        Raises:
            Unidentified, NotAllowed: it would not be admitted any more.
        """
        is_same = self._callers is self._identity.callers
        if not is_same or time.time() >= self.credential.expires:
            self.credential = self._identity.admit(self._id, self._path).credential
            self._callers = self._identity.callers


class Identity:
    """Reads the file of callers at start, and again whenever it is another.

    A bad one is not taken up: the last good one stays.
    """

    def __init__(self, path: Path, methods: Iterable[str], metrics: Metrics) -> None:
        self._path = path
        self._methods = tuple(methods)
        self._metrics = metrics
        self._seen: State = []
        self.callers = Callers({})
        self.quotas: dict[str, Quota] = {}

    async def start(self) -> None:
        """Read the file.

        Raises:
            BadAccess: it is bad.
        """
        self._seen = await asyncio.to_thread(self._state)
        self._take(await asyncio.to_thread(read_callers, self._path, self._methods))

    async def refresh(self) -> None:
        """Look at the file, and take up what changed."""
        state = await asyncio.to_thread(self._state)
        if state == self._seen:
            return
        self._seen = state
        try:
            self._take(await asyncio.to_thread(read_callers, self._path, self._methods))
        except BadAccess as exc:
            self._metrics.certificates.labels("refused").inc()
            log.error("callers are not taken up, the last good ones stay: %s", exc)
            return
        self._metrics.certificates.labels("served").inc()
        log.info("callers taken up: %d keys and certificates", len(self.callers.by_id))

    def by_key(self, metadata: Sequence[tuple[str, str | bytes]], path: str) -> Admitted | None:
        """The call of whoever shows a key in `metadata`; None where there is none.

        Raises:
            Unidentified: the key is not one of ours, or not any more, or there are several.
            NotAllowed: its caller may not call `path`.
        """
        shown = [(name, value) for name, value in metadata if name in KEY_HEADERS]
        if not shown:
            return None
        if len(shown) > 1:  # which of them counts would depend on who reads them
            raise Unidentified("more than one key was sent; send one")
        key = _key(*shown[0])
        return self.admit(hashlib.sha256(key).hexdigest(), path)

    def by_certificate(self, context: Mapping[str, Iterable[bytes]], path: str) -> Admitted:
        """The call of whoever showed a client certificate when it connected.

        Raises:
            Unidentified: none of its names is a caller's, or names of two callers are.
            NotAllowed: its caller may not call `path`.
        """
        names = [name for name in certificate_names(context) if name in self.callers.by_id]
        if len({self.callers.by_id[name].caller.name for name in names}) > 1:
            raise Unidentified("the certificate has the names of more than one caller")
        if not names:
            raise Unidentified(
                "no key was sent: `authorization: Bearer KEY`; nor has a certificate of a known "
                "caller been shown",
                "no_credentials",
            )
        return self.admit(names[0], path)

    def admit(self, name: str, path: str) -> Admitted:
        """A call to `path` by whoever showed the credential `name`.

        Raises:
            Unidentified: it is not known, or has expired.
            NotAllowed: its caller may not call `path`.
        """
        credential = self.callers.by_id.get(name)
        # The name of a key is its SHA-256. How long a look-up takes may tell something of the hash
        # of a guess, and from there no way leads to a key: they are random, 256 bits of them, for
        # which reason the hashes need no salt either. The last word has a comparison in constant
        # time all the same.
        if credential is None or not hmac.compare_digest(credential.name, name):
            raise Unidentified("this key or certificate is not known here")
        if time.time() >= credential.expires:
            raise Unidentified("this key or certificate has expired", "expired_credentials")
        if credential.paths is not None and path not in credential.paths:
            raise NotAllowed(f"caller {credential.caller.name!r} may not call this method")
        return Admitted(self, name, path, credential)

    def _take(self, callers: Callers) -> None:
        for credential in callers.by_id.values():
            caller = credential.caller
            limits = caller.quota.inputs, caller.quota.inputs_per_s
            if (known := self.quotas.get(caller.name)) is None:
                self.quotas[caller.name] = Quota(*limits)
            else:
                known.limit(*limits)
        named = {credential.caller.name for credential in callers.by_id.values()}
        self.quotas = {name: quota for name, quota in self.quotas.items() if name in named}
        self.callers = callers

    def _state(self) -> State:
        return state_of(lambda: [self._path])


def certificate_names(context: Mapping[str, Iterable[bytes]]) -> list[str]:
    """As they stand in the file of callers; the common name only where there is nothing better."""
    found = [
        f"{prefix}:{value.decode(errors='replace')}"
        for name, prefix in _NAMES.items()
        for value in context.get(name, ())
    ]
    common = context.get(_COMMON_NAME, ())
    return found or [f"cn:{value.decode(errors='replace')}" for value in common]


def _key(name: str, value: str | bytes) -> bytes:
    text = value if isinstance(value, str) else value.decode(errors="replace")
    if name == "authorization":
        if text[: len(_SCHEME)].lower() != _SCHEME:
            raise Unidentified("authorization must be: Bearer KEY")
        text = text[len(_SCHEME) :]
    if not 0 < len(text) <= _MAX_KEY:
        raise Unidentified("this key or certificate is not known here")
    return text.encode(errors="replace")
