"""Remote filesystems, as pyarrow opens them: their settings and their errors.

A file is written completely or not at all. An object store needs no rename for that: it shows an object, or its new
content, only when the upload is complete. Up to 10 MiB an upload is one request; a larger object is uploaded in parts,
and a last request makes the object of them. Until then, or if the writer is killed, the old content stays. The parts of
a killed writer are never read or listed, but the store keeps them (and may charge for them) until a lifecycle rule of
the bucket removes incomplete uploads, such as `AbortIncompleteMultipartUpload` of S3.
"""

import os
import re
import threading
from concurrent.futures import Future, wait
from functools import lru_cache
from urllib.parse import parse_qsl, unquote, urlsplit

import pyarrow
import pyarrow.fs

_S3_CONNECT_S = 5.0
_S3_ANSWER_S = 3.0  # an attempt fails after this long without a byte
_S3_OPTIONS = (
    *("region", "scheme", "endpoint_override", "tls_ca_file_path"),
    *("force_virtual_addressing", "allow_delayed_open"),
)

_GS_RETRY_S = 30  # its client tries again by itself, by default for 15 minutes

_PIECE = 2**20  # bytes that are read at a time, as pyarrow does for a whole stream
_LAST_UPLOAD_S = 5.0  # after Ctrl-C, for the current upload; the server may be away

# The errors of pyarrow's S3 client, which have no number, if the server is unreachable, busy or away. 501 and 507 are
# permanent.
_TEMPORARY_TEXT = re.compile(
    r"AWS Error (NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|REQUEST_TIMEOUT|THROTTLING)\b"
    r"|\(HTTP status (408|429|50[0234589])\)"
)

_GONE_TEXT = re.compile(r"AWS Error (NO_SUCH_KEY|RESOURCE_NOT_FOUND) during GetObject\b")

_SECRET = re.compile(r"key|secret|token|passw|sas|credential|signature", re.IGNORECASE)


def has_credentials(uri: str) -> bool:
    """Returns whether a URI contains a login, a key, or the like."""
    scheme, _, rest = uri.partition("://")
    place, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    host = re.sub(r"\[.*?\]", "", place.partition("/")[0])  # without an IPv6 address
    # Other stores have a container or a user before the @, which is not secret; a password is. It may contain a slash
    # that should have been escaped.
    in_login = re.search(r":(?!\d*$)", host) or (scheme == "s3" and ("@" in host or ":" in host))
    in_options = any(_SECRET.search(name) for name in options) or "@" in options.get("endpoint_override", "")
    return bool(in_login) or in_options


@lru_cache(maxsize=16)  # one client for all folders of a location, in each process
def open_uri(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Returns the filesystem of a URI and the path in it.

    Raises:
        ValueError: If pyarrow does not support the URI.
        ImportError: If a package is missing.
        OSError: If a server must be asked and does not answer.
    """
    if uri.startswith("s3://"):
        return _open_s3(uri)
    if uri.startswith(("gs://", "gcs://")) and "retry_limit_seconds=" not in uri:
        uri += f"{'&' if '?' in uri else '?'}retry_limit_seconds={_GS_RETRY_S}"
    filesystem, root = pyarrow.fs.FileSystem.from_uri(uri)
    return filesystem, root


def _open_s3(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Opens an S3 bucket as pyarrow does from a URI, but with settings that a URI cannot have.

    Raises:
        ValueError: If the URI has no bucket, or an unknown option.
        OSError: If the server must be asked for the bucket's region, and that fails.
    """
    parts = urlsplit(uri, allow_fragments=False)
    options = dict(parse_qsl(parts.query))
    if not parts.netloc:
        raise ValueError("it names no bucket")
    for name in options:
        if name not in _S3_OPTIONS:
            raise ValueError(f"it has no option {name}, only {', '.join(_S3_OPTIONS)}")
    endpoint = (
        options.get("endpoint_override") or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    )
    if endpoint is not None and "@" in endpoint:
        raise ValueError("its endpoint has credentials in it")
    region = options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None:
        # Buckets of Amazon have a region, and Amazon says which; other servers accept this default.
        region = "us-east-1" if endpoint else pyarrow.fs.resolve_s3_region(parts.netloc)
    filesystem = pyarrow.fs.S3FileSystem(
        region=region,
        endpoint_override=endpoint,
        scheme=options.get("scheme", "https"),
        tls_ca_file_path=options.get("tls_ca_file_path"),
        force_virtual_addressing=options.get("force_virtual_addressing", "").lower() in ("1", "true"),
        # A file up to 10 MiB is one request, not three, and leaves no incomplete upload behind.
        allow_delayed_open=True,
        # A part that fails spoils its stream, so that closing it cannot make an object of the other parts.
        background_writes=True,
        # `Storage` tries again for longer. The client needs a second attempt to learn the server's time if this
        # machine's clock is wrong by more than a quarter of an hour.
        retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=2),
        connect_timeout=_S3_CONNECT_S,
        request_timeout=_S3_ANSWER_S,
    )
    return filesystem, unquote(f"{parts.netloc}{parts.path}")


def read(filesystem: pyarrow.fs.FileSystem, path: str, at_most: int) -> bytes | None:
    """Returns a file's content; None if it is removed at the same time.

    If it has more than `at_most` bytes, only its beginning is read, which is also longer than `at_most`.

    Raises:
        OSError: If it does not exist or cannot be read.
    """
    while True:
        try:
            with filesystem.open_input_stream(path) as stream:
                content = _read(stream, at_most)
        except OSError as error:
            if _GONE_TEXT.search(str(error)) is not None:
                return None  # it was removed after it was opened
            raise
        # A stream ends where the file ended when it was opened. A longer file may have replaced it since.
        info = filesystem.get_file_info(path)
        if len(content) > at_most or info.type != pyarrow.fs.FileType.File or info.size == len(content):
            return content


def _read(stream: pyarrow.NativeFile, at_most: int) -> bytes:
    pieces: list[bytes] = []
    n_bytes = 0
    while n_bytes <= at_most and (piece := stream.read(_PIECE)):
        pieces.append(piece)
        n_bytes += len(piece)
    return b"".join(pieces)


def write(filesystem: pyarrow.fs.FileSystem, path: str, data: bytes) -> None:
    """Writes a file, replacing one that is there.

    Raises:
        OSError: If it cannot be written; the old content is still there.
    """
    buffer = pyarrow.py_buffer(data)  # anything but bytes fails here

    def upload() -> None:
        try:
            stream = filesystem.open_output_stream(path)
        except FileNotFoundError:
            # Object stores have no folders; on other filesystems they must exist.
            filesystem.create_dir(path.rpartition("/")[0])
            stream = filesystem.open_output_stream(path)
        with stream:
            stream.write(buffer)

    # A stream cannot be abandoned: closing it with half of its data, or none, makes an object of that. Only the main
    # thread gets Ctrl-C, so in this thread it cannot come between opening and writing.
    uploaded: Future[None] = Future()

    def work() -> None:
        try:
            upload()
        except Exception as error:
            uploaded.set_exception(error)
        else:
            uploaded.set_result(None)

    threading.Thread(target=work, daemon=True).start()
    try:
        uploaded.result()
    except KeyboardInterrupt:
        wait([uploaded], timeout=_LAST_UPLOAD_S)
        raise


def is_temporary(error: OSError) -> bool:
    """Returns whether an error without a number is temporary."""
    return isinstance(error, ConnectionError | TimeoutError) or _TEMPORARY_TEXT.search(str(error)) is not None
