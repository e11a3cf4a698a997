"""The command as a process, on a terminal that speaks less than the product does."""

import os
import subprocess
import sys


def test_what_an_encoding_lacks_is_written_otherwise() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "insula", "run", "w", "--input", "@\u2713", "--data", "."],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "1"},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert told.returncode == 3
    assert b"\\u2713" in told.stderr
    assert b"Traceback" not in told.stderr
