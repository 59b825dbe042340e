"""Data by URL: fetched once, verified always, continued where it broke off."""

import http.server
import re
import ssl
import subprocess
import threading

import pytest

from pipeline import files
from pipeline.data import download
from pipeline.errors import InputsError

CONTENT = bytes(range(256)) * 4096  # 1 MiB


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `content`, by ranges when `ranges`; breaks off after `limit` bytes of an answer."""

    content, ranges, limit, asked = CONTENT, True, None, ()

    def do_GET(self):
        cls = type(self)
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(found[1]) if found and cls.ranges else 0
        cls.asked = (*cls.asked, start)
        if self.path != "/data.tar.gz":
            self.send_error(404)
        elif start >= len(cls.content):
            self.send_error(416)
        else:
            body = cls.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: cls.limit])

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return folder


@pytest.fixture
def server(certificate, monkeypatch):
    """An https server that this process trusts, with a handler of its own: (url, handler)."""
    handler = type("Handler", (Server,), {})
    found = http.server.ThreadingHTTPServer(("localhost", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    found.socket = context.wrap_socket(found.socket, server_side=True)
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    yield f"https://localhost:{found.server_port}/data.tar.gz", handler
    found.shutdown()
    thread.join()
    found.server_close()


DIGEST = files.digest_bytes(CONTENT)


def test_a_file_is_fetched_once_and_named_by_its_digest(server, tmp_path):
    url, handler = server
    first = download.fetch(url, DIGEST, tmp_path / "cache")
    assert first.read_bytes() == CONTENT
    assert first.name == DIGEST.removeprefix("sha256:") + ".tar.gz"
    assert download.fetch(url, DIGEST, tmp_path / "cache") == first
    assert handler.asked == (0,)
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [first.name]


def test_a_changed_file_in_the_cache_is_not_used(server, tmp_path):
    url, handler = server
    path = download.fetch(url, DIGEST, tmp_path)
    path.write_bytes(CONTENT[:-1] + b"?")
    assert download.fetch(url, DIGEST, tmp_path).read_bytes() == CONTENT
    assert handler.asked == (0, 0)


@pytest.mark.parametrize("ranges", [True, False], ids=["with ranges", "without ranges"])
def test_a_broken_download_goes_on(server, tmp_path, ranges):
    url, handler = server
    handler.limit, handler.ranges = 300_000, ranges
    with pytest.raises(InputsError, match=r"broke off after 300000 of 1048576 bytes; run again"):
        download.fetch(url, DIGEST, tmp_path)
    assert not list(tmp_path.glob("*.tar.gz"))
    handler.limit = None
    assert download.fetch(url, DIGEST, tmp_path).read_bytes() == CONTENT
    assert handler.asked == (0, 300_000 if ranges else 0)


def test_the_rest_of_another_file_is_not_put_behind_the_first_half(server, tmp_path):
    url, handler = server
    handler.content, handler.limit = bytes(len(CONTENT)), 300_000
    with pytest.raises(InputsError, match="broke off"):
        download.fetch(url, DIGEST, tmp_path)
    handler.content, handler.limit = CONTENT, None
    assert download.fetch(url, DIGEST, tmp_path).read_bytes() == CONTENT
    assert handler.asked == (0, 300_000, 0)


def test_other_bytes_are_refused_and_not_kept(server, tmp_path):
    url, handler = server
    handler.content = b"other"
    with pytest.raises(InputsError, match=r"data.url: .* has sha256:.*, data.digest pins sha256:"):
        download.fetch(url, DIGEST, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_url_is_taken_and_without_a_digest_it_is_read_anew(tmp_path):
    source = tmp_path / "mine.tar.gz"
    source.write_bytes(b"one")
    path = download.fetch(source.as_uri(), None, tmp_path / "cache")
    assert path.read_bytes() == b"one"
    source.write_bytes(b"two")
    assert download.fetch(source.as_uri(), None, tmp_path / "cache").read_bytes() == b"two"
    digest = files.digest_bytes(b"one")  # still there, though the source has changed
    assert download.fetch(source.as_uri(), digest, tmp_path / "cache") == path


def test_failures_are_one_line(server, tmp_path):
    url, _ = server
    with pytest.raises(InputsError, match=r"cannot be fetched: the server says 404 Not Found"):
        download.fetch(url.replace("data", "none"), DIGEST, tmp_path)
    with pytest.raises(InputsError, match=r"none.zip cannot be fetched: .*No such file"):
        download.fetch((tmp_path / "none.zip").as_uri(), DIGEST, tmp_path)
    with pytest.raises(InputsError, match=r"localhost.* cannot be fetched: .*refused"):
        download.fetch("https://localhost:1/x.zip", DIGEST, tmp_path)


def test_a_server_that_nobody_vouches_for_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(InputsError, match=r"cannot be fetched: .*certificate verify failed"):
        download.fetch(server[0], DIGEST, tmp_path)


@pytest.mark.parametrize("url", ["http://x/y.zip", "ftp://x/y.zip", "/data/y.zip", "git@x:y.zip"])
def test_another_scheme_is_refused(url, tmp_path):
    with pytest.raises(InputsError, match=r"data.url must begin with https:// or file://, got"):
        download.fetch(url, DIGEST, tmp_path)
