"""Build the assignments, and grade what is handed in.

Usage: python tools/assignments.py build [--seed N] [--out FOLDER]
       python tools/assignments.py grade NAME SUBMISSIONS [--seconds S] [--jobs J]

`build` makes of every master in `notebooks/assignments` a student edition, without
solutions and hidden tests; an autograder, for `grade` and for Gradescope; and the
notebook with its solutions. All of it is done by otter-grader. The hidden tests draw
their data by `--seed`, which is drawn itself where it is not given.

`grade` runs the autograder of one assignment on every notebook of a folder, each in a
process of its own that is stopped after so many seconds. It writes `grades.csv`, and for
each notebook the words that go back to its author. The code of the notebooks runs as
you: grade in a container, or on Gradescope, what you would not run yourself.
"""

import argparse
import ast
import csv
import io
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from adlab.detector import write_whole

sys.path.insert(0, str(Path(__file__).parent))
import stamp

ROOT = Path(__file__).resolve().parents[1]
MASTERS = ROOT / "notebooks" / "assignments"
BUILT = ROOT / "_build" / "assignments"
GRADED = ROOT / "_build" / "grades"
FAILED = re.compile(  # what otter-grader writes of a test that failed
    r"Test case failed\n\s*Error at line [^\n]*\n[^\n]*\n(.*?)(?=\n\s*\S+ - \d+ result:|\Z)",
    re.DOTALL,
)


# -- build


def names():
    """Return the names of all assignments, in order."""
    return sorted(path.stem for path in MASTERS.glob("*.ipynb"))


def build(out, seed):
    """Write the student editions, autograders and solutions of all assignments."""
    for part in ("student", "autograder", "solution"):
        (out / part).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        masters = Path(folder) / "masters"
        shutil.copytree(MASTERS, masters)
        (masters / "seed.txt").write_text(f"{seed}\n")
        (masters / "requirements.txt").write_text(requirements())
        for name in names():
            assign(masters / f"{name}.ipynb", out)


def assign(master, out):
    """Let otter-grader take a master apart, and put its parts where they belong."""
    from otter.assign import main

    made = master.parent / "made"
    main(str(master), str(made), no_pdfs=True, no_run_tests=True)
    (archive,) = made.glob("autograder/*.zip")
    shutil.copy(archive, out / "autograder" / f"{master.stem}.zip")
    shutil.copy(made / "autograder" / master.name, out / "solution")
    shutil.copy(made / "student" / master.name, out / "student")


def requirements():
    """Return what Gradescope installs beside otter-grader."""
    url, _ = stamp.repository(ROOT)
    return f"adlab[imagenet] @ git+{url}\n"


# -- grade


def grade(archive, submissions, out, seconds, jobs):
    """Grade every notebook of a folder; return one row of the table for each."""
    paths = sorted(
        path
        for path in submissions.rglob("*.ipynb")
        if ".ipynb_checkpoints" not in path.parts
    )
    if not paths:
        raise FileNotFoundError(
            f"submissions: expected notebooks, none in {submissions}"
        )
    points = points_of(archive)
    with ThreadPoolExecutor(jobs) as pool:
        found = list(pool.map(lambda path: run(archive, path, seconds), paths))
    return [
        report(path.relative_to(submissions), result, points, out)
        for path, result in zip(paths, found, strict=True)
    ]


def words(summary):
    """Return what the failed tests of a question say, without the code of the tests."""
    return [
        re.sub(
            r"^(AssertionError|CheckError): ", "", re.sub(r"\n\s*", "\n", text.strip())
        )
        for text in FAILED.findall(summary)
    ]


def points_of(archive):
    """Return the points of each question that the autograder grades, in order."""
    found = {}
    with ZipFile(archive) as archived:
        for name in sorted(archived.namelist()):
            if name.startswith("tests/"):
                line = re.search(rb"(?m)^points = (.*)$", archived.read(name))[1]
                points = ast.literal_eval(line.decode())
                found[Path(name).stem] = (
                    sum(points) if isinstance(points, list) else points
                )
    return found


def run(archive, path, seconds):
    """Return the marks and the words of a notebook by question; where it could not be
    graded, the words that say why.
    """
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-m", "otter", "run", "--no-logo"]
        command += ["-a", str(archive), "-o", folder, str(path)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": folder}
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=seconds,
                env=environment,
            )
        except subprocess.TimeoutExpired:
            return f"stopped after {seconds:g} s: is there a loop that does not end?"
        if done.returncode:
            return f"not graded: {done.stderr.strip().splitlines()[-1]}"
        results = json.loads((Path(folder) / "results.json").read_text())
    found = {
        test["name"]: (test["score"], words(test["output"]))
        for test in results["tests"]
        if "score" in test
    }
    return found or "not graded: no cell was run to its end"


def report(name, result, points, out):
    """Write the words for one notebook; return its row of the table."""
    why, result = ([result], {}) if isinstance(result, str) else ([], result)
    parts = {each: result.get(each, (0, [])) for each in points}
    row = {
        "submission": name.as_posix(),
        "points": f"{sum(marks for marks, _ in parts.values()):g}",
        "of": f"{sum(points.values()):g}",
        **{each: f"{marks:g}" for each, (marks, _) in parts.items()},
    }
    told = [f"{name}: {row['points']} of {row['of']} points of the tests", *why]
    for each, (_, said) in parts.items():
        told += ["", f"{each}: {row[each]} of {points[each]:g}", *said]
    write((out / "words" / name).with_suffix(".txt"), "\n".join(told) + "\n")
    all_said = [f"{each}: {one}" for each, (_, said) in parts.items() for one in said]
    return row | {"words": "; ".join(why or all_said)}


def write_table(rows, path):
    """Write the table of grades, one row a notebook."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(rows[0]))
    table.writeheader()
    table.writerows(rows)
    write(path, text.getvalue())


def write(path, text):
    """Write a file and the folders that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())


# -- command line


def arguments():
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("build")
    verb.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    verb.add_argument("--out", type=Path, default=BUILT)
    verb = verbs.add_parser("grade")
    verb.add_argument("name", choices=names())
    verb.add_argument("submissions", type=Path)
    verb.add_argument("--seconds", type=float, default=300)
    verb.add_argument("--jobs", type=int, default=2)
    verb.add_argument("--built", type=Path, default=BUILT)
    verb.add_argument("--out", type=Path)
    return parser.parse_args()


def main(given):
    """Build or grade, and say where the result is."""
    if given.verb == "build":
        build(given.out, given.seed)
        print(f"built {', '.join(names())} with seed {given.seed} in {given.out}")
        return
    archive = given.built / "autograder" / f"{given.name}.zip"
    if not archive.exists():
        raise FileNotFoundError(f"{archive}: not built; run `make assignments`")
    out = given.out or GRADED / given.name
    rows = grade(archive, given.submissions, out, given.seconds, given.jobs)
    write_table(rows, out / "grades.csv")
    print(
        f"graded {len(rows)} notebooks: {out / 'grades.csv'}, and the words beside it"
    )


if __name__ == "__main__":
    main(arguments())
