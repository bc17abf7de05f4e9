"""`show`: the source that is read is the source that is tested."""

import ast
import inspect
import io
import sys
import textwrap
from pathlib import Path

import pytest
from bad_input import refuses

import adlab
from adlab import metrics, vectors


@pytest.mark.parametrize(
    "obj", [metrics.auroc, vectors.Gaussian, vectors.Moments.update, adlab.show]
)
def test_show_prints_the_source_flush_left(obj, capsys):
    adlab.show(obj)
    printed = capsys.readouterr().out
    assert printed == textwrap.dedent(inspect.getsource(obj))
    assert printed.startswith(("def ", "class ", "@"))
    compile(printed, "shown", "exec")


def test_a_process_that_knows_of_notebooks_is_not_one(capsys):
    pytest.importorskip("ipykernel.kernelapp")
    adlab.show(metrics.auroc)
    assert capsys.readouterr().out.startswith("def auroc(")


def test_show_returns_nothing_that_a_notebook_would_repeat(capsys):
    assert adlab.show(metrics.auroc) is None
    assert capsys.readouterr().err == ""


def test_show_of_a_bound_method_is_that_of_the_method(capsys):
    adlab.show(vectors.Gaussian()._score)
    assert capsys.readouterr().out.startswith("def _score(self, batch: Tensor)")


@pytest.mark.parametrize(
    "obj", [len, int, 3, None, "text", vectors.Gaussian(), [].append, sys]
)
def test_show_refuses_what_has_no_source(obj, capsys):
    with pytest.raises(
        TypeError,
        match=r"obj: expected a function, method or class written in Python, got",
    ):
        adlab.show(obj)
    assert capsys.readouterr().out == ""


def test_show_is_highlighted_python_in_a_notebook():
    nbclient, nbformat = (
        pytest.importorskip("nbclient"),
        pytest.importorskip("nbformat"),
    )
    cells = [
        "import adlab; adlab.show(adlab.metrics.auroc)",
        "def mine(x):\n    return x + 1\nadlab.show(mine)",
    ]
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in cells]
    )
    nbclient.NotebookClient(book, timeout=600, kernel_name="python3").execute()
    [[first], [second]] = [cell.outputs for cell in book.cells]
    assert (
        first["data"]["text/markdown"]
        == f"```python\n{inspect.getsource(metrics.auroc).rstrip()}\n```"
    )
    assert "return x + 1" in second["data"]["text/markdown"]


def test_letters_that_a_console_lacks_are_printed_as_their_codes(monkeypatch):
    """A pipe on Windows takes the letters of a code page only."""
    pipe = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", pipe)
    adlab.show(vectors.KernelSVDD)
    pipe.flush()
    printed = pipe.buffer.getvalue().decode("cp1252")
    assert "α_i" not in printed
    assert r"\u03b1" in printed
    assert printed.startswith("@method(")


def said(file):
    """All texts of a file but its docstrings: what may be printed."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    homes = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docs = {ast.get_docstring(n, False) for n in ast.walk(tree) if isinstance(n, homes)}
    for node in ast.walk(tree):
        text = getattr(node, "value", None)
        if isinstance(node, ast.Constant) and isinstance(text, str):
            yield from {text} - docs


def test_messages_can_be_printed_where_there_are_western_letters_only():
    files = sorted(Path(adlab.__file__).parent.rglob("*.py"))
    texts = {text for file in files for text in said(file)}
    assert len(texts) > 1000
    for text in texts:
        text.encode("cp1252")


# Bad input


test_bad_input = refuses(
    (lambda: adlab.show(len), TypeError, "obj…function…len"),
    (lambda: adlab.show(3), TypeError, "obj…3"),
)
