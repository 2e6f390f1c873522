"""The web server behind the page: this machine only, one log, and a secret in every address."""

from __future__ import annotations

import hmac
import re
import secrets
import select
import socket
import sys
import webbrowser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from socketserver import TCPServer
from threading import BoundedSemaphore, Lock, Thread
from typing import Any

from evsim.errors import EvsimError
from evsim.viewer.packing import Answer, words
from evsim.viewer.query import Query, QueryError
from evsim.viewer.session import Session
from evsim.viewer.source import Cancelled

SCRIPTS = (
    *("page.js", "axes.js", "colours.js", "hover.js", "plot.js", "pointer.js"),
    *("raster.js", "requests.js", "selection.js", "states.js", "view.js"),
)

#: The files of the page, and nothing else, are read, once and when the server starts.
PAGE = {
    "": ("page.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
    **{name: (name, "text/javascript; charset=utf-8") for name in SCRIPTS},
}

#: Other sites may neither show the page, nor run anything in it, nor learn its address.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

#: Names by which a browser on this machine calls it, whatever the port: a tunnel has another one.  A page of
#: a foreign site whose name has been pointed here (DNS rebinding) sends that name.
HOSTS = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE | re.ASCII)

#: Connections at once; a browser opens six.
MOST_CONNECTIONS = 64


class Server(ThreadingHTTPServer):
    """Answers requests about one log.

    Parameters
    ----------
    session : Session
    port : int
        0 takes a free one.

    Raises
    ------
    EvsimError
        The port is taken.
    """

    daemon_threads = True

    def __init__(self, session: Session, port: int = 0):
        self.session = session
        self.token = secrets.token_urlsafe(24)
        self._ticket: str | None = None
        self._ticket_lock = Lock()
        folder = files("evsim.viewer")
        self.page = {
            route: Answer(kind, folder.joinpath(name).read_bytes()) for route, (name, kind) in PAGE.items()
        }
        self._connections = BoundedSemaphore(MOST_CONNECTIONS)
        try:
            super().__init__(("127.0.0.1", port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise EvsimError("viewer", f"cannot use port {port}: {reason}", "leave --port away") from error

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"

    def open_browser(self) -> None:
        """Open the page in the browser of this machine, if it has one.

        Everybody on this machine can read the command line of a browser.  So it is given a ticket, which the
        first who comes turns into the address, once.
        """
        self._ticket = secrets.token_urlsafe(24)
        address = f"http://127.0.0.1:{self.server_port}/{self._ticket}/"
        Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    def take_ticket(self, given: str) -> bool:
        """Whether this is the ticket, which then is none any more."""
        with self._ticket_lock:
            valid = self._ticket is not None and same_secret(given, self._ticket)
            if valid:
                self._ticket = None
            return valid

    def server_bind(self) -> None:
        """As in `HTTPServer`, which would ask a name server for the name of this machine."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, while there are not too many."""
        if self._connections.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """What such a thread does."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is no news; the page shows all other errors."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def same_secret(given: str, secret: str) -> bool:
    """Compare in a time that does not tell how much of it is right."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode())


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "evsim", ""
    timeout = 60  # s without a request

    def parse_request(self) -> bool:
        """Read the head of a request, and refuse it unless it may be answered."""
        if not super().parse_request():
            return False
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # whatever follows is not taken for a request
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not HOSTS.fullmatch(hosts[0].strip()):
            return self._refuse(403, "open this page as 127.0.0.1 or localhost")
        given = "".join(self.path.split("?")[0].split("/")[1:2])
        if not same_secret(given, self.server.token):
            if self.command == "GET" and self.server.take_ticket(given):
                self._to_page()
                return False
            return self._refuse(
                403, "the address lacks its secret part: copy it whole from where evsim view runs"
            )
        if self.command != "GET":
            return self._refuse(405, "only GET is answered")
        return True

    def _refuse(self, status: int, why: str) -> bool:
        self.close_connection = True
        self._send(status, Answer("text/plain; charset=utf-8", f"evsim: {why}\n".encode()))
        return False

    def do_GET(self) -> None:
        """Answer a request that may be answered."""
        route, _, query = self.path.partition("?")
        name = route.removeprefix(f"/{self.server.token}")
        if name == "":
            self._to_page()
        elif (page := self.server.page.get(name[1:])) is not None:
            self._send(200, page)
        elif (answer := self.server.session.answers.get(name[1:])) is not None:
            self._answer(answer, query)
        else:
            self._send(404, words({"error": "there is nothing under this address"}))

    def _to_page(self) -> None:
        self._send(303, Answer("text/plain", b""), {"Location": f"/{self.server.token}/"})

    def _answer(self, answer: Any, query: str) -> None:
        try:
            self._send(200, answer(Query(query), self._check))
        except Cancelled:
            self.close_connection = True
        except QueryError as error:
            self._send(400, words({"error": str(error)}))
        except (EvsimError, OSError) as error:
            if isinstance(error, ConnectionError):
                raise
            self._send(422, words({"error": str(error)}))
        except Exception as error:
            self._send(500, words({"error": f"a mistake of evsim: {type(error).__name__}: {error}"}))

    def _check(self) -> None:
        """Raise if the page has dropped its request: then it has closed the connection."""
        if select.select([self.connection], [], [], 0)[0]:
            try:
                if not self.connection.recv(1, socket.MSG_PEEK):
                    raise Cancelled
            except OSError as error:
                raise Cancelled from error

    def _send(self, status: int, answer: Answer, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        headers = (
            HEADERS | {"Content-Type": answer.kind, "Content-Length": str(len(answer.body))} | (more or {})
        )
        if answer.file_name is not None:
            headers["Content-Disposition"] = f'attachment; filename="{answer.file_name}"'
        if status == 405:
            headers["Allow"] = "GET"
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no request at all."""
        self.close_connection = True
        self._send(code, Answer("text/plain; charset=utf-8", f"evsim: {message or 'no'}\n".encode()))

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the page shows what goes wrong."""
