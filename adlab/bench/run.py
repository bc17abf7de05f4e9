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
# Of these, training images of an anomalous class are not among the test images
SPLIT_BEFORE = ("mnist", "fashion-mnist", "kmnist", "cifar10")


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
        for name in ("max_train", "max_test", "weights"):
            value = getattr(self, name)
            if value is not None and self.method == "open-set":
                raise ValueError(f"{name}: expected none for 'open-set', got {value}")
            if value is not None and name != "weights":
                check_number(name, value, 2, whole=True)

    def settings(self) -> dict[str, object]:
        """All that the result depends on beside the data and the seed."""
        if self.method == "open-set":
            known = open_set.defaults(self.data)
            return known | {"score": "max-logit"} | self.options
        method = METHODS[self.method]
        settings = method.options | self.options
        if method.labelled:
            settings["labelled"] = method.labelled
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
        memory = Memory()
        found = open_set.run(
            run.data, run.options, run.data_options, run.seed, root, device
        )
        peak = memory.peak()
        return [_row(run, device, **each, peak_memory_mb=peak) for each in found]
    detector = make_detector(
        run.method, run.options, run.weights, seed=run.seed, device=device
    )
    splits = load(run, root)
    labelled = load_labelled(run, len(splits.train), root)
    return [_row(run, device, **measure(detector, splits, labelled))]


def load(run: Run, root: str | Path | None = None) -> Splits:
    """The data of a run."""
    splits = _load(run, run.data_options, root)
    rng = np.random.default_rng(run.seed)
    train = splits.train[_some(len(splits.train), run.max_train, rng)]
    labels = splits.test.labels.numpy()
    share = 1 if run.max_test is None else run.max_test / len(labels)
    test = [
        rows[_some(len(rows), None if share >= 1 else round(share * len(rows)), rng)]
        for rows in (np.flatnonzero(labels == label) for label in (0, 1))
    ]
    return Splits(train, splits.val, splits.test[np.sort(np.concatenate(test))])


def _load(run: Run, options: Mapping[str, object], root: str | Path | None) -> Splits:
    """With the folder and the seed, where the data set takes them."""
    known = inspect.signature(data.loader(run.data)).parameters
    more = {"root": root, "seed": run.seed}
    return data.load(run.data, **{n: more[n] for n in more if n in known} | options)


def load_labelled(
    run: Run, n_train: int, root: str | Path | None = None
) -> ImageSet | None:
    """Anomalies with labels for a semi-supervised method, None for all others. They are
    training images of one class that is not the normal one, another for each seed.
    """
    share = METHODS[run.method].labelled
    if not share:
        return None
    check_choice(f"data of {run.method!r}", run.data, SPLIT_BEFORE)
    if "normal_class" not in run.data_options:
        raise ValueError(
            f"data_options: expected normal_class= for {run.method!r}, got {run.data_options}"
        )
    other = (run.data_options["normal_class"] + 1 + run.seed) % 10
    images = _load(run, run.data_options | {"normal_class": other}, root).train.images
    rng = np.random.default_rng(run.seed)
    rows = _some(len(images), count_labelled(n_train, share), rng)
    return ImageSet(images[rows], torch.ones(len(rows)))


def count_labelled(n_unlabelled: int, share: float) -> int:
    """How many labelled images, beside those without a label, make a share of all."""
    return max(1, round(share / (1 - share) * n_unlabelled))


def _some(n: int, most: int | None, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.permutation(n)[:most])


def measure(
    detector: Detector, splits: Splits, labelled: ImageSet | None = None
) -> dict[str, object]:
    """Fit to the training images, score the test images; what came of it and what it
    cost. `score_seconds` is the time of the maps where there are any.
    """
    memory = Memory()
    known = () if labelled is None else (labelled,)
    start = time.perf_counter()
    detector.fit(splits.train.images, *known)
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
            *(
                getattr(part, name)
                for part in (splits.train, test, *known)
                for name in _TENSORS
            )
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
    settings.pop("labelled", None)
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
