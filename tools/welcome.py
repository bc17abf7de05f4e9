"""Draw the picture of the welcome page and of the README: `python tools/welcome.py
[FILE]`.

The detector is that of chapter 1; the pictures are the first of each kind in a test set
it never saw. Letters are large enough for a phone, where the picture is 400 pixels wide.
"""

import sys
from pathlib import Path

from matplotlib import pyplot as plt

import adlab
from adlab.vectors import Gaussian, Patchwise

KINDS = {
    "good": "normal",
    "hole": "hole",
    "thick": "thick fibre",
    "broken": "broken fibre",
}
COLUMNS = ("image", "anomaly map", "score and threshold")
BLUE, ORANGE, SKY = (
    "#0072b2",
    "#d55e00",
    "#56b4e9",
)  # of Okabe and Ito: seen apart by everybody
DEFAULT = Path(__file__).parents[1] / "book" / "figures" / "welcome.png"


def show_decision(ax, score, normal, threshold):
    """Draw a score among those of normal images, the threshold, and the verdict."""
    sign, verdict, colour = ("≤", "normal", BLUE)
    if score > threshold:
        sign, verdict, colour = (">", "anomalous", ORANGE)
    ax.hist(normal, bins=12, color="0.8")
    ax.axvline(threshold, ymax=0.7, color="black", linestyle="--", linewidth=1)
    ax.plot([score], [0.8], "o", color=colour, markersize=9)
    ax.set(yticks=[], xlim=(2, 8.5), ylim=(0, 15))
    ax.spines[["left", "top", "right"]].set_visible(False)
    words = f"{score:.1f} {sign} {threshold:.1f}: {verdict}"
    ax.set_title(words, color=colour, fontsize=10, y=0.85)


def show_pair(axes, example, heat, limits):
    """Draw an image and its map, with the outline of its true defect."""
    axes[0].imshow(example.images[0, 0], cmap="gray", vmin=0, vmax=1)
    axes[1].imshow(heat, cmap="magma", vmin=limits[0], vmax=limits[1])
    for ax in axes:
        ax.set(xticks=[], yticks=[])
        if example.masks.any():
            ax.contour(example.masks[0], [0.5], colors=SKY, linewidths=1.2)


def draw():
    """Fit on normal pictures of nanofibres; return the figure: for one picture of each
    kind the anomaly map, and the decision by its score.
    """
    splits = adlab.data.load("nanofibres")
    detector = Patchwise(Gaussian(), patch_size=20, features="statistics")
    normal = detector.fit(splits.train).anomaly_score(splits.val)
    threshold = adlab.decision.quantile_threshold(normal, fpr=0.05)
    examples = splits.test[[splits.test.kinds.index(kind) for kind in KINDS]]
    scores, maps = detector.score_and_map(examples)
    figure, axes = plt.subplots(
        len(KINDS), 3, figsize=(5.2, 6.6), layout="constrained", sharex="col"
    )
    for i, name in enumerate(KINDS.values()):
        show_pair(axes[i, :2], examples[[i]], maps[i], (maps.min(), maps.max()))
        show_decision(axes[i, 2], float(scores[i]), normal, threshold)
        axes[i, 0].set_ylabel(name)
    for ax, words in zip(axes[-1], COLUMNS, strict=True):
        ax.set_xlabel(words)
    return figure


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    path.parent.mkdir(exist_ok=True)
    draw().savefig(path, dpi=160, metadata={"Software": None})
