"""Work shared by several processes, or machines, each of which sees a part of the images:

    torchrun --nproc-per-node=2 -m adlab fit FOLDER --out model.safetensors

To fit PaDiM the processes gather moments apart, and add them up: the result is the one of
a single process. Images are read when they are needed, so memory does not grow with
their number.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.utils.data import Dataset, Subset

from adlab.detector import Detector, reading_of
from adlab.padim import PaDiM, PatchMoments
from adlab.vectors import Moments

Item = TypeVar("Item")


@contextmanager
def processes() -> Iterator[None]:
    """The group of processes that torchrun has started, while the block runs; where it
    has not, nothing.
    """
    if "RANK" not in os.environ:  # set by torchrun
        yield
        return
    dist.init_process_group("gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process, from 0 on."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(items: Sequence[Item]) -> Sequence[Item]:
    """The items that are for this process: every n-th of them."""
    return items[rank() :: size()]


def gather(items: list[Item]) -> list[Item]:
    """The items of all processes, in every process."""
    if size() == 1:
        return items
    parts: list[list[Item]] = [[] for _ in range(size())]
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def fit(detector: Detector, images: Dataset) -> Detector:
    """Fit a detector; every process of the group, where there is one, takes its share.

    Args:
        detector: the same in every process; of several, a PaDiM.
        images: the same in every process: all of them, at least one a process.

    Returns:
        The detector, fitted to all images, in every process.

    Raises:
        ValueError: another method, or fewer images than processes, and whatever the
            detector's `fit` refuses.
    """
    if size() == 1:
        return detector.fit(images)
    if not isinstance(detector, PaDiM):
        raise ValueError(
            f"method: expected padim on {size()} processes, got {detector!r}"
        )
    if len(images) < size():
        raise ValueError(
            f"images: expected one a process ({size()}), got {len(images)}"
        )
    part = Subset(images, share(range(len(images))))
    moments = add_up(detector.moments(part))
    moments.reading = reading_of(images)
    return detector.fit(moments)


def add_up(moments: PatchMoments) -> PatchMoments:
    """The moments of all processes together, in every process."""
    for layer in moments.layers:
        _add_up(layer)
    return moments


def _add_up(layer: Moments) -> None:
    """Means first; then each process moves its scatter from its own mean to that of
    all, as a count of n at a distance g from it adds n g gᵀ.
    """
    count, own_mean = layer.count, layer.mean
    total = torch.tensor(count)
    dist.all_reduce(total)
    mean = (own_mean * count).contiguous()
    dist.all_reduce(mean)
    mean /= total
    gap = own_mean - mean
    rows = gap[..., -layer.last :, None]
    scatter = layer.scatter.addcmul(rows, gap[..., None, :], value=count).contiguous()
    dist.all_reduce(scatter)
    layer.count, layer.mean, layer.scatter = int(total), mean, scatter
