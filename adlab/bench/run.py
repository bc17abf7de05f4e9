"""One run: a method on a data set, from loading to the measures."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import ModuleType

import torch

import adlab
from adlab._checks import check_choice, check_number
from adlab._methods import methods
from adlab.bench import detection, open_set
from adlab.bench.rows import as_text
from adlab.training import resolve_device

# What a method can be asked to do: a room with the functions `check`, `defaults`,
# `settings`, `cases` and `execute`, and the names of settings that are no options
TASKS = {"detection": detection, "open-set": open_set}


@dataclass(frozen=True)
class Run:
    """What is asked for. Two runs that are equal give the same row.

    Args:
        method: one of those declared in the package.
        data: a name that `adlab.data.load` knows.
        options: of the method.
        data_options: of the data set, as `category` or `normal_class`; not `root`.
        seed: of the detector, and of the data where they are drawn.
        weights: a file for the backbone, see `adlab.backbones.Backbone`.
        max_train, max_test: at most so many images, drawn at random; of the test
            images, each kind (normal and anomalous) keeps its share. None for all.
        labelled: share of labelled anomalies among what a semi-supervised method learns
            from; None for the share that it declares.
    """

    method: str
    data: str
    options: dict[str, object] = field(default_factory=dict)
    data_options: dict[str, object] = field(default_factory=dict)
    seed: int = 0
    weights: Path | None = None
    max_train: int | None = None
    max_test: int | None = None
    labelled: float | None = None

    def __post_init__(self) -> None:
        check_choice("method", self.method, methods())
        for name in ("max_train", "max_test"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), 2, whole=True)
        self.task.check(self)

    @property
    def task(self) -> ModuleType:
        """The room of what it is asked to do."""
        return TASKS[methods()[self.method].task]

    def settings(self) -> dict[str, object]:
        """All that the result depends on beside the data and the seed."""
        return self.task.settings(self)

    def arguments(self) -> list[str]:
        """What to type behind `python -m adlab.bench` for this run."""
        words = [self.method, self.data]
        for flag, options in ("-o", self.options), ("-d", self.data_options):
            for name, value in options.items():
                words += [flag, f"{name}={value}"]
        for name in ("weights", "max_train", "max_test", "labelled"):
            if getattr(self, name) is not None:
                words += [f"--{name.replace('_', '-')}", str(getattr(self, name))]
        return [*words, "--seed", str(self.seed)]

    def key(self) -> dict[str, str]:
        """What tells a row from others."""
        return {
            "method": self.method,
            "settings": as_text(self.settings()),
            "data": self.data,
            "data_options": as_text(self.data_options),
            "seed": str(self.seed),
        }


def execute(
    run: Run, root: str | Path | None = None, device: str = "auto"
) -> list[dict[str, object]]:
    """Load, fit, score and measure.

    Args:
        run: what to do.
        root: folder of the public data sets.
        device: see `adlab.training.resolve_device`.

    Returns:
        The row, column name to value; several where one run has several scores.

    Raises:
        Whatever the data set, the method and the measures refuse.
    """
    return [_row(run, device, **each) for each in run.task.execute(run, root, device)]


def _row(run: Run, device: str, **measures: object) -> dict[str, object]:
    """A row of the table; `measures` may set `settings` anew."""
    return run.key() | {
        **measures,
        "device": _device(device),
        "versions": f"python {platform.python_version()}, torch {torch.__version__}, "
        f"adlab {adlab.__version__}",
        "date": date.today().isoformat(),
        "commit": _commit(),
    }


def _device(device: str) -> str:
    resolved = resolve_device(device)
    if resolved.type == "cuda":
        return torch.cuda.get_device_name(resolved)
    return f"{resolved.type} {platform.machine()}, threads: {torch.get_num_threads()}"


def _commit() -> str:
    """The commit of the code, where it lies in a repository of git; with a plus where
    the package was changed since.
    """
    here = Path(adlab.__file__).parent
    git = ["git", "-C", str(here)]
    with suppress(OSError, subprocess.CalledProcessError):
        run = {"check": True, "capture_output": True, "text": True}
        top = subprocess.run([*git, "rev-parse", "--show-toplevel"], **run).stdout
        if Path(top.strip()) == here.parent:
            commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], **run)
            changed = subprocess.run([*git, "status", "--porcelain", "."], **run)
            return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")
    return ""


def run_of(row: Mapping[str, str]) -> Run:
    """The run that gives a row of a table. Its weights are a name alone: the file may
    lie anywhere.
    """
    settings, method = json.loads(row["settings"]), methods()[row["method"]]
    weights = settings.pop("weights", None)
    for derived in TASKS[method.task].DERIVED:
        settings.pop(derived, None)
    labelled = settings.pop("labelled", None)
    return Run(
        row["method"],
        row["data"],
        max_train=settings.pop("max_train", None),
        max_test=settings.pop("max_test", None),
        labelled=None if labelled == method.labelled else labelled,
        options=settings,
        data_options=json.loads(row["data_options"]),
        seed=int(row["seed"]),
        weights=weights and Path(weights.split()[0]),
    )
