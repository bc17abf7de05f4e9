"""The benchmark: rows are right, written whole, and found again."""

import csv
import json
import multiprocessing
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import adlab
from adlab import _methods as declared, bench, metrics
from adlab._methods import methods as every_method
from adlab.bench import (
    __main__ as command_line,
    compositions,
    detection,
    methods,
    open_set,
    rows,
)
from adlab.bench.detection import (
    count_labelled,
    hold_out_marked,
    load,
    load_labelled,
)
from adlab.bench.run import TASKS, Run, execute, run_of

FIBRES = {"size": 64, "n_train": 12, "n_val": 2, "n_test": 10}
ROW = {"method": "knn", "settings": "{}", "data": "digits", "data_options": "{}"}


def quick(**changes):
    """A run of a second."""
    fields = {"method": "patch-gaussian", "data": "nanofibres", "data_options": FIBRES}
    return Run(**(fields | changes))


@pytest.fixture(scope="module")
def row():
    return execute(quick(seed=3))[0]


# -- one run


def test_measures_are_those_of_the_detector_by_hand(row):
    splits = adlab.data.load("nanofibres", seed=3, **FIBRES)
    detector = compositions.patch_gaussian(seed=3).fit(splits.train.images)
    scores = detector.anomaly_score(splits.test.images)
    maps = detector.anomaly_map(splits.test.images)
    labels, masks = splits.test.labels, splits.test.masks
    assert row["image_auroc"] == metrics.auroc(scores, labels)
    assert row["average_precision"] == metrics.average_precision(scores, labels)
    assert row["best_f1"] == metrics.best_f1(scores, labels)[0]
    assert row["pixel_auroc"] == metrics.pixel_auroc(maps, masks)
    assert row["pro"] == metrics.pro(maps, masks)


def test_a_row_says_where_it_comes_from(row):
    assert set(row) <= set(rows.COLUMNS)
    assert (row["n_train"], row["n_test"], row["seed"]) == (12, 10, "3")
    assert len(row["digest"]) == 12
    assert row["peak_memory_mb"] >= 0
    assert torch.__version__ in row["versions"]
    assert "cpu" in row["device"] or torch.cuda.is_available()


def test_the_same_run_gives_the_same_row(row):
    again = execute(quick(seed=3))[0]
    same = ("image_auroc", "pixel_auroc", "pro", "digest", "parameters")
    assert {name: again[name] for name in same} == {name: row[name] for name in same}


def test_another_seed_draws_other_data(row):
    assert execute(quick(seed=4))[0]["digest"] != row["digest"]


@pytest.mark.parametrize("locates", [True, False])
def test_seconds_are_those_of_the_fit_and_of_the_maps_if_any(locates, monkeypatch):
    """By a clock that only the calls move on."""
    splits, clock = adlab.data.load("nanofibres", **FIBRES), [1000.0]
    monkeypatch.setattr(
        detection, "time", SimpleNamespace(perf_counter=lambda: clock[0])
    )
    detector = compositions.patch_gaussian()

    def lasts(seconds, call):
        def slow(images):
            clock[0] += seconds
            return call(images)

        return slow

    detector.fit = lasts(7, detector.fit)
    detector.anomaly_map = lasts(20, detector.anomaly_map)
    detector.anomaly_score = lasts(300, detector.anomaly_score)
    if not locates:
        splits = replace(splits, test=replace(splits.test, masks=None))
    measures = detection.measure(detector, splits)
    assert measures["fit_seconds"] == 7
    assert measures["score_seconds"] == (20 if locates else 300)


def test_memory_is_that_of_the_run():
    """256 MB that a method holds for a moment are seen; those before it are not."""
    script = """
import torch
from adlab.bench.memory import Memory
torch.ones(64, 2**20)
memory = Memory()
torch.ones(64, 2**20)
print(memory.peak())
"""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peaks can be forgotten on Linux only")
    printed = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout
    assert 250 < float(printed) < 300


