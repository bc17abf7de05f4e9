"""`show(obj)`: the source of a tested function inside a notebook, so that what is read is what is tested."""

from __future__ import annotations

import inspect
import sys
import textwrap


def show(obj: object) -> None:
    """Display the source of a function, method or class.

    Raises:
        TypeError: an object without Python source.
    """
    try:
        source = textwrap.dedent(inspect.getsource(obj)).rstrip()
    except (TypeError, OSError) as error:
        raise TypeError(
            f"obj: expected a function, method or class written in Python, got {obj!r}"
        ) from error
    if "ipykernel" in sys.modules:
        from IPython.display import Markdown, display

        display(Markdown(f"```python\n{source}\n```"))
    else:
        print(source)
