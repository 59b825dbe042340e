"""What an Android device says to adb: the daemon's side of the protocol over TCP, with /bin/sh.

``python fake_adbd.py FOLDER [PORT]`` listens on 127.0.0.1, says its port on standard output, and
runs every command in the folder. The signal USR1 cuts all connections, as a pulled cable does.

Spoken: CNXN without AUTH, OPEN, OKAY, WRTE, CLSE; services ``shell,v2,raw:`` (exit codes, standard
input, two outputs), ``shell:``, ``exec:`` and ``sync:`` (STAT, SEND, RECV, QUIT of version 1). All
else is refused, and only ``shell_v2`` stands among the features. From system/core/adb of Android:
protocol.txt, SYNC.TXT, shell_protocol.h, shell_service.cpp.
"""

import asyncio
import contextlib
import io
import os
import signal
import stat
import struct
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

CNXN, OPEN, OKAY, WRTE, CLSE = (
    int.from_bytes(name, "little") for name in (b"CNXN", b"OPEN", b"OKAY", b"WRTE", b"CLSE")
)
VERSION = 0x01000001  # checksums are not compared from here on
MAX_PAYLOAD = 256 * 1024
BANNER = b"device::ro.product.name=fake;ro.product.model=Fake;ro.product.device=fake;"
BANNER += b"features=shell_v2"
STDIN, STDOUT_ID, STDERR_ID, EXIT, CLOSE_STDIN = range(5)  # packets of the shell protocol
MAX_SYNC_DATA = 64 * 1024


class Stream:
    """One of the streams that share a connection; each side has a number for it."""

    def __init__(self, connection: "Connection", local: int, remote: int) -> None:
        self.connection = connection
        self.local, self.remote = local, remote
        self.task: asyncio.Task[None] | None = None
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue()
        self.may_write = asyncio.Event()  # one message is on the way at most
        self.may_write.set()
        self.writing = asyncio.Lock()
        self.rest = b""

    async def write(self, content: bytes) -> None:
        """Send it in messages that the other side takes, each after the last one was taken."""
        async with self.writing:
            size = self.connection.max_payload
            for start in range(0, len(content), size):
                await self.may_write.wait()
                self.may_write.clear()
                self.send(WRTE, content[start : start + size])

    async def some(self, most: int = MAX_PAYLOAD) -> bytes:
        """Return what came, and ask for more when that is all."""
        if not self.rest:
            self.rest = await self.incoming.get()
            self.send(OKAY)
        found, self.rest = self.rest[:most], self.rest[most:]
        return found

    async def exactly(self, size: int) -> bytes:
        """Return so many bytes."""
        found = b""
        while len(found) < size:
            found += await self.some(size - len(found))
        return found

    def send(self, command: int, content: bytes = b"") -> None:
        self.connection.send(command, self.local, self.remote, content)


class Connection:
    """One adb server's connection."""

    def __init__(
        self, folder: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.folder = folder
        self.reader, self.writer = reader, writer
        self.max_payload = MAX_PAYLOAD
        self.streams: dict[int, Stream] = {}
        self.num_opened = 0

    async def serve(self) -> None:
        """Answer until the other side is gone."""
        try:
            while True:
                header = struct.unpack("<6I", await self.reader.readexactly(24))
                command, first, second, length, _checksum, magic = header
                if magic != command ^ 0xFFFFFFFF or length > MAX_PAYLOAD:
                    return  # no adb
                self._take(command, first, second, await self.reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            for stream in list(self.streams.values()):
                self._drop(stream)
            self.writer.transport.abort()

    def send(self, command: int, first: int, second: int, content: bytes = b"") -> None:
        """Send one message."""
        header = struct.pack(
            "<6I", command, first, second, len(content), sum(content), command ^ 0xFFFFFFFF
        )
        self.writer.write(header + content)

    def _take(self, command: int, first: int, second: int, content: bytes) -> None:
        """Act on a message; ``first`` is the sender's number of a stream, ``second`` ours."""
        if command == CNXN:
            self.max_payload = min(MAX_PAYLOAD, second)
            self.send(CNXN, VERSION, MAX_PAYLOAD, BANNER)
        elif command == OPEN:
            self._open(first, content.rstrip(b"\0").decode())
        elif (stream := self.streams.get(second)) is None:
            return  # it was closed while this was on the way
        elif command == OKAY:
            stream.may_write.set()
        elif command == WRTE:
            stream.incoming.put_nowait(content)
        elif command == CLSE:
            self._drop(stream)

    def _open(self, remote: int, wanted: str) -> None:
        service = _service(wanted, self.folder)
        if service is None:
            self.send(CLSE, 0, remote)
            return
        self.num_opened += 1
        stream = self.streams[self.num_opened] = Stream(self, self.num_opened, remote)
        stream.send(OKAY)
        stream.task = asyncio.create_task(self._run(service, stream))

    async def _run(self, service: "Service", stream: Stream) -> None:
        try:
            await service(stream)
        finally:
            if stream.local in self.streams:  # not dropped
                self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        del self.streams[stream.local]
        stream.send(CLSE)

    def _drop(self, stream: Stream) -> None:
        """End a stream whose other side is gone."""
        assert stream.task is not None
        stream.task.cancel()
        self._forget(stream)


Service = Callable[[Stream], Coroutine[Any, Any, None]]


def _service(wanted: str, folder: Path) -> Service | None:
    """Return what was asked for; None where this daemon has no such thing."""
    name, _, argument = wanted.partition(":")
    kind, *options = name.split(",")
    if kind == "sync":
        return lambda stream: _sync(stream, folder)
    if not argument or "pty" in options:
        return None  # there is no terminal
    if kind == "shell" and "v2" in options:
        return lambda stream: _shell(stream, folder, argument)
    if kind in {"shell", "exec"}:
        return lambda stream: _plain(stream, folder, argument)
    return None


async def _start(folder: Path, command: str, stderr: int) -> Process:
    return await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", command, cwd=folder, stdin=PIPE, stdout=PIPE, stderr=stderr
    )


_ending: set[asyncio.Task[Any]] = set()  # the loop itself holds no task


async def _until_its_end(process: Process, *work: Awaitable[None]) -> None:
    """Do the work; if it is broken off, hang up and close the pipes, as the daemon does."""
    try:
        await asyncio.gather(*work)
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGHUP)
        for number in range(3):
            pipe = process._transport.get_pipe_transport(number)  # type: ignore[attr-defined]
            if pipe is not None:
                pipe.close()
        rest = asyncio.create_task(process.wait())
        _ending.add(rest)
        rest.add_done_callback(_ending.discard)
        raise


