"""Train `texnet`, the backbone that comes with the package: `python tools/texnet.py`.

Formula-driven supervision: the network learns to tell textures apart that are computed,
never photographed. A class is a family of patterns, some with their scale; colours,
contrast, direction, light, blur and noise say nothing about it. No pattern is one of the
book's data sets: there are no fibres or nets of lines, no maps of wafers, no digits, no
bricks.

Prints the loss and, at the end, the accuracy on fresh textures; writes the weights, the
convolutions' in half precision.
"""

import argparse
import math
import os
import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import conv2d, cross_entropy

from adlab.backbones import MEAN, STD, WEIGHTS, TexNet
from adlab.training import minimise, seeded

SIZE = 48  # side of an image, in pixels
FINE, MIDDLE, COARSE = (3.5, 6.0), (7.0, 12.0), (14.0, 24.0)  # periods, in pixels


# -- patterns: each makes n of them, (n, SIZE, SIZE), of any range


def uniform(n: int, low: float, high: float) -> Tensor:
    """One number a pattern, (n, 1, 1)."""
    return low + (high - low) * torch.rand(n, 1, 1)


def frame(n: int) -> tuple[Tensor, Tensor]:
    """Coordinates of the pixels, turned, shifted and slightly bent: u and v."""
    steps = torch.arange(SIZE) - SIZE / 2
    x, y = steps.expand(n, SIZE, SIZE), steps[:, None].expand(n, SIZE, SIZE)
    bend, wave, phase = uniform(n, 0, 1.5), uniform(n, 25, 70), uniform(n, 0, 7)
    x = x + bend * torch.sin(2 * math.pi * y / wave + phase)
    angle = uniform(n, 0, 2 * math.pi)
    u = x * torch.cos(angle) + y * torch.sin(angle) + uniform(n, 100, 199)
    v = y * torch.cos(angle) - x * torch.sin(angle) + uniform(n, 100, 199)
    return u, v


def waves(x: Tensor, period: Tensor) -> Tensor:
    """A sine of that period."""
    return torch.sin(2 * math.pi * x / period)


def grating(n: int, periods: tuple[float, float]) -> Tensor:
    """A sine wave."""
    return waves(frame(n)[0], uniform(n, *periods))


def stripes(n: int, share: float) -> Tensor:
    """Stripes with sharp borders that fill a share of the plane."""
    return ((frame(n)[0] / uniform(n, 5, 16)).frac() < share).float()


def barcode(n: int) -> Tensor:
    """Stripes of irregular widths and tones."""
    place = (frame(n)[0] / uniform(n, 1.5, 4)).long().flatten(1) % 97
    return torch.rand(n, 97).gather(1, place).view(n, SIZE, SIZE)


def mosaic(n: int, low: float, high: float) -> Tensor:
    """A chessboard of random tones."""
    u, v = frame(n)
    side = uniform(n, low, high)
    place = ((u / side).long() % 31 * 31 + (v / side).long() % 31).flatten(1)
    return torch.rand(n, 31 * 31).gather(1, place).view(n, SIZE, SIZE)


def plaid(n: int, periods: tuple[float, float]) -> Tensor:
    """Two crossing sine waves."""
    u, v = frame(n)
    return waves(u, uniform(n, *periods)) + waves(v, uniform(n, *periods))


def checker(n: int, periods: tuple[float, float]) -> Tensor:
    """A chessboard."""
    u, v = frame(n)
    period = 1.6 * uniform(n, *periods)
    return (waves(u, period) * waves(v, period) > 0).float()


def triangles(n: int) -> Tensor:
    """Black and white triangles that fill the plane."""
    u, v = frame(n)
    side = uniform(n, 8, 18)
    a, b = u / side, v / side
    return (a.floor() + b.floor() + (a + b).floor()) % 2


def zigzag(n: int, sharp: bool) -> Tensor:
    """Parallel bands that go to and fro."""
    u, v = frame(n)
    phase = (v / uniform(n, 14, 24)).frac()
    bow = 4 * (phase - 0.5).abs() - 1 if sharp else torch.cos(2 * math.pi * phase)
    return waves(u + 4 * bow, uniform(n, 6, 14))


