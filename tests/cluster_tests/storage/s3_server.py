"""A real S3 server on this machine, and a proxy in front of it that makes it fail."""

import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pyarrow.fs
import pytest

from cluster.storage.filesystem import Storage

HOST = "127.0.0.1"


def start_s3_server() -> tuple[subprocess.Popen[bytes], int]:
    """Starts an S3 server in a separate process; returns the process and the server's port."""
    with socket.create_server((HOST, 0)) as free:
        port: int = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", HOST, "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection((HOST, port)).close()
            return process, port
        except OSError:
            assert process.poll() is None, "the S3 server ended"
            assert time.monotonic() < deadline, "the S3 server does not start"
            time.sleep(0.05)


class Proxy:
    """Forwards connections to a server; it can be switched off, and can answer instead of the server.

    Attributes:
        port: The port that it listens on.
        answer: Takes what a client sends, and returns what to send back instead of passing it on; None to pass it on.
        silent: Accepts requests and does not answer.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.answer: Callable[[bytes], bytes | None] = lambda request: None
        self.silent = False
        self.connections: list[socket.socket] = []
        self.listener = socket.create_server((HOST, 0))
        self.port: int = self.listener.getsockname()[1]
        self._listen()

    def off(self) -> None:
        """Ends all connections and refuses new ones."""
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for one
        self.listener.close()
        self.thread.join()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()

    def on(self) -> None:
        """Accepts connections again."""
        self.listener = socket.create_server((HOST, self.port))
        self._listen()

    def off_for(self, seconds: float) -> threading.Timer:
        """Switches it off now, and on after some seconds; returns an object that waits for that."""
        self.off()
        timer = threading.Timer(seconds, self.on)
        timer.start()
        return timer

    def _listen(self) -> None:
        self.thread = threading.Thread(target=self._accept, args=[self.listener], daemon=True)
        self.thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
                server = socket.create_connection((HOST, self.target))
            except OSError:
                return
            self.connections += [client, server]
            threading.Thread(target=self._pass_on, args=[client, server, True], daemon=True).start()
            threading.Thread(target=self._pass_on, args=[server, client, False], daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, is_request: bool) -> None:
        with suppress(OSError), source:
            while data := source.recv(2**20):
                if is_request and self.silent:
                    continue
                answer = self.answer(data) if is_request else None
                if answer is not None:
                    source.sendall(answer)
                    break
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)


class HourLate:
    """A server whose clock is an hour ahead: it answers that a request was signed too long ago, with its own time.

    Attributes:
        refused: The number of refused requests.
    """

    def __init__(self) -> None:
        self.refused = 0

    def __call__(self, request: bytes) -> bytes | None:
        """Returns the answer to a request; None if its time is right."""
        signed = re.search(rb"x-amz-date: (\w+)", request, re.IGNORECASE)
        now = datetime.now(timezone.utc) + timedelta(hours=1)
        if signed is None or signed[1].decode() > f"{now - timedelta(minutes=15):%Y%m%dT%H%M%SZ}":
            return None
        self.refused += 1
        error = b"<Error><Code>RequestTimeTooSkewed</Code><Message>The difference is too large.</Message></Error>"
        body = b"" if request.startswith(b"HEAD") else error
        head = f"HTTP/1.1 403 Forbidden\r\nDate: {format_datetime(now, usegmt=True)}\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"Connection: close\r\n\r\n" + body


class S3:
    """A bucket of a test.

    Attributes:
        proxy: The proxy between the test and the server.
        access_key: The value in the environment, like `secret_key`.
        location: The bucket's location for `Storage`.
        direct: The location without the proxy.
    """

    access_key = "AKIAPLANTEDACCESSKEY"
    secret_key = "planted/secret+key"

    def __init__(self, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", self.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", self.secret_key)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        self.proxy = proxy
        self.endpoint = f"http://{HOST}:{proxy.port}"
        self.bucket = f"bucket-{uuid.uuid4().hex}"
        self.location = f"s3://{self.bucket}?endpoint_override={self.endpoint}"
        self.direct = f"s3://{self.bucket}?endpoint_override=http://{HOST}:{proxy.target}"
        self.filesystem = pyarrow.fs.S3FileSystem(
            endpoint_override=f"http://{HOST}:{proxy.target}",
            region="us-east-1",
            allow_bucket_creation=True,
            allow_delayed_open=True,
        )
        self.filesystem.create_dir(self.bucket)

    @property
    def storage(self) -> Storage:
        """The bucket."""
        return Storage(self.location)

    def objects(self) -> dict[str, bytes]:
        """The content of every object by its key, read without the proxy."""
        selector = pyarrow.fs.FileSelector(self.bucket, recursive=True)
        found = {}
        for info in self.filesystem.get_file_info(selector):
            if info.is_file:
                with self.filesystem.open_input_stream(info.path) as stream:
                    found[info.path.removeprefix(f"{self.bucket}/")] = stream.read()
        return found
