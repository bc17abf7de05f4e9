"""`show(obj)`: the source of a tested function inside a notebook, so that what is read
is what is tested.
"""

from __future__ import annotations

import inspect
import sys
import textwrap


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, and not merely one that knows
    of notebooks.
    """
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def show(obj: object) -> None:
    """Display the source of a function, method or class. Letters that the console lacks
    are printed as their codes.

    Raises:
        TypeError: an object without Python source.
    """
    try:
        source = textwrap.dedent(inspect.getsource(obj)).rstrip()
    except (TypeError, OSError) as error:
        raise TypeError(
            f"obj: expected a function, method or class written in Python, got {obj!r}"
        ) from error
    if in_notebook():
        from IPython.display import Markdown, display

        display(Markdown(f"```python\n{source}\n```"))
    else:
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        print(source.encode(encoding, "backslashreplace").decode(encoding))
