"""Distances to the nearest training vectors, or to the nearest of a few centres."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adlab._methods import method
from adlab._parameters import Count
from adlab.vectors.base import VectorDetector, squared_distances

CHUNK = 8192  # training vectors at once
CACHED = 256  # at once, so that their distances stay in the cache


def k_means(x: Tensor, n_clusters: int, seed: int) -> object:
    """scikit-learn's k-means, fitted to vectors (N, D) from one start."""
    from sklearn import cluster

    return cluster.KMeans(n_clusters, n_init=1, random_state=seed).fit(x.cpu().numpy())


def distance_to_nearest(x: Tensor, gallery: Tensor, chunk: int = CACHED) -> Tensor:
    """Euclidean distance to the nearest row of a gallery, which is read in chunks.

    ‖x − g‖² = ‖x‖² + ‖g‖² − 2 x·g costs one product of matrices. Large numbers cancel
    in it, so the mean is taken away first, and what rounding leaves below zero is zero.

    Args:
        x: (…, M, D).
        gallery: (…, G, D), one for each entry of the leading dimensions.
        chunk: rows at once; the result does not depend on it, beyond rounding.

    Returns:
        (…, M).
    """
    centre = gallery.mean(-2, keepdim=True)
    x, gallery = x - centre, gallery - centre
    least = torch.full((1,), torch.inf).to(x)
    for part in gallery.split(chunk, -2):
        lengths = part.square().sum(-1)[..., None, :]
        squared = lengths - x @ (2 * part).mT  # without the ‖x‖²
        least = torch.minimum(least, squared.amin(-1))
    return (least + x.square().sum(-1)).clamp_min(0).sqrt()


@method("knn", "nearest neighbour, pixels", chapter=1)
@dataclass(eq=False, repr=False)
class KNN(VectorDetector):
    """The score is the mean Euclidean distance to the k nearest training vectors.

    It remembers all training vectors: memory grows with N, and so does the time to
    score.

    Args:
        n_neighbors: number of neighbours, at most N.
        seed: unused, here as in every detector.
        device: unused: scikit-learn searches on the CPU.

    Source: Ramaswamy, Rastogi & Shim 2000, "Efficient algorithms for mining outliers
    from large data sets".
    """

    n_neighbors: Count = 1

    def _fit(self, images: object) -> None:
        self.vectors_ = torch.cat([x.cpu() for x in self._stream(images)])
        if len(self.vectors_) < self.n_neighbors:
            raise ValueError(
                f"images: expected at least n_neighbors = {self.n_neighbors}, got {len(self.vectors_)}"
            )

    def _score(self, batch: Tensor) -> Tensor:
        search = self._search if self._constants is None else self._search_by_torch
        return search(batch).mean(1)

    def _search(self, batch: Tensor) -> Tensor:
        """Distances to the k nearest, (N, k)."""
        from sklearn.neighbors import NearestNeighbors

        vectors, x = self.vectors_.cpu(), batch.cpu()
        centre = vectors.mean(0)  # without it the digits of large numbers cancel
        index = NearestNeighbors(n_neighbors=self.n_neighbors, algorithm="brute")
        index.fit((vectors - centre).numpy())
        return torch.from_numpy(index.kneighbors((x - centre).numpy())[0])

    def _search_by_torch(self, batch: Tensor) -> Tensor:
        """The same for a module, which can hold no scikit-learn."""
        x = batch.to(self.vectors_.device)
        parts = (squared_distances(x, y) for y in self.vectors_.split(CHUNK))
        nearest = torch.cat([_smallest(part, self.n_neighbors) for part in parts], 1)
        return _smallest(nearest, self.n_neighbors).sqrt()


def _smallest(numbers: Tensor, k: int) -> Tensor:
    """The k smallest of each row, or all if there are fewer."""
    return numbers.topk(min(k, numbers.shape[1]), largest=False).values


@dataclass(eq=False, repr=False)
class KMeans(VectorDetector):
    """The score is the Euclidean distance to the nearest of K cluster centres.

    A summary of `KNN`: it scores against K centres instead of N vectors. The training
    vectors are held in memory while it fits, and forgotten then.

    Args:
        n_clusters: K, at most N.
        seed: of the start.
        device: "auto", "cpu", "cuda", …; scikit-learn clusters on the CPU.

    Source: Lloyd 1982, "Least squares quantization in PCM"; the start of Arthur &
    Vassilvitskii 2007, "k-means++: the advantages of careful seeding".
    """

    n_clusters: Count = 8

    def _fit(self, images: object) -> None:
        x = torch.cat([batch.to(torch.float64) for batch in self._stream(images)])
        if len(x) < self.n_clusters:
            raise ValueError(
                f"images: expected at least n_clusters = {self.n_clusters}, got {len(x)}"
            )
        model = k_means(x, self.n_clusters, self.seed % 2**32)
        self.centres_ = torch.from_numpy(model.cluster_centers_).to(x)

    def _score(self, batch: Tensor) -> Tensor:
        x = batch.to(self.centres_)
        distances = [(x - centre).norm(dim=1) for centre in self.centres_]
        return torch.stack(distances).amin(0)
