"""The report page of an experiment while it runs, served to a browser of this machine.

Access needs the address, which contains a new random token for each server. Programs of other users on the machine and
other web pages in the browser do not have it. Only the page and its sections are served; the path of a request never
becomes the path of a file.
"""

import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from cluster.reports.formats.html import tag
from cluster.reports.page.data import PageData
from cluster.reports.page.page import content, live_page
from cluster.reports.page.pictures import Pictures, draw
from cluster.reports.page.sections import section
from cluster.storage.folders import ExperimentFolder
from data_pipeline.user_error import UserError, first_line

_HOST = "127.0.0.1"
_PAUSE_S = 2.0
_SHARE = 5
"""The pause before the page is read again is this many times as long as reading it took, so that a sweep on the same
machine keeps its cores."""

_PICTURES_PAUSE_S = 60.0
"""The shortest time between two drawings of the pictures."""


def serve(folder: ExperimentFolder, *, port: int = 0, announce: Callable[[str], None]) -> None:
    """Serves the live page of an experiment until Ctrl-C.

    Args:
        folder: The experiment's folder.
        port: The port on this machine; 0 takes a free one.
        announce: Called with the page's address when the page is served.

    Raises:
        NoResultsError: If there is no experiment.
        StorageError: If its files cannot be read.
        UserError: If the port is taken.
    """
    with ReportServer(folder, port) as server, suppress(KeyboardInterrupt):
        announce(server.address)
        server.serve_forever()


class ReportServer(ThreadingHTTPServer):
    """Answers requests for the live page of one experiment.

    Args:
        folder: The experiment's folder.
        port: The port on this machine; 0 takes a free one.

    Attributes:
        token: The beginning that the path of a request must have.

    Raises:
        NoResultsError: If there is no experiment.
        StorageError: If its files cannot be read.
        UserError: If the port is taken.
    """

    daemon_threads = True

    def __init__(self, folder: ExperimentFolder, port: int = 0) -> None:
        self.latest = _Latest(folder)
        self.latest.data()  # a problem of the folder is reported here, not in a browser
        self.pictures = _Drawn(folder)
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((_HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise UserError(
                f"port {port} of {_HOST} cannot be used: {error}; choose another one, or 0 for any free port"
            ) from error

    @property
    def address(self) -> str:
        """The address of the page."""
        return f"http://{_HOST}:{self.server_port}/{self.token}/"

    def server_close(self) -> None:
        """Releases the port and stops drawing pictures."""
        super().server_close()
        self.pictures.close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignores a browser that closed the connection during a response."""


class _Latest:
    """The experiment's data, read again at the first request after a pause."""

    def __init__(self, folder: ExperimentFolder) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._data: PageData | None = None
        self._good_until = 0.0

    def data(self) -> PageData:
        with self._lock:
            if self._data is None or time.monotonic() >= self._good_until:
                start = time.monotonic()
                self._data = PageData.read(self.folder)
                end = time.monotonic()
                self._good_until = end + max(_PAUSE_S, _SHARE * (end - start))
            return self._data


class _Drawn:
    """The pictures of an experiment, drawn in their own thread: drawing takes seconds, and no request waits for it.

    Only that thread draws, because matplotlib's settings belong to the process, see `paper_style`.
    """

    def __init__(self, folder: ExperimentFolder) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closed = threading.Event()
        self._good_until = 0.0
        self._of: object = None
        self._pictures = _without("The pictures are being drawn, which takes a few seconds.")

    def pictures(self, data: PageData) -> Pictures:
        """Returns the latest pictures; starts drawing new ones if the results have changed."""
        # Progress within a trial is not drawn, except for its examples.
        of = data.table.summary, data.example_trial, len(data.examples.epochs) if data.examples else 0
        with self._lock:
            is_drawing = self._thread is not None and self._thread.is_alive()
            is_due = time.monotonic() >= self._good_until and not is_drawing and not self._is_closed.is_set()
            if is_due and of != self._of:
                self._of = of
                self._thread = threading.Thread(target=self._draw, args=(data,))
                self._thread.start()
            return self._pictures

    def close(self) -> None:
        """Waits until the current picture is finished."""
        with self._lock:
            self._is_closed.set()
        if self._thread is not None:
            self._thread.join()

    def _draw(self, data: PageData) -> None:
        start = time.monotonic()
        note = f"As of {time.strftime('%H:%M:%S')}. Redrawn when results change, at most once a minute."
        try:
            drawn = draw(data, self._folder, note=note, goes_on=lambda: not self._is_closed.is_set())
        except Exception as error:
            # The page is useful without them, so no error may end the thread.
            drawn, self._of = _without(f"The pictures could not be drawn: {first_line(error)}"), None
        end = time.monotonic()
        self._good_until = end + max(_PICTURES_PAUSE_S, _SHARE * (end - start))
        self._pictures = drawn


def _without(sentence: str) -> Pictures:
    return Pictures([section("pictures", "Pictures", tag("p", sentence))], None)


class _Handler(BaseHTTPRequestHandler):
    server: ReportServer
    server_version = "PoseTune"
    sys_version = ""
    timeout = 30  # an idle browser must not keep a thread

    def do_GET(self) -> None:
        """Answers with the page, its sections, or an error in a line of text."""
        host, address = self.headers.get("Host", ""), urlsplit(self.path).path
        token, slash, rest = address.removeprefix("/").partition("/")
        # A web page whose name was made to resolve to this machine (DNS rebinding) sends its own name.
        if host not in (f"{_HOST}:{self.server.server_port}", f"localhost:{self.server.server_port}"):
            self._answer(HTTPStatus.FORBIDDEN, "this server only answers requests to its own address")
        elif not secrets.compare_digest(token.encode(), self.server.token.encode()):
            self._answer(HTTPStatus.FORBIDDEN, "the address does not contain the token: open the printed address")
        elif slash and not rest:
            self._answer_with(live_page)
        elif rest == "content":
            self._answer_with(content)
        else:
            self._answer(HTTPStatus.NOT_FOUND, "only the report is available here")

    def log_message(self, format: str, *args: object) -> None:
        """Keeps requests, and the token in them, out of the terminal."""

    def _answer_with(self, write: Callable[[PageData, ExperimentFolder, Pictures], str]) -> None:
        try:
            data = self.server.latest.data()
            text = write(data, self.server.latest.folder, self.server.pictures.pictures(data))
        except UserError as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
            return
        self._answer(HTTPStatus.OK, text, kind="text/html")

    def _answer(self, status: HTTPStatus, text: str, *, kind: str = "text/plain") -> None:
        body = text.encode(errors="replace")
        tag = f'"{hashlib.sha256(body).hexdigest()}"'
        unchanged = status is HTTPStatus.OK and self.headers.get("If-None-Match") == tag
        self.send_response(HTTPStatus.NOT_MODIFIED if unchanged else status)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", "frame-ancestors 'none'")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")  # the address holds the token
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("ETag", tag)
        if not unchanged:
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not unchanged:
            self.wfile.write(body)
