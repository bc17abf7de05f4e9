"""Figures: each is handed over once, and holds what it is said to hold."""

import io
from base64 import b64decode, b64encode
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from bad_input import IMAGES, MAPS, MASKS, NAN, refuses, spoiled
from matplotlib.artist import Artist
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from PIL import Image

from adlab import metrics, plots

RNG = np.random.default_rng(0)
SCORES = np.concatenate([RNG.normal(0, 1, 60), RNG.normal(3, 1, 40)])
LABELS = np.repeat([0, 1], [60, 40])


def pictures(n, channels=1, height=8, width=6):
    return torch.rand(
        n, channels, height, width, generator=torch.Generator().manual_seed(0)
    )


def squares(n, height=8, width=6):
    masks = torch.zeros(n, height, width, dtype=torch.bool)
    masks[1:, 2:5, 2:4] = True
    return masks


@pytest.fixture(autouse=True)
def closed():
    """No test leaves its figures to the next."""
    yield
    plt.close("all")


FIGURES = {
    "grid": lambda: plots.image_grid(pictures(5)),
    "coloured-grid": lambda: plots.image_grid(
        pictures(2, 3), ["one", "two"], squares(2), columns=1
    ),
    "maps": lambda: plots.map_grid(
        pictures(3), pictures(3)[:, 0], squares(3), ["a", "b", "c"]
    ),
    "one-map": lambda: plots.map_grid(pictures(1), np.zeros((1, 8, 6))),
    "histogram": lambda: plots.score_histogram(
        SCORES, LABELS, {"3 sigma": 2.9, "5 %": 1.7}
    ),
    "one-class-histogram": lambda: plots.score_histogram(SCORES[:60], LABELS[:60]),
    "constant-histogram": lambda: plots.score_histogram([2.0, 2.0], [0, 1]),
    "close-histogram": lambda: plots.score_histogram([1, 1 + 3e-16, 1], [0, 1, 1]),
    "large-histogram": lambda: plots.score_histogram([1e17, 1e17], [0, 1]),
    "roc": lambda: plots.roc({"one": (SCORES, LABELS), "other": (-SCORES, LABELS)}),
    "many-roc": lambda: plots.roc(
        {f"method {i}": (SCORES + i, LABELS) for i in range(12)}
    ),
}


@pytest.mark.filterwarnings(
    "error", "ignore::DeprecationWarning", "ignore:All-NaN:RuntimeWarning"
)
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_handed_over_and_is_the_one_that_pyplot_shows(name):
    plt.close("all")
    figure = FIGURES[name]()
    assert isinstance(figure, Figure)
    assert plt.get_fignums() == [figure.number]
    plt.close("all")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=50)
    assert (
        np.asarray(plt.imread(io.BytesIO(file.getvalue())))[..., :3].std() > 0.01
    )  # not blank


@pytest.mark.parametrize("name", FIGURES)
def test_a_notebook_shows_a_figure_once(name, monkeypatch):
    """It shows what a cell returns, and all that pyplot still holds at its end."""
    plt.close("all")
    monkeypatch.setattr(plots, "in_notebook", lambda: True)
    assert isinstance(FIGURES[name](), Figure)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_fits_the_page(name):
    width, height = FIGURES[name]().get_size_inches()
    assert 0 < width <= 8
    assert 0 < height <= 12


@pytest.mark.parametrize(
    "call",
    [
        lambda: plots.image_grid(pictures(2), titles=["one"]),
        lambda: plots.map_grid(pictures(2), pictures(3)[:, 0]),
        lambda: plots.score_histogram(SCORES, LABELS, {"a": np.nan}),
        lambda: plots.roc({"one": (SCORES, LABELS), "other": (SCORES, LABELS * 0)}),
    ],
)
def test_bad_input_leaves_no_figure_open(call):
    plt.close("all")
    with pytest.raises(ValueError, match="expected"):
        call()
    assert plt.get_fignums() == []


def shown(figure):
    return [ax for ax in figure.axes if ax.images]


