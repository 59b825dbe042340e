"""Files and runners behind the shell of a device; here it is this machine's own sh."""

import os
import random
import re
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import TargetError
from pipeline.transports import ssh
from pipeline.transports.base import NotReachedError
from pipeline.transports.shell import MAX_FOLDER_LENGTH, NUM_TRIES, BrokenLineError

CAT = "cat >> "
CONTENT = random.Random(0).randbytes(300_000)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(CONTENT)
    return path


def place(board, path):
    """Place one file and return where it lies, as this machine sees it."""
    return board.home / board.place({path.name: path}) / path.name


class TestPlace:
    def test_bytes_arrive_and_are_not_sent_again(self, board, model):
        there = place(board, model)
        assert there.read_bytes() == CONTENT
        assert board.num_sent() == 1
        assert place(board, model) == there
        assert board.num_sent() == 0

    def test_other_bytes_of_the_same_name_lie_elsewhere(self, board, model):
        first = place(board, model)
        model.write_bytes(CONTENT[1:])
        second = place(board, model)
        assert (first.read_bytes(), second.read_bytes()) == (CONTENT, CONTENT[1:])

    def test_files_that_belong_together_lie_together(self, board, tmp_path):
        named = {"model.xml": tmp_path / "a", "deep/model.bin": tmp_path / "b"}
        for path in named.values():
            path.write_text(path.name)
        folder = board.home / board.place(named)
        assert (folder / "model.xml").read_text() == "a"
        assert (folder / "deep/model.bin").read_text() == "b"

    def test_an_empty_file_is_a_file(self, board, model):
        model.write_bytes(b"")
        assert place(board, model).read_bytes() == b""

    @pytest.mark.parametrize("name", ["two words", "it's", 'say "x"', "$HOME `id` \\n", "-n", "ü"])
    def test_any_name_is_taken_as_it_is(self, make_board, tmp_path, name):
        path = tmp_path / name
        path.write_bytes(CONTENT)
        assert place(make_board(folder=f"folder {name}"), path).read_bytes() == CONTENT

    def test_what_broke_off_goes_on_where_it_stopped(self, board, model):
        board.breaks = [100_000]
        assert place(board, model).read_bytes() == CONTENT
        assert board.num_sent() == 2

    def test_after_the_last_try_the_part_is_there_for_the_next_call(self, board, model):
        board.breaks = [50_000] * NUM_TRIES
        with pytest.raises(BrokenLineError, match=r"^board: the line broke; nothing was recorded"):
            place(board, model)
        (part,) = board.home.glob("**/*.part")
        assert part.read_bytes() == CONTENT[: NUM_TRIES * 50_000]
        model_again = place(board, model)
        assert model_again.read_bytes() == CONTENT
        assert not part.exists()

    def test_a_device_that_is_not_reached_is_not_tried_again(self, board, model):
        board.before = "exit 255;"
        with pytest.raises(BrokenLineError, match=r"^board: the line broke"):
            place(board, model)
        assert len(board.scripts) == 1

    def test_a_line_that_broke_is_tried_again_even_if_the_device_is_away_then(self, board, model):
        there = board.line

        def away_once(script):
            line = there(script)
            return line if len(board.scripts) != 3 else ["sh", "-c", "exit 255"]

        board.line, board.breaks = away_once, [100_000]
        assert place(board, model).read_bytes() == CONTENT

    def test_in_a_hurry_a_slow_transfer_ends_in_time_and_goes_on_the_next_time(
        self, make_board, model
    ):
        board = make_board()
        there = board.line
        slow = "head -c 100000 >> {}; exec sleep 60"
        board.line = lambda script: there(
            slow.format(script.removeprefix(CAT)) if script.startswith(CAT) else script
        )
        board.hurry(2)
        start = time.monotonic()
        with pytest.raises(NotReachedError, match=r"^board does not answer within 2 s; nothing"):
            place(board, model)
        assert time.monotonic() - start < 30
        (part,) = board.home.glob("**/*.part")
        assert part.read_bytes() == CONTENT[:100_000]
        again = make_board()
        assert place(again, model).read_bytes() == CONTENT

    def test_in_a_hurry_nothing_is_tried_twice(self, board, model):
        board.hurry(60)
        board.breaks = [50_000]
        with pytest.raises(BrokenLineError):
            place(board, model)

    @pytest.mark.parametrize(
        "spoiled",
        [b"\0" * 1000, b"\0" * len(CONTENT), CONTENT + b"more"],
        ids=["a beginning", "all of it", "longer"],
    )
    def test_a_spoiled_part_is_sent_anew(self, board, model, spoiled):
        there = place(board, model)
        there.rename(f"{there}.part")
        Path(f"{there}.part").write_bytes(spoiled)
        assert place(board, model).read_bytes() == CONTENT

    @pytest.mark.parametrize("spoiled", [b"", CONTENT[:-1] + b"?"], ids=["empty", "one byte"])
    def test_a_spoiled_file_is_found_by_its_digest_and_sent_anew(self, board, model, spoiled):
        there = place(board, model)
        there.write_bytes(spoiled)
        assert place(board, model).read_bytes() == CONTENT

    def test_bytes_that_always_arrive_spoiled_are_an_error(self, board, model, monkeypatch):
        honest = board.line
        monkeypatch.setattr(
            board, "line", lambda script: honest(script.replace("cat >>", "tr a b >>"))
        )
        with pytest.raises(TargetError, match=r"model.tflite arrived with other bytes .*storage"):
            place(board, model)
        assert not list(board.home.glob("**/model.tflite*"))

    def test_two_at_once_do_not_write_to_the_same_file(self, make_board, model):
        boards = [make_board() for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            (there,) = set(pool.map(lambda board: place(board, model), boards))
        assert there.read_bytes() == CONTENT
        assert sum(board.num_sent() for board in boards) == 1

    def test_no_room_is_one_line_and_leaves_no_part(self, board, model):
        board.before = "trap '' XFSZ; ulimit -f 16;"  # in blocks of 512 bytes
        with pytest.raises(
            TargetError, match=r"^board: model.tflite \(300000 bytes\) cannot .*free some space"
        ) as caught:
            place(board, model)
        assert "\n" not in str(caught.value)
        assert not list(board.home.glob("**/*.part"))

    def test_a_folder_that_cannot_be_made_is_one_line(self, board, model):
        (board.home / ".cache").write_text("a file")
        with pytest.raises(TargetError, match=r"^board: .*mkdir.*\(in .cache/slipway\); free "):
            place(board, model)

    def test_what_the_shell_prints_by_itself_is_no_size(self, board, model):
        board.before = "echo 12 updates are available;"
        assert place(board, model).read_bytes() == CONTENT

    def test_a_shell_that_answers_otherwise_is_named(self, board, model):
        board.before = "trap 'echo bye' EXIT;"
        with pytest.raises(TargetError, match=r"printed 'bye' where a file's size was due"):
            place(board, model)

    def test_a_device_that_does_not_answer_is_given_up(self, board):
        with pytest.raises(BrokenLineError, match=r"does not answer for 0.2 s"):
            board.sh("exec sleep 60", limit_s=0.2)


class TestScratch:
    def test_it_is_there_empty_and_removed_at_the_end(self, board):
        with board.scratch() as name:
            folder = board.home / name
            assert list(folder.iterdir()) == []
            (folder / "outputs.npz").write_bytes(CONTENT)
        assert not folder.exists()

    def test_two_have_one_each(self, board):
        with board.scratch() as one, board.scratch() as other:
            assert one != other

    @pytest.mark.parametrize(("age_h", "is_kept"), [(20, True), (50, False)])
    def test_what_broken_lines_left_goes_in_two_days(self, board, age_h, is_kept):
        left = board.home / board.folder / "runs/left"
        left.mkdir(parents=True)
        self.age(left, age_h)
        with board.scratch():
            assert left.exists() == is_kept

    @pytest.mark.parametrize(("age_h", "is_kept"), [(24 * 6, True), (24 * 9, False)])
    def test_files_that_nobody_asked_for_go_in_the_second_week(self, board, model, age_h, is_kept):
        there = place(board, model)
        self.age(there.parent, age_h)
        with board.scratch():
            assert there.exists() == is_kept

    def test_asking_for_a_file_keeps_it(self, board, model):
        there = place(board, model)
        self.age(there.parent, 24 * 9)
        place(board, model)
        with board.scratch():
            assert there.exists()

    def test_a_line_that_broke_meanwhile_hides_no_error(self, board):
        def fail():
            with board.scratch():
                board.before = "exit 255;"
                raise TargetError("the first")

        with pytest.raises(TargetError, match="the first"):
            fail()

    @staticmethod
    def age(path, hours):
        then = path.stat().st_mtime - 3600 * hours
        os.utime(path, (then, then))


class TestFetch:
    def test_bytes_come_back(self, board, tmp_path):
        (board.home / "it's there").write_bytes(CONTENT)
        board.fetch("it's there", tmp_path / "here")
        assert (tmp_path / "here").read_bytes() == CONTENT

    def test_what_is_not_there_is_one_line(self, board, tmp_path):
        with pytest.raises(TargetError, match=r"^board: nothing cannot be read: .*nothing"):
            board.fetch("nothing", tmp_path / "here")
        assert not (tmp_path / "here").exists()

    def test_what_the_shell_prints_by_itself_is_found(self, board, tmp_path):
        (board.home / "file").write_bytes(CONTENT)
        board.before = "echo welcome;"
        with pytest.raises(TargetError, match=r"file arrived with other bytes .*\.bashrc"):
            board.fetch("file", tmp_path / "here")
        assert not (tmp_path / "here").exists()


def test_a_private_folder_is_short_enough_for_a_socket(tmp_path, monkeypatch):
    deep = tmp_path / ("deep" * 20)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    found = ssh.private_folder.__wrapped__()
    assert len(str(found)) <= MAX_FOLDER_LENGTH
    assert found.stat().st_mode & 0o077 == 0


def run(board, command="describe"):
    """Run a runner to its end: (what it printed, its exit code, what failed)."""
    with tempfile.TemporaryFile("w+", errors="replace") as noise:
        with board.start(command, noise) as process:
            said, _ = process.communicate("")
        noise.seek(0)
        return (
            said,
            process.returncode,
            board.failure(process.returncode, noise.read(), replied=False),
        )


class TestStart:
    def program(self, board, text):
        path = board.home / "my runner"
        path.write_bytes(text)
        path.chmod(0o755)
        board.runner = "./my runner"

    def test_another_program_is_given_the_command(self, board):
        self.program(board, b'#!/bin/sh\necho "$1 in $PWD"')
        said, returncode, failure = run(board)
        assert (said, returncode, failure) == (f"describe in {board.home}\n", 0, None)
        assert not list(board.home.glob("**/*.pyz")), "nobody asked for ours"

    def test_our_own_is_sent_once(self, make_board, python_of_a_board):
        board = make_board(python=str(python_of_a_board))
        for num_sent in (1, 0):
            said, returncode, _ = run(board)
            assert returncode == 0
            assert '"runner": "slipway"' in said
            assert board.num_sent() == num_sent

    @pytest.mark.parametrize(
        ("python", "words"),
        [
            ("no-such-python", r"^board: no-such-python with numpy does not run there \(127\)"),
            ("/dev/null", r"^board: /dev/null with numpy does not run there \(126\)"),
            ("false", r"^board: false with numpy does not run there \(1\): no message"),
        ],
    )
    def test_an_interpreter_that_does_not_run_is_named(self, make_board, python, words):
        board = make_board(python=python)
        _, _, failure = run(board)
        assert re.search(words, failure)

    def test_a_program_of_another_machine_does_not_run(self, board):
        self.program(board, b"\x7fELF\x02\x01\x01" + bytes(range(256)) * 8)
        _, _, failure = run(board)
        assert failure.startswith("board: ./my runner does not run there (")
        assert failure.endswith("install it for this device, or correct the target's connection")
        assert failure.isprintable()

    def test_a_runner_that_is_killed_is_told_by_its_signal(self, board):
        self.program(board, b"#!/bin/sh\nkill -9 $$")
        _, _, failure = run(board)
        assert failure == (
            "board: the runner was killed by SIGKILL; free memory there, and try again"
        )

    def test_a_line_that_broke_is_told(self, board):
        board.before = "exit 255;"
        board.runner = "true"
        _, _, failure = run(board)
        assert failure == "board: the line broke; nothing was recorded, try again"

    def test_what_a_runner_says_itself_is_left_to_it(self, board):
        assert board.failure(3, "noise", replied=True) is None
        assert board.failure(0, "noise", replied=False) is None
