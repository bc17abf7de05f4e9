"""The command `adlab`, as a user types it: fit, score, report."""

import csv
import io
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

import adlab
from adlab import cli, inspection, report
from adlab.cli import main
from adlab.decision import quantile_threshold
from adlab.inspection import Normal
from adlab.vectors import PCAResidual

N, N_HELD_OUT = 30, 9
FIT = ("--method", "pca", "-o", "n_components=3", "--size", "24", "--held-out", "0.3")


def write_images(folder, n, seed, spot=False):
    """Grey noise of 32 × 32 pixels around a level; with a spot in the upper left."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(n):
        pixels = rng.normal(120, 10, (32, 32))
        pixels[4:12, 4:12] += 100 * spot
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Images, and a detector that the command has fitted."""
    place = tmp_path_factory.mktemp("product")
    write_images(place / "good", N, 0)
    write_images(place / "new" / "fine", 4, 1)
    write_images(place / "new" / "spots", 4, 2, spot=True)
    main(["fit", str(place / "good"), "--out", str(place / "model"), *FIT])
    return place


def table(text):
    return list(csv.DictReader(io.StringIO(text)))


def of(place):
    return [str(place / "model"), str(place / "new"), "--fpr", "0.2"]


# fit


def test_fit_holds_out_normal_images_and_remembers_their_scores(place):
    detector = adlab.load_detector(place / "model")
    files = adlab.data.ImageFolder(place / "good").files
    learn, held_out = inspection.hold_out(inspection.digests_of(files), 0.3, 0)
    assert (len(learn), len(held_out)) == (N - N_HELD_OUT, N_HELD_OUT)
    assert sorted(learn + held_out) == files
    twin = PCAResidual(3).fit(adlab.data.ImageFolder(learn, size=24))
    maps = twin.anomaly_map(held_out)
    normal = inspection.normal_of(detector)
    np.testing.assert_allclose(normal.scores, twin.anomaly_score(held_out), rtol=1e-6)
    middle = np.median([m.median() for m in maps])
    np.testing.assert_allclose(normal[1:], [middle, maps.max()], rtol=1e-6)


def test_images_may_be_oblong(place, tmp_path):
    options = ["--method", "pca", "-o", "n_components=3", "--size", "20x16"]
    main(["fit", str(place / "good"), "--out", str(tmp_path / "model"), *options])
    detector = adlab.load_detector(tmp_path / "model")
    assert detector.anomaly_map(place / "new").shape == (8, 20, 16)


def test_copies_are_held_out_together():
    files = [file(b"same") for _ in range(20)] + [file(bytes([i])) for i in range(3)]
    for seed in range(8):
        digests = inspection.digests_of(files)
        learn, held_out = inspection.hold_out(digests, 0.5, seed)
        contents = [{f.read_bytes() for f in side} for side in (learn, held_out)]
        assert len(learn) + len(held_out) == 23
        assert not contents[0] & contents[1] and len(contents[1]) == 2


class file:  # noqa: N801
    """A file in memory."""

    def __init__(self, content):
        self.content = content

    def read_bytes(self):
        return self.content


@pytest.mark.parametrize(
    ("present", "expected"), [(True, "efficientnet_lite0"), (False, "texnet")]
)
def test_the_best_network_at_hand_is_taken_unless_one_is_named(
    present, expected, place, tmp_path, monkeypatch, capfd
):
    asked = []

    def make(_, given, **__):
        asked.append(given)
        raise ValueError("that is all")

    monkeypatch.setattr(cli, "find_spec", lambda name: present or None)
    monkeypatch.setattr(cli, "make_detector", make)
    for named in ([], ["-o", "backbone=resnet18-random"]):
        arguments = ["fit", str(place / "good"), "--out", str(tmp_path / "m"), *named]
        with pytest.raises(SystemExit, match="that is all"):
            main(arguments)
    assert [given["backbone"] for given in asked] == [expected, "resnet18-random"]
    assert ("adlab[imagenet]" in capfd.readouterr().err) != present


