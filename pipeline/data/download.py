"""Fetch a data source from its URL once, into the project's cache, and hold it to its digest."""

import fcntl
import hashlib
import http.client
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO, Any

from pipeline import files
from pipeline.errors import InputsError

CACHE = Path(".slipway/cache")  # in the project's folder, which DVC and git pass over
SCHEMES = ("https", "file")
TIMEOUT_S = 60
FAILURES = (OSError, http.client.HTTPException)  # urllib's and ssl's errors are OSErrors


def fetch(url: str, digest: str | None, cache: Path = CACHE) -> Path:
    """Return the path of the file's bytes in the cache, downloading what is not there yet.

    A file that was broken off goes on where it ended, if the server can. What lies in the cache is
    compared with the digest at every call; without a digest it is fetched anew.

    Raises:
        InputsError: the scheme is none of SCHEMES, the server fails, or the bytes are others.
    """
    if urllib.parse.urlsplit(url).scheme not in SCHEMES:
        raise InputsError(f"data.url must begin with https:// or file://, got {url!r}")
    cache.mkdir(parents=True, exist_ok=True)
    kept = cache / _name(url, digest) if digest else None
    if kept is not None and kept.is_file() and files.digest_file(kept) == digest:
        return kept
    part = cache / f"{hashlib.sha256(url.encode()).hexdigest()}.part"
    with part.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # two commands may want it at once
        begun = file.tell() > 0
        found = _download(url, file)
        if digest and found != digest and begun:  # the other half may have been of another file
            _empty(file)
            found = _download(url, file)
        if digest and found != digest:
            part.unlink()
            raise InputsError(
                f"data.url: {url} has {found}, data.digest pins {digest}; mend the URL, "
                "or run slipway inputs lock if the change is meant"
            )
        return part.replace(cache / _name(url, found))


def _name(url: str, digest: str) -> str:
    """Name a file of the cache by its digest, with the ending that tells the kind of archive."""
    return digest.removeprefix("sha256:") + "".join(
        Path(urllib.parse.urlsplit(url).path).suffixes[-2:]
    )


def _download(url: str, file: IO[bytes]) -> str:
    """Append what is missing and return the digest of the whole."""
    request = urllib.request.Request(url)  # noqa: S310 - one of SCHEMES
    if file.tell():
        request.add_header("Range", f"bytes={file.tell()}-")
    try:
        _receive(request, file)
    except urllib.error.HTTPError as error:
        # 416: there is nothing behind what we have
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise _failed(url, f"the server says {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _failed(url, str(error.reason)) from error
    except FAILURES as error:
        raise _failed(url, str(error) or type(error).__name__) from error
    file.flush()
    return files.digest_file(Path(file.name))


def _receive(request: urllib.request.Request, file: IO[bytes]) -> None:
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
        if getattr(answer, "status", None) != http.client.PARTIAL_CONTENT:
            _empty(file)
        expected = _length(answer)
        received = 0
        while piece := answer.read(files.CHUNK_BYTES):
            file.write(piece)
            received += len(piece)
    if expected is not None and received < expected:
        raise http.client.HTTPException(f"it broke off after {received} of {expected} bytes")


def _empty(file: IO[bytes]) -> None:
    file.seek(0)
    file.truncate()


def _length(answer: Any) -> int | None:
    stated = answer.headers.get("Content-Length")
    return int(stated) if stated and stated.isdigit() else None


def _failed(url: str, why: str) -> InputsError:
    return InputsError(f"data.url: {url} cannot be fetched: {why}; run again to go on")
