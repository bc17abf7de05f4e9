"""Draw the picture of the welcome page and of the README: `python tools/welcome.py
[FILE]`.

The detector is that of chapter 1; the pictures are the first of each kind in a test set
it never saw.
"""

import sys
from pathlib import Path

import adlab
from adlab.vectors import Gaussian, Patchwise

KINDS = ["bead", "film", "hole", "thick"]
DEFAULT = Path(__file__).parents[1] / "book" / "figures" / "welcome.png"


def draw():
    """Fit on normal pictures of nanofibres; return the figure of four defects and their
    anomaly maps.
    """
    splits = adlab.data.load("nanofibres")
    detector = Patchwise(Gaussian(), patch_size=20, features="statistics").fit(
        splits.train
    )
    examples = splits.test[[splits.test.kinds.index(kind) for kind in KINDS]]
    maps = detector.anomaly_map(examples)
    return adlab.plots.map_grid(examples.images, maps, examples.masks, KINDS)


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    path.parent.mkdir(exist_ok=True)
    draw().savefig(path, dpi=120, metadata={"Software": None})