def lattice(n: int, shape: str, fill: float, shifted: bool = False) -> Tensor:
    """Equal shapes in rows."""
    u, v = frame(n)
    period = uniform(n, 7, 15)
    b = v / period * (1.155 if shifted else 1)
    a = u / period + (b.floor() % 2 / 2 if shifted else 0)
    return shape_of(shape, a.frac() - 0.5, b.frac() - 0.5, fill / 2)


def shape_of(shape: str, x: Tensor, y: Tensor, radius: Tensor | float) -> Tensor:
    """1 inside a shape about the origin, 0 outside."""
    if shape == "disc":
        return (x**2 + y**2 < radius**2).float()
    if shape == "ring":
        distance = (x**2 + y**2).sqrt()
        return ((distance - 0.75 * radius).abs() < 0.25 * radius).float()
    if shape == "cross":
        x, y = x.abs(), y.abs()
        near, far = torch.minimum(x, y), torch.maximum(x, y)
        return ((near < radius / 3) & (far < radius)).float()
    if shape == "square":
        return (torch.maximum(x.abs(), y.abs()) < 0.85 * radius).float()
    return (torch.maximum(1.7 * x.abs() + y, -2 * y) < radius).float()  # triangle


def weave(n: int, share: float) -> Tensor:
    """Strands that go over and under each other."""
    u, v = frame(n)
    period = uniform(n, 6, 13)
    a, b = u / period, v / period
    over = (a.floor() + b.floor()) % 2
    first, second = (1 - ((x.frac() - 0.5).abs() / share) ** 2 for x in (a, b))
    return torch.where(over > 0, first, second).clamp(min=-0.2)


def cells(n: int, number: int, tones: bool) -> Tensor:
    """Random points: the distance to the nearest, or a tone for each point's own cell."""
    steps = torch.arange(SIZE).float()
    x, y = ((torch.rand(2, n, number, 1, 1) * 1.3 - 0.15) * SIZE).unbind()
    nearest = ((steps - x) ** 2 + (steps[:, None] - y) ** 2).min(1)
    if not tones:
        return nearest.values.sqrt()
    values = torch.rand(n, number).gather(1, nearest.indices.flatten(1))
    return values.view(n, SIZE, SIZE)


