"""Run a method on a data set, and add a row to the table of results.

python -m adlab.bench padim mvtec-ad --category bottle
python -m adlab.bench deep-svdd mnist --normal-class 3 -o objective=soft-boundary
python -m adlab.bench knn mnist --all --seeds 0 1 2
"""

import argparse
import ast
import shlex
import subprocess
import sys
from pathlib import Path

from adlab import data
from adlab._checks import check_choice
from adlab._methods import methods
from adlab.bench.rows import append, formatted, is_present, read
from adlab.bench.run import TASKS, Run, execute


def option(text: str) -> tuple[str, object]:
    """NAME=VALUE; the value is a number, a list, True, False or None, or else a text."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m adlab.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = result.add_argument
    add("method", choices=list(methods()))
    add("data", choices=list(data.DATA_SETS))
    add("--category", help="of mvtec-ad or btad")
    add("--normal-class", type=int, help="of mnist and its like")
    add("--split", type=int, help="of open-set, 0 to 4")
    how = {"action": "append", "type": option, "default": [], "metavar": "NAME=VALUE"}
    add("-o", "--option", help="of the method, as backbone=resnet18", **how)
    add("-d", "--data-option", help="of the data set, as size=128", **how)
    add("--weights", type=Path, help="file of weights for the backbone")
    add("--max-train", type=int, help="at most so many training images")
    add("--max-test", type=int, help="at most so many test images")
    share = "of known anomalies, among all a semi-supervised method learns from"
    add("--labelled", type=float, help=f"share {share}; default: 0.01")
    add("--seed", type=int, help="default: 0")
    add("--device", default="auto")
    add("--root", type=Path, help="folder of public data; else ADLAB_DATA")
    folder = Path("book/results") if Path("book").is_dir() else Path("results")
    add("--results", type=Path, default=folder, help="folder of the tables")
    add("--all", action="store_true", help="all --seeds, of all classes or categories")
    add("--seeds", type=int, nargs="+", help="of --all; default: 0 1 2")
    return result


def one(run: Run, options: argparse.Namespace) -> None:
    """Execute a run, print its rows and add them to the table."""
    file = options.results / f"{run.data}.csv"
    read(file)  # refuses what is no table before the work, not after it
    found = [formatted(row) for row in execute(run, options.root, options.device)]
    for row in found:
        print("; ".join(f"{name} {value}" for name, value in row.items() if value))
    append(file, found)
    print(f"added to {file}", file=sys.stderr)


def walk(runs: list[Run], options: argparse.Namespace) -> list[str]:
    """Execute each run in a process of its own, so that its memory is its own, and the
    others go on should it die. Those that have a row already are skipped.

    Returns:
        The runs that failed.
    """
    common = ["--device", options.device, "--results", str(options.results)]
    common += ["--root", str(options.root)] if options.root else []
    failed = []
    for number, run in enumerate(runs, 1):
        what = shlex.join(run.arguments())
        print(f"[{number}/{len(runs)}] {what}", file=sys.stderr, flush=True)
        if is_present(options.results / f"{run.data}.csv", run.key()):
            print("there already", file=sys.stderr)
            continue
        command = [sys.executable, "-m", "adlab.bench", *run.arguments(), *common]
        if subprocess.run(command).returncode:
            failed.append(what)
    return failed


def main(arguments: list[str] | None = None) -> int:
    """0, or 1 where a run failed."""
    from safetensors import SafetensorError

    options = parser().parse_args(arguments)
    if options.all and options.seed is not None:
        parser().error("--seed: expected --seeds with --all")
    if options.seeds is not None and not options.all:
        parser().error("--seeds: expected --seed without --all")
    try:
        return _main(options)
    except (ValueError, TypeError, ArithmeticError, OSError, SafetensorError) as error:
        sys.exit(f"error: {error}")


def _main(options: argparse.Namespace) -> int:
    data_options = dict(options.data_option)
    for name in ("category", "normal_class", "split"):
        if getattr(options, name) is not None:
            data_options[name] = getattr(options, name)

    def run(case: dict[str, object], seed: int) -> Run:
        return Run(
            options.method,
            options.data,
            dict(options.option),
            data_options | case,
            seed,
            options.weights,
            options.max_train,
            options.max_test,
            options.labelled,
        )

    if not options.all:
        one(run({}, options.seed or 0), options)
        return 0
    every = TASKS[methods()[options.method].task].cases(options.data)
    for name, value in data_options.items():
        if name in every[0]:
            check_choice(name, value, [case[name] for case in every])
    runs = [
        run(case, seed)
        for seed in options.seeds or (0, 1, 2)
        for case in every
        if not case.keys() & data_options.keys() or case.items() <= data_options.items()
    ]
    failed = walk(runs, options)
    for what in failed:
        print(f"failed: {what}", file=sys.stderr)
    print(f"{len(runs) - len(failed)} of {len(runs)} runs done", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