@pytest.mark.parametrize(
    ("n", "columns", "shape"),
    [(1, 6, (1, 1)), (5, 2, (3, 2)), (6, 6, (1, 6)), (7, 6, (2, 6))],
)
def test_image_grid_has_a_place_for_each_image(n, columns, shape):
    figure = plots.image_grid(pictures(n), columns=columns)
    assert len(figure.axes) == shape[0] * shape[1]
    assert figure.axes[0].get_subplotspec().get_gridspec().get_geometry() == shape
    assert len(shown(figure)) == n
    assert not any(ax.axison for ax in figure.axes)


@pytest.mark.parametrize("channels", [1, 3])
def test_image_grid_shows_the_very_pixels_on_the_full_scale(channels):
    images = pictures(3, channels) * 0.2 + 0.3
    for ax, image in zip(shown(plots.image_grid(images)), images, strict=True):
        np.testing.assert_array_equal(
            ax.images[0].get_array(), image.permute(1, 2, 0).squeeze(-1)
        )
        if channels == 1:
            assert ax.images[0].get_clim() == (0, 1)


def outlines(ax):
    kind = ContourSet if issubclass(ContourSet, Artist) else PathCollection
    return [artist for artist in ax.get_children() if isinstance(artist, kind)]


def test_image_grid_has_titles_and_outlines():
    figure = plots.image_grid(pictures(3), ["a", "b", "c"], squares(3))
    assert [ax.get_title() for ax in figure.axes] == ["a", "b", "c"]
    assert [len(outlines(ax)) for ax in figure.axes] == [0, 2, 2]


def test_an_outline_goes_round_the_anomaly():
    [_, ax] = plots.image_grid(pictures(2), masks=squares(2)).axes
    for outline in outlines(ax):
        x, y = outline.get_paths()[0].vertices.T
        assert (x.min(), x.max(), y.min(), y.max()) == (1.5, 3.5, 1.5, 4.5)


def test_an_outline_is_white_within_black_and_none_where_there_is_no_edge():
    _, (drawn, empty, full) = plt.subplots(1, 3)
    plots.outline(drawn, squares(2)[1])
    plots.outline(empty, squares(1)[0])
    plots.outline(full, np.ones((8, 6)))
    assert [len(outlines(ax)) for ax in (drawn, empty, full)] == [2, 0, 0]
    black, white = outlines(drawn)
    assert [to_rgb(line.get_edgecolor()[0]) for line in (black, white)] == [
        (0,) * 3,
        (1,) * 3,
    ]
    assert black.get_linewidth()[0] > white.get_linewidth()[0]


def test_map_grid_has_images_above_maps_and_one_colour_bar():
    maps = pictures(3)[:, 0].numpy() * np.array([1, 2, 5]).reshape(3, 1, 1) - 1
    figure = plots.map_grid(pictures(3), maps, squares(3), ["a", "b", "c"])
    axes = shown(figure)
    assert len(axes) == 6
    [bar] = [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]
    assert bar.get_ylabel() == "anomaly score"
    assert [ax.get_title() for ax in axes[:3]] == ["a", "b", "c"]
    for ax, heat in zip(axes[3:], maps, strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), heat)
        assert ax.images[0].get_clim() == (maps.min(), maps.max())
    assert [len(outlines(ax)) for ax in axes] == [0, 2, 2] * 2


def test_score_histogram_tells_the_classes_apart_without_colour():
    figure = plots.score_histogram(
        SCORES, LABELS, {"3 sigma": 2.9, "5 %": 1.7}, bins=20
    )
    [ax] = figure.axes
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert sorted(texts) == ["3 sigma", "5 %", "anomalous", "normal"]
    bars = {group.get_label(): group for group in ax.containers}
    assert {name: len(group) for name, group in bars.items()} == {
        "normal": 20,
        "anomalous": 20,
    }
    edges = [[bar.get_x() for bar in group] for group in bars.values()]
    np.testing.assert_allclose(
        *edges
    )  # the same bins, or heights could not be compared
    assert {group.patches[0].get_hatch() for group in bars.values()} == {None, "///"}
    for name, colour in [("normal", plots.NORMAL), ("anomalous", plots.ANOMALOUS)]:
        assert bars[name].patches[0].get_facecolor()[:3] == to_rgb(colour)
        assert sum(
            bar.get_width() * bar.get_height() for bar in bars[name]
        ) == pytest.approx(1)
    assert [line.get_xdata()[0] for line in ax.lines] == [2.9, 1.7]
    assert len({line.get_linestyle() for line in ax.lines}) == 2
    assert ax.get_xlabel() == "anomaly score"


