"""The benchmark: `python -m adlab.bench METHOD DATA` runs a method on a data set and
adds a row to a table. The functions here read the tables that come with the book.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adlab._checks import check_choice
from adlab._methods import methods as known_methods

if TYPE_CHECKING:
    import pandas as pd
    from pandas.io.formats.style import Styler

MEASURES = ("image_auroc", "pixel_auroc", "pro", "average_precision", "best_f1")
COSTS = ("fit_seconds", "score_seconds", "peak_memory_mb", "parameters")
OPEN_SET = ("accuracy", "oscr", "fpr95")
CASES = ("category", "normal_class", "split")
WORDS = {  # options that are words, as they stand in a label
    "resnet18": "ResNet-18",
    "resnet18-random": "random ResNet-18",
    "texnet-random": "random texnet",
    "efficientnet_lite0": "EfficientNet-Lite0",
    "efficientnet_lite0-random": "random EfficientNet-Lite0",
    "l2": "L2",
    "ssim": "SSIM",
    "cw-ssim": "CW-SSIM",
    "error": "error alone",
    "variance": "variance alone",
    "softmax": "softmax score",
    "max-logit": "maximum logit",
    "msp": "softmax probability",
    "openmax": "OpenMax",
    "discriminative": "discriminative network alone",
    "reconstructive": "reconstructive network alone",
}
TITLES = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "pro": "PRO",
    "average_precision": "average precision",
    "best_f1": "best F1",
    "accuracy": "accuracy",
    "oscr": "OSCR",
    "fpr95": "FPR at 95 % TPR",
}


def results(
    data: str,
    methods: Sequence[str] | None = None,
    until: str | None = None,
    folder: Path | None = None,
) -> pd.DataFrame:
    """The rows of a data set, the newest of each run.

    Args:
        data: its name, as of `adlab.data.load`.
        methods: only these; None for all.
        until: only methods of the chapters up to that of this one.
        folder: of the tables; None for those that come with the book.

    Returns:
        One row a run. Beside the columns of the table: `name`, the method with those of
        its options that are words, as "padim, resnet18", and with others where they
        differ between rows; `case`, the class, category or
        split; and `chapter`. In the order of the chapters.

    Raises:
        FileNotFoundError: there is no table of that data set.
        ValueError: an unknown method, none with a row, or a file that is no such table.
    """
    import pandas as pd

    from adlab.bench.rows import KEY, read, results_folder

    chapters = {name: method.chapter for name, method in known_methods().items()}
    file = (folder or results_folder()) / f"{data}.csv"
    if not file.is_file():
        raise FileNotFoundError(f"data: expected a name with a table, got no {file}")
    rows = pd.DataFrame(read(file)).drop_duplicates([*KEY], keep="last")
    for column in (*MEASURES, *OPEN_SET, *COSTS, "n_train", "n_test", "seed"):
        rows[column] = pd.to_numeric(rows[column])
    rows["name"] = names(rows)
    rows["case"] = [_case(json.loads(options)) for options in rows["data_options"]]
    rows["chapter"] = rows["method"].map(chapters)
    for method in methods or ():
        check_choice("methods", method, chapters)
    if methods is not None:
        rows = rows[rows["method"].isin(methods)]
    if until is not None:
        check_choice("until", until, chapters)
        rows = rows[rows["chapter"] <= chapters[until]]
    if rows.empty:
        raise ValueError(
            f"methods: expected some that have rows in {file}, got {methods or until}"
        )
    return rows.sort_values(["chapter", "name", "case", "seed"], ignore_index=True)


def _case(data_options: dict[str, object]) -> str:
    given = [data_options[name] for name in CASES if name in data_options]
    return str(given[0]) if given else ""


def names(rows: pd.DataFrame) -> list[str]:
    """The name of each row: see `name_of`. Where that is not enough to tell settings
    apart, what differs stands behind it.
    """
    settings = [json.loads(text) for text in rows["settings"]]
    short = [name_of(m, s) for m, s in zip(rows["method"], settings, strict=True)]
    result = []
    for name, own in zip(short, settings, strict=True):
        others = [s for n, s in zip(short, settings, strict=True) if n == name]
        differing = [
            option
            for option in sorted({key for s in others for key in s} - {"weights"})
            if len({json.dumps(s.get(option)) for s in others}) > 1
        ]
        extra = [f"{o}={own[o]}" for o in differing if o in own]
        result.append(", ".join([name, *extra]))
    return result


def name_of(method: str, settings: dict[str, object]) -> str:
    """A method with those of its options that are words: "padim, resnet18"."""
    return ", ".join([method, *_words(settings)])


def _words(settings: dict[str, object]) -> list[str]:
    return [
        value
        for option, value in sorted(settings.items())
        if isinstance(value, str) and option not in ("weights", "image_score")
    ]


def labels(rows: pd.DataFrame) -> tuple[dict[str, str], dict[str, str]]:
    """The names of `results` as a person would write them.

    Args:
        rows: of `results`, of one data set.

    Returns:
        Name to label, as "PaDiM, ResNet-18"; where other options tell two names apart,
        a letter in brackets stands for them, as "SPADE, ResNet-18 [a]". And letter to
        these options, as "n_neighbors=50".
    """
    found, letters = {}, {}
    for _, row in rows.drop_duplicates("name").iterrows():
        method, words = row["method"], _words(json.loads(row["settings"]))
        title = known_methods()[method].title
        label = ", ".join([title, *(WORDS.get(word, word) for word in words)])
        more = row["name"][len(", ".join([method, *words])) :].strip(", ")
        if more:
            letter = letters.setdefault(more, chr(ord("a") + len(letters)))
            label += f" [{letter}]"
        found[row["name"]] = label
    return found, {letter: options for options, letter in letters.items()}


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a name: the mean of each measure and cost, over all cases and seeds.

    Args:
        rows: of `results`.

    Returns:
        Indexed by `name`, in the order of `rows`. Columns: the measures and costs;
        behind each measure one with `_std`, the standard deviation over the seeds of
        the mean over the cases (NaN for one seed); `cases` and `seeds`, how many;
        `images` and `epochs`, what it was trained with (the most of any case; NaN where
        nothing is trained in epochs); `chapter`, of the method; and `label`, see `labels`.
    """
    columns = [*MEASURES, *OPEN_SET, *COSTS]
    by_seed = rows.groupby(["name", "seed"], sort=False)[columns].mean()
    groups = by_seed.groupby("name", sort=False)
    table, spread = groups.mean(), groups.std(ddof=0)
    one = groups.size() == 1
    for measure in (*MEASURES, *OPEN_SET):
        table[f"{measure}_std"] = spread[measure].mask(one)
    by_name = rows.groupby("name", sort=False)
    table["cases"], table["seeds"] = by_name["case"].nunique(), groups.size()
    table["images"] = by_name["n_train"].max()
    table["epochs"] = [_epochs(row) for _, row in by_name.first().iterrows()]
    table["chapter"] = by_name["chapter"].first()
    table["label"] = table.index.map(labels(rows)[0])
    return table