def test_one_score_for_all_that_were_held_out_is_warned_of(place, tmp_path):
    extreme = ["--method", "oc-svm", "-o", "gamma=1e9", *FIT[4:]]
    with pytest.warns(UserWarning, match="for all 9 by KernelSVDD"):
        main(["fit", str(place / "good"), "--out", str(tmp_path / "model"), *extreme])


# score


def test_scores_are_printed_as_a_table_with_verdicts(place, capsys):
    main(["score", *of(place)])
    rows = table(capsys.readouterr().out)
    detector = adlab.load_detector(place / "model")
    limit = quantile_threshold(inspection.normal_of(detector).scores, 0.2)
    assert len(rows) == 8
    for row in rows:
        score = float(detector.anomaly_score(place / "new" / row["file"]))
        assert float(row["score"]) == pytest.approx(score, rel=1e-6)
        assert row["verdict"] == ("anomalous" if score > limit else "normal")
    spots = [row for row in rows if row["file"].startswith("spots/")]
    assert {row["verdict"] for row in spots} == {"anomalous"}


def test_report_is_a_table_pictures_and_a_page_that_stands_alone(place, tmp_path):
    out = tmp_path / "out"
    main(["score", *of(place), "--report", str(out)])
    assert {p.name for p in out.iterdir()} == {"scores.csv", "maps", "report.html"}
    rows = table((out / "scores.csv").read_text(encoding="utf-8"))
    page = (out / "report.html").read_text(encoding="utf-8")
    assert len(re.findall("<li ", page)) == len(rows) == 8
    shown = re.findall(r'class="name">(.*?)<', page)
    ranked = sorted(rows, key=lambda row: -float(row["score"]))
    assert shown == [row["file"] for row in ranked]
    assert set(re.findall(r'src="(.*?):', page)) == {"data"}
    assert not re.search(r'(src|href)="?http|@import|url\((?!#)', page)
    n = sum(row["verdict"] == "anomalous" for row in rows)
    assert f"<strong>{n} of 8</strong>" in page
    assert f"comes from {N_HELD_OUT} normal images" in page and "20 %" in page
    picture = np.asarray(Image.open(out / "maps" / "spots" / "0.png.png"))
    assert picture.shape == (24, 24, 3)
    assert picture[3:9, 3:9].mean() > 2 * picture[12:, 12:].mean()


def test_names_with_markup_are_text_on_the_page(place, tmp_path):
    folder = write_images(tmp_path / "in", 2, 3)
    (folder / "0.png").rename(folder / "a<b>&amp;.png")
    arguments = [str(place / "model"), str(folder), "--fpr", "0.2"]
    main(["score", *arguments, "--report", str(tmp_path / "out")])
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "a&lt;b&gt;&amp;amp;.png" in page and "<b>" not in page


def test_heat_is_dark_for_normal_pixels_and_bright_beyond_them():
    normal = Normal([], low=1.0, high=3.0)
    values = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0, 99.0]])
    colours = np.asarray(report.heat(values, normal)).astype(int).sum(2)[0]
    assert colours[0] == colours[1] < colours[2] < colours[3] < colours[4] == colours[5]


def test_a_detector_without_maps_has_a_report_too(place, tmp_path):
    options = [*FIT[4:], "--method", "knn", "-o", "n_neighbors=3"]
    main(["fit", str(place / "good"), "--out", str(tmp_path / "model"), *options])
    assert adlab.load_detector(tmp_path / "model").n_neighbors == 3
    arguments = [str(tmp_path / "model"), str(place / "new"), "--fpr", "0.2"]
    main(["score", *arguments, "--report", str(tmp_path / "out")])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"scores.csv", "report.html"}