def test_a_threshold_beyond_the_scores_is_in_sight():
    [ax] = plots.score_histogram(SCORES, LABELS, {"far": 50}).axes
    assert ax.get_xlim()[1] >= 50


def test_roc_curves_are_those_of_the_metrics():
    figure = plots.roc(
        {"one": (SCORES, LABELS), "other": (-SCORES, torch.from_numpy(LABELS))}
    )
    [ax] = figure.axes
    assert len(ax.lines) == 3
    fpr, tpr, _ = metrics.roc_curve(SCORES, LABELS)
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), fpr)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), tpr)
    area = metrics.auroc(SCORES, LABELS)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == [
        f"one, AUROC {area:.3f}",
        f"other, AUROC {1 - area:.3f}",
        "chance, 0.500",
    ]


def test_roc_curves_can_be_told_apart_without_colour():
    [ax] = plots.roc({f"method {i}": (SCORES, LABELS) for i in range(5)}).axes
    assert len({str(line._dash_pattern) for line in ax.lines[:-1]}) == 5


@pytest.mark.parametrize("name", FIGURES)
def test_the_settings_of_the_reader_stay_untouched(name):
    before = dict(plt.rcParams)
    FIGURES[name]()
    assert dict(plt.rcParams) == before


def rungs(seconds, memory):
    """Return a table as `plots.ladder` takes it, of one method a pair of costs."""
    n = len(seconds)
    measures = {"image_auroc": np.linspace(0.6, 0.9, n), "pro": 0.5}
    spreads = {"image_auroc_std": 0.02, "pro_std": 0.01}
    costs = {"seconds": seconds, "peak_memory_mb": memory}
    return pd.DataFrame(measures | spreads | costs, index=[f"m{i}" for i in range(n)])


@pytest.mark.parametrize(
    ("seconds", "memory"),
    [
        ([0.29], [18.0]),  # one method
        ([3.0, 3.0], [100.0, 100.0]),  # equal costs
        ([3.0, 3.01, 3.02], [18.0, 18.1, 900.0]),  # nearly equal ones
        ([1.0, 9.0], [10.0, 70.0]),
        ([0.0, 0.0], [0.0, 5000.0]),  # below what is measured
        ([float("nan"), 2.0], [float("nan"), float("nan")]),  # not measured
    ],
)
@pytest.mark.filterwarnings(
    "error", "ignore::DeprecationWarning", "ignore:All-NaN:RuntimeWarning"
)
def test_every_rung_of_the_ladder_is_in_sight(seconds, memory):
    figure = plots.ladder(rungs(seconds, memory))
    figure.savefig(io.BytesIO())  # which lays it out
    for ax, costs in zip(figure.axes, [seconds, memory] * 2, strict=True):
        low, high = ax.get_xlim()
        assert high / low >= 10 * (1 - 1e-9)
        centres = np.array([line.get_xydata()[0] for line in ax.lines])
        known = centres[~np.isnan(costs)]
        inside = ax.transAxes.inverted().transform(ax.transData.transform(known))
        assert ((inside > 0.02) & (inside < 0.98)).all()


def test_the_ladder_says_what_is_best_and_shows_the_parts_of_the_book():
    table = rungs([3.0, 1.0, 2.0], [10.0, 30.0, 20.0])
    table["chapter"] = [1, 2, 7]
    figure = plots.ladder(table, ["image_auroc"])
    said = "Highest AUROC of images: 3; lowest seconds to fit and to score: 2; lowest"
    assert " ".join(figure.get_suptitle().split()).startswith(said)
    rings = figure.axes[0].lines
    looks = [(each.get_color(), each.get_marker()) for each in rings]
    assert looks[0] == looks[1] != looks[2]


