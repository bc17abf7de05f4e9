"""Compare teachers, students and scores on embedded data: `python benchmarks/student_teacher.py`.

Every ensemble has the same budget. Those of fewer students are the first ones of a
larger ensemble, with constants from the validation images. Beside them stand several
scales together, and PaDiM, which reads the same network. Data and weights are drawn
anew for each seed. Prints mean ± standard deviation over the seeds.

With `--speed`: a training step of M students one after the other, as in the package,
beside one batched pass, by `torch.func.vmap` and by convolutions in M groups.
"""

import argparse
import copy
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from shared import measure, print_table
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import pad

from adlab import data
from adlab.data import Splits
from adlab.detector import Localizer
from adlab.padim import PaDiM
from adlab.student_teacher import MultiScale, PatchNetwork, StudentTeacher

FIELDS = (9, 17, 33, 65)


def data_sets(seed: int) -> dict[str, Splits]:
    """Eighty training images each, of 64 × 64 pixels."""
    sizes = {"n_train": 80, "n_val": 20, "n_test": 60, "seed": seed}
    return {
        "nanofibres": data.load("nanofibres", size=64, **sizes),
        "textures": data.load("textures", **sizes),
    }


def first_students(
    detector: StudentTeacher, n_students: int, normal: Tensor
) -> StudentTeacher:
    """The same ensemble with its first students only, standardised on normal images."""
    fewer = copy.copy(detector)
    fewer.n_students = n_students
    fewer.students_ = nn.ModuleList(detector.students_[:n_students])
    fewer.term_mean_, fewer.term_std_ = fewer._statistics(fewer._terms, normal)
    return fewer


def detectors(
    splits: Splits, seed: int, epochs: int
) -> Iterator[tuple[str, Localizer, float]]:
    """Name, fitted detector, and seconds it took."""
    budget = {"epochs": epochs, "teacher_epochs": epochs, "seed": seed}

    def fit(detector: Localizer) -> tuple[Localizer, float]:
        start = time.perf_counter()
        return detector.fit(splits.train.images), time.perf_counter() - start

    five, seconds = fit(StudentTeacher(n_students=5, **budget))
    for m in (1, 3, 5):
        fewer = first_students(five, m, splits.val.images)
        for fewer.term in ("error", "variance", "both") if m > 1 else ("error",):
            name = f"backbone, p = 33, M = {m}, {fewer.term}"
            yield name, fewer, seconds * m / 5
    scales = {33: first_students(five, 3, splits.val.images)}
    for p in FIELDS:
        if p != 33:
            scales[p], seconds = fit(StudentTeacher(receptive_field=p, **budget))
            yield f"backbone, p = {p}, M = 3, both", scales[p], seconds
    together = MultiScale(five, FIELDS)
    together.input_shape_ = five.input_shape_
    for p, scale in scales.items():
        setattr(together, f"scale_{p}_", scale)
    yield f"backbone, p = {FIELDS}, M = 3, both", together, 0.0
    budget |= {"receptive_field": 17}
    for teacher in ("distilled", "triplet"):
        yield (
            f"{teacher}, p = 17, M = 3, both",
            *fit(StudentTeacher(teacher, **budget)),
        )
    random = StudentTeacher(backbone="texnet-random", **budget)
    yield "random weights, p = 17, M = 3, both", *fit(random)
    yield "PaDiM", *fit(PaDiM(seed=seed))


def speed() -> None:
    """Print seconds of a training step, in turns, and ratios to the first way."""
    for n_students in (3, 5):
        for p in (17, 33):
            steps = ways_to_train(n_students, p)
            seconds = {name: [] for name in steps}
            for _ in range(12):
                for name, step in steps.items():
                    start = time.perf_counter()
                    step()
                    seconds[name].append(time.perf_counter() - start)
            medians = {n: float(np.median(s[2:])) for n, s in seconds.items()}
            cells = "".join(
                f"   {name} {1e3 * s:.0f} ms ({s / medians['one by one']:.2f})"
                for name, s in medians.items()
            )
            print(f"M = {n_students}, p = {p}:{cells}")


def ways_to_train(n_students: int, p: int) -> dict[str, Callable[[], None]]:
    """Name to a step that computes the same loss, and its gradients."""
    x, target = torch.rand(4, 1, 64, 64), torch.randn(4, 64, 16, 16)
    students = nn.ModuleList(PatchNetwork(1, 64, p) for _ in range(n_students))
    padded = pad(x, [p // 2] * 4, mode="reflect")
    parameters, buffers = stack_module_state(list(students))
    groups = nn.Sequential(
        *(in_groups(layer, n_students) for layer in students[0].layers)
    ).to(memory_format=torch.channels_last)

    def one_by_one() -> Tensor:
        return torch.stack([student(padded) for student in students])

    def by_vmap() -> Tensor:
        def of_one(*state: dict) -> Tensor:
            return functional_call(students[0], state, (padded,))

        return vmap(of_one)(parameters, buffers)

    def by_groups() -> Tensor:
        several = padded.expand(-1, n_students, -1, -1)
        several = several.contiguous(memory_format=torch.channels_last)
        return groups(several).unflatten(1, (n_students, -1)).movedim(1, 0)

    def step(predict: Callable[[], Tensor]) -> None:
        (predict() - target).square().mean((1, 2, 3, 4)).sum().backward()

    return {
        "one by one": partial(step, one_by_one),
        "vmap": partial(step, by_vmap),
        "groups": partial(step, by_groups),
    }


def in_groups(layer: nn.Module, n: int) -> nn.Module:
    """A layer that does for n networks side by side what it does for one."""
    if isinstance(layer, nn.BatchNorm2d):
        return nn.BatchNorm2d(n * layer.num_features)
    if not isinstance(layer, nn.Conv2d):
        return layer
    return nn.Conv2d(
        n * layer.in_channels,
        n * layer.out_channels,
        layer.kernel_size,
        layer.stride,
        dilation=layer.dilation,
        groups=n,
        bias=layer.bias is not None,
    )


def main() -> None:
    """Print one line a detector and data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--epochs", type=int, default=8, help="passes through the training images"
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of repetitions")
    parser.add_argument("--speed", action="store_true", help="of the training")
    options = parser.parse_args()
    if options.speed:
        speed()
        return
    results, seconds = {}, {}
    for seed in range(options.seeds):
        for data_name, splits in data_sets(seed).items():
            for name, detector, elapsed in detectors(splits, seed, options.epochs):
                row = data_name, name
                results.setdefault(row, []).append(
                    measure(detector.anomaly_map(splits.test.images), splits.test)
                )
                seconds.setdefault(row, []).append(elapsed)
    print(f"{options.epochs} epochs, {options.seeds} seeds")
    print_table(results, seconds)


if __name__ == "__main__":
    main()