def _epochs(row: pd.Series) -> float:
    """As given, or what the method takes by default."""
    from adlab.bench.run import run_of

    run = run_of(row)
    default = run.task.defaults(run).get("epochs", float("nan"))
    return run.options.get("epochs", default)


def published(data: str, folder: Path | None = None) -> pd.DataFrame:
    """The figures of papers and of other code: `case`, `name` as of `results`,
    `measure`, `value` and `source`.
    """
    import pandas as pd

    from adlab.bench.rows import results_folder

    table = pd.read_csv(
        (folder or results_folder()) / "published.csv", dtype={"case": str}
    )
    return table[table["data"] == data].reset_index(drop=True)


def beside(
    rows: pd.DataFrame, measure: str, folder: Path | None = None
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Our means and what was published, as `adlab.plots.beside_published` draws them.

    Args:
        rows: of `results`, of one data set.
        measure: a column, "image_auroc" and the like; methods without it are left out.
        folder: see `results`.

    Returns:
        `value`, `std` and `label` of each name; and name to published value, for those
        that have one for all their cases.
    """
    table = summary(rows).dropna(subset=[measure])
    table = table[[measure, f"{measure}_std", "label"]]
    table.columns = ["value", "std", "label"]
    reference = published(rows["data"].iloc[0], folder)
    found = {
        name: published_mean(
            reference, name, measure, set(rows.case[rows.name == name])
        )
        for name in table.index
    }
    return table, {name: value for name, value in found.items() if value is not None}


def compare(rows: pd.DataFrame, *measures: str, folder: Path | None = None) -> Styler:
    """Our means beside what was published, as a table to be shown.

    Args:
        rows: of `results`, of one data set.
        *measures: columns, those of `TITLES`.
        folder: see `results`.

    Returns:
        A row a label; `.data` is the table without its form. For each measure the mean
        ± the standard deviation over the seeds, in percent, and the published value for
        the same cases, where there is one for all of them; the images and epochs of
        training; how many cases and seeds there are. Below, what the letters of
        the labels stand for.
    """
    import pandas as pd

    table = summary(rows)
    result = pd.DataFrame(index=table["label"].rename(None))
    for measure in measures:
        title = TITLES[measure]
        result[title] = [
            as_percent(mean, std)
            for mean, std in zip(table[measure], table[f"{measure}_std"], strict=True)
        ]
        found = beside(rows, measure, folder)[1]
        if found:
            result[f"{title}, published"] = [
                f"{100 * found[name]:.1f}" if name in found else ""
                for name in table.index
            ]
    for column in ("images", "epochs", "cases", "seeds"):
        result[column] = ["" if n != n else str(int(n)) for n in table[column]]
    notes = [f"[{letter}] {options}" for letter, options in labels(rows)[1].items()]
    return shown(result, "; ".join(notes))


def shown(table: pd.DataFrame, notes: str = "") -> Styler:
    """A table as it stands in the book: numbers to the right, notes below."""
    style = table.style.set_table_attributes('class="dataframe"')
    return style.set_caption(notes) if notes else style


def as_percent(mean: float, std: float) -> str:
    """In percent, as 98.1 ± 0.2; nothing of what is NaN."""
    if mean != mean:
        return ""
    return f"{100 * mean:.1f}" + ("" if std != std else f" ± {100 * std:.1f}")


def published_mean(
    reference: pd.DataFrame, name: str, measure: str, cases: set[str]
) -> float | None:
    """The published mean over the cases, or None where some of them have no value. A
    case "mean" stands for all ten classes.
    """
    own = reference[(reference.name == name) & (reference.measure == measure)]
    values = dict(zip(own["case"], own["value"], strict=True))
    if "mean" in values and len(cases) == 10:
        return float(values["mean"])
    if not cases <= set(values):
        return None
    return float(sum(values[case] for case in cases) / len(cases))


def command(row: pd.Series) -> str:
    """What to type to get a row of `results` again."""
    from adlab.bench.run import run_of

    return "python -m adlab.bench " + shlex.join(run_of(row).arguments())
