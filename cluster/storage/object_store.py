"""Filesystems of other machines, as pyarrow opens them: what an object store answers, and what it has to be told.

A file is there whole or not at all. An object store has no rename, and needs none: it shows an object, or the new
content of one, only when its upload is complete. Up to 10 MiB an upload is one request; a larger object goes in parts,
and is made of them by a last request. What was there before stays until then, and stays for good where the writer is
killed on its way. The parts of such a writer are no object: nobody reads or lists them, but the store keeps (and may
charge for) them until a lifecycle rule of the bucket removes incomplete uploads, as `AbortIncompleteMultipartUpload`
does for S3.
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
_S3_ANSWER_S = 3.0  # this long without a byte, and an attempt has failed
_S3_OPTIONS = (
    *("region", "scheme", "endpoint_override", "tls_ca_file_path"),
    *("force_virtual_addressing", "allow_delayed_open"),
)

_GS_RETRY_S = 30  # its client tries again by itself, for 15 minutes if nobody says otherwise

_LAST_UPLOAD_S = 5.0  # for what is under way when Ctrl-C comes; the server may be away

# What pyarrow's S3 client says where it reaches nobody, or a server that is busy or away; it gives no error number.
# 501 and 507 will not pass.
_PASSING_TEXT = re.compile(
    r"AWS Error (NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|REQUEST_TIMEOUT|THROTTLING)\b"
    r"|\(HTTP status (408|429|50[0234589])\)"
)

_GONE_TEXT = re.compile(r"AWS Error (NO_SUCH_KEY|RESOURCE_NOT_FOUND) during GetObject\b")

_SECRET = re.compile(r"key|secret|token|passw|sas|credential|signature", re.IGNORECASE)


def has_credentials(uri: str) -> bool:
    """Tells whether there is a login, a key, or the like in a URI."""
    scheme, _, rest = uri.partition("://")
    place, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    host = re.sub(r"\[.*?\]", "", place.partition("/")[0])  # without the address of IPv6
    # Other stores name a container or a user before the @, which is no secret; a password is. It may have a slash in it
    # that should have been escaped.
    in_login = re.search(r":(?!\d*$)", host) or (scheme == "s3" and ("@" in host or ":" in host))
    in_options = any(_SECRET.search(name) for name in options) or "@" in options.get("endpoint_override", "")
    return bool(in_login) or in_options


@lru_cache(maxsize=16)  # a client for all folders of a place, in each process
def open_uri(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Returns a filesystem, and the path in it that a URI names.

    Raises:
        ValueError: If pyarrow does not know such a URI.
        ImportError: If it lacks what it needs for it.
        OSError: If a server has to be asked, and does not answer.
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
        ValueError: If there is no bucket in the URI, or an option that is not known.
        OSError: If the bucket's region has to be asked for, and that fails.
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
        # Amazon's buckets have one, and tell it; what other servers make of a region is this default.
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
        # `Storage` tries again, and for longer. A second attempt is what the client needs to learn the server's time
        # where this machine's clock is wrong by more than a quarter of an hour.
        retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=2),
        connect_timeout=_S3_CONNECT_S,
        request_timeout=_S3_ANSWER_S,
    )
    return filesystem, unquote(f"{parts.netloc}{parts.path}")


def read(filesystem: pyarrow.fs.FileSystem, path: str) -> bytes | None:
    """Returns a file's content, None if it was removed meanwhile.

    Raises:
        OSError: If it is not there, or cannot be read.
    """
    while True:
        try:
            with filesystem.open_input_stream(path) as stream:
                content: bytes = stream.read()
        except OSError as error:
            if _GONE_TEXT.search(str(error)) is not None:
                return None  # it was removed after it was opened
            raise
        # A stream ends where the file ended when it was opened. It may have been replaced by a longer one since.
        info = filesystem.get_file_info(path)
        if info.type != pyarrow.fs.FileType.File or info.size == len(content):
            return content


def write(filesystem: pyarrow.fs.FileSystem, path: str, data: bytes) -> None:
    """Writes a file, replacing one that is there.

    Raises:
        OSError: If it cannot be written; what was there before is still there.
    """
    buffer = pyarrow.py_buffer(data)  # what is no bytes fails here

    def upload() -> None:
        try:
            stream = filesystem.open_output_stream(path)
        except FileNotFoundError:
            # Object stores have no folders; where there are some, they must be there first.
            filesystem.create_dir(path.rpartition("/")[0])
            stream = filesystem.open_output_stream(path)
        with stream:
            stream.write(buffer)

    # A stream cannot be given up: closed with half of its data, or with none, it makes an object of that. Ctrl-C comes
    # to the main thread only, so here it cannot come between opening and writing.
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


def will_pass(error: OSError) -> bool:
    """Tells whether an error without a number is one that may be gone a moment later."""
    return isinstance(error, ConnectionError | TimeoutError) or _PASSING_TEXT.search(str(error)) is not None
