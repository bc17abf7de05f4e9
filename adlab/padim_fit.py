"""Fit PaDiM on several processes, or machines, each of which sees a part of the images:

    torchrun --nproc-per-node=2 -m adlab.padim_fit FOLDER --out model.safetensors

FOLDER holds normal images; the name of an embedded data set will do as well.

The processes gather moments apart, and add them up; the first one writes the model. It
is the one that a single process would have fitted. Images are read when they are
needed, so memory does not grow with their number.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from adlab.data import EMBEDDED, load
from adlab.data.files import SUFFIXES, check_sizes, crop_middle, read_image, resize
from adlab.detector import check_destination
from adlab.padim import PaDiM, PatchMoments
from adlab.vectors import Moments


class ImageFolder(Dataset):
    """The images below a folder, in any depth, read one at a time.

    They are grey if the first one is, by name, and else RGB.

    Args:
        path: the folder.
        size: side to which images are resized; None keeps their size.
        crop: side of the square that is then cut from the middle; None for the whole.

    Raises:
        FileNotFoundError: no such folder, or no image in it.
        ValueError: an image that cannot be read, a colour image among grey ones, or
            one of another height and width; a size or crop below 1.
    """

    def __init__(
        self, path: str | os.PathLike, size: int | None = None, crop: int | None = None
    ):
        self.size, self.crop = check_sizes(size, crop)
        files = Path(path).rglob("*")
        self.files = sorted(f for f in files if f.suffix.lower() in SUFFIXES)
        if not self.files:
            raise FileNotFoundError(f"path: expected a folder with images, got {path}")
        self.channels = len(read_image(self.files[0]))
        self.shape = self[0].shape

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        file = self.files[index]
        image = read_image(file)
        if len(image) > self.channels:
            raise ValueError(f"{file}: expected a grey image, as {self.files[0]} is")
        image = image.expand(self.channels, -1, -1)
        image = resize(image, self.size, mode="bilinear", antialias=True)
        image = crop_middle(image, self.crop, file)
        if index and image.shape != self.shape:
            raise ValueError(
                f"{file}: expected shape {tuple(self.shape)}, as {self.files[0]} has, "
                f"got {tuple(image.shape)}; with a size, images are resized"
            )
        return image


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


def fit(detector: PaDiM, images: Dataset) -> PaDiM:
    """Fit a detector; every process of the group, where there is one, takes its share.

    Args:
        detector: the same in every process.
        images: the same in every process: all of them, at least one a process.

    Returns:
        The detector, fitted to all images, in every process.

    Raises:
        ValueError: fewer images than processes, and whatever `PaDiM.fit` refuses.
    """
    if not dist.is_initialized():
        return detector.fit(images)
    rank, n = dist.get_rank(), dist.get_world_size()
    if len(images) < n:
        raise ValueError(f"images: expected one a process ({n}), got {len(images)}")
    share = Subset(images, range(rank, len(images), n))
    return detector.fit(add_up(detector.moments(share)))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = _parser().parse_args(arguments)
    check_destination(options.out)
    images = (
        TensorDataset(load(options.images).train.images)
        if options.images in EMBEDDED
        else ImageFolder(options.images, options.size, options.crop)
    )
    detector = PaDiM(
        options.backbone,
        options.layers,
        options.n_features,
        seed=options.seed,
        device=options.device,
    )
    distributed = "RANK" in os.environ  # set by torchrun
    if distributed:
        dist.init_process_group("gloo")
    try:
        fit(detector, images)
        if not distributed or dist.get_rank() == 0:
            detector.save(options.out)
            print(f"{len(images)} images, {options.out}: {detector}")
    finally:
        if distributed:
            dist.destroy_process_group()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="adlab.padim_fit", description="Fit PaDiM, on several processes."
    )
    add = parser.add_argument
    add("images", help="folder of normal images, or an embedded data set")
    add("--out", required=True, help="file to write, *.safetensors")
    add("--backbone", default="texnet", help="name of the network, or NAME:FILE")
    add("--layers", nargs="+", help="names of its layers; default: the three usual")
    add("--n-features", type=int, default=100, help="channels to draw")
    add("--size", type=int, help="side to which images are resized")
    add("--crop", type=int, help="side of the square cut from the middle")
    add("--seed", type=int, default=0, help="of the draw of channels")
    add("--device", default="cpu", help="of each process; gloo adds up on the CPU")
    return parser


if __name__ == "__main__":
    main()
