"""A Hugging Face Hub on 127.0.0.1: what the real client asks for when it downloads a file, with faults on order.

As on the Hub, `/{repo}/resolve/{revision}/{file}` answers with the commit, the hash and the size, and redirects to
another origin (a second port) that sends the bytes, whole or by range, and must never see a token.
"""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Fault:
    """What goes wrong with the next `times` requests of `method`; bodies are those of files, not of errors."""

    method: str = "GET"
    times: float = 1
    status: int = 0  # answer with this instead
    cut: int | None = None  # close the connection after so many bytes of the body
    flip: int | None = None  # turn a bit of this byte of the body
    stall: float = 0  # seconds of silence before the answer


@dataclass
class Request:
    """A request as it came in."""

    method: str
    path: str
    token: str | None
    range: str | None


@dataclass
class Hub:
    """The server; use it as a context manager.

    Attributes:
        token: what a client must send to see the repositories in `gated`.
        faults: consumed by requests as they come.
        requests: all that came to either origin.
    """

    token: str = "hf_loopback"
    gated: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._files: dict[tuple[str, str, str], bytes] = {}
        self._plain: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for handler in (_hub(self), _storage(self))]
        self.url, self.storage = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)

    def __enter__(self) -> Hub:
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Closes both ports; connections are refused from here on."""
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._servers = []

    def add(self, repo: str, filename: str, content: bytes, revision: str = REVISION) -> dict[str, Any]:
        """Publishes a file and returns its manifest row."""
        self._files[repo, revision, filename] = content
        self.add_plain(f"lfs/{_sha256(content)}", content)
        place = {"where": "hub", "repo": repo, "revision": revision, "filename": filename}
        return place | {"sha256": _sha256(content), "size": len(content), "licence": "MIT"}

    def add_plain(self, path: str, content: bytes) -> str:
        """Publishes bytes under a plain URL, as torchvision does, and returns it."""
        self._plain[f"/{path}"] = content
        return f"{self.storage}/{path}"

    def seen(self, method: str = "", text: str = "") -> list[Request]:
        """The requests of that method (any) whose path contains the text."""
        return [request for request in self.requests if request.method.startswith(method) and text in request.path]

    def fault(self, method: str) -> Fault:
        """The fault that the next request of that method meets."""
        with self._lock:
            for fault in self.faults:
                if fault.method == method and fault.times > 0:
                    fault.times -= 1
                    return fault
        return Fault()

    def refusal(self, repo: str, revision: str, filename: str, token: str | None) -> tuple[int, str] | None:
        """The status and error code with which the Hub turns a request away, or None."""
        if repo not in {known for known, _, _ in self._files}:
            return (404 if token == self.token else 401), "RepoNotFound"
        if repo in self.gated and token != self.token:
            return (401 if token is None else 403), "GatedRepo"
        if (repo, revision) not in {known[:2] for known in self._files}:
            return 404, "RevisionNotFound"
        return None if (repo, revision, filename) in self._files else (404, "EntryNotFound")


def _hub(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        def answer(self, fault: Fault, token: str | None) -> None:
            repo, _, rest = self.path[1:].partition("/resolve/")
            revision, _, filename = rest.partition("/")
            if refusal := hub.refusal(repo, revision, filename, token):
                self.send(refusal[0], {"X-Error-Code": refusal[1], "X-Error-Message": "no"})
                return
            content = hub._files[repo, revision, filename]
            sha256 = _sha256(content)
            linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
            place = {"X-Repo-Commit": revision, "ETag": f'"{sha256}"', "Location": f"{hub.storage}/lfs/{sha256}"}
            self.send(302, linked | place)

    Handler.hub = hub
    return Handler


def _storage(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        def answer(self, fault: Fault, token: str | None) -> None:
            if token or self.path not in hub._plain:
                self.send(400 if token else 404, {})
                return
            content = hub._plain[self.path]
            start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
            span = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
            body = bytearray(content)
            if fault.flip is not None:
                body[fault.flip] ^= 1
            self.send(206 if start else 200, span, bytes(body[start:]), fault.cut)

    Handler.hub = hub
    return Handler


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        if self.path.startswith("/api/"):  # the client's own telemetry, whether asked or not
            self.send(404, {})
            return
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.hub.requests.append(Request(self.command, self.path, token, self.headers.get("Range")))
        fault = self.hub.fault(self.command)
        time.sleep(fault.stall)
        if fault.status:
            self.send(fault.status, {})
        else:
            self.answer(fault, token)

    do_GET = do_HEAD  # noqa: N815

    def answer(self, fault: Fault, token: str | None) -> None:
        raise NotImplementedError

    def send(self, status: int, headers: dict[str, str], body: bytes = b"", cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
