"""What deploy/images/prove.py takes for a Dockerfile's steps, in a folder in place of a root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from clean_root import Folder
from prove import USER, Built, build, stages

from tests.deploy.test_images import DOCKERFILES

KNOWN = {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "LABEL", "RUN", "SHELL", "USER"}

TEXT = r"""
# A comment, and a step over two lines.
FROM python:3 AS base

FROM base AS build
ARG EXTRA=none
ENV PLACE=/opt/diptych PATH=/opt/diptych/bin:$PATH
WORKDIR /src
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
COPY LICENSE NOTICE ./
RUN mkdir -p /opt/diptych/bin \
    && printf '%s %s' "${EXTRA}" "$(ls)" > /opt/diptych/told

FROM base
COPY --from=build /opt/diptych /opt/diptych
USER 10001:10001
ENTRYPOINT ["sh"]
"""


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_every_instruction_is_one_that_it_knows(path: Path) -> None:
    for stage in stages(path.read_text()):
        assert {word for word, _ in stage.steps} <= KNOWN | {"WORKDIR"}


@pytest.fixture
def made() -> Iterator[Built]:
    # Not in pytest's own folder: that is closed to other users.
    with TemporaryDirectory(prefix="diptych-prove-") as place:
        os.chmod(place, 0o755)
        yield _final(Path(place))


def _final(place: Path) -> Built:
    found: dict[str, Built] = {}
    for stage in stages(TEXT):
        assert stage.base == "python:3"
        found[stage.name] = build(stage, Folder(place), {"EXTRA": "job"}, found)
    return found["final"]


def test_steps_are_run_as_they_stand(made: Built) -> None:
    told = made.root.inside("/opt/diptych/told").read_text()
    assert told.split() == ["job", "LICENSE", "NOTICE"]
    assert (made.user, made.entrypoint) == ("10001:10001", "sh")


def test_what_they_made_cannot_be_written_afterwards(made: Built) -> None:
    command = ["sh", "-c", "id -u; touch /opt/diptych/more 2>&1 || true"]
    uid, refusal = made.root.output(command, env={"PATH": os.defpath}, user=USER).splitlines()
    assert int(uid) == (USER if os.getuid() == 0 else os.getuid())
    assert "Permission denied" in refusal
    assert made.root.refuses(made.root.seen("/opt/diptych"), user=USER)
