"""Run the chapters on fresh draws and count how often each claim holds.

A claim is an `assert` of a chapter. In draw k every seed that goes through NumPy's or
torch's generators is moved by k times a constant, so data, weights and draws are all
new; only the weights that come with the package stay. Each top-level statement runs on
its own, and an assertion that fails stops nothing, so one failure hides no other.

Usage: python tools/replicate.py [--draws K] [--jobs J] [--fresh] [notebook ...]

The table is `book/results/replication.csv`: for each claim the number of draws, from
the first on, and of those in which it held; the key in the last column is a digest of
all code of the chapter that the claim uses. What ran is kept in
`book/results/.replication`, one file per chapter and draw. So an interrupted run goes
on where it stopped, and after a change of a chapter only the claims are run again whose
key has changed. `--fresh` runs all of them again: after a change of the package.
"""

import argparse
import ast
import builtins
import contextlib
import copy
import csv
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "book" / "results" / "replication.csv"
KEPT = TABLE.parent / ".replication"
COLUMNS = ("chapter", "cell", "claim", "draws", "held", "key")
STEP = 1_000_003  # added to every seed, times the number of the draw
PURE = ("print(", "plt.show(", "adlab.show(", "adlab.plots.", "plots.")


class Statement:
    """A top-level statement of a chapter, with the names that tie it to others."""

    def __init__(self, node, cell):
        """Take the node of the statement and the number of its cell."""
        self.cell, self.node = cell, node
        self.claims = [n for n in ast.walk(node) if isinstance(n, ast.Assert)]
        silent = copy.deepcopy(node)
        for each in ast.walk(silent):
            if isinstance(each, ast.Assert):
                each.msg = None  # words, also those that say how often it holds
        self.text = ast.unparse(silent)
        self.is_import = isinstance(node, ast.Import | ast.ImportFrom)
        self.is_global = ".manual_seed(" in self.text or ".seed(" in self.text
        self.only_reads = isinstance(node, ast.Assert) or (
            isinstance(node, ast.Expr) and self.text.startswith(PURE)
        )
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        defined = {getattr(n, "name", None) for n in ast.walk(node)} - {None}
        self.names = (names | defined) - set(dir(builtins))


def statements(path):
    """Return the top-level statements of the code of a notebook."""
    cells = json.loads(path.read_text())["cells"]
    found = []
    for number, cell in enumerate(cells):
        source = "".join(cell["source"])
        skipped = {"setup", "answer"} & set(cell["metadata"].get("tags", []))
        if cell["cell_type"] == "code" and not skipped:
            found += [Statement(node, number) for node in ast.parse(source).body]
    return found


def slices(steps):
    """Return for each step with claims the numbers of all that it may depend on: the
    imports, and every earlier statement that shares a name with it, or with one that
    it depends on.
    """
    modules = {
        (alias.asname or alias.name).split(".")[0]
        for step in steps
        if step.is_import
        for alias in step.node.names
    }
    found = {}
    for last, step in enumerate(steps):
        if not step.claims:
            continue
        wanted, chosen, size = step.names - modules, {last}, 0
        while size < len(chosen):  # again: a function may call one defined after it
            size = len(chosen)
            for number in reversed(range(last)):
                earlier = steps[number]
                shares = not earlier.only_reads and earlier.names & wanted
                if shares or earlier.is_import or earlier.is_global:
                    chosen.add(number)
                    wanted |= earlier.names - modules
        found[last] = sorted(chosen)
    return found


def keys(steps, parts):
    """Return (step, claim) -> digest of the claim and of all that it depends on."""
    found = {}
    for last, part in parts.items():
        text = "\n".join(steps[number].text for number in part)
        for nth in range(len(steps[last].claims)):
            found[last, nth] = hashlib.sha256(f"{text}#{nth}".encode()).hexdigest()[:16]
    return found


def move_seeds(by):
    """Add a constant to every seed that NumPy or torch is given from now on."""
    import numpy as np
    import torch

    def moved(seed):
        if isinstance(seed, int | np.integer):
            return int(seed) + by
        if isinstance(seed, list | tuple):
            return [moved(seed[0]), *seed[1:]]
        return seed

    def wrap(home, name):
        original = getattr(home, name)
        setattr(home, name, lambda seed=None: original(moved(seed)))

    class SeedSequence(np.random.SeedSequence):
        def __init__(self, entropy=None, **options):
            super().__init__(moved(entropy), **options)

    class RandomState(np.random.RandomState):
        def __init__(self, seed=None):
            super().__init__(moved(seed))

    class Generator(torch.Generator):
        def manual_seed(self, seed):
            return super().manual_seed(moved(seed))

    class DefaultGenerator:  # `adlab.training.seeded` calls it, as it is fast
        def manual_seed(self, seed, own=torch.default_generator):
            return own.manual_seed(moved(seed))

    wrap(np.random, "default_rng")
    wrap(np.random, "seed")
    wrap(torch, "manual_seed")
    torch.default_generator = DefaultGenerator()
    np.random.SeedSequence, np.random.RandomState = SeedSequence, RandomState
    torch.Generator = Generator


