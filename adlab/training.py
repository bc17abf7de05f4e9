"""What every trained method needs: seeding, device choice, batches, and the one
training loop.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from tqdm import tqdm

from adlab._checks import as_tensor, check_device, check_images, check_number
from adlab.show import in_notebook


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device to compute on; "auto" is a CUDA GPU where there is one, else the CPU.

    Raises:
        ValueError: no device of that name, or none on this machine, or one without
            float64, as "mps".
    """
    check_device("device", device)
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw torch's random numbers from `seed` inside the block; the caller's own state
    stays untouched.

    Raises:
        TypeError, ValueError: a seed that is not a non-negative integer.
    """
    check_number("seed", seed, 0, 2**63 - 1, whole=True)
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(seed)  # manual_seed() costs far more
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(seed)
        yield


@contextmanager
def single_precision() -> Iterator[None]:
    """Make new tensors and networks float32 inside the block, whatever the caller's
    default is; and let a GPU compute convolutions with all bits of float32, of which cuDNN
    drops 13 unless it is asked not to.
    """
    before, rounded = torch.get_default_dtype(), torch.backends.cudnn.allow_tf32
    torch.set_default_dtype(torch.float32)
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        torch.backends.cudnn.allow_tf32 = rounded


PIXELS = 2**20  # of a batch: an image of 1024 × 1024, 20 of 224 × 224


def stream(
    data: object,
    batch_size: int = 64,
    check: Callable[[object], Tensor] = check_images,
    pixels: int | None = PIXELS,
) -> Iterator[Tensor]:
    """Run through data once, in batches that have passed the check.

    Args:
        data: a tensor, array or list of images; anything with `.images`, as an
            ImageSet; a torch Dataset of single images; or an iterable of batches, as a
            DataLoader. The items of these two may be tuples (image, label, …).
        batch_size: images per batch, at most, where the data is not batched already.
        check: refuses bad batches, returns good ones as a tensor; by default of images.
        pixels: H · W of all images of a batch together, at most, but that of a single
            one; larger batches are cut, so that memory does not grow with the size of
            images times their number. Of vectors, numbers. None cuts nothing.

    Yields:
        (B, …) tensors, as `check` returns them.

    Raises:
        TypeError, ValueError: data of another type, batches that the check refuses, no
            batch at all.
    """
    check_number("batch_size", batch_size, 1, whole=True)
    if pixels is not None:
        check_number("pixels", pixels, 1, whole=True)
    empty = True
    for batch in _batches(data, batch_size, check, pixels):
        empty = False
        yield batch
    if empty:
        raise ValueError("images: expected at least one, got an empty data set")


def _batches(
    data: object,
    batch_size: int,
    check: Callable[[object], Tensor],
    pixels: int | None,
) -> Iterator[Tensor]:
    data = (
        _grouped(data, batch_size, pixels) if isinstance(data, Dataset) else _bare(data)
    )
    if _is_whole(data):
        images = check(data)
        yield from images.split(_most(images[0], batch_size, pixels))
        return
    if not isinstance(data, Iterable) or isinstance(data, str | bytes | dict):
        raise TypeError(
            f"images: expected a tensor, array, ImageSet, Dataset or DataLoader, got {type(data).__name__}"
        )
    for batch in data:
        images = check(_image(batch))
        yield from images.split(_most(images[0], len(images), pixels))


def split_by_pixels(batch: Tensor, pixels: int = PIXELS) -> tuple[Tensor, ...]:
    """A batch in parts of at most so many pixels, as `stream` cuts them."""
    return batch.split(_most(batch[0], len(batch), pixels))


def _most(image: object, batch_size: int, pixels: int | None) -> int:
    """How many like this image, or vector, make a batch."""
    size = math.prod(np.shape(image)[-2:])
    return batch_size if pixels is None else max(1, min(batch_size, pixels // size))


def _grouped(data: Dataset, batch_size: int, pixels: int | None) -> Iterator[Tensor]:
    """The images of a Dataset as batches; none is read before it is needed."""
    group: list = []
    for image in DataLoader(data, None, collate_fn=_image):
        group.append(image)
        if len(group) >= _most(image, batch_size, pixels):
            yield _stack(group)
            group = []
    if group:
        yield _stack(group)


def _bare(data: object) -> object:
    return getattr(data, "images", data)


def repeatable(images: object) -> object:
    """Data to run through twice: what comes but once, as a generator, is held in
    memory.
    """
    return list(images) if isinstance(images, Iterator) else images


def joined(batches: Iterable[Tensor]) -> Tensor:
    """Batches one after the other.

    Raises:
        ValueError: what is in one of them has another shape.
    """
    batches = list(batches)
    shapes = list(dict.fromkeys(tuple(batch.shape[1:]) for batch in batches))
    if len(shapes) > 1:
        raise ValueError(
            f"images: expected all of one size, got batches for {shapes[0]} and {shapes[1]}"
        )
    return torch.cat(batches)


def _image(item: object) -> object:
    return item[0] if isinstance(item, tuple | list) else item


def _stack(items: list) -> Tensor:
    """Items of a Dataset as a batch of their images; labels and masks, which may be
    anything, stay behind.
    """
    return as_tensor("images", [_image(item) for item in items])


def _is_whole(data: object) -> bool:
    """Whether all images are there at once: as a tensor, an array, or a list of images,
    which have one dimension less than batches.
    """
    if isinstance(data, list):
        return not data or getattr(_image(data[0]), "ndim", 0) not in (2, 4)
    return isinstance(data, Tensor | np.ndarray)


def train(
    network: nn.Module,
    loss: Callable[[Tensor], Tensor],
    images: object,
    *,
    epochs: int,
    batch_size: int = 32,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    seed: int = 0,
    device: str | torch.device = "auto",
    check: Callable[[object], Tensor] = check_images,
) -> list[float]:
    """Train a network with Adam, in place, and leave it in eval mode.

    Args:
        network: its parameters are trained.
        loss: maps a batch (B, C, H, W) on the device to a scalar.
        images: tensor or array (N, C, H, W) in [0, 1], ImageSet, Dataset, or an
            iterable of batches, as a DataLoader, a list, or a generator, whose batches
            are held in memory.
        epochs: passes through the images, each in a new random order; an iterable of
            batches keeps its own.
        batch_size: images per step.
        lr: Adam's step size.
        weight_decay: Adam's L2 penalty.
        seed: of the order of the images and of all that the loss draws.
        device: see `resolve_device`.
        check: refuses bad data, as for `stream`; vectors (N, D) need another than that
            of images.

    Returns:
        The mean loss of each epoch.

    Raises:
        FloatingPointError: the loss became NaN or infinite; the message says in which
            epoch.
        TypeError, ValueError: bad images, or a number out of its range.
    """
    check_number("lr", lr, 0, open_low=True)
    check_number("weight_decay", weight_decay, 0)
    device = resolve_device(device)
    loader = _shuffled(images, batch_size, check)
    optimizer = torch.optim.Adam(
        network.to(device).parameters(), lr=lr, weight_decay=weight_decay
    )

    def batches() -> Iterator[tuple[Tensor]]:
        for batch in stream(loader, check=check, pixels=None):
            yield (batch.to(device),)

    with seeded(seed):
        return minimise(network, loss, batches, optimizer, epochs=epochs)


def minimise(
    network: nn.Module,
    loss: Callable[..., Tensor],
    batches: Callable[[], Iterable[tuple[Tensor, ...]]],
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int = 1,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> list[float]:
    """Minimise a loss, with any optimiser, over batches of any kind: the loop of all
    training. The network is left in eval mode.

    Args:
        network: trained in place.
        loss: maps what a batch holds to a scalar, as `loss(images, labels)`.
        batches: gives those of one epoch, each a tuple of tensors (B, …) on the device
            of the network, as (images, labels).
        optimizer: of the parameters of the network.
        epochs: passes through the batches.
        schedule: of the step size; it moves on with every step.

    Returns:
        The mean loss of each epoch.

    Raises:
        FloatingPointError: the loss became NaN or infinite; the message says in which
            epoch.
        TypeError, ValueError: no number of epochs, or an epoch without a batch.
    """
    check_number("epochs", epochs, 1, whole=True)
    history = []
    with progress(epochs, "epoch") as bar:
        for epoch in range(epochs):
            network.train()
            history.append(_epoch(loss, batches(), optimizer, schedule))
            if not np.isfinite(history[-1]):
                raise FloatingPointError(
                    f"loss: expected a finite value, got {history[-1]} in epoch {epoch + 1}"
                )
            bar.set_postfix_str(f"loss {history[-1]:.4g}", refresh=False)
            bar.update()
    network.eval()
    return history


def _shuffled(
    images: object, batch_size: int, check: Callable[[object], Tensor]
) -> object:
    """The images as batches in random order, where they are not in batches yet."""
    check_number("batch_size", batch_size, 1, whole=True)
    if not isinstance(images, Dataset):
        images = _bare(images)
        if not _is_whole(images):
            return repeatable(images)
        images = TensorDataset(check(images))
    ordered = isinstance(images, IterableDataset)
    return DataLoader(images, batch_size, shuffle=not ordered, collate_fn=_stack)


def _epoch(
    loss: Callable[..., Tensor],
    batches: Iterable[tuple[Tensor, ...]],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler | None,
) -> float:
    total, count = 0.0, 0
    for batch in batches:
        value = _loss_of(loss, batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if schedule:
            schedule.step()
        size = len(batch[0])
        total, count = total + float(value.detach()) * size, count + size
    if not count:
        raise ValueError("batches: expected at least one in each epoch, got none")
    return total / count


def _loss_of(loss: Callable[..., Tensor], batch: tuple[Tensor, ...]) -> Tensor:
    """The loss, or what is wrong where a batch norm meets a single number a channel."""
    try:
        return loss(*batch)
    except ValueError as error:
        if len(batch[0]) > 1:
            raise
        raise ValueError(
            f"batch_size: expected batches of several images, got one of 1; {error}"
        ) from error


def batch_norms(network: nn.Module) -> list[nn.Module]:
    """All layers of batch normalisation in a network."""
    return [
        module
        for module in network.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]


def update_batch_norm(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the statistics of the batch norms to their mean over the batches, and leave
    the network in eval mode.

    At the start they say nothing, and in training they lag behind the weights.
    """
    norms = batch_norms(network)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
    network.train()
    with torch.no_grad():
        for batch in batches if norms else ():
            network(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def progress(total: int, unit: str, what: str | None = None) -> tqdm:
    """A bar on a terminal or in a notebook, silence anywhere else (a log, a test, a
    pipe).

    Args:
        total: of the units, by `update` of the bar.
        unit: as "epoch".
        what: is going on; None for no word.
    """
    notebook = in_notebook()
    file = _Cell() if notebook else sys.stderr
    quiet = not notebook and not file.isatty()
    return tqdm(
        total=total,
        unit=unit,
        desc=what,
        file=file,
        disable=quiet,
        leave=notebook,
        ncols=72,
    )


class _Cell:
    """One line of a notebook's output, written anew each time, so that the book shows
    the last state only.
    """

    encoding = "utf-8"

    def __init__(self) -> None:
        from IPython.display import display

        self.line = display({"text/plain": ""}, raw=True, display_id=True)

    def write(self, text: str) -> None:
        if text.strip():
            self.line.update({"text/plain": text.strip()}, raw=True)

    def flush(self) -> None:
        """Nothing is held back."""
