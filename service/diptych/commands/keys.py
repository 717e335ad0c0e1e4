"""`diptych keys …`: keys made, and the file of callers checked before it is served."""

from __future__ import annotations

import hashlib
import math
import secrets
import time
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter
from rich.table import Table

from diptych.commands.common import AsJson, out, print_line
from diptych.gateway.callers import Credential, read_callers
from diptych.gateway.identity_interceptor import methods_of
from diptych.gateway.server import GUARDED

_BYTES = 32  # of chance: no salt and no slow hash can add to 256 bits

app = cyclopts.App(name="keys", help="Make API keys, and check the file of callers.")


@app.command
def new(name: str, /, *, as_json: AsJson = False) -> None:
    """Make a key for the caller NAME, and print it this once, with the entry for the file.

    The file holds its SHA-256 alone: whoever reads the file cannot call. For a caller that is in
    the file already, add the line with `sha256` to its keys, hand out the new key, and take the
    old one's line away when nobody uses it any more.

    Example: diptych keys new search
    """
    key = f"dpt_{secrets.token_urlsafe(_BYTES)}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    if as_json:
        print_line({"name": name, "key": key, "sha256": digest}, as_json)
        return
    out.print(f"key: {key}", markup=False, soft_wrap=True)
    out.print("Hand it out now; it is written nowhere. Under `callers:` in the file:\n")
    out.print(
        f'  - name: {name}\n    keys:\n      - sha256: {digest}\n    rights: ["*"]',
        markup=False,
        soft_wrap=True,
    )


@app.command
def check(
    file: Annotated[Path, Parameter(help="The file of callers.")], /, *, as_json: AsJson = False
) -> None:
    """Read a file of callers as the gateway would, and list what is in it.

    Exit status 1 when it is bad.

    Example: diptych keys check callers.yaml
    """
    callers = read_callers(file, methods_of(GUARDED))
    table = Table("caller", "shown by", "may call", "quota", "priority", "until")
    for credential in callers.by_id.values():
        record = _record(credential)
        if as_json:
            print_line(record, as_json)
        table.add_row(*map(str, record.values()))
    if not as_json:
        out.print(table)


def _record(credential: Credential) -> dict[str, object]:
    caller, quota = credential.caller, credential.caller.quota
    is_key = ":" not in credential.name
    bounds = [(quota.inputs, "inputs at once"), (quota.inputs_per_s, "inputs a second")]
    return {
        "caller": caller.name,
        "shown_by": f"key {credential.name[:8]}…" if is_key else credential.name,
        "rights": ", ".join(caller.rights),
        "quota": ", ".join(f"{most:g} {what}" for most, what in bounds if most != math.inf)
        or "none",
        "priority": caller.priority,
        "expires": _until(credential.expires),
    }


def _until(moment: float) -> str:
    if moment == math.inf:
        return "no end"
    said = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))
    return f"{said}, expired" if moment <= time.time() else said
