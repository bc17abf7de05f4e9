"""What PaDiM and SPADE cost, and what they find: `python benchmarks/padim.py`.

Times are ratios to the plain forward pass of torchvision's ResNet-18, stopped after
layer 3, on 224 × 224 pixels with random weights. Both are run in turns in one process,
and medians are compared, so that a busy machine slows both. Memory is the peak of a
process of its own, beyond what it needed before.

    python benchmarks/padim.py score fit size spade memory    the performance table
    python benchmarks/padim.py accuracy                       texnet beside random weights
    python benchmarks/padim.py ablations                      layers, reduction
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable

import numpy as np
import torch
from shared import in_turns
from torch import Tensor
from torch.utils.data import Dataset

import adlab
from adlab import data, metrics
from adlab.bench.memory import Memory
from adlab.data import Splits
from adlab.detector import Localizer
from adlab.padim import PaDiM
from adlab.spade import SPADE

SIZE = 224


class Noise(Dataset):
    """Images that are made when they are asked for."""

    def __init__(self, n: int):
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Tensor:
        generator = torch.Generator().manual_seed(index)
        return torch.rand(3, SIZE, SIZE, generator=generator)


def images(n: int) -> Tensor:
    """The first n of them, (n, 3, 224, 224)."""
    return torch.stack([Noise(n)[i] for i in range(n)])


def plain_forward() -> Callable[[Tensor], Tensor]:
    """Torchvision's ResNet-18 as it comes, up to layer 3."""
    from torchvision.models import resnet18

    net = resnet18().eval()
    layers = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")

    @torch.no_grad()
    def forward(x: Tensor) -> Tensor:
        for name in layers:
            x = getattr(net, name)(x)
        return x

    return forward


def row(what: str, value: float, unit: str, reach: str) -> None:
    """One line of the table."""
    print(f"{what:52}{value:8.2f} {unit:4} (reach: {reach})", flush=True)


def score() -> None:
    """Scoring: pixels to smoothed map."""
    detector, forward = PaDiM("resnet18-random").fit(images(8)), plain_forward()
    for n, repetitions, reach in ((32, 5, "1.10"), (1, 40, "1.25")):
        x = images(n)
        ours, plain = in_turns(
            repetitions, lambda x=x: detector.anomaly_map(x), lambda x=x: forward(x)
        )
        row(f"scoring, batch {n}, over the forward", ours / plain, "", reach)
        print(f"    {1e3 * ours / n:.1f} ms an image, forward {1e3 * plain / n:.1f} ms")


def fit(n: int = 200) -> None:
    """Fitting."""
    x, forward = images(n), plain_forward()

    def forwards() -> None:
        for batch in x.split(32):
            forward(batch)

    forward(x[:32])
    ours, plain = in_turns(1, lambda: PaDiM("resnet18-random").fit(x), forwards)
    row(f"fit of {n} images, over the forward", ours / plain, "", "1.25")
    print(f"    {ours:.1f} s, forward {plain:.1f} s")


