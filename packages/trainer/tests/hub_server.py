"""A stand-in of the Hugging Face hub: the part of its HTTP interface that uploading and downloading use."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c" * 40


class Hub(BaseHTTPRequestHandler):
    """The few addresses of the hub's HTTP interface that uploading and downloading ask for."""

    def do_POST(self):
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.path == "/api/repos/create":
            self.server.created = json.loads(content)
            self.answer({"url": f"{self.server.address}/us/run"})
        elif "/preupload/" in self.path:
            names = [each["path"] for each in json.loads(content)["files"]]
            self.answer({"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]})
        elif "/commit/" in self.path:
            for line in map(json.loads, content.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer({"commitUrl": f"{self.server.address}/us/run/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self.answer({"errors": [], "warnings": []})

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if found := re.search(r"/resolve/[^/]+/(.+)$", self.path):
            content = self.server.files.get(found[1])
            if content is None or found[1] in self.server.lost:
                return self.answer({"error": "Entry not found"}, 404)
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
            return self.answer(content, headers=headers)
        if "/tree/" in self.path:
            files = self.server.files.items()
            return self.answer([{"type": "file", "path": k, "size": len(v), "oid": "0" * 40} for k, v in files])
        siblings = [{"rfilename": name} for name in self.server.files]
        return self.answer({"id": "us/run", "sha": COMMIT, "siblings": siblings, "private": True})

    def answer(self, content, code=200, headers=None):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def serving() -> Iterator[ThreadingHTTPServer]:
    """Run a stand-in in a thread; it has ``address``, ``files``, ``lost``, ``tokens`` and ``created``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.files, server.lost, server.tokens, server.created = {}, set(), set(), None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