async def _feed(process: Process, content: bytes) -> None:
    """Write to a process that need not read."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(content)
        await process.stdin.drain()


async def _shell(stream: Stream, folder: Path, command: str) -> None:
    process = await _start(folder, command, PIPE)

    async def take_input() -> None:
        while True:
            kind, size = struct.unpack("<BI", await stream.exactly(5))
            while size > 0:
                content = await stream.some(size)  # a packet may be larger than a message
                size -= len(content)
                if kind == STDIN:
                    await _feed(process, content)
            if kind == CLOSE_STDIN and process.stdin is not None:
                process.stdin.close()

    async def give(kind: int, source: asyncio.StreamReader | None) -> None:
        assert source is not None
        while content := await source.read(MAX_SYNC_DATA):
            await stream.write(struct.pack("<BI", kind, len(content)) + content)

    taking = asyncio.create_task(take_input())
    try:
        await _until_its_end(
            process, give(STDOUT_ID, process.stdout), give(STDERR_ID, process.stderr)
        )
    finally:
        taking.cancel()
    code = await process.wait()
    await stream.write(struct.pack("<BIB", EXIT, 1, code if code >= 0 else 128 - code))


async def _plain(stream: Stream, folder: Path, command: str) -> None:
    """Run a command without exit code, its two outputs as one."""
    process = await _start(folder, command, STDOUT)
    assert process.stdout is not None

    async def take_input() -> None:
        while True:
            await _feed(process, await stream.some())

    async def give(source: asyncio.StreamReader) -> None:
        while content := await source.read(MAX_SYNC_DATA):
            await stream.write(content)

    taking = asyncio.create_task(take_input())
    try:
        await _until_its_end(process, give(process.stdout))
    finally:
        taking.cancel()
    await process.wait()


async def _sync(stream: Stream, folder: Path) -> None:
    """Serve files until QUIT."""
    while True:
        kind, size = struct.unpack("<4sI", await stream.exactly(8))
        if kind == b"QUIT":
            return
        path = (await stream.exactly(size)).decode()
        if kind == b"STAT":
            await stream.write(struct.pack("<4s3I", b"STAT", *_stat(folder / path)))
        elif kind == b"SEND":
            await _receive(stream, folder, path)
        elif kind == b"RECV":
            await _give(stream, folder / path)
        else:
            await _fail(stream, f"unknown command {kind!r}")
            return


def _stat(path: Path) -> tuple[int, int, int]:
    """Return mode, size and time of change; zeros where nothing is."""
    try:
        found = path.lstat()
    except OSError:
        return 0, 0, 0
    return found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime)


async def _receive(stream: Stream, folder: Path, wanted: str) -> None:
    """Take a file; one that does not come to its end is removed."""
    name, _, mode = wanted.rpartition(",")
    path = folder / name
    file: io.FileIO | None = None
    failure: OSError | None = None
    complete = False
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            file = path.open("xb", buffering=0)
        except OSError as error:
            failure = error
        time, stopped = await _take_file(stream, file)
        failure = failure or stopped
        complete = failure is None
    finally:
        if file is not None:
            file.close()
            if not complete:
                path.unlink()
    if failure is not None:
        await _fail(stream, f"couldn't create or write file: {failure.strerror}")
        return
    path.chmod(stat.S_IMODE(int(mode)))
    os.utime(path, (time, time))
    await stream.write(struct.pack("<4sI", b"OKAY", 0))


async def _take_file(stream: Stream, file: io.FileIO | None) -> tuple[int, OSError | None]:
    """Take all that is sent of a file; return its time and what stopped writing."""
    failure = None
    while True:
        kind, size = struct.unpack("<4sI", await stream.exactly(8))
        if kind == b"DONE":
            return size, failure  # the time stands where DATA has its size
        rest = memoryview(await stream.exactly(size))
        try:
            while rest and file is not None and failure is None:
                rest = rest[file.write(rest) :]
        except OSError as error:
            failure = error


async def _give(stream: Stream, path: Path) -> None:
    try:
        with path.open("rb") as file:
            while content := file.read(MAX_SYNC_DATA):
                await stream.write(struct.pack("<4sI", b"DATA", len(content)) + content)
    except OSError as error:
        await _fail(stream, f"read failed: {error.strerror}")
        return
    await stream.write(struct.pack("<4sI", b"DONE", 0))


async def _fail(stream: Stream, message: str) -> None:
    content = message.encode()
    await stream.write(struct.pack("<4sI", b"FAIL", len(content)) + content)


async def main(folder: Path, port: int) -> None:
    """Listen until this process is killed."""
    connections: set[Connection] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(folder, reader, writer)
        connections.add(connection)
        await connection.serve()
        connections.remove(connection)

    def cut() -> None:
        for connection in connections:
            connection.writer.transport.abort()

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, cut)
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