class Recorder(ast.NodeTransformer):
    """Turn each assertion into a note of whether it held."""

    def __init__(self):
        """Start counting at claim zero."""
        self.nth = -1

    def visit_Assert(self, node):
        """Replace `assert test` by a call that is given the test, not yet evaluated."""
        self.nth += 1
        call = ast.parse(f"__claim__({self.nth}, lambda: 0)").body[0]
        call.value.args[1].body = node.test
        return call


def run(path, draw):
    """Run what is not yet known of one draw of one chapter, and keep it."""
    steps = statements(path)
    parts = slices(steps)
    named = keys(steps, parts)
    kept = KEPT / path.stem / f"{draw}.json"
    known = json.loads(kept.read_text()) if kept.exists() else {}
    settled = known.keys() | {key for key, (n, _) in counted().items() if n >= draw}
    open_ = {last for (last, nth), key in named.items() if key not in settled}
    needed = sorted({number for last in open_ for number in parts[last]})
    if not needed:
        return
    from matplotlib import pyplot

    pyplot.switch_backend("Agg")
    move_seeds(draw * STEP)
    start = time.perf_counter()
    space, errors, answers = {"__name__": "__main__"}, {}, {}
    for number in needed:
        held = {}

        def claim(nth, test, held=held):
            held[nth] = held.get(nth, True) and bool(test())

        space["__claim__"] = claim
        tree = Recorder().visit(ast.Module([steps[number].node], []))
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(ast.fix_missing_locations(tree), str(path), "exec"), space)
        except Exception:
            errors[number] = traceback.format_exc(limit=-2)
        for nth in range(len(steps[number].claims)):
            if number in open_:
                answers[named[number, nth]] = held.get(nth, False)
        pyplot.close("all")
    for number, error in errors.items():
        print(f"{path.stem} draw {draw} cell {steps[number].cell}: {error}", flush=True)
    known |= answers
    write(kept, json.dumps(known))
    failed = [
        f"[{steps[last].cell}] {ast.unparse(steps[last].claims[nth].test)}"
        for (last, nth), key in named.items()
        if key in answers and not answers[key]
    ]
    seconds = time.perf_counter() - start
    print(
        f"{path.stem} draw {draw}: {len(answers)} claims, {seconds:.0f} s", flush=True
    )
    print("".join(f"    {each}\n" for each in failed), end="", flush=True)


def write(path, text):
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_text(text)
    unfinished.replace(path)


def claims(path):
    """Return (cell, claim, key) for each claim of a chapter, in its order; the claim
    as it is written there, with its message.
    """
    steps = statements(path)
    return [
        (steps[last].cell, ast.unparse(steps[last].claims[nth]), key)
        for (last, nth), key in keys(steps, slices(steps)).items()
    ]


def counted():
    """Return key -> (draws, held) of the table as it is."""
    if not TABLE.exists():
        return {}
    with TABLE.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    return {row["key"]: (int(row["draws"]), int(row["held"])) for row in rows}


def table(paths, draws):
    """Write how often each claim held, of the first draws that are known; return the
    rows.
    """
    rows, before = [], counted()
    for path in paths:
        files = [KEPT / path.stem / f"{draw}.json" for draw in range(1, draws + 1)]
        known = [json.loads(f.read_text()) if f.exists() else {} for f in files]
        for cell, claim, key in claims(path):
            tried, held = before.get(key, (0, 0))
            while tried < draws and key in known[tried]:
                held += known[tried][key]
                tried += 1
            rows.append((path.stem, cell, claim, tried, held, key))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *rows])
    write(TABLE, text.getvalue())
    return rows


def forget(paths):
    """Forget all that is known of some chapters."""
    for path in paths:
        shutil.rmtree(KEPT / path.stem, ignore_errors=True)
    if TABLE.exists():
        stems = {path.stem for path in paths}
        with TABLE.open(encoding="utf-8", newline="") as lines:
            rows = [row for row in csv.reader(lines) if row[0] not in stems]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        write(TABLE, text.getvalue())


def summarise(rows):
    """Print for each chapter how many claims held always, and the share that held."""
    for stem in sorted({row[0] for row in rows}):
        counts = [(row[3], row[4]) for row in rows if row[0] == stem]
        draws, held = map(sum, zip(*counts, strict=True))
        always = sum(0 < n == h for n, h in counts)
        share = held / draws if draws else float("nan")
        print(f"{stem:32} {always:3} of {len(counts):3} held always; share {share:.3f}")


def main():
    """Run all draws of the chapters that are asked for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--fresh", action="store_true", help="forget what was run")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    every = sorted((ROOT / "notebooks").glob("*.ipynb"))
    chosen = [path.resolve() for path in given.notebooks] or every
    if given.one:
        return run(chosen[0], given.one)
    if given.fresh:
        forget(chosen)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}

    def one(job):
        draw, path = job
        command = [sys.executable, __file__, "--one", str(draw), str(path)]
        subprocess.run(command, env=environment, check=False)

    jobs = [(draw, path) for draw in range(1, given.draws + 1) for path in chosen]
    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(one, jobs))
    summarise(table(every, given.draws))
    return 0


if __name__ == "__main__":
    sys.exit(main())
