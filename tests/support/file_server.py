"""A file server on loopback with the faults of real ones: it disconnects, stalls, ignores ranges, changes files."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Fault:
    """The fault of one answer: `status` instead of the file, or a disconnection after `after` bytes of the body."""

    status: int = 0
    after: int = 0
    stall: bool = False


@dataclass
class FileServer:
    """The files of the server, its faults, and the requests that it received.

    Attributes:
        url: Its address.
        files: Content by path; the path may have a query.
        headers: Additional headers by path.
        faults: Faults of the next answers (to GET) by path, one per answer.
        asked: (path, Range or "") of every GET.
        tokens: The Authorization header of every request that has one.
        knows_ranges: Whether it supports range requests.
        stalled: Set while an answer stalls.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    knows_ranges: bool = True
    stalled: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def ranges(self, path: str) -> list[str]:
        """The requested ranges of a file, one per request; an empty string means the whole file."""
        return [asked for name, asked in self.asked if name == path]


@contextmanager
def file_server() -> Iterator[FileServer]:
    """Serve until the end of the block."""
    state = FileServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            content = state.files.get(self.path)
            if content is None:
                self._begin(404, 0)
            else:
                self._begin(200, len(content))

        def do_GET(self) -> None:
            state.asked.append((self.path, self.headers.get("Range", "")))
            left = state.faults.get(self.path)
            fault = left.pop(0) if left else None
            content = state.files.get(self.path)
            if fault and fault.status:
                self._begin(fault.status, 0)
            elif content is None:
                self._begin(404, 0)
            else:
                self._send(content, fault)

        def _begin(self, status: int, length: int, **headers: str) -> None:
            state.tokens += self.headers.get_all("Authorization", [])
            self.send_response(status)
            for name, value in {"Content-Length": str(length), **headers, **state.headers.get(self.path, {})}.items():
                self.send_header(name, value)
            self.end_headers()

        def _send(self, content: bytes, fault: Fault | None) -> None:
            wanted = self.headers.get("Range") if state.knows_ranges else None
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
            if wanted and start >= len(content):
                self._begin(416, 0, **{"Content-Range": f"bytes */{len(content)}"})
                return
            body = content[start:]
            if wanted:
                self._begin(206, len(body), **{"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"})
            else:
                self._begin(200, len(body))
            self.close_connection = fault is not None
            self.wfile.write(body if fault is None else body[: fault.after])
            self.wfile.flush()
            if fault is not None and fault.stall:
                state.stalled.set()
                state.ended.wait(30)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *arguments: None  # clients disconnect on purpose here
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        state.ended.set()
        server.shutdown()
        thread.join()
        server.server_close()