def spectrum(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """White noise, transformed, and its frequencies in cycles a pixel."""
    y, x = torch.fft.fftfreq(SIZE)[:, None], torch.fft.rfftfreq(SIZE)
    return torch.fft.rfft2(torch.randn(n, SIZE, SIZE)), x, y


def fractal(n: int, slope: float) -> Tensor:
    """Noise whose amplitude falls with frequency."""
    noise, x, y = spectrum(n)
    radius = (x**2 + y**2).sqrt().clamp(min=1 / SIZE)
    return torch.fft.irfft2(noise * radius**-slope)


def band(n: int, periods: tuple[float, float], kind: str = "") -> Tensor:
    """Noise of one scale; "oriented", it has a direction as well; "sharp", two tones."""
    noise, x, y = spectrum(n)
    f = 1 / uniform(n, *periods)
    if kind == "oriented":
        angle = uniform(n, 0, math.pi)
        f_x, f_y = f * torch.cos(angle), f * torch.sin(angle)
        squares = [(x - s * f_x) ** 2 + (y - s * f_y) ** 2 for s in (1, -1)]
        window = sum(torch.exp(-square / (2 * (0.25 * f) ** 2)) for square in squares)
    else:
        window = torch.exp(-(((x**2 + y**2).sqrt() - f) ** 2) / (2 * (0.25 * f) ** 2))
    field = torch.fft.irfft2(noise * window)
    if kind == "sharp":
        return (
            field > 0.5 * uniform(n, -1, 1) * field.std((1, 2), keepdim=True)
        ).float()
    return field


def rings(n: int, rough: float) -> Tensor:
    """The rings of a trunk, about a point inside the picture or out of it."""
    u, v = frame(n)
    centre = uniform(n, 15, 85)
    radius = ((u - centre) ** 2 + (v - centre) ** 2).sqrt()
    return waves(radius + rough * unit(fractal(n, 1.7)), uniform(n, 5, 13))


def rays(n: int) -> Tensor:
    """Rays from a point."""
    u, v = frame(n)
    x, y = u - u.mean((1, 2), True), v - v.mean((1, 2), True)
    shift = uniform(n, 0, 25)
    return torch.sin(torch.atan2(y, x + shift) * uniform(n, 8, 24).round())


def marble(n: int) -> Tensor:
    """Waves bent by noise."""
    return torch.sin(
        2 * math.pi * frame(n)[0] / uniform(n, 10, 20) + 2 * unit(fractal(n, 1.5))
    )


def leaves(n: int, shape: str, sizes: tuple[float, float], number: int) -> Tensor:
    """Shapes thrown one upon the other, each of its own tone."""
    picture = uniform(n, 0, 1).expand(n, SIZE, SIZE)
    steps = torch.arange(SIZE).float()
    for _ in range(number):
        x, y = steps - uniform(n, 0, SIZE), steps[:, None] - uniform(n, 0, SIZE)
        angle = uniform(n, 0, 7)
        cos, sin = torch.cos(angle), torch.sin(angle)
        inside = shape_of(
            shape, x * cos + y * sin, y * cos - x * sin, uniform(n, *sizes)
        )
        picture = torch.lerp(picture, uniform(n, 0, 1), inside)
    return picture


def speckle(n: int) -> Tensor:
    """Bright grains, as of coherent light."""
    return -torch.rand(n, SIZE, SIZE).clamp(min=1e-3).log()


def sparks(n: int) -> Tensor:
    """Single bright pixels."""
    return (torch.rand(n, SIZE, SIZE) < uniform(n, 0.01, 0.05)).float()


def unit(field: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1, pattern by pattern."""
    std = field.std((1, 2), keepdim=True).clamp(min=1e-6)
    return (field - field.mean((1, 2), keepdim=True)) / std


CLASSES = [
    *(partial(grating, periods=p) for p in (FINE, MIDDLE, COARSE)),
    *(partial(plaid, periods=p) for p in (FINE, MIDDLE, COARSE)),
    *(partial(checker, periods=p) for p in (FINE, MIDDLE)),
    *(partial(stripes, share=s) for s in (0.2, 0.5)),
    barcode,
    *(partial(mosaic, low=a, high=b) for a, b in ((2, 4), (6, 11))),
    triangles,
    *(partial(zigzag, sharp=s) for s in (True, False)),
    *(partial(lattice, shape="disc", fill=f) for f in (0.4, 0.85)),
    *(partial(lattice, shape="disc", fill=f, shifted=True) for f in (0.4, 0.85)),
    *(
        partial(lattice, shape=s, fill=0.8)
        for s in ("ring", "cross", "square", "triangle")
    ),
    *(partial(weave, share=s) for s in (0.3, 0.5)),
    *(partial(cells, number=m, tones=False) for m in (10, 40)),
    *(partial(cells, number=m, tones=True) for m in (10, 40)),
    *(partial(fractal, slope=s) for s in (0, 0.6, 1.2, 1.8)),
    *(partial(band, periods=p) for p in (FINE, MIDDLE, COARSE)),
    *(partial(band, periods=p, kind="oriented") for p in (FINE, MIDDLE)),
    *(partial(band, periods=p, kind="sharp") for p in (FINE, MIDDLE, COARSE)),
    *(partial(rings, rough=r) for r in (0.3, 2.5)),
    rays,
    marble,
    *(partial(leaves, shape=s, sizes=(4, 10), number=24) for s in ("disc", "square")),
    *(
        partial(leaves, shape=s, sizes=(3, 8), number=5)
        for s in ("disc", "square", "triangle")
    ),
    speckle,
    sparks,
]


# -- images of them


def textures(labels: Tensor) -> Tensor:
    """One image (N, 3, SIZE, SIZE) in [0, 1] a label (N,)."""
    fields = torch.empty(len(labels), SIZE, SIZE)
    for label in labels.unique().tolist():
        chosen = labels == label
        fields[chosen] = CLASSES[label](int(chosen.sum()))
    tones = (unit(fields) / 4 + 0.5).clamp(0, 1)[:, None]
    return coloured(blurred(tones) ** uniform(len(tones), 0.6, 1.6)[:, None])


def coloured(tones: Tensor) -> Tensor:
    """Tones between two colours, half of them grey ones, under uneven light."""
    n = len(tones)
    first, second = torch.rand(2, n, 3, 1, 1)
    grey = torch.rand(n, 1, 1, 1) < 0.6
    first, second = (torch.where(grey, c[:, :1], c) for c in (first, second))
    second = torch.where(
        (second - first).abs().amax(1, True) < 0.35, 1 - first.round(), second
    )
    ramp = torch.linspace(-1, 1, SIZE)
    light = 1 + 0.1 * (
        torch.randn(n, 1, 1, 1) * ramp + torch.randn(n, 1, 1, 1) * ramp[:, None]
    )
    return torch.lerp(first, second, tones) * light


def blurred(tones: Tensor) -> Tensor:
    """A Gaussian blur of up to 1.2 pixels for every second pattern."""
    n, steps = len(tones), torch.arange(-3, 4).float()
    sigma = uniform(n, -1.2, 1.2).clamp(min=0.2)
    kernel = torch.exp(-(steps**2) / (2 * sigma**2))  # (n, 1, 7)
    kernel = (kernel / kernel.sum(2, True))[:, None]  # (n, 1, 1, 7)
    rows = conv2d(tones.transpose(0, 1), kernel, padding=(0, 3), groups=n)
    both = conv2d(rows, kernel.transpose(2, 3), padding=(3, 0), groups=n)
    weight = torch.ones(1, n, SIZE, SIZE)
    weight = conv2d(weight, kernel, padding=(0, 3), groups=n)
    weight = conv2d(weight, kernel.transpose(2, 3), padding=(3, 0), groups=n)
    return (both / weight).transpose(0, 1)


def noisy(images: Tensor) -> Tensor:
    """With Gaussian noise, in [0, 1]."""
    sigma = uniform(len(images), -0.04, 0.06).clamp(min=0)[:, None]
    return (images + sigma * torch.randn_like(images)).clamp(0, 1)


def batch(n: int) -> tuple[Tensor, Tensor]:
    """Images (n, 3, SIZE, SIZE) in [0, 1] and labels (n,)."""
    labels = torch.randint(len(CLASSES), (n,))
    return noisy(textures(labels)), labels


# -- training


def logits(network: TexNet, images: Tensor) -> Tensor:
    """(N, classes) of images (N, 3, SIZE, SIZE) in [0, 1]."""
    return network((images - MEAN) / STD)


def begin() -> TexNet:
    """A new network, whose first filters are blind to brightness: contrast is what
    tells textures apart.
    """
    network = TexNet(classes=len(CLASSES)).to(memory_format=torch.channels_last)
    with torch.no_grad():
        filters = network.stem[0].weight
        filters -= filters.mean((2, 3), keepdim=True)
    return network


def train(network: TexNet, steps: int, batch_size: int, lr: float, path: Path) -> None:
    """One cycle of AdamW; the weights are written now and then."""
    optimizer = torch.optim.AdamW(network.parameters(), lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.15)
    start = time.perf_counter()

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits(network, images), labels)

    for done in range(0, steps, 25):
        todo = range(done, min(done + 25, steps))
        fresh = partial(map, batch, [batch_size] * len(todo))
        [mean] = minimise(network, loss, fresh, optimizer, schedule=schedule)
        seconds = time.perf_counter() - start
        print(f"step {todo.stop:5}  loss {mean:.3f}  {seconds:6.0f} s", flush=True)
        save(network, path)


def save(network: TexNet, path: Path) -> None:
    """Write the weights, those of convolutions in half precision, all or nothing."""
    from safetensors.torch import save as to_bytes

    weights = {
        name: tensor.half() if tensor.ndim == 4 else tensor
        for name, tensor in network.state_dict().items()
    }
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    temporary.write_bytes(to_bytes({k: v.contiguous() for k, v in weights.items()}))
    temporary.replace(path)


@torch.no_grad()
def accuracy(network: TexNet, n: int, seed: int) -> float:
    """Share of fresh images of one texture each whose class is found."""
    network.eval()
    with seeded(seed):
        labels = torch.arange(n) % len(CLASSES)
        images = noisy(textures(labels))
    found = torch.cat([logits(network, x).argmax(1) for x in images.split(64)])
    return float((found == labels).float().mean())


def main() -> None:
    """Train, report, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--path", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    start = time.perf_counter()
    with seeded(options.seed):
        network = begin()
        train(network, options.steps, options.batch_size, options.lr, options.path)
    seconds = time.perf_counter() - start
    share = accuracy(network, 40 * len(CLASSES), seed=options.seed + 1)
    print(
        f"{len(CLASSES)} classes, accuracy {share:.3f} on fresh images "
        f"(chance {1 / len(CLASSES):.3f}); {seconds:.0f} s, {torch.get_num_threads()} thread(s)"
    )


if __name__ == "__main__":
    main()
