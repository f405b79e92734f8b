"""Server of the labelling page: only on this machine, with an address that cannot be guessed."""

import json
import secrets
import threading
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from types import TracebackType
from typing import Any

from tesserl_preference_data import StoreError
from tesserl_preference_data.labelling.session import LabellingSession
from tesserl_storage.locks import InUseError
from tesserl_storage.whole_files import json_text

HOST = "127.0.0.1"
MAX_BODY = 1000
"""Largest size of a request's body in bytes; an answer has 40."""

PAGES = {
    "": ("page.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
}

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class LabelServer:
    """Serve a labelling session until the context ends.

    A request must have the token in its path and this machine as its host. So other pages in the same browser can
    neither read pairs nor answer.

    Args:
        session: session to serve.
        port: port number; 0 for a free port.
        question: question that the page shows.
        fps: steps per second that the page shows, above 0.

    Raises:
        OSError: the port is taken.
    """

    def __init__(
        self, session: LabellingSession, *, port: int = 0, question: str = "Which one does better?", fps: float = 20.0
    ) -> None:
        self.token = secrets.token_urlsafe(24)
        settings = {"question": question, "fps": fps}
        self._server = _Server((HOST, port), partial(_Handler, session, self.token, settings))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    @property
    def port(self) -> int:
        """Port of the server."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self.port}/{self.token}/"

    def __enter__(self) -> "LabelServer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # browsers open connections in advance


class _Handler(BaseHTTPRequestHandler):
    """One connection; the token is the first part of each path."""

    protocol_version = "HTTP/1.0"  # one connection per request, so that none can answer after the end
    server_version, sys_version = "tesserl", ""
    timeout = 60.0  # timeout of a silent connection in seconds

    def __init__(self, session: LabellingSession, token: str, settings: dict[str, Any], *args: Any) -> None:
        self._session, self._token, self._settings = session, token, settings
        super().__init__(*args)

    def do_GET(self) -> None:
        """Answer with the page, the state or a pair."""
        place = self._place()
        if place is None:
            return
        if place in PAGES:
            name, media_type = PAGES[place]
            self._send(HTTPStatus.OK, (files(__package__) / "page" / name).read_bytes(), media_type)
        elif place == "api/state":
            self._send_json(self._session.state() | self._settings)
        elif place.startswith("api/pairs/") and place[10:].isdecimal() and len(place) < 30:
            self._try(lambda: self._session.pair(int(place[10:])))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def do_POST(self) -> None:
        """Record or undo an answer."""
        place = self._place()
        if place is None:
            return
        origins = [f"http://{host}" for host in self._hosts()]
        if self.headers.get("Origin", origins[0]) not in origins:
            self._refuse(HTTPStatus.FORBIDDEN, "answers are taken from this page alone")
            return
        body = self._body()
        if body is None:
            return
        if place == "api/answer":
            self._try(lambda: self._answer(body))
        elif place == "api/undo":
            self._try(lambda: {"undone": self._session.undo(), **self._session.state()})
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        self._session.answer(body.get("pair"), body.get("answer"))  # type: ignore[arg-type]  # checked there
        return self._session.state()

    def _hosts(self) -> tuple[str, str]:
        port = self.connection.getsockname()[1]
        return f"{HOST}:{port}", f"localhost:{port}"

    def _place(self) -> str | None:
        """Return the requested path after the token, or None if the request was refused."""
        if self.headers.get("Host") not in self._hosts():  # another host name that resolves to this machine
            self._refuse(HTTPStatus.FORBIDDEN, "this address is for this machine alone")
            return None
        token, _, place = self.path.lstrip("/").partition("?")[0].partition("/")
        if not secrets.compare_digest(token.encode(), self._token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN, "open the address that tesserl pairs label printed")
            return None
        return place

    def _body(self) -> dict[str, Any] | None:
        """Return the JSON object of the request, or None if it was refused."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body of at most {MAX_BODY} bytes is needed")
            return None
        try:
            body = json.loads(self.rfile.read(int(length)))
        except ValueError:
            body = None
        if not isinstance(body, dict) or self.headers.get_content_type() != "application/json":
            self._refuse(HTTPStatus.BAD_REQUEST, "a JSON object is needed")
            return None
        return body

    def _try(self, make: Any) -> None:
        try:
            document = make()
        except (InUseError, StoreError, OSError) as error:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        except ValueError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        else:
            self._send_json(document)

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._send_json({"error": why}, status)

    def _send_json(self, document: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(status, json_text(document).encode(), "application/json")

    def _send(self, status: HTTPStatus, content: bytes, media_type: str) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Log nothing, because paths contain the token."""
