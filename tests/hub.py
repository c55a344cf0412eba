"""A Hugging Face Hub on 127.0.0.1: what the real client asks for when it downloads or pushes, with faults on order.

As on the Hub, `/{repo}/resolve/{revision}/{file}` answers with the commit, the hash and the size, and redirects to
another origin (a second port) that sends the bytes, whole or by range, and must never see a token. A push makes the
repository, has its card checked, asks which files are large, puts those on the second port, and commits.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

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
        heads: the commit of a repository's main branch.
    """

    token: str = "hf_loopback"
    gated: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    heads: dict[str, str] = field(default_factory=dict)

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
        return place | {"sha256": _sha256(content), "size": len(content), "license": "MIT"}

    def add_plain(self, path: str, content: bytes) -> str:
        """Publishes bytes under a plain URL, as torchvision does, and returns it."""
        self._plain[f"/{path}"] = content
        return f"{self.storage}/{path}"

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """The content of each file of a repository at a commit, or on its main branch."""
        commit = self.commit_of(repo, revision)
        return {name: content for (own, at, name), content in self._files.items() if (own, at) == (repo, commit)}

    def commit_of(self, repo: str, revision: str) -> str:
        """The commit that a revision means."""
        return self.heads.get(repo, revision) if revision == "main" else revision

    def commit(self, repo: str, changed: dict[str, bytes]) -> str:
        """Adds files to the main branch and returns its new commit."""
        files = self.files(repo) | changed
        commit = hashlib.sha1(repr((self.heads.get(repo), sorted(files.items()))).encode()).hexdigest()
        for filename, content in files.items():
            self.add(repo, filename, content, commit)
        self.heads[repo] = commit
        return commit

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
        if repo not in {known for known, _, _ in self._files} | self.heads.keys():
            return (404 if token == self.token else 401), "RepoNotFound"
        if repo in self.gated and token != self.token:
            return (401 if token is None else 403), "GatedRepo"
        files = self.files(repo, revision)
        if not files:
            return 404, "RevisionNotFound"
        return None if not filename or filename in files else (404, "EntryNotFound")


def _hub(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        def answer(self, fault: Fault, token: str | None) -> None:
            if self.command == "POST":
                self.push(token)
                return
            path = unquote(urlsplit(self.path).path)
            if path.startswith("/api/models/"):
                parts = path.removeprefix("/api/models/").split("/")
                owner, name, what, revision = [*parts, "revision", "main"][:4]
                self.describe(f"{owner}/{name}", what, revision, token)
                return
            repo, _, rest = path[1:].partition("/resolve/")
            revision, _, filename = rest.partition("/")
            if self.refused(repo, revision, filename, token):
                return
            content = hub.files(repo, revision)[filename]
            sha256 = _sha256(content)
            linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
            commit = hub.commit_of(repo, revision)
            place = {"X-Repo-Commit": commit, "ETag": f'"{sha256}"', "Location": f"{hub.storage}/lfs/{sha256}"}
            self.send(302, linked | place)

        def refused(self, repo: str, revision: str, filename: str, token: str | None) -> bool:
            refusal = hub.refusal(repo, revision, filename, token)
            if refusal:
                self.send(refusal[0], {"X-Error-Code": refusal[1], "X-Error-Message": "no"})
            return refusal is not None

        def describe(self, repo: str, what: str, revision: str, token: str | None) -> None:
            """What a revision is, or which files it has."""
            if self.refused(repo, revision, "", token):
                return
            files = hub.files(repo, revision)
            if what == "revision":
                siblings = [{"rfilename": name} for name in files]
                self.send_json({"id": repo, "sha": hub.commit_of(repo, revision), "siblings": siblings})
                return
            self.send_json([_entry(name, content) for name, content in files.items()])

        def push(self, token: str | None) -> None:
            """One step of a push. As on the Hub, only the check of the card's metadata needs no token."""
            body, path = self.body(), urlsplit(self.path).path
            if path == "/api/validate-yaml":
                self.send_json({"errors": [], "warnings": []})
            elif token != hub.token:
                self.send(401, {"X-Error-Message": "no"})
            elif path == "/api/repos/create":
                asked = json.loads(body)
                repo = f"{asked['organization']}/{asked['name']}"
                new = repo not in hub.heads
                hub.heads.setdefault(repo, "")
                self.send_json({"url": f"{hub.url}/{repo}"}, 200 if new else 409)
            elif path.endswith(".git/info/lfs/objects/batch"):
                objects = json.loads(body)["objects"]
                answers = [
                    {**asked, "actions": {"upload": {"href": f"{hub.storage}/lfs/{asked['oid']}"}}} for asked in objects
                ]
                self.send_json({"transfer": "basic", "objects": answers})
            else:
                owner, name, what, _ = path.removeprefix("/api/models/").split("/")
                if what == "preupload":
                    names = [file["path"] for file in json.loads(body)["files"]]
                    self.send_json({"files": [_upload_mode(name) for name in names]})
                else:
                    self.commit(f"{owner}/{name}", body)

        def commit(self, repo: str, body: bytes) -> None:
            lines = [json.loads(line) for line in body.splitlines()]
            files = {line["value"]["path"]: line["value"] for line in lines if line["key"] in ("file", "lfsFile")}
            changed = {
                path: hub._plain[f"/lfs/{value['oid']}"] if "oid" in value else base64.b64decode(value["content"])
                for path, value in files.items()
            }
            commit = hub.commit(repo, changed)
            self.send_json({"commitUrl": f"{hub.url}/{repo}/commit/{commit}", "commitOid": commit})

    Handler.hub = hub
    return Handler


def _storage(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        def answer(self, fault: Fault, token: str | None) -> None:
            if self.command == "PUT":
                content = self.body()
                right = not token and self.path == f"/lfs/{_sha256(content)}"
                if right:
                    hub.add_plain(self.path[1:], content)
                self.send(200 if right else 400, {})
                return
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
        about_models = self.path.startswith("/api/models/")
        if self.command in ("HEAD", "GET") and self.path.startswith("/api/") and not about_models:
            self.send(404, {})  # the client's own telemetry, whether asked or not
            return
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.hub.requests.append(Request(self.command, self.path, token, self.headers.get("Range")))
        fault = self.hub.fault(self.command)
        time.sleep(fault.stall)
        if fault.status:
            self.send(fault.status, {})
        else:
            self.answer(fault, token)

    do_GET = do_POST = do_PUT = do_HEAD  # noqa: N815

    def answer(self, fault: Fault, token: str | None) -> None:
        raise NotImplementedError

    def send(self, status: int, headers: dict[str, str], body: bytes = b"", cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True

    def send_json(self, content: Any, status: int = 200) -> None:
        self.send(status, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def body(self) -> bytes:
        """What came with the request, in one piece or in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _entry(path: str, content: bytes) -> dict[str, Any]:
    """A file in the listing of a repository."""
    size, sha256 = len(content), _sha256(content)
    large = {"lfs": {"oid": sha256, "size": size, "pointerSize": 134}} if _is_large(path) else {}
    return {"type": "file", "path": path, "size": size, "oid": sha256[:40]} | large


def _upload_mode(path: str) -> dict[str, Any]:
    return {"path": path, "uploadMode": "lfs" if _is_large(path) else "regular", "shouldIgnore": False, "oid": None}


def _is_large(path: str) -> bool:
    return path.endswith(".safetensors")