def test_limits_keep_the_share_of_anomalies():
    digits = quick(data="digits", data_options={"normal_class": 3})
    every = load(digits)
    some = load(quick(**vars(digits) | {"max_train": 20, "max_test": 50}))
    assert len(some.train) == 20
    assert len(some.test) == pytest.approx(50, abs=1)
    shares = [float(part.test.labels.double().mean()) for part in (every, some)]
    assert shares[0] == pytest.approx(shares[1], abs=0.03)


@pytest.mark.parametrize("each", every_method().values(), ids=lambda each: each.name)
def test_every_method_can_be_made_and_says_its_chapter(each):
    assert each.task in TASKS
    assert list(Path(__file__).parents[1].glob(f"notebooks/{each.chapter:02}_*.ipynb"))
    if each.task == "detection":
        detector = methods.make_detector(each.name, {}, seed=5)
        assert isinstance(detector, adlab.Detector)
        assert detector.seed == 5
        assert set(each.options) <= set(methods.options_of(each))


def test_a_method_of_ones_own_is_in_the_benchmark(monkeypatch):
    monkeypatch.setattr(declared, "_DECLARED", dict(declared._DECLARED))

    @declared.method("own", "my own", chapter=1)
    class Own(adlab.vectors.KNN):
        """Of a reader."""

    run = quick(method="own", options={"n_neighbors": 3})
    assert execute(run)[0]["settings"] == '{"n_neighbors": 3}'
    assert list(every_method())[:4] == ["gaussian", "knn", "mean-grey", "own"]


def split_before(monkeypatch, name):
    """Let a data set be one that comes divided into training and test images."""
    as_if = replace(adlab.data.DATA_SETS[name], split_before=True)
    monkeypatch.setitem(adlab.data.DATA_SETS, name, as_if)


def classes_of(images, seed):
    """Of which digit's training images each is."""
    digits = [
        adlab.data.load("digits", normal_class=digit, seed=seed).train.images
        for digit in range(10)
    ]
    return [
        next(
            n for n, all_ in enumerate(digits) if (all_ == one).flatten(1).all(1).any()
        )
        for one in images
    ]


@pytest.mark.parametrize("seed", [1, 9])
def test_labelled_anomalies_are_few_and_of_another_class(seed, monkeypatch):
    split_before(monkeypatch, "digits")
    run = Run("deep-sad", "digits", {}, {"normal_class": 9}, seed=seed)
    n_train = len(load(run).train)
    labelled = load_labelled(run, n_train)
    assert len(labelled) == count_labelled(n_train, 0.01)
    assert bool((labelled.labels == 1).all())
    # the tenth seed begins again, and does not meet the normal class
    assert set(classes_of(labelled.images, seed)) == {{1: 1, 9: 0}[seed]}
    assert load_labelled(Run("deep-svdd", "digits"), n_train) is None


@pytest.mark.parametrize(("share", "seed"), [(None, 0), (0.1, 0), (0.1, 3), (0.3, 9)])
def test_labelled_anomalies_of_all_other_classes(share, seed, monkeypatch):
    split_before(monkeypatch, "digits")
    options = {"normal_class": 7}
    run = Run("capsules", "digits", {}, options, seed, max_train=90, labelled=share)
    n_train = len(load(run).train)
    labelled = load_labelled(run, n_train)
    n = len(labelled)
    assert n / (n + n_train) == pytest.approx(share or 0.01, abs=0.01)
    counts = np.bincount(classes_of(labelled.images, seed), minlength=10)
    assert counts[7] == 0
    others = np.delete(counts, 7)
    assert others.max() - others.min() <= 1
    assert bool((labelled.labels == 1).all())


