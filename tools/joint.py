"""Train the joint embedding that comes with the package: `python tools/joint.py`.

The pictures and the captions are those of `adlab.data.materials`: six materials, three
kinds of defects, half of the pictures flawless. Leather, and the kind "twist", are left
out, for chapter 18.

Prints the loss, and how often a picture finds its own caption among a hundred others;
writes what was learned, without texnet.
"""

import argparse
import time
from pathlib import Path

import torch

from adlab.data.materials import captioned
from adlab.detector import write_whole
from adlab.zero_shot import WEIGHTS, WORDS, JointEmbedding, pretrain


def save(joint: JointEmbedding, path: Path) -> None:
    """Write the weights, all or nothing."""
    from safetensors.torch import save as to_bytes

    state = joint.state_dict().items()
    kept = {k: v.contiguous() for k, v in state if not k.startswith("backbone.")}
    write_whole(path, to_bytes(kept))


@torch.no_grad()
def top_5(joint: JointEmbedding, seed: int, n: int = 100) -> float:
    """Share of fresh pictures whose own caption is among the five nearest of n."""
    pictures, captions = captioned(n, seed=seed)
    cosines = joint.whole(joint.features(pictures.images)) @ joint.texts(captions).T
    own = cosines.diagonal()[:, None]
    return float(((cosines > own + 1e-6).sum(1) < 5).float().mean())


def main() -> None:
    """Train, report, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=8000)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--path", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    start = time.perf_counter()
    pictures, captions = captioned(options.n, seed=options.seed)
    joint, losses = pretrain(
        pictures.images, captions, options.epochs, seed=options.seed
    )
    if tuple(joint.rows) != WORDS:
        raise SystemExit(f"WORDS: expected {' '.join(joint.rows)}")
    save(joint, options.path)
    print(f"loss {losses[0]:.3f} to {losses[-1]:.3f}")
    print(f"own caption among the first 5 of 100: {top_5(joint, options.seed + 1):.2f}")
    print(f"{time.perf_counter() - start:.0f} s, {torch.get_num_threads()} thread(s)")


if __name__ == "__main__":
    main()
