"""Compare teachers, students and scores on embedded data: `python benchmarks/student_teacher.py`.

Every ensemble has the same budget. Those of fewer students are the first ones of a
larger ensemble, with constants from the validation images. Beside them stand several
scales together, and PaDiM, which reads the same network. Data and weights are drawn
anew for each seed. Prints mean ± standard deviation over the seeds.
"""

import argparse
import copy
import time
from collections.abc import Iterator

from shared import measure, print_table
from torch import Tensor, nn

from adlab import data
from adlab.data import Splits
from adlab.detector import Localizer
from adlab.padim import PaDiM
from adlab.student_teacher import MultiScale, StudentTeacher

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


def main() -> None:
    """Print one line a detector and data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--epochs", type=int, default=8, help="passes through the training images"
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of repetitions")
    options = parser.parse_args()
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