def test_a_share_that_is_asked_for_stands_in_the_row(monkeypatch):
    split_before(monkeypatch, "digits")
    run = Run("deep-sad", "digits", {}, {"normal_class": 3}, labelled=0.1)
    assert run.settings() == {"labelled": 0.1}
    assert run_of({name: str(value) for name, value in run.key().items()}) == run
    as_typed = command_line.parser().parse_args(run.arguments())
    assert as_typed.labelled == 0.1
    assert len(load_labelled(run, 90)) == 10
    with pytest.raises(ValueError, match=r"labelled: expected at most .* of class 4"):
        load_labelled(replace(run, labelled=0.9), 90)


def test_labelled_anomalies_with_masks_leave_the_test():
    options = {"size": 32, "n_train": 18, "n_val": 4, "n_test": 12}
    run = Run("segmentation", "nanofibres", {}, options, labelled=0.1)
    before = load(run)
    splits, labelled = hold_out_marked(run, before)
    assert len(labelled) == 2 and bool(labelled.labels.all())
    assert bool(labelled.masks.flatten(1).any(1).all())
    every = torch.cat([splits.test.images, labelled.images]).flatten(1)
    assert len(every.unique(dim=0)) == len(before.test) == len(every)
    assert torch.equal(splits.train.images, before.train.images)
    with pytest.raises(
        ValueError, match=r"labelled: expected fewer than the 6 .*got 6"
    ):
        hold_out_marked(replace(run, labelled=0.25), before)


def test_masks_are_needed_where_they_are_learned_from():
    run = Run("segmentation", "digits", {}, {"normal_class": 3})
    with pytest.raises(ValueError, match=r"data of 'segmentation': .*masks.*'digits'"):
        execute(run)


def test_row_of_a_method_that_learns_from_masks():
    options = {"size": 32, "n_train": 18, "n_val": 20, "n_test": 12}
    quick = {"epochs": 1, "widths": (4, 8)}
    found = execute(Run("segmentation", "nanofibres", quick, options))[0]
    assert json.loads(found["settings"])["labelled"] == 0.1
    assert (found["n_train"], found["n_test"]) == (18, 10)
    assert 0 <= found["pro"] <= 1


def test_share_of_labelled_images():
    """Ruff et al. 2020: n labelled of n + m images are a share of n / (n + m)."""
    for n, m in [(15, 1485), (60, 5940), (5, 95), (300, 2700), (1, 99)]:
        assert count_labelled(m, n / (n + m)) == n
    assert count_labelled(10, 0.01) == 1  # never none


def test_semi_supervised_row(monkeypatch):
    split_before(monkeypatch, "digits")
    quick = {"pretrain_epochs": 1, "epochs": 1}
    options = {"normal_class": 3}
    run = Run("deep-sad", "digits", quick, options, max_train=60)
    found = execute(run)[0]
    assert json.loads(found["settings"])["labelled"] == 0.01
    assert run_of({name: str(value) for name, value in run.key().items()}) == run
    assert 0 <= found["accuracy"] <= 1
    without = execute(Run("deep-svdd", "digits", quick, options, max_train=60))[0]
    assert "accuracy" not in without
    assert found["digest"] != without["digest"]


def test_balanced_accuracy_by_hand():
    """Of 99 held-out scores the 95th is the threshold; more anomalies change nothing."""
    usual = np.random.default_rng(0).permutation(99)
    scores, labels = [94, 94.5, 0, 3, 94, 95], [0, 0, 0, 0, 1, 1]
    for times in (1, 7):
        found = detection.balanced_accuracy(
            usual, scores[:4] + times * scores[4:], labels[:4] + times * labels[4:]
        )
        assert found == pytest.approx((3 / 4 + 1 / 2) / 2)


def test_numbers_of_a_detector():
    images = torch.rand(20, 1, 8, 8)
    neighbours = methods.make_detector("knn", {}).fit(images)
    assert methods.count_numbers(neighbours) == 20 * 64
    pooled = methods.make_detector("features-knn", {}).fit(torch.rand(4, 1, 32, 32))
    network = adlab.backbones.Backbone("texnet")
    own = sum(p.numel() for p in network.parameters())
    assert methods.count_numbers(pooled) == own + 4 * sum(network.channels)


# -- weights from a file


