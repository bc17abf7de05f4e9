"""Time EM beside scikit-learn's, from the same start for as many iterations: `python
benchmarks/em.py`.
"""

import statistics
import time
import warnings

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as ReferenceMixture

from adlab.vectors import GaussianMixture, m_step


def clouds(n: int = 100_000, d: int = 10, k: int = 8, seed: int = 0) -> np.ndarray:
    """Vectors (n, d) from k overlapping Gaussians."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [
            rng.normal(size=(n // k, d)) @ rng.normal(size=(d, d))
            + 2 * rng.normal(size=d)
            for _ in range(k)
        ]
    )


def main(k: int = 8, n_iterations: int = 10, repeats: int = 5) -> None:
    """Print the median seconds of both, taken in turns, their ratio, and how far the
    results lie apart.
    """
    warnings.simplefilter(
        "ignore", ConvergenceWarning
    )  # to stop after a number of iterations is the plan
    x = clouds(k=k)
    vectors = torch.from_numpy(x)
    labels = KMeans(k, n_init=1, random_state=0).fit_predict(x)
    start = torch.eye(k, dtype=torch.float64)[torch.from_numpy(labels).long()]
    weights, means, covariances = m_step(vectors, start)
    own = GaussianMixture(k, tol=0, max_iter=n_iterations)
    reference = ReferenceMixture(
        k,
        tol=0,
        max_iter=n_iterations,
        weights_init=weights.numpy(),
        means_init=means.numpy(),
        precisions_init=np.linalg.inv(covariances.numpy()),
    )
    calls = {
        "adlab": lambda: own._climb(vectors, start),
        "scikit-learn": lambda: reference.fit(x),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - begin)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"{n_iterations} iterations; N, D, K = {x.shape[0]}, {x.shape[1]}, {k}")
    for name, value in median.items():
        print(f"{name:14}{value:8.3f} s")
    print(f"faster by     {median['scikit-learn'] / median['adlab']:8.2f}")
    apart = np.abs(
        own._climb(vectors, start)["means_"].numpy() - reference.means_
    ).max()
    print(f"means apart by{apart:8.1g}")


if __name__ == "__main__":
    main()
