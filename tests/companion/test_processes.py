"""A folder belongs to one process at a time, and says to which."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading

import pytest

from dynot_lite.companion.notebooks import NotebookError
from dynot_lite.companion.processes import holding

HOLD = """
    import sys, time
    from pathlib import Path
    from dynot_lite.companion.processes import holding
    with holding(Path({folder!r})):
        print("held", flush=True)
        time.sleep(600)
"""


def test_a_lock_names_its_holder_and_ends_with_it_however_it_ends(tmp_path):
    program = textwrap.dedent(HOLD.format(folder=str(tmp_path)))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(NotebookError, match=f"is in use by process {process.pid} on .*, since 20"):
            with holding(tmp_path):
                pass
        process.kill()
    with holding(tmp_path):
        assert f"process {os.getpid()} " in (tmp_path / "lock").read_text(encoding="utf-8")
    assert (tmp_path / "lock").read_text(encoding="utf-8") == ""


@pytest.mark.skipif(sys.platform == "win32", reason="locks by flock")
def test_a_holder_that_has_not_yet_written_its_name_is_waited_for(tmp_path):
    import fcntl

    with open(tmp_path / "lock", "a+", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        timer = threading.Timer(0.3, lambda: (stream.write("process 7 on here"), stream.flush()))
        timer.start()
        with pytest.raises(NotebookError, match="is in use by process 7 on here"), holding(tmp_path):
            pass
        timer.join()


def test_a_folder_is_free_again_after_an_error(tmp_path):
    with pytest.raises(ValueError, match="example"):
        with holding(tmp_path / "new"):
            raise ValueError("example")
    with holding(tmp_path / "new"):
        pass