def test_weights_are_for_the_backbone():
    file = Path("some.safetensors")
    detector = methods.make_detector("padim", {"backbone": "resnet18"}, file)
    assert detector.backbone == "resnet18:some.safetensors"
    with pytest.raises(ValueError, match="weights: expected a method with a backbone"):
        methods.make_detector("knn", {}, file)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Run("nonsense", "digits"), ValueError, "method: expected one of"),
        (lambda: quick(max_train=1), ValueError, "max_train: expected"),
        (
            lambda: methods.make_detector("padim", {"d": 3}),
            TypeError,
            "option of 'padim': expected some of .*; got 'd'",
        ),
        (
            lambda: execute(Run("open-set", "mnist")),
            ValueError,
            "data_options: expected split=",
        ),
        (
            lambda: execute(Run("open-set", "mnist", {"width": 3}, {"split": 0})),
            ValueError,
            "option of 'open-set'",
        ),
        (
            lambda: Run("open-set", "mnist", max_train=100),
            ValueError,
            "max_train: expected none for 'open-set', got 100",
        ),
        (
            lambda: Run("open-set", "nanofibres"),
            ValueError,
            "data: expected one of 'mnist'",
        ),
        (
            lambda: quick(labelled=0.1),
            ValueError,
            "labelled: expected none for 'patch-gaussian', got 0.1",
        ),
        (
            lambda: Run("deep-sad", "mnist", labelled=1.0),
            ValueError,
            "labelled: expected a number in .*, got 1.0",
        ),
        (
            lambda: Run("open-set", "mnist", labelled=0.1),
            ValueError,
            "labelled: expected none for 'open-set', got 0.1",
        ),
        (
            lambda: execute(Run("deep-sad", "digits", {}, {"normal_class": 3})),
            ValueError,
            "data of 'deep-sad': expected one of 'mnist'",
        ),
        (
            lambda: rows.append(Path("x.csv"), [{"speed": 1}]),
            ValueError,
            "row: expected columns",
        ),
        (lambda: bench.results("nowhere"), FileNotFoundError, "data: expected"),
        (
            lambda: bench.results("nanofibres", until="padme"),
            ValueError,
            "until: expected",
        ),
        (
            lambda: bench.results("nanofibres", ["padim", "padme"]),
            ValueError,
            "methods: expected .* got 'padme'",
        ),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


# -- the tables


def test_rows_are_read_back(row, tmp_path):
    file = tmp_path / "some" / "nanofibres.csv"
    rows.append(file, [row])
    rows.append(file, [row | {"seed": "4", "pro": 1 / 3}])
    first, second = rows.read(file)
    assert float(first["image_auroc"]) == pytest.approx(row["image_auroc"], abs=1e-4)
    assert (second["seed"], second["pro"]) == ("4", "0.3333")
    assert rows.is_present(file, quick(seed=3).key())
    assert not rows.is_present(file, quick(seed=5).key())
    assert not [path for path in file.parent.iterdir() if path.suffix == ".part"]


def write_many(file, method):
    for seed in range(20):
        rows.append(Path(file), [ROW | {"method": method, "seed": seed}])


def test_two_writers_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=write_many, args=(str(tmp_path / "t.csv"), name))
        for name in ("a", "b")
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    found = {(row["method"], row["seed"]) for row in rows.read(tmp_path / "t.csv")}
    assert found == {(name, str(seed)) for name in "ab" for seed in range(20)}


