"""The file of callers: who may call what, and how much. Read and checked to the last field.

No message about it repeats a value that is wrong: by mistake that may be a key.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from diptych.contract import Digest, Priority
from diptych.errors import BadAccess
from diptych.strict_yaml import StrictLoader

ALL = "*"  # the right to everything

_MAX_CALLERS = 1000  # their names are labels of metrics

_NO_FIELDS = "must be fields and their values"
_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"

Moment: TypeAlias = AwareDatetime | dt.date  # a date: from its first moment on, in UTC
Amount: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Key(_Entry):
    """One key of a caller; several count at once, so that keys can be changed without a gap."""

    sha256: Digest  # of the key, which stands nowhere
    expires: Moment | None = None


class QuotaEntry(_Entry):
    """What a caller may take of each gateway process."""

    inputs: Amount = math.inf  # being worked on at once
    inputs_per_s: Amount = math.inf


class Caller(_Entry):
    """One caller, as the file says it."""

    name: Annotated[str, Field(pattern=_NAME)]
    keys: tuple[Key, ...] = ()
    # Of client certificates: dns:NAME, uri:URI, ip:ADDRESS, email:ADDRESS, or, of a certificate
    # that has none of these, cn:COMMON_NAME.
    certificates: tuple[
        Annotated[str, Field(pattern=r"^(dns|uri|ip|email|cn):[^\s]+( [^\s]+)*$")], ...
    ] = ()
    rights: Annotated[tuple[str, ...], Field(min_length=1)]
    quota: QuotaEntry = QuotaEntry()
    priority: Literal["interactive", "bulk"] = "interactive"  # the highest it gets
    expires: Moment | None = None


class _File(_Entry):
    callers: Annotated[tuple[Caller, ...], Field(max_length=_MAX_CALLERS)]


@dataclass(frozen=True, slots=True)
class Credential:
    """One key or certificate, and what it is good for."""

    name: str  # SHA-256 of the key, or "dns:…" of the certificate
    caller: Caller
    paths: frozenset[str] | None  # of the methods it may call; None: all, and any other path
    priority: Priority
    expires: float  # seconds since 1970


@dataclass(frozen=True, slots=True)
class Callers:
    """The file in use: credentials by the SHA-256 of a key, or by "dns:…" of a certificate."""

    by_id: Mapping[str, Credential]

    @property
    def has_certificates(self) -> bool:
        return any(":" in name for name in self.by_id)


def read_callers(path: Path, methods: Iterable[str]) -> Callers:
    """Read the file, and hold its rights against `methods`: /SERVICE/METHOD, all there are.

    Raises:
        BadAccess: in one line, naming the file, the caller and the field that is wrong.
    """
    said: Any = None
    try:
        said = yaml.load(path.read_text(encoding="utf-8"), StrictLoader)
        callers = _File.model_validate(said).callers
    except ValidationError as exc:
        first = exc.errors()[0]
        problem = _NO_FIELDS if first["type"] == "model_type" else first["msg"]
        raise BadAccess(f"{path}: {_where(said, first['loc'])}: {problem}") from None
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        place = f"line {mark.line + 1}" if mark else "a field stands twice"
        raise BadAccess(f"{path}: not YAML: {place}") from None
    except (ValueError, RecursionError):  # no text, an impossible date, brackets without end
        raise BadAccess(f"{path}: not YAML") from None
    except OSError as exc:
        raise BadAccess(f"{path}: {exc.strerror}") from exc
    known = _known(methods)
    by_id: dict[str, Credential] = {}
    names: set[str] = set()
    for caller in callers:
        where = f"{path}: caller {caller.name!r}"
        if caller.name in names:
            raise BadAccess(f"{where}: stands twice")
        names.add(caller.name)
        for credential in _credentials(caller, known, where):
            if (other := by_id.get(credential.name)) is not None:
                raise BadAccess(
                    f"{where}: a key or certificate of it is one of {other.caller.name!r} too"
                )
            by_id[credential.name] = credential
    return Callers(by_id)


def _credentials(
    caller: Caller, known: Mapping[str, frozenset[str]], where: str
) -> Iterable[Credential]:
    if not caller.keys and not caller.certificates:
        raise BadAccess(f"{where}: has neither keys nor certificates")
    for number, right in enumerate(caller.rights):
        if right != ALL and right not in known:
            raise BadAccess(f"{where}: rights.{number}: is none of {ALL}, {', '.join(known)}")
    is_free = ALL in caller.rights
    paths = None if is_free else frozenset().union(*(known[right] for right in caller.rights))
    priority = Priority[caller.priority.upper()]
    last = _seconds(caller.expires)
    for key in caller.keys:
        ends = min(last, _seconds(key.expires))
        yield Credential(key.sha256, caller, paths, priority, ends)
    for certificate in caller.certificates:
        yield Credential(certificate, caller, paths, priority, last)


def _known(methods: Iterable[str]) -> dict[str, frozenset[str]]:
    """What may stand under rights: the paths behind SERVICE and SERVICE/METHOD."""
    known: dict[str, frozenset[str]] = {}
    for path in methods:
        service, name = path.removeprefix("/").split("/")
        short = service.rpartition(".")[2]
        known[short] = known.get(short, frozenset()) | {path}
        known[f"{short}/{name}"] = frozenset([path])
    return known


def _seconds(moment: Moment | None) -> float:
    if moment is None:
        return math.inf
    if not isinstance(moment, dt.datetime):
        moment = dt.datetime.combine(moment, dt.time(), dt.UTC)
    return moment.timestamp()


def _where(said: Any, place: tuple[int | str, ...]) -> str:
    """A place in the file, for a person: caller 'search': keys.0.sha256."""
    if len(place) > 2 and place[0] == "callers" and isinstance(place[1], int):
        entry = said["callers"][place[1]]
        name = entry.get("name") if isinstance(entry, dict) else None
        is_name = isinstance(name, str) and re.fullmatch(_NAME, name)
        who = repr(name) if is_name else f"number {place[1] + 1}"
        return f"caller {who}: {'.'.join(map(str, place[2:]))}"
    return ".".join(map(str, place)) or "whole file"
