"""A file server on loopback with the faults of real ones: it breaks off, stalls, ignores ranges, changes its files."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Fault:
    """What one answer does wrong: `status` instead of the file, or only `after` bytes of the body, then an end."""

    status: int = 0
    after: int = 0
    stall: bool = False
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class FileServer:
    """What the server holds, how it misbehaves, and what it was asked for.

    Attributes:
        url: Its address.
        files: Content by path; the path may have a query.
        faults: Faults of the next answers by path, one an answer.
        asked: (path, Range or "") of every request.
        knows_ranges: Whether it answers them.
        knows_tags: Whether it sends entity tags.
        claims: Content-Length by path where it is not the true one; nothing of the body is sent then.
        headers: Further headers by path.
        pause: Seconds between the tenths of a body.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    knows_ranges: bool = True
    knows_tags: bool = True
    claims: dict[str, int] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    pause: float = 0.0
    stalled: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def ranges(self, path: str) -> list[str]:
        """The ranges asked of a file, request by request; empty text is the whole file."""
        return [asked for name, asked in self.asked if name == path]


@contextmanager
def file_server() -> Iterator[FileServer]:
    """Serve until the end of the block."""
    state = FileServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.asked.append((self.path, self.headers.get("Range", "")))
            left = state.faults.get(self.path)
            fault = left.pop(0) if left else None
            content = state.files.get(self.path)
            if fault and fault.status:
                self._refuse(fault.status, fault.headers)
            elif content is None:
                self._refuse(404, {})
            else:
                self._send(content, fault)

        def _refuse(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def _send(self, content: bytes, fault: Fault | None) -> None:
            tag = f'"{hashlib.md5(content).hexdigest()}"'
            start, wanted = 0, self.headers.get("Range")
            if wanted and state.knows_ranges and self.headers.get("If-Range", tag) == tag:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    self._refuse(416, {"Content-Range": f"bytes */{len(content)}"})
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            if state.knows_tags:
                self.send_header("ETag", tag)
            body = content[start:]
            self.send_header("Content-Length", str(state.claims.get(self.path, len(body))))
            for name, value in state.headers.get(self.path, {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.close_connection = fault is not None or self.path in state.claims
            if self.path in state.claims:
                return
            sent = body if fault is None else body[: fault.after]
            part = -(-len(sent) // 10) if state.pause else len(sent)
            for begin in range(0, len(sent), part or 1):
                self.wfile.write(sent[begin : begin + part])
                self.wfile.flush()
                time.sleep(state.pause)
            if fault is not None and fault.stall:
                state.stalled.set()
                state.ended.wait(30)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *arguments: None  # clients that hang up are the point here
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
