"""Short forms of the three commands of this folder; each prints its count (pytest -s)."""

import subprocess
import sys
from pathlib import Path

import flips
import fuzz
import pytest

HERE = Path(__file__).parent


def test_two_thousand_odd_inputs(capsys):
    assert fuzz.main(2000) == []
    assert "2000 cases, 0 failed" in capsys.readouterr().out


def test_flipped_bits(capsys):
    flips.main(600)
    assert "600 flips" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_kills_interrupts_and_races():
    """In a process of its own: forks of one that has computed with threads may hang."""
    done = subprocess.run(
        [sys.executable, HERE / "kills.py", "12", "6", "8"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "all completed to the same bits" in done.stdout
