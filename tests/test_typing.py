"""The types that a user's code sees."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent / "typing" / "script.py"


def check(file, folder):
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent"]
    return subprocess.run(
        [*command, f"--cache-dir={folder}", str(file)],
        capture_output=True,
        text=True,
        cwd=SCRIPT.parents[2],
    )


def test_a_users_script_is_clean_and_a_wrong_one_is_not(tmp_path):
    """The types of the package reach the caller: an unknown choice is told before it
    runs.
    """
    found = check(SCRIPT, tmp_path / "cache")
    assert found.returncode == 0, found.stdout
    wrong = tmp_path / "wrong.py"
    text = SCRIPT.read_text(encoding="utf-8")
    wrong.write_text(text.replace('"soft-boundary"', '"soft"'), encoding="utf-8")
    found = check(wrong, tmp_path / "cache")
    assert 'expected "Literal' in found.stdout, found.stdout
    assert found.stdout.count("error:") == 1