def size() -> None:
    """The file of a fitted model, without the backbone."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "padim.safetensors")
        PaDiM("resnet18-random", n_features=100).fit(images(2)).save(path)
        row("saved model, 100 dimensions", os.path.getsize(path) / 1e6, "MB", "65")


def spade(n: int = 200) -> None:
    """SPADE beside PaDiM."""
    train = Noise(n)
    detectors = [PaDiM("resnet18-random").fit(images(8))]
    detectors.append(SPADE("resnet18-random").fit(train))
    for batch, repetitions in ((16, 3), (1, 10)):
        x = images(batch)
        padim, ours = in_turns(
            repetitions, *(lambda d=d, x=x: d.anomaly_map(x) for d in detectors)
        )
        row(f"SPADE, gallery of {n}, batch {batch}, over PaDiM", ours / padim, "", "3")
        print(f"    {1e3 * ours / batch:.1f} ms an image")


def memory() -> None:
    """Peaks of processes that do one thing each."""
    few, many = (peak("fit", n) for n in (200, 1000))
    row("memory of fit, N = 200", few, "MB", "equal within 5 %")
    row("memory of fit, N = 1000", many, "MB", "equal within 5 %")
    row("memory of SPADE, fit and score, N = 200", peak("spade", 200), "MB", "1000")


def peak(what: str, n: int) -> float:
    """Peak memory in MB that a new process needs beyond its imports and network; the
    median of five. The allocator of glibc keeps more or less of what was freed, as it
    happens; with a fixed threshold it gives large blocks back, and what is in use shows.
    """
    command = [sys.executable, __file__, "--measure", what, str(n)]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
    peaks = [subprocess.check_output(command, env=environment) for _ in range(5)]
    return float(np.median([float(value) for value in peaks]))


def measure(what: str, n: int) -> None:
    """What such a process does."""
    plain_forward()(images(2))
    memory = Memory()
    if what == "fit":
        PaDiM("resnet18-random").fit(Noise(n))
    else:
        SPADE("resnet18-random").fit(Noise(n)).anomaly_map(images(16))
    print(memory.peak())


# -- accuracy on embedded data


def data_sets(seed: int) -> dict[str, Splits]:
    """Drawn anew for each seed."""
    return {
        "nanofibres": data.load(
            "nanofibres", n_train=150, n_val=1, n_test=80, seed=seed
        ),
        "textures": data.load("textures", n_train=150, n_val=1, n_test=128, seed=seed),
    }


def evaluate(maps: Tensor, scores: Tensor, splits: Splits) -> list[float]:
    """Image AUROC, pixel AUROC, PRO."""
    test = splits.test
    return [
        metrics.auroc(scores, test.labels),
        metrics.pixel_auroc(maps, test.masks),
        metrics.pro(maps, test.masks),
    ]


def results(detector: Localizer, splits: Splits) -> list[float]:
    """The same, of a detector."""
    detector.fit(splits.train.images)
    images = splits.test.images
    return evaluate(
        detector.anomaly_map(images), detector.anomaly_score(images), splits
    )


def sum_of_layers(seed: int, splits: Splits) -> list[float]:
    """The paper's ensemble: a map of each layer, added up."""
    maps = sum(
        PaDiM(layers=[layer], sigma=2, seed=seed)
        .fit(splits.train.images)
        .anomaly_map(splits.test.images)
        for layer in ("layer1", "layer2", "layer3")
    )
    return evaluate(maps, maps.flatten(1).amax(1), splits)


def accuracy(seeds: int) -> None:
    """Pretrained against random weights."""
    makers = {
        f"{cls.__name__} {net}": lambda seed, cls=cls, net=net, more=more: cls(
            net, sigma=2, seed=seed, **more
        )
        for cls, more in ((PaDiM, {}), (SPADE, {}))
        for net in ("texnet", "texnet-random")
    }
    makers["SPADE texnet, max of the map"] = lambda seed: SPADE(
        sigma=2, image_score="max", seed=seed
    )
    table(seeds, makers)


def ablations(seeds: int) -> None:
    """Tables I and II of the paper."""
    makers = {
        f"layer {i}": lambda seed, i=i: PaDiM(layers=[f"layer{i}"], sigma=2, seed=seed)
        for i in (1, 2, 3)
    }
    makers["sum of layers"] = None
    makers["all channels"] = lambda seed: PaDiM(n_features=None, sigma=2, seed=seed)
    for reduction in ("random", "pca"):
        for n in (100, 50, 25, 12):
            makers[f"{reduction} {n}"] = lambda seed, reduction=reduction, n=n: PaDiM(
                n_features=n, reduction=reduction, sigma=2, seed=seed
            )
    table(seeds, makers)


def table(seeds: int, makers: dict[str, Callable[[int], Localizer] | None]) -> None:
    """One line a detector and data set: mean ± standard deviation over the seeds."""
    print(f"{seeds} seeds   image AUROC, pixel AUROC, PRO")
    values: dict[tuple[str, str], list[list[float]]] = {}
    for seed in range(seeds):
        for data_name, splits in data_sets(seed).items():
            for name, make in makers.items():
                found = (
                    results(make(seed), splits) if make else sum_of_layers(seed, splits)
                )
                values.setdefault((data_name, name), []).append(found)
    for (data_name, name), rows in values.items():
        mean, std = np.mean(rows, axis=0), np.std(rows, axis=0)
        cells = "".join(f"{m:9.3f} ± {s:.3f}" for m, s in zip(mean, std, strict=True))
        print(f"{data_name:12}{name:30}{cells}")


def main() -> None:
    """Run the parts that are asked for."""
    costs = {f.__name__: f for f in (score, fit, size, spade, memory)}
    quality = {f.__name__: f for f in (accuracy, ablations)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=", ".join([*costs, *quality]))
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--seeds", type=int, default=3, help="number of repetitions")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure:
        measure(options.measure[0], int(options.measure[1]))
        return
    print(f"torch {torch.__version__}, adlab {adlab.__version__}")
    for part in options.parts or [*costs, *quality]:
        if part in costs:
            costs[part]()
        elif part in quality:
            quality[part](options.seeds)
        else:
            parser.error(f"parts: expected some of {[*costs, *quality]}, got {part!r}")


if __name__ == "__main__":
    main()
