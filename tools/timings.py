"""Run each chapter alone in a fresh kernel; print its seconds and its peak memory
beside the budget.

Usage: python tools/timings.py [--sections] [notebook ...]

`--sections` writes instead how long each section of each chapter ran, once, into
`book/results/sections.csv`, from which the page for instructors is made.
"""

import csv
import os
import platform
import subprocess
import sys
import time
from datetime import date, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "book" / "results" / "sections.csv"
COLUMNS = ("chapter", "section", "seconds", "machine", "date")
BUDGET_SECONDS, BUDGET_GB = 60, 2.5

sys.path.insert(0, str(ROOT / "book" / "_ext"))  # where chapters are read


def execute(path):
    """Return a notebook, executed."""
    import nbclient
    import nbformat

    book = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    nbclient.NotebookClient(book, timeout=600, resources=resources).execute()
    return book


def run(path):
    """Execute one notebook and print the seconds and the peak memory, in GB, of its
    kernel.
    """
    import resource

    start = time.perf_counter()
    execute(path)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(seconds, peak / (1e9 if sys.platform == "darwin" else 1e6))


def ran(cell):
    """Return how many seconds a cell took when it was executed."""
    times = cell.metadata.get("execution", {})
    start, end = (times.get(f"iopub.status.{state}") for state in ("busy", "idle"))
    if not (start and end):
        return 0.0
    moments = [
        datetime.fromisoformat(each.replace("Z", "+00:00")) for each in (start, end)
    ]
    return (moments[1] - moments[0]).total_seconds()


def section_rows(name, book):
    """Return a row of the table for each section of an executed notebook."""
    import course

    rest = (
        f"{platform.system()} {platform.machine()}, one thread",
        date.today().isoformat(),
    )
    return [
        (name, title, f"{sum(map(ran, cells)):.1f}", *rest)
        for title, cells in course.sections(book.cells)
    ]


def write_sections(name, rows):
    """Put the rows of a chapter in the place of those that it had."""
    others = []
    if TABLE.exists():
        with TABLE.open(encoding="utf-8", newline="") as lines:
            others = [row for row in list(csv.reader(lines))[1:] if row[0] != name]
    part = TABLE.with_name(f".{TABLE.name}.part")
    with part.open("w", encoding="utf-8", newline="") as lines:
        table = [COLUMNS, *sorted([*others, *map(list, rows)], key=lambda row: row[0])]
        csv.writer(lines, lineterminator="\n").writerows(table)
    part.replace(TABLE)


def measure_sections(paths):
    """Run each notebook once, and keep the seconds of its sections."""
    os.environ["OMP_NUM_THREADS"] = "1"  # as in `make book`
    for path in paths:
        write_sections(path.stem, section_rows(path.stem, execute(path)))
        print(path.stem, flush=True)


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
        names = [name for name in sys.argv[1:] if name != "--sections"]
        paths = list(map(Path, names)) or sorted(ROOT.glob("notebooks/*.ipynb"))
        sys.exit((measure_sections if "--sections" in sys.argv else main)(paths))
