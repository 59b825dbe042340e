"""What stages say reaches the stdout of the moment, also after a stage ran in this process."""

import io
import os
import subprocess
import sys
from pathlib import Path

from pipeline import console


def test_what_is_said_after_a_stage_goes_to_the_stdout_of_then(tmp_path, monkeypatch):
    closed_later = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", closed_later)
        with console.quiet_libraries(tmp_path / "log"):
            os.write(1, b"a library's noise\n")
    closed_later.close()
    now = io.StringIO()
    monkeypatch.setattr(sys, "stdout", now)
    console.say("train", "done")
    assert now.getvalue().split() == ["train", "done"]
    assert (tmp_path / "log").read_text() == "a library's noise\n"


def test_a_stage_ends_with_all_said_and_what_libraries_asked_for_done(tmp_path):
    code = (
        "import atexit, ctypes, pathlib\n"
        "from pipeline import console\n"
        "atexit.register(pathlib.Path('asked').write_text, 'done')\n"
        "def stage():\n"
        "    print('noise')\n"
        "    ctypes.CDLL(None).puts(b'from C')\n"
        "    console.say('train', 'trained')\n"
        "console.run_stage('train', stage)\n"
    )
    buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=buffered | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["train", "trained"], "")
    assert (tmp_path / "asked").read_text() == "done"
    assert (tmp_path / ".slipway/log/train.log").read_text().split("\n") == ["noise", "from C", ""]


def test_counts_are_written_with_three_digits_and_a_prefix():
    written = [console.scaled(value, "OPS") for value in (275e12, 999.6e9, 17.1e9, 77_400, 12)]
    assert written == ["275 TOPS", "1.00 TOPS", "17.1 GOPS", "77.4 kOPS", "12 OPS"]
