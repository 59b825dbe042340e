"""What stages say reaches the stdout of the moment, also after a stage ran in this process."""

import io
import os
import sys

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