# refusals


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fit", "good", "--out", "no/model"), "path: expected a file in an existing"),
        (("fit", "missing", "--out", "m"), "expected an image, got .*missing"),
        (("fit", "good", "--out", "m", "-o", "sigmo=1"), "expected some of .*sigma"),
        (("fit", "good", "--out", "m", "-o", "sigma=-1"), "sigma: expected a number"),
        (("fit", "good", "--out", "m", "--held-out", "1"), "held-out: expected"),
        (("fit", "good", "--out", "m", "--size", "0"), "size: expected an integer"),
        (
            ("fit", "good", "--out", "m", "--size", "8x8x8"),
            r"size: .*\(H, W\), got \(8,",
        ),
        (("score", "missing", "new"), "path: expected a file written by"),
        (("score", "good/0.png", "new"), "damaged or something else"),
        (("score", "bare", "new"), "expected one that `adlab fit` wrote"),
        (("score", "model", "new", "--fpr", "0"), "fpr: expected a number"),
        (("score", "model", "new"), "at least 19 normal scores .* got 9"),
        (("score", "model", "missing", "--fpr", ".2"), "expected an image, got .*miss"),
        (("score", "model", "new", "--fpr", ".2", "--report", "good"), "new or empty"),
        (("score", "model", "new", "--fpr", ".2", "--report", "no/out"), "one that ex"),
    ],
)
def test_refusals_are_one_line_and_come_before_the_work(
    arguments, words, place, monkeypatch
):
    monkeypatch.chdir(place)
    PCAResidual(2).fit(torch.rand(4, 1, 24, 24)).save(place / "bare")
    before = sorted(place.rglob("*"))
    monkeypatch.setattr(inspection, "fit", lambda *_: pytest.fail("fitted"))
    monkeypatch.setattr(inspection, "inspect", lambda *_: pytest.fail("inspected"))
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert re.search(f"^error: .*{words}", stopped.value.code)
    assert "\n" not in stopped.value.code
    assert sorted(place.rglob("*")) == before


def test_an_image_that_cannot_be_read_leaves_no_report(place, tmp_path):
    folder = write_images(tmp_path / "in", 12, 3)
    (folder / "7.png").write_bytes((folder / "7.png").read_bytes()[:200])
    arguments = [str(place / "model"), str(folder), "--fpr", "0.2"]
    with pytest.raises(SystemExit, match=r"7\.png: expected an image"):
        main(["score", *arguments, "--report", str(tmp_path / "out")])
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_bench_is_under_the_same_roof():
    with pytest.raises(SystemExit, match="0"):
        main(["bench", "--help"])


# processes


def start(*arguments, **options):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **pipes, **options)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_stopped_leaves_nothing(how, place, tmp_path):
    folder = write_images(tmp_path / "in", 3000, 3)  # more than it can do meanwhile
    arguments = ["score", place / "model", folder, "--fpr", "0.2"]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # in background, too
    running = start("adlab", *arguments, "--report", tmp_path / "out", preexec_fn=heard)
    while not list(tmp_path.glob(".out.*")) and running.poll() is None:
        time.sleep(0.05)
    running.send_signal(how)
    running.communicate(timeout=60)
    assert running.returncode == 128 + how
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")


def test_two_processes_score_what_one_does(place, tmp_path):
    arguments = ("score", *of(place), "--report")
    main([*arguments, str(tmp_path / "one")])
    running = start(*TORCHRUN, "adlab", *arguments, tmp_path / "two")
    _, errors = running.communicate(timeout=120)
    assert running.returncode == 0, errors
    sides = [tmp_path / "one", tmp_path / "two"]
    one, two = ({p.relative_to(s) for p in s.rglob("*.*")} for s in sides)
    assert one == two
    one, two = (table((s / "scores.csv").read_text(encoding="utf-8")) for s in sides)
    for mine, theirs in zip(one, two, strict=True):
        assert float(mine.pop("score")) == pytest.approx(float(theirs.pop("score")))
        assert mine == theirs


def test_a_process_that_fails_ends_the_others(place, tmp_path):
    folder = write_images(tmp_path / "in", 9, 3)
    (folder / "1.png").write_bytes(b"not an image")  # for the second process
    arguments = ("score", place / "model", folder, "--fpr", "0.2", "--report")
    running = start(*TORCHRUN, "adlab", *arguments, tmp_path / "out")
    _, errors = running.communicate(timeout=120)
    assert running.returncode != 0 and "1.png: expected an image" in errors
    assert not (tmp_path / "out").exists()
