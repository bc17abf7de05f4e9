"""What an inspection found, in a folder: a table of scores and verdicts, a picture of
each map, and one page that shows them, which needs no network and no other file.
"""

from __future__ import annotations

import base64
import csv
import io
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

import numpy as np
from PIL import Image
from torch import Tensor

from adlab import __version__, distributed
from adlab.data.files import Reading
from adlab.detector import Detector
from adlab.inspection import Normal, normal_of, threshold

if TYPE_CHECKING:
    from markupsafe import Markup

SHOWN = 200  # images on the page, at most
SIDE = 320  # pixels of their longer side there, at most
BRIGHTEST = 1.5  # of the range of the maps of normal images


class Verdict(NamedTuple):
    """The name of a file, its score, what it is called, and what it is in truth, where
    that is known.
    """

    file: str
    score: float
    verdict: str
    kind: str = ""


@contextmanager
def whole_folder(path: str | os.PathLike) -> Iterator[Path]:
    """A folder to write into, the same for all processes, which takes its name when the
    block ends well; else nothing is left of it.

    Raises:
        FileExistsError: there is something of that name already, beyond an empty folder.
        FileNotFoundError: the folder that is to hold it does not exist.
    """
    path = check_new_folder(path)
    first = distributed.rank() == 0
    part = distributed.gather([path.with_name(f".{path.name}.{os.getpid()}.part")])[0]
    try:
        part.mkdir(exist_ok=True)
        yield part
        distributed.gather([])  # all have written
        if first:
            if path.is_dir():
                path.rmdir()
            part.rename(path)
    finally:
        if first:
            shutil.rmtree(part, ignore_errors=True)


def check_new_folder(path: str | os.PathLike) -> Path:
    """Refuse a path where no folder can be made; before long work, not after it."""
    path = Path(path).absolute()
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"report: expected a new folder in one that exists, got {path}"
        )
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(f"report: expected a new or empty folder, got {path}")
    return path


def write_table(file: TextIO, verdicts: Sequence[Verdict]) -> None:
    """The verdicts as comma-separated values; the kinds where any is known."""
    known = any(verdict.kind for verdict in verdicts)
    n = len(Verdict._fields) if known else len(Verdict._fields) - 1
    rows = csv.writer(file)
    rows.writerow(Verdict._fields[:n])
    rows.writerows(verdict[:n] for verdict in verdicts)


# -- maps


def map_file(folder: Path, name: str) -> Path:
    """Where the picture of the map of a file of that name lies."""
    return folder / "maps" / f"{name}.png"


def write_map(file: Path, anomaly_map: Tensor, normal: Normal) -> None:
    """A map (H, W) in colours, as `heat` gives them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    heat(anomaly_map, normal).save(file)


def heat(anomaly_map: Tensor, normal: Normal) -> Image.Image:
    """A map (H, W) in colours: dark up to the middle of normal maps, brightest from
    `BRIGHTEST` of their range on.
    """
    from matplotlib import colormaps

    span = BRIGHTEST * (normal.high - normal.low) or 1.0
    shares = ((anomaly_map - normal.low) / span).clamp(0, 1)
    return Image.fromarray(colormaps["inferno"](shares.numpy(), bytes=True)[..., :3])


# -- the page


def write_report(
    folder: Path,
    verdicts: Sequence[Verdict],
    paths: Mapping[str, Path],
    detector: Detector,
    measures: Mapping[str, float],
    *,
    fpr: float,
    model: str,
) -> None:
    """Write `scores.csv` and `report.html`, beside the pictures of the maps.

    Args:
        folder: to write to.
        verdicts: of all images.
        paths: of the image files, by their names in the verdicts.
        detector: what scored them.
        measures: by name, in [0, 1]; empty, where the kinds are not known.
        fpr: that the threshold of the detector promises.
        model: the name of its file.
    """
    with (folder / "scores.csv").open("w", newline="", encoding="utf-8") as file:
        write_table(file, verdicts)
    normal, ranked = normal_of(detector), sorted(verdicts, key=lambda v: -v.score)
    limit = threshold(detector, fpr)
    page = _page(
        results=ranked,
        shown=_shown(folder, ranked[:SHOWN], paths, detector.reading),
        n_anomalous=sum(verdict.verdict == "anomalous" for verdict in verdicts),
        threshold=limit,
        promise=promise(len(normal.scores), fpr),
        histogram=_histogram(normal.scores, verdicts, limit),
        measures=measures,
        detector=repr(detector),
        model=model,
        version=__version__,
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def _shown(
    folder: Path,
    verdicts: Sequence[Verdict],
    paths: Mapping[str, Path],
    reading: Reading,
) -> list[dict[str, object]]:
    """What the page says of each image, with its picture and that of its map."""
    return [
        verdict._asdict()
        | {
            "image": _link(_picture(reading.read(paths[verdict.file]))),
            "heat": _link_of(map_file(folder, verdict.file)),
        }
        for verdict in verdicts
    ]


def _page(**content: object) -> str:
    from jinja2 import Environment

    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    return Environment(autoescape=True).from_string(template).render(**content)


def promise(n_held_out: int, fpr: float) -> str:
    """What the threshold of `adlab.inspection.threshold` guarantees, in words."""
    return (
        f"The threshold comes from {n_held_out} normal images that were held out. Of new "
        f"normal images, taken as these were, at most {100 * fpr:.3g} % are above it, on average "
        "over all such draws of images to hold out; whatever the distribution of the "
        "scores. How many anomalies are above it, nobody can promise without having seen "
        "some; and nothing holds where light, camera or product have changed."
    )


def _histogram(
    normal: Sequence[float], verdicts: Sequence[Verdict], limit: float
) -> Markup:
    """An svg of both distributions."""
    from markupsafe import Markup
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from adlab.plots import ANOMALOUS, NORMAL

    scores = [verdict.score for verdict in verdicts]
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "adlab"}):
        figure = Figure(figsize=(7, 2.6), layout="constrained")
        ax = figure.subplots()
        bins = np.histogram_bin_edges([*normal, *scores], 30)
        ax.hist(normal, bins, color=NORMAL, alpha=0.6, label="normal, held out")
        style = {"histtype": "step", "hatch": "///", "color": ANOMALOUS}
        ax.hist(scores, bins, label="these images", **style)
        ax.axvline(limit, color="black", linestyle="--", label="threshold")
        ax.set(xlabel="anomaly score", ylabel="images")
        ax.legend()
        svg = io.StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
    text = svg.getvalue()
    return Markup(text[text.index("<svg") :].replace("<svg", _ACCESSIBLE, 1))


_ACCESSIBLE = (
    '<svg class="histogram" role="img" aria-label="Histogram of the scores of the normal '
    'images held out and of these images, with the threshold"'
)


def _picture(image: Tensor) -> Image.Image:
    """An image (C, H, W) in [0, 1], in 8 bits."""
    pixels = (image * 255).round().byte().permute(1, 2, 0).squeeze(2).numpy()
    return Image.fromarray(pixels)


def _link_of(file: Path) -> str | None:
    """A picture that was written before, if it was."""
    return _link(Image.open(file)) if file.is_file() else None


def _link(picture: Image.Image) -> str:
    """The picture itself, small, as an address that needs no file."""
    picture = picture.copy()
    picture.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
