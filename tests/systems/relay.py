"""A line that breaks: a TCP relay on loopback that cuts its first connections half-way."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def narrow(to: tuple[str, int], num_bytes: int, times: int = 1) -> Iterator[int]:
    """Give a port of 127.0.0.1 that leads ``to``; at the end all that goes through it is cut.

    The first ``times`` connections break once the client has sent so many bytes; what follows
    passes.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        relay = _Relay(server, to, num_bytes, times)
        thread = threading.Thread(target=relay.serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            _shut(server)
            thread.join()
            relay.close()


class _Relay:
    def __init__(
        self, server: socket.socket, to: tuple[str, int], num_bytes: int, times: int
    ) -> None:
        self.server = server
        self.to = to
        self.num_bytes = num_bytes
        self.times = times
        self.sockets: list[socket.socket] = []
        self.threads: list[threading.Thread] = []

    def serve(self) -> None:
        """Take connections until the server is shut down."""
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return  # shut down
            try:
                device = socket.create_connection(self.to)
            except OSError:
                client.close()  # nobody is there, which the client is to notice
                continue
            limit = self.num_bytes if self.times > 0 else None
            self.times -= 1
            self.sockets += [client, device]
            for source, sink, most in ((client, device, limit), (device, client, None)):
                thread = threading.Thread(target=_pass_on, args=(source, sink, most))
                thread.start()
                self.threads.append(thread)

    def close(self) -> None:
        """Cut whatever is open still."""
        for each in self.sockets:
            _shut(each)
        for thread in self.threads:
            thread.join()
        for each in self.sockets:
            each.close()


def _pass_on(source: socket.socket, sink: socket.socket, most: int | None) -> None:
    """Pass bytes on until one side ends; or until so many, then cut both."""
    passed = 0
    with suppress(OSError):
        while chunk := source.recv(65536 if most is None else min(65536, most - passed)):
            sink.sendall(chunk)
            passed += len(chunk)
            if passed == most:
                break
    _shut(source)
    _shut(sink)


def _shut(each: socket.socket) -> None:
    with suppress(OSError):  # it is not connected any more
        each.shutdown(socket.SHUT_RDWR)
