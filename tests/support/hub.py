"""A data set as the Hugging Face Hub serves it: revision, paginated tree, files with entity tags."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tests.support.file_server import FileServer

_PER_PAGE = 5


def serve_dataset(server: FileServer, dataset: str, revision: str, files: Mapping[str, bytes]) -> None:
    """Let a file server serve a data set as the Hub does.

    Args:
        server: The server.
        dataset: Name of the data set, `<owner>/<name>`.
        revision: Its commit, 40 hexadecimal digits.
        files: Content by path in the data set. Files over 100 kB are in large file storage, as on the Hub.
    """
    api = f"/api/datasets/{dataset}"
    server.files[f"{api}/revision/{revision}?expand=sha"] = json.dumps({"id": dataset, "sha": revision}).encode()
    entries = [_entry(path, content) for path, content in files.items()]
    tree = f"{api}/tree/{revision}?recursive=true&expand=false"
    for start in range(0, len(entries), _PER_PAGE):
        page = tree if start == 0 else f"{tree}&cursor={start}"
        server.files[page] = json.dumps(entries[start : start + _PER_PAGE]).encode()
        if start + _PER_PAGE < len(entries):
            following = f"{server.url}{tree}&cursor={start + _PER_PAGE}"
            server.headers[page] = {"Link": f'<{following}>; rel="next"'}
    for (path, content), entry in zip(files.items(), entries, strict=True):
        url = f"/datasets/{dataset}/resolve/{revision}/{path}"
        server.files[url] = content
        tag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        server.headers[url] = {
            "X-Repo-Commit": revision,
            "X-Linked-Etag": f'"{tag}"',
            "X-Linked-Size": str(len(content)),
        }


def _entry(path: str, content: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry: dict[str, Any] = {"type": "file", "oid": blob, "size": len(content), "path": path}
    if len(content) > 100_000:
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 132}
    return entry
