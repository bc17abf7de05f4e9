"""The Python that the README and the pages print runs as it stands, offline."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "book").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{i}")
    for page in PAGES
    for i, block in enumerate(
        re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    )
    if "onnx" not in block  # these are run by test_export.py, where they can be
]


def test_the_readme_shows_code():
    assert any(block.id.startswith("README.md") for block in BLOCKS)


@pytest.mark.parametrize("block", BLOCKS)
def test_printed_code_runs(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "page", "exec"), {"__name__": "__main__"})
    assert "nan" not in capsys.readouterr().out