def test_one_rung_of_the_ladder_is_drawn():
    figure, file = plots.ladder(rungs([0.29], [18.0])), io.BytesIO()
    figure.savefig(file, format="rgba", dpi=figure.dpi)
    width, height = (figure.get_size_inches() * figure.dpi).astype(int)
    pixels = np.frombuffer(file.getvalue(), np.uint8).reshape(height, width, 4)
    pixels = pixels[..., :3].astype(int)
    colour = np.round(255 * np.array(to_rgb(figure.axes[0].lines[0].get_color())))
    for ax in figure.axes:
        x, y = ax.transData.transform(ax.lines[0].get_xydata()[0]).round().astype(int)
        beside = pixels[len(pixels) - y - 12 : len(pixels) - y + 12, x - 12 : x + 12]
        assert (np.abs(beside - colour).max(2) < 3).sum() > 20  # its ring
        assert 0.4 < ax.transAxes.inverted().transform((x, y))[0] < 0.6


def lines(ax):
    return {line.get_label(): line for line in ax.lines}


@pytest.mark.parametrize(("sign", "edge"), [(-1, 0), (1, -1)])
def test_a_threshold_beyond_all_scores_is_drawn_at_the_edge(sign, edge):
    threshold = sign * np.inf
    given = {"best F1": np.float32(threshold), "other": 2.0}
    [ax] = plots.score_histogram(SCORES, LABELS, given, bins=5).axes
    drawn = lines(ax)
    limit = np.histogram_bin_edges(SCORES, 5)[edge]
    assert drawn[f"best F1 ({threshold})"].get_xdata() == pytest.approx([limit] * 2)
    assert drawn["other"].get_xdata() == [2, 2]
    plt.gcf().savefig(io.BytesIO())


def test_the_best_threshold_can_be_drawn_where_all_are_called():
    scores, labels = np.arange(4.0), [1, 1, 1, 0]
    _, threshold = metrics.best_f1(scores, labels)
    assert threshold == -np.inf
    plots.score_histogram(scores, labels, {"best F1": threshold})


