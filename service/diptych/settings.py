"""Everything a deployment may change, and nothing else. Read once, in the command line."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from diptych.hosts import is_loopback

PREFIX = "DIPTYCH_"
CLIENT_KEY = "DIPTYCH_CLIENT_KEY"  # no setting: the API key of the commands that are clients

_CACHES = ("text_cache_bytes", "image_cache_bytes", "condition_cache_bytes")

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")  # of cgroup v2: quota and period, or "max"


def cores() -> int:
    """Processors this process may use: its affinity, and the CPU quota of its cgroup.

    In a container the host's core count is not ours: threads beyond the quota only get throttled.
    """
    own = len(os.sched_getaffinity(0))
    try:
        quota, period = _CPU_MAX.read_text().split()
        return own if quota == "max" else max(1, min(own, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # cgroup v1, or none
        return own


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Each field is a flag of `diptych serve` and a variable DIPTYCH_NAME."""

    repository: Path = Path("model_repository")
    """The model repository to serve from."""

    model: tuple[str, ...] = ()
    """Models to serve, the default one first. None named: the only one there is."""

    engine: str = "embedded"
    """What runs the towers: embedded (in this process), or triton://HOST:PORT."""

    triton_replicas: int = 1
    """Tritons that share the load behind that address; each is given two batches per tower, a lone
    one with the Python backend one."""

    host: str = "0.0.0.0"
    """Address to listen on. The default is every interface: the pod is the boundary."""

    port: int = 50051
    """Port to listen on; 0 picks a free one."""

    metrics_port: int | None = None
    """Port for Prometheus metrics over HTTP; 0 picks a free one; none: no metrics are served."""

    metrics_host: str = ""
    """Address for metrics; none: that of --host."""

    health_port: int | None = None
    """Port for gRPC health alone, without TLS or keys, as Kubernetes' probes need it; 0 picks a
    free one; none: health is on the main port only."""

    provider: Literal["auto", "openvino", "cpu"] = "auto"
    """Of the embedded engine: OpenVINO on Linux on x86-64, else ONNX Runtime on the CPU."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the embedded engine under OpenVINO: bf16 where the CPU has it is twice as fast or more."""

    threads: int = 0
    """Engine threads per batch; 0: as many as the CPU quota allows."""

    workers: int = 1
    """Server processes on this port, each with an engine, caches and limits of its own and an equal
    share of the cores; their metrics are on one port, told apart by `worker`. More than one pays
    where calls are many and cheap: one process answers with one core whatever is not decoding or
    engine."""

    share_port: bool = False
    """Whether other servers may listen on the same port; the kernel then spreads connections."""

    decoders: int = 0
    """Images decoded at once; 0: as many as the CPU quota allows."""

    max_batch: int = 64
    """Inputs per engine call: larger batches delay whoever comes next and are hardly faster."""

    deterministic: bool = False
    """Every input runs alone, so that its vector is the same to the last bit whoever else calls:
    batches of other sizes round differently, by about one part in ten million."""

    exact_images: bool = False
    """Every image is decoded at full resolution, pixel for pixel as the reference does. Off:
    JPEGs of over four times the size needed are decoded smaller, several times as fast."""

    max_inputs: int = 128
    """Inputs per request; bounds what one caller can take at once."""

    max_request_bytes: int = 64 * 2**20
    """Bytes per request, refused by the transport beyond."""

    max_image_bytes: int = 20 * 2**20
    """Bytes per encoded image."""

    max_image_pixels: int = 64_000_000
    """Width times height per encoded image, read from its header before it is decoded."""

    max_text_characters: int = 20_000
    """Characters per text: tokenizing more than any context holds is wasted."""

    max_waiting_inputs: int = 1024
    """Inputs inside the server at once; past it callers are refused at once, not delayed."""

    max_waiting_bytes: int = 512 * 2**20
    """Encoded bytes inside the server at once; likewise."""

    text_cache_bytes: int = 64 * 2**20
    """Bytes of text vectors kept by content; 0 keeps none. Callers repeat captions and labels."""

    image_cache_bytes: int = 16 * 2**20
    """Bytes of image vectors kept by content; 0 keeps none. Retries and reposts are common."""

    stream_inputs: int = 256
    """Inputs of one EmbedStream read and not yet answered; past it the caller is slowed."""

    refresh_s: float = 2.0
    """Seconds between looks for a new version in the repository."""

    labels: Path | None = None
    """A folder of label sets, one YAML file each."""

    policies: Path | None = None
    """A folder of moderation policies, one YAML file each; read again when a file changes."""

    profiles: Path | None = None
    """A folder of conditioning profiles, one YAML file each; one of a shipped profile's name takes
    its place."""

    max_prompt_chunks: int = 8
    """Contexts that one prompt may fill; what is beyond is dropped, and reported."""

    max_condition_bytes: int = 256 * 2**20
    """Bytes of the tensors of one Condition, in float32; a prompt of SDXL makes 0.6 MB a chunk."""

    condition_cache_bytes: int = 32 * 2**20
    """Bytes of hidden states kept by content; 0 keeps none. The empty negative is in every call."""

    tls_certificate: Path | None = None
    """The server's certificate with what leads to its CA, PEM: calls are taken over TLS only. Read
    again when it changes; a bad new one is not taken up."""

    tls_key: Path | None = None
    """The certificate's private key, PEM, without a password."""

    tls_client_ca: Path | None = None
    """Authorities, PEM: whoever connects must show a certificate of one of them (mutual TLS)."""

    api_keys: Path | None = None
    """A YAML file of callers: hashes of their keys, rights, quotas. Then nothing but health answers
    whoever is not in it. Read again when it changes. `diptych keys new` makes an entry."""

    plaintext_keys: bool = False
    """Whether keys may come without TLS to an address other than loopback: only where something
    else encrypts, like a service mesh."""

    log_format: Literal["text", "json"] = "text"
    """Of the log on standard error: for a person, or one JSON object a line."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """From where on the log tells. At no level does it hold what callers send."""

    access_log: bool = False
    """Whether every call has a line in the log. Those that fail by our fault have one anyway."""

    reflection: bool = True
    """Whether clients may ask the server for its protos (grpcurl, buf curl)."""

    drain_s: float = 20.0
    """Seconds that open calls have to finish after SIGTERM; keep under the pod's grace period."""

    def __post_init__(self) -> None:
        for name in ("port", "threads", "decoders", "drain_s", *_CACHES):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if self.engine != "embedded" and not self.engine.startswith("triton://"):
            raise ValueError(
                f"engine is {self.engine!r}; embedded and triton://HOST:PORT are known"
            )
        self._check_access()
        if not self.refresh_s > 0:
            raise ValueError("refresh_s must be more than 0")
        for field in fields(self):
            if (
                field.name.startswith(("max_", "stream_", "workers", "triton_"))
                and getattr(self, field.name) < 1
            ):
                raise ValueError(f"{field.name} must be at least 1")

    def _check_access(self) -> None:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together: give both or neither")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key")
        is_plain = self.tls_certificate is None and not is_loopback(self.host)
        if self.api_keys is not None and is_plain and not self.plaintext_keys:
            raise ValueError(
                f"api_keys on {self.host} without TLS: keys would travel for all to read; give "
                "tls_certificate and tls_key, or plaintext_keys where a mesh encrypts"
            )

    def flags(self) -> list[str]:
        """What `diptych serve` has to be given to have these settings."""
        found: list[str] = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value == field.default:
                continue
            flag = f"--{field.name.replace('_', '-')}"
            if isinstance(value, tuple):
                found += [word for one in value for word in (flag, str(one))]
            elif isinstance(value, bool):
                found.append(flag if value else flag.replace("--", "--no-", 1))
            else:
                found += [flag, str(value)]
        return found


def check_environment(env: Mapping[str, str] = os.environ) -> None:
    """A misspelt DIPTYCH_ variable stops the start, where a silent default would surprise later.

    Raises:
        ValueError: naming the unknown variables and what is known.
    """
    known = {PREFIX + field.name.upper() for field in fields(Settings)}
    own = known | {CLIENT_KEY}
    unknown = sorted(name for name in env if name.startswith(PREFIX) and name not in own)
    if unknown:
        raise ValueError(
            f"unknown settings: {', '.join(unknown)}; known: {', '.join(sorted(known))}"
        )
