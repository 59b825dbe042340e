"""To the real adb client the fake device is one: files, exit codes, streams, a lost line."""

import os
import stat
import subprocess

import pytest

SIZE = 3_000_000


@pytest.fixture
def content(tmp_path):
    path = tmp_path / "content"
    path.write_bytes(os.urandom(SIZE))
    return path


def run(command, **options):
    options = {"text": True} | options
    return subprocess.run(command, capture_output=True, timeout=60, check=False, **options)


CODES = {"true": 0, "exit 3": 3, "kill -9 $$": 128 + 9, "nonesuch-program": 127}


@pytest.mark.parametrize(("script", "code"), CODES.items(), ids=CODES)
def test_the_exit_code_is_the_commands(script, code, android):
    assert run(android.adb("shell", script)).returncode == code


def test_a_command_runs_in_the_folder_with_two_outputs(android):
    done = run(android.adb("shell", "-T", "pwd; echo $HOME; echo oops >&2"))
    assert done.stdout == f"{android.folder}\n{android.folder}\n"
    assert done.stderr == "oops\n"


def test_bytes_pass_through_a_command_unchanged(android, content):
    done = run(android.adb("shell", "-T", "cat"), input=content.read_bytes(), text=False)
    assert done.stdout == content.read_bytes()
    assert done.returncode == 0


def test_a_command_that_does_not_read_its_input_ends_all_the_same(android, content):
    done = run(android.adb("shell", "-T", "exit 5"), input=content.read_bytes(), text=False)
    assert done.returncode == 5


def test_several_commands_run_at_once(android):
    with subprocess.Popen(android.adb("shell", "cat"), stdin=subprocess.PIPE) as waiting:
        assert run(android.adb("shell", "echo beside")).stdout == "beside\n"
        assert waiting.poll() is None
        waiting.communicate()
    assert waiting.returncode == 0


def test_an_older_services_output_is_one(android):
    done = run(android.adb("exec-out", "echo out; echo err >&2; exit 3"))
    assert sorted(done.stdout.split()) == ["err", "out"]
    assert done.returncode == 0  # this service tells no exit code


def test_a_file_goes_there_and_back(android, content, tmp_path):
    content.chmod(0o750)
    there, back = android.folder / "a folder" / "file", tmp_path / "back"
    assert run(android.adb("push", str(content), str(there))).returncode == 0
    assert there.read_bytes() == content.read_bytes()
    assert stat.S_IMODE(there.stat().st_mode) & 0o700 == 0o700
    assert int(there.stat().st_mtime) == int(content.stat().st_mtime)
    assert run(android.adb("pull", str(there), str(back))).returncode == 0
    assert back.read_bytes() == content.read_bytes()


def test_a_file_pushed_to_a_folder_keeps_its_name(android, content):
    assert run(android.adb("push", str(content), f"{android.folder}/")).returncode == 0
    assert (android.folder / content.name).stat().st_size == SIZE


REFUSED = {
    "a folder that cannot be": ("push", "{content}", "/proc/none/file", "No such file"),
    "a file that is not there": ("pull", "/nonesuch", "{content}.back", "does not exist"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_copied_is_said_so(case, android, content):
    *arguments, said = (word.format(content=content) for word in case)
    done = run(android.adb(*arguments))
    assert done.returncode == 1
    assert said in done.stdout + done.stderr


def test_a_full_device_says_so_and_keeps_no_part(android, content, small_folder):
    with small_folder(android.folder / "small", SIZE // 2) as folder:
        done = run(android.adb("push", str(content), f"{folder}/file"))
        assert done.returncode == 1
        assert "No space left on device" in done.stdout + done.stderr
        assert list(folder.iterdir()) == []


def test_what_it_does_not_have_it_refuses_and_does_not_claim(android):
    assert run(android.adb("features")).stdout.split() == ["shell_v2"]
    terminal = run(android.adb("shell", "-t", "-t", "true"))
    assert (terminal.returncode, terminal.stderr.strip()) == (1, "error: closed")


def test_a_pulled_cable_hangs_up_and_the_device_is_offline_until_it_is_connected(android):
    script = "trap 'echo hung up > said; exit' HUP; echo here; while :; do sleep 0.05; done"
    with subprocess.Popen(android.adb("shell", script), stdout=subprocess.PIPE) as client:
        assert client.stdout.readline() == b"here\n"
        android.drop()
        client.wait(timeout=60)
        # adb before 33 says nothing of it: no exit code came, so it takes 0
        assert client.returncode in {0, 255}
    offline = run(android.adb("shell", "true"))
    assert offline.returncode == 1
    assert "offline" in offline.stderr or "not found" in offline.stderr
    android.connect()
    wait = "until [ -s said ]; do sleep 0.05; done; cat said"
    assert run(android.adb("shell", wait)).stdout == "hung up\n"


def test_a_line_that_breaks_leaves_a_part_of_a_command_and_none_of_a_push(android, content):
    with android.narrow(SIZE // 2, times=2) as port:
        serial = android.connect(port)
        with content.open("rb") as file:
            run(android.adb("shell", "-T", "cat > part", serial=serial), stdin=file)
        serial = android.connect(port)
        pushed = run(android.adb("push", str(content), "pushed", serial=serial))
        assert pushed.returncode == 1
        serial = android.connect(port)
        passed = run(android.adb("push", str(content), "passed", serial=serial))
        assert passed.returncode == 0
    assert 0 < (android.folder / "part").stat().st_size < SIZE // 2
    assert not (android.folder / "pushed").exists()
    assert (android.folder / "passed").read_bytes() == content.read_bytes()


def test_switched_off_it_is_not_there_and_on_again_it_is(android):
    android.stop()
    with pytest.raises(RuntimeError, match="adb does not connect"):
        android.connect()
    android.start()
    assert android.connect() == android.serial
    assert run(android.adb("shell", "echo back")).stdout == "back\n"


def test_plain_adb_finds_this_device_alone_and_no_keys_of_the_tester(android):
    done = run(["adb", "devices"])
    assert done.stdout.splitlines()[1:] == [f"{android.serial}\tdevice", ""]
    assert (android.folder.parent / "home/.android/adbkey").is_file()