def contrast(colour, ground):
    """The contrast ratio of two colours, 1 to 21, as the guidelines for web content
    (WCAG 2) define it.
    """

    def luminance(colour):
        rgb = np.array(to_rgb(colour))
        linear = np.where(rgb <= 0.03928, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    low, high = sorted([luminance(colour), luminance(ground)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_thresholds_and_numbers_of_methods_are_legible_on_any_ground(style):
    with plt.style.context(style):
        [ax] = plots.score_histogram(SCORES, LABELS, {"a": 1.0}).axes
        assert contrast(lines(ax)["a"].get_color(), ax.get_facecolor()) > 7
        ax = plots.ladder(costly(), ["pro"], ["seconds"]).axes[0]
        [number] = [text for text in ax.texts if text.get_text() == "1"]
        disc = ax.lines[0].get_markerfacecolor()
        assert contrast(number.get_color(), disc) > 7


def costly():
    return pd.DataFrame({"pro": [0.5], "pro_std": [0.1], "seconds": [3.0]}, ["one"])


# Pictures behind a slider


class Tags(HTMLParser):
    """The attributes of the tags of a piece of a page, by the name of the tag."""

    def __init__(self, html):
        super().__init__()
        self.found = {}
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.setdefault(tag, []).append(dict(attrs))


def phase(k, size=(3, 2)):
    figure, ax = plt.subplots(figsize=size)
    ax.plot(np.sin(np.arange(9) + k))
    return figure


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_each_picture_is_there_with_its_words_and_one_is_in_sight():
    labels = ["none", "one <half>", "all"]
    shown = plots.frames(map(phase, range(3)), labels, start=1)
    tags = Tags(shown.html).found
    assert [each["alt"].partition(" (picture ")[0] for each in tags["img"]] == labels
    assert ["hidden" in each for each in tags["img"]] == [True, False, True]
    [slider] = tags["input"]
    assert (slider["type"], slider["min"], slider["max"]) == ("range", "0", "2")
    assert slider["value"] == "1"
    assert slider["aria-valuetext"] == tags["img"][1]["alt"]
    assert plt.get_fignums() == []


def test_pictures_of_frames_are_those_of_the_figures():
    shown = plots.frames(map(phase, range(2)), ["a", "b"])
    data = [each["src"].partition(",")[2] for each in Tags(shown.html).found["img"]]
    for k, text in enumerate(data):
        file = io.BytesIO()
        phase(k).savefig(file, format="png", dpi=100)
        drawn, kept = pixels(file.getvalue()), pixels(b64decode(text))
        assert drawn.shape == kept.shape == (200, 300, 3)
        assert np.abs(drawn - kept).mean() < 2
    assert b64decode(data[0]) == shown.still != b64decode(data[1])


def test_frames_fetch_nothing_and_do_not_move_by_themselves():
    page = plots.frames([phase(0)], ["alone"]).html
    tags = Tags(page).found
    assert "script" not in tags and "link" not in tags
    assert all(each["src"].startswith("data:") for each in tags["img"])
    assert "http" not in page and "url(" not in page
    handlers = [name for each in tags["input"] for name in each if name[:2] == "on"]
    assert handlers == ["oninput"]  # it moves when it is moved


def test_a_notebook_gets_a_page_and_a_still_picture():
    pytest.importorskip("IPython")
    from IPython.core.formatters import DisplayFormatter

    shown = plots.frames(map(phase, range(2)), ["one", "other"], start=1)
    bundle, _ = DisplayFormatter().format(shown)
    assert bundle["text/html"] == shown.html
    assert bundle["image/png"] in (shown.still, b64encode(shown.still).decode())


# Bad input


CUT, WORST = MAPS[:, 1:], {"a": NAN}


test_bad_input = refuses(
    (lambda: plots.image_grid(IMAGES * 2), ValueError, "images…[0, 1]"),
    (lambda: plots.image_grid(IMAGES, ["one"]), ValueError, "titles…8…1"),
    (lambda: plots.image_grid(IMAGES, masks=MASKS[:3]), ValueError, "masks…(8, 6, 5)"),
    (lambda: plots.image_grid(IMAGES, columns=0), ValueError, "columns…0"),
    (lambda: plots.outline(None, MASKS), ValueError, "mask…(H, W)…(8, 6, 5)"),
    (lambda: plots.outline(None, MASKS[0, :1]), ValueError, "mask…2 × 2…(1, 5)"),
    (lambda: plots.outline(None, MAPS[0]), ValueError, "mask…0 and 1"),
    (lambda: plots.outline(None, ["a"]), TypeError, "mask…numbers"),
    (lambda: plots.frames([], []), ValueError, "figures…at least one…0"),
    (lambda: plots.frames([SCORES], ["a"]), TypeError, "figures…ndarray"),
    (lambda: plots.frames([phase(0)], ["a", "b"]), ValueError, "labels…1 texts…2"),
    (lambda: plots.frames([phase(0)], "a"), TypeError, "labels…str"),
    (lambda: plots.frames([phase(0)], ["a"], 1), ValueError, "start…[0, 0]…1"),
    (
        lambda: plots.frames([phase(0), phase(0, (2, 2))], ["a", "b"]),
        ValueError,
        "figures…one size…(200, 200)",
    ),
    (lambda: plots.map_grid(IMAGES, CUT), ValueError, "maps…(8, 6, 5)…(8, 5, 5)"),
    (lambda: plots.map_grid(IMAGES, spoiled(MAPS, NAN)), ValueError, "maps…NaN"),
    (lambda: plots.map_grid(IMAGES, MAPS, titles=["a"]), ValueError, "titles…8…1"),
    (lambda: plots.image_grid(IMAGES, 5), TypeError, "titles…int"),
    (lambda: plots.image_grid(IMAGES[:2], "ab"), TypeError, "titles…str"),
    (lambda: plots.score_histogram(SCORES, LABELS, 1.0), TypeError, "thresholds…float"),
    (lambda: plots.score_histogram(SCORES, LABELS, [1]), TypeError, "thresholds…list"),
    (lambda: plots.score_histogram(SCORES, LABELS * 3), ValueError, "labels…3"),
    (lambda: plots.score_histogram(SCORES, LABELS, bins=0), ValueError, "bins…0"),
    (lambda: plots.score_histogram(SCORES, LABELS, WORST), ValueError, "thresholds"),
    (lambda: plots.roc({"a": (SCORES, 3, 3)}), TypeError, "curves['a']…tuple"),
    (lambda: plots.roc({"a": 5}), TypeError, "curves['a']…int"),
    (lambda: plots.roc({}), ValueError, "curves…at least one"),
    (lambda: plots.roc((SCORES, LABELS)), TypeError, "curves…tuple"),
    (lambda: plots.roc({"a": (SCORES, LABELS * 0)}), ValueError, "labels…both classes"),
)
