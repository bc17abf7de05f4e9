"""Figures that several chapters draw. Each function returns a matplotlib Figure, to
change or save; but `outline` draws on one, and `frames` puts several behind a slider. A
notebook shows it where it is the last line of a cell, and elsewhere `plt.show()` does.

Normal is blue and anomalous is orange, with another line style or hatch beside the
colour, so that nothing is told by colour alone.
"""

from __future__ import annotations

import textwrap
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from PIL import Image

from adlab import metrics
from adlab._checks import (
    as_array,
    check_images,
    check_labels,
    check_masks,
    check_number,
    check_scores,
)
from adlab.show import in_notebook

if TYPE_CHECKING:
    import pandas as pd

NORMAL, ANOMALOUS = "#0173b2", "#de8f05"  # seaborn's colour-blind palette
_WIDTH = 8.0  # inches: the width of a page of the book


def image_grid(
    images: object,
    titles: Sequence[str] | None = None,
    masks: object = None,
    columns: int = 6,
) -> Figure:
    """Draw images side by side; anomalous regions are outlined where masks are given.

    Args:
        images: (N, C, H, W) in [0, 1].
        titles: N short texts, or None.
        masks: bool (N, H, W), or None.
        columns: images in a row, at least 1.

    Raises:
        ValueError, TypeError: bad images, or titles or masks of another number.
    """
    images = check_images(images)
    check_number("columns", columns, 1, whole=True)
    n, _, height, width = images.shape
    titles = _check_texts("titles", titles, n)
    masks = None if masks is None else check_masks(masks, (n, height, width))
    columns = min(columns, n)
    rows = -(-n // columns)
    figure, axes = _figure(rows, columns, height / width)
    for ax in axes.flat:
        ax.axis("off")
    for i, ax in zip(range(n), axes.flat, strict=False):
        _show_image(ax, images[i])
        ax.set_title(titles[i], fontsize=9)
        if masks is not None:
            outline(ax, masks[i])
    return _done(figure)


def map_grid(
    images: object,
    maps: object,
    masks: object = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Draw images above their anomaly maps; all maps share one colour scale.

    Args:
        images: (N, C, H, W) in [0, 1].
        maps: (N, H, W), higher = more anomalous.
        masks: bool (N, H, W), outlined on both rows, or None.
        titles: N short texts, or None.

    Raises:
        ValueError, TypeError: bad images or maps, or arguments of different lengths.
    """
    images = check_images(images)
    n, _, height, width = images.shape
    maps = check_scores(maps, "maps", ndim=3)
    if maps.shape != (n, height, width):
        raise ValueError(
            f"maps: expected shape {(n, height, width)}, as the images have; got {maps.shape}"
        )
    titles = _check_texts("titles", titles, n)
    masks = None if masks is None else check_masks(masks, maps.shape)
    figure, axes = _figure(2, n, height / width, bar=1.0)
    for i in range(n):
        _show_image(axes[0, i], images[i])
        axes[0, i].set_title(titles[i], fontsize=9)
        heat = axes[1, i].imshow(
            maps[i], cmap="magma", vmin=maps.min(), vmax=maps.max()
        )
        for ax in axes[:, i]:
            ax.axis("off")
            if masks is not None:
                outline(ax, masks[i])
    figure.colorbar(heat, ax=axes, label="anomaly score", shrink=0.8, aspect=30)
    return _done(figure)


def outline(axis: Axes, mask: object) -> None:
    """Draw the edge of a region on an image or a map, white within black: it is seen on
    every grey, and on every colour of a map. Nothing is drawn of an empty mask, or of
    one that covers the whole image.

    Args:
        axis: shows the image or the map, a unit a pixel.
        mask: bool (H, W), at least 2 × 2.

    Raises:
        ValueError, TypeError: a bad mask.
    """
    mask = as_array("mask", mask)
    if mask.ndim != 2 or min(mask.shape) < 2:
        raise ValueError(
            f"mask: expected (H, W) of at least 2 × 2, got shape {mask.shape}"
        )
    mask = check_masks(mask, mask.shape, "mask")
    if mask.any() and not mask.all():
        for color, width in (("black", 2.8), ("white", 1.2)):
            axis.contour(mask, levels=[0.5], colors=[color], linewidths=width)


def score_histogram(
    scores: object,
    labels: object,
    thresholds: Mapping[str, float] | None = None,
    bins: int = 30,
) -> Figure:
    """Draw the scores of normal and anomalous images as two histograms, with thresholds
    as vertical lines.

    Args:
        scores: (N,), higher = more anomalous.
        labels: (N,), 0 normal, 1 anomalous.
        thresholds: name to threshold, in the unit of the scores, or None; an infinite
            one, which calls all scores the same, is drawn at the edge.
        bins: number of bars.

    Raises:
        ValueError, TypeError: bad scores, labels or thresholds.
    """
    scores = check_scores(scores)
    labels = check_labels(labels, len(scores))
    check_number("bins", bins, 1, whole=True)
    thresholds = {} if thresholds is None else thresholds
    _check_mapping("thresholds", thresholds, "a number")
    for name, value in thresholds.items():
        if not (isinstance(value, float | np.floating) and np.isinf(value)):
            check_number(f"thresholds[{name!r}]", value)
    figure, ax = plt.subplots(figsize=(_WIDTH * 0.75, 3.2), layout="constrained")
    edges = _edges(scores, bins)
    for label, name, colour, hatch in [
        (False, "normal", NORMAL, None),
        (True, "anomalous", ANOMALOUS, "///"),
    ]:
        sns.histplot(
            x=scores[labels == label],
            bins=edges,
            stat="density",
            color=colour,
            hatch=hatch,
            label=name,
            ax=ax,
            alpha=0.6,
        )
    styles = ["--", ":", "-.", (0, (1, 3))]
    for i, (name, value) in enumerate(thresholds.items()):
        where, label = _drawable(value, edges)
        style = {"color": _ink(), "linestyle": styles[i % len(styles)]}
        ax.axvline(where, label=f"{name}{label}", **style)
    ax.set(xlabel="anomaly score", ylabel="density")
    ax.legend()
    return _done(figure)


@dataclass(frozen=True, repr=False)
class Frames:
    """Pictures behind a slider: `html`, a piece of a page that needs no kernel, no
    network and nothing beside it, and `still`, one of the pictures as PNG, for where
    there is no page. A notebook shows it where it is the last line of a cell.
    """

    html: str
    still: bytes

    def _repr_html_(self) -> str:
        return self.html

    def _repr_png_(self) -> bytes:
        return self.still


def frames(figures: Iterable[Figure], labels: Sequence[str], start: int = 0) -> Frames:
    """Put figures behind a slider, which the arrow keys move, too. Nothing moves by
    itself. On paper, and where scripts do not run, there is the picture `start` alone.

    Args:
        figures: of one size; each is closed once it is drawn, so `map(draw, steps)`
            holds one at a time.
        labels: a text for each, which says what is seen: it is read out in its place.
        start: number of the picture that is shown at first, from 0.

    Raises:
        ValueError, TypeError: no figures, figures of several sizes, or labels of another
            number.
    """
    pictures = [_png(figure) for figure in figures]
    if len({size for size, _ in pictures}) != 1:
        raise ValueError(
            "figures: expected at least one, all of one size in pixels; got "
            f"{len(pictures)}, of {sorted({size for size, _ in pictures})}"
        )
    labels = _check_texts("labels", labels, len(pictures))
    check_number("start", start, 0, len(pictures) - 1, whole=True)
    return Frames(
        _page([png for _, png in pictures], labels, start), pictures[start][1]
    )


def roc(curves: Mapping[str, tuple[object, object]]) -> Figure:
    """Draw ROC curves, with the area under each in the legend.

    Args:
        curves: name to (scores, labels), each (N,).

    Raises:
        ValueError, TypeError: no curve, bad scores, or labels of one class only.
    """
    _check_mapping("curves", curves, "(scores, labels)")
    if not curves:
        raise ValueError(
            "curves: expected at least one name with (scores, labels), got none"
        )
    for name, pair in curves.items():
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(
                f"curves[{name!r}]: expected (scores, labels), got {type(pair).__name__}"
            )
    points = [metrics.roc_curve(scores, labels) for scores, labels in curves.values()]
    areas = [metrics.auroc(scores, labels) for scores, labels in curves.values()]
    figure, ax = plt.subplots(figsize=(4.6, 4.2), layout="constrained")
    for name, (fpr, tpr, _), area, style in zip(
        curves, points, areas, _styles(len(curves)), strict=True
    ):
        ax.plot(fpr, tpr, label=f"{name}, AUROC {area:.3f}", **style)
    ax.plot(
        [0, 1], [0, 1], color="grey", linewidth=1, linestyle=":", label="chance, 0.500"
    )
    ax.set(
        xlabel="false positive rate",
        ylabel="true positive rate",
        xlim=(-0.01, 1),
        ylim=(0, 1.01),
        aspect="equal",
    )
    ax.legend(loc="lower right", fontsize=8)
    return _done(figure)


def ladder(
    table: pd.DataFrame,
    measures: Sequence[str] = ("image_auroc", "pro"),
    costs: Sequence[str] = ("seconds", "peak_memory_mb"),
) -> Figure:
    """Draw how good methods are against what they cost, a number for each, a colour and a
    shape for each part of the book; and say which are best.

    Args:
        table: one row a method, as of `adlab.bench.summary`: the measures, in [0, 1],
            their `_std`, and the costs. `seconds` is of fitting and scoring together.
            `chapter`, if it is there, says to which part a method belongs.
        measures: a row of panels each.
        costs: a column of panels each, on a logarithmic axis of one decade or more.

    Raises:
        ValueError: no rows, or columns that the table has not.
    """
    table = table.copy()
    if "seconds" in costs and {"fit_seconds", "score_seconds"} <= set(table.columns):
        table["seconds"] = table["fit_seconds"] + table["score_seconds"]
    _check_columns(table, [*measures, *(f"{m}_std" for m in measures), *costs])
    figure, axes = plt.subplots(
        len(measures),
        len(costs),
        figsize=(_WIDTH, 2.7 * len(measures) + 0.4),
        sharex="col",
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    looks = [_look(chapter) for chapter in table.get("chapter", [1] * len(table))]
    for row, measure in zip(axes, measures, strict=True):
        for ax, cost in zip(row, costs, strict=True):
            for i, (name, line) in enumerate(table.iterrows(), 1):
                x, y = max(line[cost], 0.1), line[measure]
                std = np.nan_to_num(line[f"{measure}_std"])
                label = f"{i} {line.get('label', name)}"
                style = {"ms": 11, "mfc": ax.get_facecolor(), "mew": 2}
                ax.errorbar(x, y, std, label=label, **looks[i - 1], **style)
                where = {"ha": "center", "va": "center_baseline", "fontsize": 6.5}
                ax.annotate(str(i), (x, y), zorder=3, **where)
            ax.set_xscale("log")
            ax.set_xlim(_decade(table[cost].clip(lower=0.1), ax.get_xlim()))
            ax.xaxis.set_minor_formatter(NullFormatter())
        row[0].set_ylabel(_AXES.get(measure, measure))
    for ax, cost in zip(axes[-1], costs, strict=True):
        ax.set_xlabel(_AXES.get(cost, cost))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    small = {"fontsize": 7.5, "markerscale": 0.6}
    figure.legend(handles, labels, loc="outside lower center", ncols=3, **small)
    figure.suptitle(_best(table, measures, costs), fontsize=8.5)
    return _done(figure)


def beside_published(table: pd.DataFrame, reference: Mapping[str, float]) -> Figure:
    """Draw our values beside published ones, a line a method.

    Args:
        table: one row a method: `value`, in [0, 1], and `std`, its spread or NaN; and
            `label`, if it is not to be drawn under its name.
        reference: name of a method to the published value, for those that have one.

    Raises:
        ValueError: no rows, or columns that the table has not.
    """
    _check_columns(table, ["value", "std"])
    height = 0.34 * len(table) + 0.9
    figure, ax = plt.subplots(figsize=(_WIDTH * 0.8, height), layout="constrained")
    places = np.arange(len(table))[::-1]
    ax.errorbar(
        100 * table["value"],
        places,
        xerr=100 * table["std"].fillna(0),
        fmt="o",
        color=NORMAL,
        label="here",
    )
    at = dict(zip(table.index, places, strict=True))
    known = [(value, at[name]) for name, value in reference.items() if name in at]
    if known:
        x, y = zip(*known, strict=True)
        style = {"facecolors": "none", "edgecolors": ANOMALOUS, "s": 55, "zorder": 3}
        ax.scatter(100 * np.array(x), y, marker="D", label="published", **style)
    names = [textwrap.fill(name, 32) for name in table.get("label", table.index)]
    ax.set(yticks=places, yticklabels=names, xlabel="percent")
    ax.set_ylim(-0.6, len(table) - 0.4)
    ax.grid(axis="x", alpha=0.4)
    ax.legend(fontsize=8)
    return _done(figure)


_PARTS = {1: "o", 3: "s", 6: "D", 9: "h", 11: "p", 13: "8"}  # by their first chapters


def _look(chapter: int) -> dict[str, object]:
    """The colour and the shape of the part of the book that a chapter is in."""
    part = sum(chapter >= first for first in _PARTS) - 1
    colour = sns.color_palette("colorblind")[part]
    return {"color": colour, "fmt": list(_PARTS.values())[part]}


def _best(table: pd.DataFrame, measures: Sequence[str], costs: Sequence[str]) -> str:
    """The methods that are best by each measure and by each cost, in a sentence."""
    ends = [(m, "highest", table[m].eq(table[m].max())) for m in measures]
    ends += [(c, "lowest", table[c].eq(table[c].min())) for c in costs]
    said = [
        f"{how} {_AXES.get(column, column)}: {', '.join(map(str, np.flatnonzero(best) + 1))}"
        for column, how, best in ends
        if best.any()
    ]
    words = f"{'; '.join(said)}. Each part of the book has a colour and a shape."
    return textwrap.fill(words[0].upper() + words[1:], 110)


_AXES = {
    "image_auroc": "AUROC of images",
    "pro": "PRO",
    "pixel_auroc": "AUROC of pixels",
    "seconds": "seconds to fit and to score",
    "peak_memory_mb": "peak memory in MB",
}


def _decade(values: pd.Series, limits: tuple[float, float]) -> tuple[float, float]:
    """The limits of a logarithmic axis, or one decade about the values where they are
    closer than that: of one value alone, or of equal ones, the axis would have no
    width, and nothing would be drawn.
    """
    low, high = values.min(), values.max()
    if not high / low < 10 ** (1 / 1.1):  # with its margins it spans a decade; or NaN
        return limits
    centre = np.sqrt(low * high)
    return centre / np.sqrt(10), centre * np.sqrt(10)


def _check_mapping(name: str, value: object, what: str) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(
            f"{name}: expected a dict of name to {what}, got {type(value).__name__}"
        )


def _edges(scores: np.ndarray, bins: int) -> np.ndarray:
    """Of the bars, which are no narrower than what numbers of this size can tell apart."""
    low, high = scores.min(), scores.max()
    least = 2 * bins * np.spacing(np.abs(scores).max())
    room = max(least, 0.5) if low == high else least * (high - low < least)
    return np.histogram_bin_edges(scores, bins, (low - room, high + room))


def _check_columns(table: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in table.columns]
    if missing or len(table) == 0:
        raise ValueError(
            f"table: expected rows with the columns {', '.join(columns)}; "
            f"got {len(table)} rows, without {', '.join(missing) or 'none of them'}"
        )


def _styles(n: int) -> list[dict[str, object]]:
    colours = sns.color_palette("colorblind", max(n, 3))
    dashes = ["-", "--", "-.", (0, (3, 1, 1, 1, 1, 1)), (0, (5, 2))]
    return [
        {"color": colours[i], "linestyle": dashes[i % len(dashes)], "linewidth": 2}
        for i in range(n)
    ]


def _figure(
    rows: int, columns: int, aspect: float, bar: float = 0.0
) -> tuple[Figure, np.ndarray]:
    """Axes for images of that aspect, and `bar` inches beside them for a colour bar."""
    side = min((_WIDTH - bar) / columns, 2.6)
    size = (side * columns + bar, rows * (side * aspect + 0.1) + 0.2)
    return plt.subplots(
        rows, columns, figsize=size, squeeze=False, layout="constrained"
    )


def _done(figure: Figure) -> Figure:
    """Hand the figure over; in a notebook to the caller alone, or it is shown twice."""
    if in_notebook():
        plt.close(figure)
    return figure


def _show_image(ax: Axes, image: object) -> None:
    pixels = image.permute(1, 2, 0).squeeze(-1).cpu().numpy()
    ax.imshow(pixels, cmap="gray", vmin=0, vmax=1)


def _ink() -> str:
    """What the style in use writes with: black, or white on a dark ground."""
    return plt.rcParams["text.color"]


def _drawable(threshold: float, edges: np.ndarray) -> tuple[float, str]:
    """Where a threshold is drawn, and what its name has to add."""
    if np.isfinite(threshold):
        return threshold, ""
    return edges[0 if threshold < 0 else -1], f" ({threshold})"


def _png(figure: object) -> tuple[tuple[int, int], bytes]:
    """The size in pixels and the PNG of a figure, which is closed; of 256 colours it
    takes a third of the bytes.
    """
    if not isinstance(figure, Figure):
        raise TypeError(f"figures: expected Figures, got {type(figure).__name__}")
    drawn, small = BytesIO(), BytesIO()
    figure.savefig(drawn, format="png", dpi=100)
    plt.close(figure)
    picture = Image.open(drawn).convert("RGB")
    picture.quantize().save(small, "png", optimize=True)
    return picture.size, small.getvalue()


def _page(pictures: Sequence[bytes], labels: Sequence[str], start: int) -> str:
    """Pictures, one of them in sight, and a slider that brings another into sight."""
    n = len(pictures)
    texts = [escape(f"{labels[i]} (picture {i + 1} of {n})") for i in range(n)]
    shown = [
        f'<img alt="{texts[i]}" src="data:image/png;base64,{b64encode(png).decode()}"'
        f"{'' if i == start else ' hidden'}>"
        for i, png in enumerate(pictures)
    ]
    return _FRAMES.format(
        pictures="\n".join(shown), last=n - 1, start=start, text=texts[start]
    )


# A slider knows the arrow keys, Page Up, Page Down, Home and End by itself.
_FRAMES = """\
<div class="adlab-frames">
<style>
.adlab-frames img {{ max-width: 100%; height: auto; background: white; }}
.adlab-frames img[hidden] {{ display: none !important; }}
.adlab-frames input {{ display: block; width: 100%; margin: 0.5em 0; }}
@media print {{ .adlab-frames input {{ display: none; }} }}
</style>
<noscript><style>.adlab-frames input {{ display: none; }}</style></noscript>
{pictures}
<input type="range" min="0" max="{last}" value="{start}" autocomplete="off"
 aria-label="picture" aria-valuetext="{text}"
 oninput="const all = this.parentNode.querySelectorAll('img'), now = all[this.value];
 all.forEach((each) => {{ each.hidden = each !== now; }});
 this.setAttribute('aria-valuetext', now.alt);
 this.nextElementSibling.textContent = now.alt;">
<div>{text}</div>
</div>
"""


def _check_texts(name: str, texts: Sequence[str] | None, n: int) -> Sequence[str]:
    texts = [""] * n if texts is None else texts
    if isinstance(texts, str) or not hasattr(texts, "__len__"):
        raise TypeError(
            f"{name}: expected a sequence of texts, got {type(texts).__name__}"
        )
    if len(texts) != n:
        raise ValueError(f"{name}: expected {n} texts, one an image; got {len(texts)}")
    return texts
