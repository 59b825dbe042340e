"""The board that others measure on: its own keys, home and Python, and what breaks with boards."""

import subprocess
from pathlib import Path

from tests.systems.board import is_running

MEGABYTE = 1 << 20


def run(command, **options):
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, **options
    )


def test_a_command_runs_in_the_boards_home_with_its_streams_and_exit_code(board):
    done = run(board.ssh('cat; pwd; echo "$HOME"; echo oops >&2; exit 7'), input="from here\n")
    assert done.returncode == 7
    assert done.stdout == f"from here\n{board.home}\n{board.home}\n"
    assert done.stderr == "oops\n"


def test_its_python_has_a_runtime_and_no_slipway(board, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    code = (
        "import importlib.util as u; "
        "print(*[m for m in ('numpy', 'tflite_runtime', 'pipeline', 'kaldi_native_fbank') "
        "if u.find_spec(m)])"
    )
    assert run(board.ssh(f'{board.python} -c "{code}"')).stdout == "numpy tflite_runtime\n"


def test_another_key_does_not_open_it(board, tmp_path):
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    command = [str(other) if word == str(board.identity) else word for word in board.ssh("true")]
    done = run(command)
    assert done.returncode == 255
    assert "Permission denied" in done.stderr


def test_another_host_key_is_refused(board):
    board.known_hosts.write_text((board.settings / "identity.pub").read_text())
    done = run(board.ssh("true"))
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


def test_a_killed_connection_ends_the_client_and_the_next_one_passes(board):
    with subprocess.Popen(
        board.ssh("echo here; cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as client:
        assert client.stdout.readline() == b"here\n"
        assert board.drop() >= 1
        assert client.wait(timeout=60) == 255
    assert run(board.ssh("echo again")).stdout == "again\n"


def test_a_narrow_way_breaks_after_so_many_bytes_and_then_passes(board):
    content = "x" * MEGABYTE
    with board.narrow(MEGABYTE // 2) as port:
        broken = run(board.ssh("cat > broken", port=port), input=content)
        assert broken.returncode == 255
        passed = run(board.ssh("cat > passed; wc -c < passed", port=port), input=content)
        assert int(passed.stdout) == MEGABYTE
    assert 0 < (board.home / "broken").stat().st_size < MEGABYTE // 2
    assert run(board.ssh("true", port=port)).returncode == 255  # the way is closed


def test_a_small_folder_gets_full(board, small_folder):
    with small_folder(board.home / "small", 8192) as folder:
        done = run(board.ssh("head -c 20000 /dev/zero > small/file"))
        assert done.returncode != 0
        assert "No space left on device" in done.stderr
        assert (folder / "file").stat().st_size == 8192
    assert not folder.exists()


def test_switched_off_it_refuses_and_leaves_no_process(board):
    with subprocess.Popen(
        board.ssh("echo $PPID; exec cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as client:
        session = int(client.stdout.readline())
        board.stop()
        assert client.wait(timeout=60) == 255
    assert not is_running(session)
    refused = run(board.ssh("true"))
    assert refused.returncode == 255
    assert "Connection refused" in refused.stderr
    board.start()
    assert run(board.ssh("echo back")).stdout == "back\n"
