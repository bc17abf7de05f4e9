"""Run each chapter alone in a fresh kernel; print its seconds and its peak memory
beside the budget.

Usage: python tools/timings.py [notebook ...]
"""

import os
import subprocess
import sys
import time
from pathlib import Path

BUDGET_SECONDS, BUDGET_GB = 60, 2.5


def run(path):
    """Execute one notebook and print the seconds and the peak memory, in GB, of its
    kernel.
    """
    import resource

    import nbclient
    import nbformat

    start = time.perf_counter()
    book = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        book, timeout=600, resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(seconds, peak / (1e9 if sys.platform == "darwin" else 1e6))


def measure(path):
    """Run one notebook in a process of its own, so that the peak is that of its kernel
    alone.
    """
    command = [sys.executable, __file__, "--one", str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # as in `make book`
    output = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment
    ).stdout
    seconds, gigabytes = map(float, output.split())
    return seconds, gigabytes


def main(paths):
    """Print one line a chapter; return the number of chapters over the budget."""
    over = 0
    print(
        f"{'chapter':40} {'s':>6} {'GB':>6}   budget: {BUDGET_SECONDS} s, {BUDGET_GB} GB"
    )
    for path in paths:
        seconds, gigabytes = measure(path)
        late = seconds > BUDGET_SECONDS or gigabytes > BUDGET_GB
        over += late
        print(
            f"{path.stem:40} {seconds:6.1f} {gigabytes:6.2f}{'   OVER' if late else ''}",
            flush=True,
        )
    return over


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        run(Path(sys.argv[2]))
    else:
        here = Path(__file__).parents[1] / "notebooks"
        sys.exit(
            main([Path(name) for name in sys.argv[1:]] or sorted(here.glob("*.ipynb")))
        )
