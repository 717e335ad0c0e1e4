"""Data behind a web server: read as if it lay here, and told apart where it cannot be read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from diptych.errors import BadData
from diptych.job import items
from diptych.job.destination import all_rejects, standing
from tests.job.making import HOW, jpeg, rows, run, shard_bytes, write_tars


class Server(ThreadingHTTPServer):
    """Files of one folder, and a few addresses that misbehave; counts what it was asked."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.folder = folder
        self.asked: dict[str, int] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        asked = self.server.asked[self.path] = self.server.asked.get(self.path, 0) + 1
        name = self.path.rpartition("/")[2]
        if name.startswith("status-"):
            self.send_error(int(name[7:10]))
        elif name.startswith("first-503") and asked == 1:
            self.send_error(503)
        else:
            self._send(self.server.folder / name)

    def _send(self, path: Path) -> None:
        content = path.read_bytes() if path.is_file() else jpeg(1)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":  # half of it, where it is to break off
            self.wfile.write(content[: len(content) // 2] if path.name == "cut.tar" else content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "web") as server:
        yield server


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    folder.mkdir(exist_ok=True)
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "_PAUSE_S", 0.01)


def listed(tmp_path: Path, *urls: str) -> Path:
    path = tmp_path / "in.csv"
    path.write_text("\n".join(["url", *urls]))
    return path


def test_tars_behind_a_web_server_are_the_same_data_set(web: Server, tmp_path: Path) -> None:
    here = write_tars(web.folder, 40, 10)
    there = f"{web.address}/{{000..003}}.tar"
    assert run(here, tmp_path / "here", shard_size=7) == 0
    assert run(there, tmp_path / "there", shard_size=7) == 0
    near, far = rows(tmp_path / "here"), rows(tmp_path / "there")
    assert [row["id"] for row in far] == [
        row["id"].replace(str(web.folder), web.address) for row in near
    ]
    for column in ("image_vector", "content_sha256"):
        assert [row[column] for row in far] == [row[column] for row in near]
    before = shard_bytes(tmp_path / "there")
    assert run(there, tmp_path / "there", shard_size=7) == 0
    assert shard_bytes(tmp_path / "there") == before


@pytest.mark.usefixtures("hasty")
def test_what_a_web_server_will_never_give_is_a_reject(web: Server, tmp_path: Path) -> None:
    names = ("a.jpg", "status-403", "status-404", "status-410", "first-503.jpg")
    source = listed(tmp_path, *(f"{web.address}/{name}" for name in names))
    assert run(source, tmp_path / "out") == 3
    assert dict(all_rejects(tmp_path / "out")) == {
        f"{source}:1": "cannot be read: 403 Forbidden",
        f"{source}:2": f"cannot be read: {web.address}/status-404",
        f"{source}:3": "cannot be read: 410 Gone",
    }


@pytest.mark.usefixtures("hasty")
def test_what_might_come_later_stops_the_job_unless_told_otherwise(
    web: Server, tmp_path: Path
) -> None:
    with serving(tmp_path / "gone") as other:
        dead = other.address
    for place, words in ((f"{web.address}/status-500", "500"), (f"{dead}/a.jpg", "onnect")):
        source = listed(tmp_path, f"{web.address}/a.jpg", place)
        with pytest.raises(BadData, match=words):
            run(source, tmp_path / words)
        assert run(source, tmp_path / words, replace(HOW, skip_unreachable=True)) == 3
        assert standing(tmp_path / words).rejected == 1


def test_a_tar_that_breaks_off_on_the_way_is_not_taken_for_damaged(
    web: Server, tmp_path: Path
) -> None:
    write_tars(web.folder, 20, 20)
    (web.folder / "000.tar").rename(web.folder / "cut.tar")
    with pytest.raises(BadData, match=r"cut\.tar"):
        run(f"{web.address}/cut.tar", tmp_path / "out")
    assert not list((tmp_path / "out").glob("shards/*"))
