"""One run: a method on a data set, from loading to the measures."""

from __future__ import annotations

import inspect
import json
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
import torch

import adlab
from adlab import data, metrics
from adlab._checks import check_choice, check_number
from adlab.bench import open_set
from adlab.bench.methods import METHODS, count_numbers, digest_of_file, make_detector
from adlab.bench.rows import as_text, digest
from adlab.data import ImageSet, Splits
from adlab.detector import Detector, Localizer
from adlab.training import resolve_device

_TENSORS = ("images", "labels", "masks")


@dataclass(frozen=True)
class Run:
    """What is asked for. Two runs that are equal give the same row.

    Args:
        method: one of `adlab.bench.methods.METHODS`, or "open-set".
        data: a name that `adlab.data.load` knows.
        options: of the method.
        data_options: of the data set, as `category` or `normal_class`; not `root`.
        seed: of the detector, and of the data where they are drawn.
        weights: a file for the backbone, see `adlab.bench.methods.with_weights`.
        max_train, max_test: at most so many images, drawn at random; of the test
            images, each kind (normal and anomalous) keeps its share. None for all.
    """

    method: str
    data: str
    options: dict[str, object] = field(default_factory=dict)
    data_options: dict[str, object] = field(default_factory=dict)
    seed: int = 0
    weights: Path | None = None
    max_train: int | None = None
    max_test: int | None = None

    def __post_init__(self) -> None:
        check_choice("method", self.method, (*METHODS, "open-set"))
        for name in ("max_train", "max_test"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), 2, whole=True)

    def settings(self) -> dict[str, object]:
        """All that the result depends on beside the data and the seed."""
        if self.method == "open-set":
            return open_set.DEFAULTS | {"score": "max-logit"} | self.options
        settings = METHODS[self.method].options | self.options
        if self.weights is not None:
            settings["weights"] = f"{self.weights.name} {digest_of_file(self.weights)}"
        for name in ("max_train", "max_test"):
            if getattr(self, name) is not None:
                settings[name] = getattr(self, name)
        return settings

    def arguments(self) -> list[str]:
        """What to type behind `python -m adlab.bench` for this run."""
        words = [self.method, self.data]
        for flag, options in ("-o", self.options), ("-d", self.data_options):
            for name, value in options.items():
                words += [flag, f"{name}={value}"]
        for name in ("weights", "max_train", "max_test"):
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
    if run.method == "open-set":
        found = open_set.run(run.data, run.options, run.data_options, run.seed, root)
        return [_row(run, device, **measures) for measures in found]
    detector = make_detector(
        run.method, run.options, run.weights, seed=run.seed, device=device
    )
    splits = load(run, root)
    return [_row(run, device, **measure(detector, splits))]


def load(run: Run, root: str | Path | None = None) -> Splits:
    """The data of a run."""
    options = dict(run.data_options)
    loader = data.loader(run.data)
    for name, value in {"root": root, "seed": run.seed}.items():
        if name in inspect.signature(loader).parameters:
            options.setdefault(name, value)
    splits = data.load(run.data, **options)
    rng = np.random.default_rng(run.seed)
    train = splits.train[_some(len(splits.train), run.max_train, rng)]
    labels = splits.test.labels.numpy()
    share = 1 if run.max_test is None else run.max_test / len(labels)
    test = [
        rows[_some(len(rows), None if share >= 1 else round(share * len(rows)), rng)]
        for rows in (np.flatnonzero(labels == label) for label in (0, 1))
    ]
    return Splits(train, splits.val, splits.test[np.sort(np.concatenate(test))])


def _some(n: int, most: int | None, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.permutation(n)[:most])


def measure(detector: Detector, splits: Splits) -> dict[str, object]:
    """Fit to the training images, score the test images; what came of it and what it
    cost. `score_seconds` is the time of the maps where there are any.
    """
    memory = Memory()
    start = time.perf_counter()
    detector.fit(splits.train.images)
    fitted = time.perf_counter()
    test = splits.test
    maps = detector.anomaly_map(test.images) if _locates(detector, test) else None
    mapped = time.perf_counter()
    scores = detector.anomaly_score(test.images)
    scored = time.perf_counter()
    found = {
        "image_auroc": metrics.auroc(scores, test.labels),
        "average_precision": metrics.average_precision(scores, test.labels),
        "best_f1": metrics.best_f1(scores, test.labels)[0],
    }
    if maps is not None:
        found["pixel_auroc"] = metrics.pixel_auroc(maps, test.masks)
        found["pro"] = metrics.pro(maps, test.masks)
    return found | {
        "n_train": len(splits.train),
        "n_test": len(test),
        "digest": digest(
            *(getattr(part, name) for part in (splits.train, test) for name in _TENSORS)
        ),
        "fit_seconds": fitted - start,
        "score_seconds": (mapped if maps is not None else scored) - fitted,
        "peak_memory_mb": memory.peak(),
        "parameters": count_numbers(detector),
    }


def _locates(detector: Detector, test: ImageSet) -> bool:
    return isinstance(detector, Localizer) and test.masks is not None


class Memory:
    """The most memory that is in use at once, beyond what was in use at the start: of
    the process, and of the GPU where there is one. In MB; Linux and macOS.
    """

    def __init__(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        with suppress(OSError):  # Linux forgets the peak of what came before
            Path("/proc/self/clear_refs").write_text("5")
        self.before = self._high_water()

    def _high_water(self) -> float:
        status = Path("/proc/self/status")
        if status.is_file():
            lines = dict(
                line.split(":", 1) for line in status.read_text().splitlines() if line
            )
            return int(lines["VmHWM"].split()[0]) * 1024 / 1e6
        try:
            import resource
        except ImportError:  # Windows
            return float("nan")
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6

    def peak(self) -> float:
        """Since the start."""
        on_gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        return self._high_water() - self.before + on_gpu / 1e6


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
    settings = json.loads(row["settings"])
    weights = settings.pop("weights", None)
    if row["method"] == "open-set":
        settings.pop("score")
    return Run(
        row["method"],
        row["data"],
        max_train=settings.pop("max_train", None),
        max_test=settings.pop("max_test", None),
        options=settings,
        data_options=json.loads(row["data_options"]),
        seed=int(row["seed"]),
        weights=weights and Path(weights.split()[0]),
    )