def test_a_writer_that_is_killed_leaves_the_table_whole_and_the_lock_free(tmp_path):
    file = tmp_path / "t.csv"
    rows.append(file, [ROW])
    script = f"""
import os, pathlib
from adlab.bench import rows
pathlib.Path.replace = lambda *_: os._exit(9)  # as if killed before the last step
rows.append(pathlib.Path({str(file)!r}), [{ROW!r}])
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == 9
    assert len(rows.read(file)) == 1
    rows.append(file, [ROW])
    assert len(rows.read(file)) == 2


def test_a_table_of_other_columns_is_not_touched(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"t\.csv: expected a table with the columns"):
        rows.append(file, [ROW])
    assert file.read_text() == "a,b\n1,2\n"


def table(tmp_path, *lines):
    """A folder with a table, from (method, settings, class, seed, AUROC)."""
    for method, settings, case, seed, area in lines:
        row = {
            "method": method,
            "settings": json.dumps(settings),
            "data": "mnist",
            "data_options": json.dumps({"normal_class": case}),
            "seed": seed,
            "image_auroc": area,
        }
        rows.append(tmp_path / "mnist.csv", [row])
    (tmp_path / "published.csv").write_text(
        "data,case,name,measure,value,source\n"
        "mnist,0,knn,image_auroc,0.5,someone\nmnist,1,knn,image_auroc,0.7,someone\n"
        'mnist,mean,"geotrans, softmax",image_auroc,0.98,someone\n'
    )
    return tmp_path


def test_newest_row_of_a_run_counts_and_chapters_are_in_order(tmp_path):
    folder = table(
        tmp_path,
        ("geotrans", {"score": "softmax"}, 0, 0, 0.4),
        ("knn", {}, 0, 0, 0.1),
        ("knn", {}, 0, 0, 0.9),
    )
    found = bench.results("mnist", folder=folder)
    assert list(found["name"]) == ["knn", "geotrans, softmax"]
    assert list(found["image_auroc"]) == [0.9, 0.4]
    assert list(bench.results("mnist", until="padim", folder=folder)["method"]) == [
        "knn"
    ]
    assert list(bench.results("mnist", ["geotrans"], folder=folder)["method"]) == [
        "geotrans"
    ]
    with pytest.raises(ValueError, match="methods: expected some that have rows in"):
        bench.results("mnist", ["padim"], folder=folder)


def test_other_settings_have_another_name(tmp_path):
    folder = table(
        tmp_path,
        ("knn", {"n_neighbors": 1}, 0, 0, 0.4),
        ("knn", {"n_neighbors": 5, "max_train": 9}, 0, 0, 0.5),
        ("geotrans", {"lr": 1}, 0, 0, 0.6),
    )
    names = list(bench.results("mnist", folder=folder)["name"])
    assert names == [
        "knn, max_train=9, n_neighbors=5",
        "knn, n_neighbors=1",
        "geotrans",
    ]


def test_summary_and_comparison(tmp_path):
    lines = [
        ("knn", {}, case, seed, 0.6 + 0.2 * case + 0.1 * seed)
        for case in (0, 1)
        for seed in (0, 1)
    ]
    folder = table(tmp_path, *lines, ("geotrans", {"score": "softmax"}, 0, 0, 0.4))
    found = bench.results("mnist", folder=folder)
    summary = bench.summary(found)
    assert summary.loc["knn", "image_auroc"] == pytest.approx(0.75)
    assert summary.loc["knn", "image_auroc_std"] == pytest.approx(0.05)
    assert np.isnan(summary.loc["geotrans, softmax", "image_auroc_std"])
    assert (summary.loc["knn", "cases"], summary.loc["knn", "seeds"]) == (2, 2)
    shown = bench.compare(found, "image_auroc", folder=folder).data
    neighbour, transformations = shown.index
    assert neighbour == "nearest neighbour, pixels"
    assert transformations == "geometric transformations, softmax score"
    assert shown.loc[neighbour, "image AUROC"] == "75.0 ± 5.0"
    assert shown.loc[neighbour, "image AUROC, published"] == "60.0"
    # the published mean is over ten classes, ours over one
    assert shown.loc[transformations, "image AUROC, published"] == ""
    # what each was trained with: passes as the method takes them by default
    assert list(shown["epochs"]) == ["", "200"]


def test_options_that_are_no_words_stand_in_a_note(tmp_path):
    folder = table(
        tmp_path,
        ("knn", {"n_neighbors": 1}, 0, 0, 0.4),
        ("knn", {"n_neighbors": 5}, 0, 0, 0.5),
        ("autoencoder", {"loss": "ssim", "epochs": 3}, 0, 0, 0.6),
    )
    found = bench.results("mnist", folder=folder)
    shown = bench.compare(found, "image_auroc", folder=folder)
    assert list(shown.data.index) == [
        "nearest neighbour, pixels [a]",
        "nearest neighbour, pixels [b]",
        "autoencoder, SSIM",
    ]
    assert shown.caption == "[a] n_neighbors=1; [b] n_neighbors=5"
    assert list(shown.data["epochs"]) == ["", "", "3"]
    ours, _ = bench.beside(found, "image_auroc", folder)
    assert list(ours["label"]) == list(shown.data.index)


def test_figures_of_tables(tmp_path):
    found = pd.DataFrame(
        {
            "image_auroc": [0.9, 0.8],
            "image_auroc_std": [0.1, float("nan")],
            "pro": [0.5, float("nan")],
            "pro_std": [0.1, float("nan")],
            "fit_seconds": [1.0, 0.0],
            "score_seconds": [2.0, 0.0],
            "peak_memory_mb": [100.0, 0.0],
        },
        index=["padim", "knn"],
    )
    figure = adlab.plots.ladder(found)
    assert len(figure.axes) == 4
    assert figure.axes[0].get_xscale() == "log"
    ours = pd.DataFrame({"value": found["image_auroc"], "std": float("nan")})
    figure = adlab.plots.beside_published(ours, {"padim": 0.95, "other": 0.1})
    diamonds = figure.axes[0].collections[-1].get_offsets()
    assert diamonds.tolist() == [[95, 1]]
    with pytest.raises(ValueError, match="table: expected rows with the columns"):
        adlab.plots.ladder(found.drop(columns="pro"))
    with pytest.raises(ValueError, match="got 0 rows"):
        adlab.plots.beside_published(ours.iloc[:0], {})


# -- the command


def run_command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "adlab.bench", *map(str, arguments)],
        capture_output=True,
        text=True,
    )


def test_walk_skips_what_is_there_goes_on_after_a_failure_and_says_so(tmp_path):
    """All digits but two have a row; of these two, one has too few training images."""
    sizes = {
        digit: len(adlab.data.load("digits", normal_class=digit).train)
        for digit in (3, 8)
    }
    assert sizes[8] < sizes[3]
    file, k = tmp_path / "digits.csv", sizes[8] + 1
    for digit in set(range(10)) - set(sizes):
        run = Run("knn", "digits", {"n_neighbors": k}, {"normal_class": digit})
        rows.append(file, [run.key()])
    walk = ["knn", "digits", "--all", "--seeds", 0, "-o", f"n_neighbors={k}"]
    done = run_command(*walk, "--results", tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("there already") == 8
    assert f"error: images: expected at least n_neighbors = {k}" in done.stderr
    assert done.stderr.count("failed: ") == 1
    assert (
        f"failed: knn digits -o n_neighbors={k} -d normal_class=8 --seed 0"
        in done.stderr
    )
    assert done.stderr.splitlines()[-1] == "9 of 10 runs done"
    assert len(rows.read(file)) == 9
    again = run_command(*walk, "--results", tmp_path)
    assert again.stderr.count("there already") == 9


def test_what_the_command_says_of_bad_options(tmp_path):
    wrong = run_command("knn", "digits", "-o", "k", "--results", tmp_path)
    assert wrong.returncode == 2
    assert "expected NAME=VALUE, got 'k'" in wrong.stderr
    wrong = run_command("knn", "digits", "-o", "neighbours=3", "--results", tmp_path)
    assert wrong.returncode == 1
    assert "error: option of 'knn': expected some of n_neighbors" in wrong.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("padim", "mvtec-ad", "--all", "--category", "botle"),
            "error: category: expected one of 'bottle'",
        ),
        (
            ("knn", "digits", "--all", "--normal-class", 12),
            "error: normal_class: expected one of 0, 1",
        ),
        (("knn", "digits", "--all", "--max-train", 1), "error: max_train: expected"),
        (
            ("knn", "digits", "--normal-class", 3, "--results", __file__),
            "error: ",
        ),
        (
            ("padim", "nanofibres", "-o", "backbone=resnet18", "--weights", __file__),
            "error: ",
        ),
    ],
)
def test_errors_of_the_command_are_one_line(arguments, message, tmp_path):
    arguments = [str(argument) for argument in arguments]
    if "--results" not in arguments:
        arguments += ["--results", str(tmp_path)]
    with pytest.raises(SystemExit) as error:
        command_line.main(arguments)
    assert str(error.value).startswith(message)
    assert not list(tmp_path.iterdir())


def test_seeds_are_those_of_a_walk(capsys):
    for wrong in (["--seeds", "1"], ["--all", "--seed", "1"]):
        with pytest.raises(SystemExit) as error:
            command_line.main(["knn", "digits", *wrong])
        assert error.value.code == 2
    assert "--seed: expected --seeds with --all" in capsys.readouterr().err


def test_a_table_is_looked_at_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "digits.csv").write_text("a,b\n1,2\n")
    monkeypatch.setattr(command_line, "execute", lambda *_: pytest.fail("ran first"))
    with pytest.raises(SystemExit, match="expected a table with the columns"):
        command_line.main(
            ["knn", "digits", "--normal-class", "3", "--results", str(tmp_path)]
        )


def test_options_are_read_as_python_reads_them():
    read = command_line.option
    assert read("k=3") == ("k", 3)
    assert read("size=(64, 32)") == ("size", (64, 32))
    assert read("backbone=resnet18") == ("backbone", "resnet18")
    assert read("a=b=c") == ("a", "b=c")


def test_walk_keeps_to_what_was_fixed():
    cases = TASKS["detection"].cases
    assert len(cases("mnist")) == len(cases("digits")) == 10
    assert len(cases("mvtec-ad")) == 15
    assert len(open_set.cases("mnist")) == 5
    assert cases("nanofibres") == [{}]


@pytest.mark.parametrize(
    "run",
    [
        quick(seed=7, max_train=10),
        Run("padim", "mvtec-ad", {"backbone": "resnet18"}, {"category": "bottle"}),
        Run("open-set", "mnist", {"epochs": 3}, {"split": 2}, max_test=None),
    ],
)
def test_a_row_knows_its_command(run):
    again = run_of({name: str(value) for name, value in run.key().items()})
    assert again.key() == run.key()
    options = command_line.parser().parse_args(run.arguments())
    assert (options.method, options.data, options.seed) == (
        run.method,
        run.data,
        run.seed,
    )
    assert dict(options.option) == run.options
    assert dict(options.data_option) == run.data_options


# -- open-set recognition


def test_open_set_splits_are_six_of_ten():
    assert all(len(set(split)) == 6 for split in open_set.SPLITS)
    assert all(set(split) <= set(range(10)) for split in open_set.SPLITS)


def test_open_set_run(monkeypatch):
    """On drawn digits in the place of MNIST: bars at ten places."""

    def bars(name, normal_class, root=None):
        generator = torch.Generator().manual_seed(normal_class)
        images = 0.3 * torch.rand(60, 1, 28, 28, generator=generator)
        images[:, :, 2 * normal_class : 2 * normal_class + 4] += 0.6
        train, test = images[:40], images[40:]
        strange = adlab.data.ImageSet(torch.rand(5, 1, 28, 28), torch.ones(5))
        both = adlab.data.ImageSet(
            torch.cat([test, strange.images]),
            torch.cat([torch.zeros(20), strange.labels]),
        )
        return adlab.data.Splits(
            adlab.data.ImageSet(train), adlab.data.ImageSet(test[:1]), both
        )

    monkeypatch.setattr(open_set.data, "load", bars)
    found = execute(
        Run("open-set", "mnist", {"epochs": 12, "per_class": 40}, {"split": 1})
    )
    scores = [json.loads(each["settings"])["score"] for each in found]
    assert scores == ["msp", "max-logit", "energy", "openmax"]
    for each in found:
        assert (each["n_train"], each["n_test"]) == (240, 200)
        assert each["accuracy"] > 0.9
        assert each["oscr"] <= each["accuracy"] + 1e-9


def test_open_set_run_on_wafers():
    run = Run("open-set", "wafers", {"epochs": 15, "per_class": 30}, {"split": 3})
    found = execute(run)
    assert len(found) == 4
    for each in found:
        assert (each["n_train"], each["n_test"]) == (9 * 30, 13 * 30)
        assert each["peak_memory_mb"] >= 0
        assert json.loads(each["settings"]).keys() == {"epochs", "per_class", "score"}
    other = Run("open-set", "wafers", {"epochs": 15, "per_class": 30}, {"split": 4})
    assert execute(other)[0]["digest"] != found[0]["digest"]


# -- what the book shows


NO_RUNS = ("published", "replication", "sections")
TABLES = sorted(
    path for path in rows.results_folder().glob("*.csv") if path.stem not in NO_RUNS
)


def test_there_are_tables():
    assert {"nanofibres", "mnist", "mvtec-ad"} <= {p.stem for p in TABLES}


@pytest.mark.parametrize("file", TABLES, ids=lambda path: path.stem)
def test_committed_tables_are_whole(file):
    found = bench.results(file.stem)
    assert len(found)
    for measure in (*bench.MEASURES, *bench.OPEN_SET):
        values = found[measure].dropna()
        assert values.between(0, 1).all()
    assert found["image_auroc"].notna().all()
    assert found["digest"].str.fullmatch("[0-9a-f]{12}").all()
    for _, row in found.iterrows():
        assert bench.command(row).startswith("python -m adlab.bench ")


def fingerprint(values):
    """Mean, spread, and mean weighted by the place: what the last bit of a float, other
    than in a digest, does not move.
    """
    values = values.double().flatten()
    place = torch.linspace(-1, 1, len(values), dtype=values.dtype)
    return [float(x) for x in (values.mean(), values.std(), (place * values).mean())]


# Of the training images, the test images and the test masks of the row below.
KNOWN = [
    (0.308903, 0.216465, 0.000228),
    (0.321202, 0.224477, 0.005419),
    (0.088983, 0.284720, 0.043728),
]


def test_a_committed_row_comes_out_again():
    rows_of_padim = bench.results("nanofibres", ["padim"])
    row = rows_of_padim[rows_of_padim["name"] == "padim, texnet"].iloc[0]
    again = execute(run_of(row))[0]
    splits = load(run_of(row))
    train, test = splits.train, splits.test
    for values, known in zip(
        (train.images, test.images, test.masks), KNOWN, strict=True
    ):
        assert fingerprint(values) == pytest.approx(known, abs=1e-6)
    for count in ("n_train", "n_test", "parameters"):
        assert again[count] == row[count]
    for measure in ("image_auroc", "pixel_auroc", "pro"):
        assert again[measure] == pytest.approx(row[measure], abs=2e-3)


@pytest.mark.parametrize("data", ["mvtec-ad", "mnist", "fashion-mnist"])
def test_published_values_are_shown_where_the_method_was_run(data):
    found, reference = bench.results(data), bench.published(data)
    run = reference["name"].str.partition(",")[0].isin(set(found["method"]))
    assert set(reference["name"][run]) <= set(found["name"])


def test_published_values_name_their_source_and_a_method_of_ours():
    with (rows.results_folder() / "published.csv").open() as lines:
        for row in csv.DictReader(lines):
            assert row["source"]
            assert 0 < float(row["value"]) <= 1
            method = row["name"].partition(",")[0]
            assert method in every_method()
            assert row["measure"] in (*bench.MEASURES, *bench.OPEN_SET)
