"""`show`: the source that is read is the source that is tested."""

import inspect
import sys
import textwrap

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


# Bad input


test_bad_input = refuses(
    (lambda: adlab.show(len), TypeError, "obj…function…len"),
    (lambda: adlab.show(3), TypeError, "obj…3"),
)
