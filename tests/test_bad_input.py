"""Bad input is refused at the call that received it, by a message that says what is
wrong.

Each line of the tables is a case: its name, the call (of a fresh folder), the error,
and what the message must say: first of all the argument. "expected" and "got" are asked
for everywhere but in `FILES`, where the file or folder at fault must be named instead.
"""

import tarfile
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.exceptions import NotFittedError
from torch import nn
from torch.utils.data import TensorDataset

import adlab
from adlab import data, decision, metrics, plots, training
from adlab.data import ImageSet, Splits
from adlab.data.folders import unpack
from adlab.data.gaussian_field import gaussian_field, optimal_auroc
from adlab.data.textures import photograph
from adlab.data.wafers import wafer_patterns
from adlab.vectors import KNN, Gaussian, Moments, Patchwise, PCAResidual, PixelGaussian

IMAGES = torch.rand(8, 1, 6, 5, generator=torch.Generator().manual_seed(0))
COLOUR = IMAGES.repeat(1, 3, 1, 1)
VECTORS = IMAGES.flatten(1)
MASKS = IMAGES[:, 0] > 0.8
MAPS = IMAGES[:, 0]
SCORES = np.linspace(-2, 5, 8)
LABELS = np.array([0, 0, 0, 0, 1, 1, 0, 1])
Value, Type, Missing = (
    ValueError,
    TypeError,
    FileNotFoundError,
)  # for lines that are read at once
NAN, INF = float("nan"), float("inf")
NORMAL = ImageSet(IMAGES)
MIXED = ImageSet(IMAGES, LABELS)
MASK = "ground_truth/hole/1_mask.png"


def spoiled(values, bad):
    """A copy with one bad value."""
    values = torch.as_tensor(values).clone().double()
    values.view(-1)[3] = bad
    return values


@cache
def fitted():
    return Gaussian(reg_covar=0.1).fit(IMAGES)


def fit(images):
    return Gaussian().fit(images)


def score(images):
    return fitted().anomaly_score(images)


def patches(**options):
    return Patchwise(Gaussian(), **options)


def train(images=IMAGES, loss=None, **options):
    network = nn.Linear(5, 5)
    loss = loss or (lambda batch: network(batch).square().mean())
    return training.train(
        network, loss, images, **{"epochs": 1, "device": "cpu"} | options
    )


def exploding(batch):
    return (batch.mean() * NAN).requires_grad_()


def stream(images, *options):
    return list(training.stream(images, *options))


class Ragged(TensorDataset):
    def __getitem__(self, i):
        return self.tensors[0][i, :, :, : 2 + i % 3]


CASES = [
    # images, wherever they are taken
    (
        "images-nan",
        lambda _: fit(spoiled(IMAGES, NAN)),
        Value,
        "images",
        "1 that are NaN",
    ),
    (
        "images-infinite",
        lambda _: fit(spoiled(IMAGES, INF)),
        Value,
        "images",
        "infinite",
    ),
    ("images-above-one", lambda _: fit(IMAGES * 255), Value, "images", "[0, 1]", "25"),
    (
        "images-below-zero",
        lambda _: fit(IMAGES - 0.5),
        Value,
        "images",
        "[0, 1]",
        "-0.",
    ),
    (
        "images-bytes",
        lambda _: fit((IMAGES * 255).to(torch.uint8)),
        Type,
        "images",
        "uint8",
    ),
    (
        "images-bytes-array",
        lambda _: fit((IMAGES * 255).numpy().astype("uint8")),
        Type,
        "images",
        "uint8",
    ),
    ("images-bool", lambda _: fit(IMAGES > 0.5), Type, "images", "bool"),
    (
        "images-one",
        lambda _: PixelGaussian().fit(IMAGES[0]),
        Value,
        "images",
        "(N, C, H, W)",
        "(1, 6, 5)",
    ),
    (
        "images-no-channel",
        lambda _: PixelGaussian().fit(MAPS),
        Value,
        "images",
        "(8, 6, 5)",
    ),
    (
        "images-rank-5",
        lambda _: PixelGaussian().fit(IMAGES[None]),
        Value,
        "images",
        "(1, 8, 1, 6, 5)",
    ),
    (
        "images-channels-last",
        lambda _: fit(COLOUR.permute(0, 2, 3, 1)),
        Value,
        "images",
        "(8, 6, 5, 3)",
    ),
    (
        "images-two-channels",
        lambda _: fit(COLOUR[:, :2]),
        Value,
        "images",
        "1 or 3 channels",
    ),
    (
        "images-no-image",
        lambda _: fit(IMAGES[:0]),
        Value,
        "images",
        "at least one",
        "(0, 1, 6, 5)",
    ),
    (
        "images-no-pixel",
        lambda _: fit(IMAGES[..., :0]),
        Value,
        "images",
        "at least one",
        "(8, 1, 6, 0)",
    ),
    (
        "images-ragged",
        lambda _: fit([IMAGES[0], IMAGES[0, :, :3]]),
        Value,
        "images",
        "unequal length",
    ),
    (
        "images-ragged-lists",
        lambda _: fit([[0.1, 0.2], [0.3]]),
        Value,
        "images",
        "unequal length",
    ),
    (
        "images-ragged-dataset",
        lambda _: fit(Ragged(IMAGES)),
        Value,
        "images",
        "unequal length",
    ),
    ("images-text", lambda _: fit("images.png"), Type, "images", "str"),
    ("images-none", lambda _: fit(None), Type, "images", "NoneType"),
    ("images-number", lambda _: fit(3), Type, "images", "int"),
    ("images-dict", lambda _: fit({"images": IMAGES}), Type, "images", "dict"),
    ("images-names", lambda _: fit(["a.png", "b.png"]), Type, "images", "list"),
    ("images-objects", lambda _: fit(np.array([object()])), Type, "images", "ndarray"),
    ("images-complex", lambda _: fit(IMAGES.numpy() * 1j), Type, "images"),
    ("images-empty-list", lambda _: fit([]), Value, "images"),
    ("images-empty-stream", lambda _: fit(iter([])), Value, "images", "empty"),
    (
        "images-empty-dataset",
        lambda _: fit(TensorDataset(IMAGES[:0])),
        Value,
        "images",
        "empty",
    ),
    (
        "images-bad-batch",
        lambda _: fit([IMAGES, IMAGES + 1]),
        Value,
        "images",
        "[0, 1]",
    ),
    (
        "images-changing",
        lambda _: fit([IMAGES, COLOUR]),
        Value,
        "images",
        "(N, 1, 6, 5)",
        "(8, 3, 6, 5)",
    ),
    # images to be scored
    ("score-nan", lambda _: score(spoiled(IMAGES, NAN)), Value, "images", "NaN"),
    (
        "score-bytes",
        lambda _: score((IMAGES * 255).to(torch.uint8)),
        Type,
        "images",
        "uint8",
    ),
    (
        "score-size",
        lambda _: score(IMAGES[..., :4]),
        Value,
        "images",
        "(N, 1, 6, 5)",
        "(8, 1, 6, 4)",
    ),
    (
        "score-channels",
        lambda _: score(COLOUR),
        Value,
        "images",
        "(N, 1, 6, 5)",
        "(8, 3, 6, 5)",
    ),
    (
        "score-vectors",
        lambda _: score(VECTORS),
        Value,
        "images",
        "(N, 1, 6, 5)",
        "(8, 30)",
    ),
    ("score-none", lambda _: score(None), Type, "images", "NoneType"),
    (
        "map-nan",
        lambda _: PixelGaussian().fit(IMAGES).anomaly_map(spoiled(IMAGES, NAN)),
        Value,
        "images",
    ),
    (
        "map-channels",
        lambda _: patches(patch_size=4).fit(IMAGES).anomaly_map(COLOUR),
        Value,
        "images",
    ),
    (
        "map-small",
        lambda _: patches(patch_size=4).fit(IMAGES).anomaly_map(IMAGES[..., :3]),
        Value,
        "images",
    ),
    (
        "map-vectors",
        lambda _: PCAResidual(2).fit(VECTORS).anomaly_map(VECTORS),
        Value,
        "images",
        "vectors",
    ),
    # detectors that were not fitted
    (
        "unfitted-score",
        lambda _: Gaussian().anomaly_score(IMAGES),
        NotFittedError,
        "detector",
        "fit(images)",
    ),
    (
        "unfitted-map",
        lambda _: patches().anomaly_map(IMAGES),
        NotFittedError,
        "detector",
        "Patchwise(",
    ),
    (
        "unfitted-save",
        lambda tmp: KNN().save(tmp / "file"),
        NotFittedError,
        "detector",
        "KNN()",
    ),
    # files of detectors
    (
        "load-missing",
        lambda tmp: adlab.load_detector(tmp / "no"),
        Missing,
        "path",
        "no",
    ),
    ("load-folder", lambda tmp: adlab.load_detector(tmp), Missing, "path"),
    (
        "load-empty",
        lambda tmp: adlab.load_detector(write(tmp / "file", "")),
        Value,
        "path",
        "damaged",
    ),
    (
        "load-text",
        lambda tmp: adlab.load_detector(write(tmp / "file", "text " * 9)),
        Value,
        "path",
    ),
    (
        "save-nowhere",
        lambda tmp: fitted().save(tmp / "no" / "file"),
        Missing,
        "path",
        "no",
    ),
    ("save-folder", lambda tmp: fitted().save(tmp), IsADirectoryError, "path"),
    # constructors
    (
        "gaussian-type",
        lambda _: Gaussian("diag"),
        Value,
        "covariance_type",
        "'full', 'diagonal'",
        "'diag'",
    ),
    ("gaussian-reg", lambda _: Gaussian(reg_covar=-1e-6), Value, "reg_covar", "-1e-06"),
    ("gaussian-reg-nan", lambda _: Gaussian(reg_covar=NAN), Value, "reg_covar", "nan"),
    (
        "gaussian-reg-text",
        lambda _: Gaussian(reg_covar="1e-6"),
        Type,
        "reg_covar",
        "str",
    ),
    ("detector-seed", lambda _: Gaussian(seed=-1), Value, "seed", "-1"),
    ("detector-seed-float", lambda _: KNN(seed=0.5), Type, "seed", "float 0.5"),
    (
        "detector-seed-none",
        lambda _: PixelGaussian(seed=None),
        Type,
        "seed",
        "NoneType",
    ),
    (
        "detector-device",
        lambda _: PCAResidual(device="gpu"),
        Value,
        "device",
        '"auto"',
        "'gpu'",
    ),
    (
        "detector-far-device",
        lambda _: patches(device="cuda:99"),
        Value,
        "device",
        "cuda:99",
    ),
    ("pixel-reg", lambda _: PixelGaussian(reg_covar=-1), Value, "reg_covar", "-1"),
    (
        "pixel-score",
        lambda _: PixelGaussian(image_score="sum"),
        Value,
        "image_score",
        "'max', 'mean'",
    ),
    ("knn-zero", lambda _: KNN(k=0), Value, "k", "integer", "0"),
    ("knn-float", lambda _: KNN(k=1.5), Type, "k", "float 1.5"),
    ("knn-bool", lambda _: KNN(k=True), Type, "k", "bool"),
    ("pca-zero", lambda _: PCAResidual(0), Value, "n_components", "0"),
    ("pca-share", lambda _: PCAResidual(0.95), Type, "n_components", "0.95"),
    (
        "patch-detector",
        lambda _: Patchwise(PixelGaussian()),
        Type,
        "detector",
        "PixelGaussian",
    ),
    ("patch-class", lambda _: Patchwise(Gaussian), Type, "detector", "type"),
    ("patch-size", lambda _: patches(patch_size=0), Value, "patch_size", "0"),
    (
        "patch-stride",
        lambda _: patches(patch_size=4, stride=5),
        Value,
        "stride",
        "[1, 4]",
        "5",
    ),
    (
        "patch-features",
        lambda _: patches(features="gabor"),
        Value,
        "features",
        "'pixels'",
        "'gabor'",
    ),
    ("patch-score", lambda _: patches(image_score=None), Value, "image_score", "None"),
    # training images that do not do for the method
    ("gaussian-one", lambda _: fit(IMAGES[:1]), Value, "images", "at least 2", "got 1"),
    (
        "gaussian-singular",
        lambda _: Gaussian(reg_covar=0).fit(VECTORS),
        Value,
        "images",
        "reg_covar",
    ),
    (
        "gaussian-huge",
        lambda _: fit(torch.zeros(2, 1, 99, 99)),
        Value,
        "images",
        "8192",
        "9801",
    ),
    (
        "moments-none",
        lambda _: Moments().covariance(),
        Value,
        "images",
        "at least 2",
        "got 0",
    ),
    ("knn-few", lambda _: KNN(k=9).fit(IMAGES), Value, "images", "k = 9", "8"),
    (
        "pca-few",
        lambda _: PCAResidual(9).fit(IMAGES),
        Value,
        "images",
        "n_components = 9",
        "8, 30",
    ),
    (
        "pca-narrow",
        lambda _: PCAResidual(5).fit(VECTORS[:, :4]),
        Value,
        "images",
        "n_components = 5",
        "8, 4",
    ),
    (
        "patch-small",
        lambda _: patches(patch_size=8).fit(IMAGES),
        Value,
        "images",
        "patch_size = 8",
        "(6, 5)",
    ),
    # training
    ("device", lambda _: training.resolve_device("tpu0"), Value, "device", "'tpu0'"),
    ("seed", lambda _: training.seeded(-3).__enter__(), Value, "seed", "-3"),
    ("stream-batch", lambda _: stream(IMAGES, 0), Value, "batch_size", "0"),
    ("stream-text", lambda _: stream("images"), Type, "images", "DataLoader", "str"),
    ("train-epochs", lambda _: train(epochs=0), Value, "epochs", "0"),
    ("train-batch", lambda _: train(batch_size=2.0), Type, "batch_size", "2.0"),
    ("train-rate", lambda _: train(lr=0), Value, "lr", "0"),
    ("train-decay", lambda _: train(weight_decay=-1), Value, "weight_decay", "-1"),
    ("train-seed", lambda _: train(seed="0"), Type, "seed", "str"),
    ("train-device", lambda _: train(device="abacus"), Value, "device", "'abacus'"),
    ("train-images", lambda _: train(spoiled(IMAGES, NAN)), Value, "images", "NaN"),
    ("train-none", lambda _: train(None), Type, "images", "NoneType"),
    (
        "train-dataset",
        lambda _: train(TensorDataset(IMAGES * 2)),
        Value,
        "images",
        "[0, 1]",
    ),
    (
        "train-loss",
        lambda _: train(loss=exploding),
        FloatingPointError,
        "loss",
        "epoch 1",
    ),
    # data sets
    ("set-images", lambda _: ImageSet(IMAGES * 2), Value, "images", "[0, 1]"),
    (
        "set-labels",
        lambda _: ImageSet(IMAGES, LABELS[:5]),
        Value,
        "labels",
        "(8,)",
        "(5,)",
    ),
    (
        "set-labels-names",
        lambda _: ImageSet(IMAGES, ["good"] * 8),
        Type,
        "labels",
        "list",
    ),
    (
        "set-labels-values",
        lambda _: ImageSet(IMAGES, np.arange(8)),
        Value,
        "labels",
        "0",
        "1",
        "2",
    ),
    (
        "set-masks",
        lambda _: ImageSet(IMAGES, LABELS, MASKS[:, 1:]),
        Value,
        "masks",
        "(8, 6, 5)",
        "(8, 5, 5)",
    ),
    (
        "set-masks-grey",
        lambda _: ImageSet(IMAGES, LABELS, MAPS),
        Value,
        "masks",
        "0 and 1",
    ),
    (
        "set-masks-normal",
        lambda _: ImageSet(IMAGES, None, MASKS),
        Value,
        "masks",
        "normal image",
    ),
    ("set-kinds", lambda _: ImageSet(IMAGES, kinds=["good"]), Value, "kinds", "8", "1"),
    ("set-kind", lambda _: NORMAL.of_kind("hole"), Value, "kinds", "'good'", "'hole'"),
    ("set-nothing", lambda _: NORMAL[[]], Value, "images", "at least one"),
    (
        "splits-train",
        lambda _: Splits(MIXED, NORMAL, MIXED),
        Value,
        "train",
        "normal",
        "3 anomalous",
    ),
    (
        "splits-val",
        lambda _: Splits(NORMAL, MIXED, MIXED),
        Value,
        "val",
        "normal",
        "3 anomalous",
    ),
    (
        "splits-tensor",
        lambda _: Splits(NORMAL, NORMAL, IMAGES),
        Type,
        "test",
        "ImageSet",
        "Tensor",
    ),
    (
        "load-name",
        lambda _: data.load("mnst"),
        Value,
        "name",
        "'mnist'",
        "'nanofibres'",
        "'mnst'",
    ),
    ("load-no-name", lambda _: data.load(None), Value, "name", "'digits'", "None"),
    (
        "load-option",
        lambda _: data.load("digits", sede=1),
        Type,
        "options of 'digits'",
        "seed",
        "'sede'",
    ),
    (
        "nanofibres-size",
        lambda _: data.load("nanofibres", size=8),
        Value,
        "size",
        "32",
        "8",
    ),
    (
        "nanofibres-train",
        lambda _: data.load("nanofibres", n_train=0),
        Value,
        "n_train",
        "0",
    ),
    (
        "nanofibres-contrast",
        lambda _: data.load("nanofibres", contrast=0),
        Value,
        "contrast",
        "0",
    ),
    ("wafers-size", lambda _: data.load("wafers", size=31), Value, "size", "32", "31"),
    (
        "wafers-noise",
        lambda _: data.load("wafers", noise=0.6),
        Value,
        "noise",
        "0.5",
        "0.6",
    ),
    (
        "wafers-test",
        lambda _: data.load("wafers", n_test=1.0),
        Type,
        "n_test",
        "float 1.0",
    ),
    (
        "wafers-kind",
        lambda _: wafer_patterns(kinds=["ring"]),
        Value,
        "kinds",
        "'good'",
        "'ring'",
    ),
    (
        "wafers-kinds",
        lambda _: wafer_patterns(kinds="good"),
        Type,
        "kinds",
        "str 'good'",
    ),
    (
        "wafers-no-kind",
        lambda _: wafer_patterns(kinds=[]),
        Value,
        "kinds",
        "at least one",
    ),
    ("wafers-number", lambda _: wafer_patterns(n_per_kind=0), Value, "n_per_kind", "0"),
    (
        "textures-name",
        lambda _: data.load("textures", texture="sand"),
        Value,
        "texture",
        "'brick'",
        "'sand'",
    ),
    (
        "textures-size",
        lambda _: data.load("textures", size=500),
        Value,
        "size",
        "112",
        "500",
    ),
    ("textures-many", lambda _: data.load("textures", n_train=10**9), Value, "n_train"),
    ("textures-seed", lambda _: data.load("textures", seed=-1), Value, "seed", "-1"),
    (
        "photograph",
        lambda _: photograph("sand"),
        Value,
        "texture",
        "'gravel'",
        "'sand'",
    ),
    (
        "digits-class",
        lambda _: data.load("digits", normal_class=10),
        Value,
        "normal_class",
        "9",
        "10",
    ),
    (
        "digits-class-text",
        lambda _: data.load("digits", normal_class="3"),
        Type,
        "normal_class",
        "str",
    ),
    (
        "digits-balanced",
        lambda _: data.load("digits", balanced="yes"),
        Value,
        "balanced",
        "'yes'",
    ),
    ("field-strength", lambda _: gaussian_field(strength=-2), Value, "strength", "-2"),
    (
        "field-strong",
        lambda _: gaussian_field(strength=1e6),
        Value,
        "strength",
        "at most",
    ),
    (
        "field-length",
        lambda _: gaussian_field(correlation_length=99),
        Value,
        "correlation_length",
        "99",
    ),
    ("field-test", lambda _: gaussian_field(n_test=1), Value, "n_test", "1"),
    ("field-optimum", lambda _: optimal_auroc(NAN), Value, "strength", "nan"),
    (
        "mnist-class",
        lambda tmp: data.load("mnist", root=tmp, normal_class="x"),
        Value,
        "normal_class",
        "'9'",
    ),
    (
        "mnist-val",
        lambda tmp: data.load("mnist", root=tmp, n_val=0),
        Value,
        "n_val",
        "0",
    ),
    (
        "mnist-download",
        lambda tmp: data.load("mnist", root=tmp, download=3),
        Value,
        "download",
        "3",
    ),
    (
        "cifar-class",
        lambda tmp: data.load("cifar10", root=tmp, normal_class=10),
        Value,
        "normal_class",
        "10",
    ),
    (
        "mvtec-name",
        lambda tmp: data.load("mvtec-ad", category="x", root=tmp),
        Value,
        "category",
        "'bottle'",
    ),
    (
        "btad-name",
        lambda tmp: data.load("btad", category="04", root=tmp),
        Value,
        "category",
        "'01'",
        "'04'",
    ),
    (
        "root-number",
        lambda _: data.load("btad", category="01", root=3),
        Type,
        "root",
        "int 3",
    ),
    ("folder-number", lambda _: data.from_folder(3), Type, "path", "int 3"),
    (
        "folder-size",
        lambda tmp: data.from_folder(layout(tmp), size=0),
        Value,
        "size",
        "0",
    ),
    (
        "folder-sizes",
        lambda tmp: data.from_folder(layout(tmp), size=(8, 8, 8)),
        Value,
        "size",
        "(8, 8, 8)",
    ),
    (
        "folder-crop",
        lambda tmp: data.from_folder(layout(tmp), crop=9),
        Value,
        "crop",
        "8×8",
        "9",
    ),
    (
        "folder-val",
        lambda tmp: data.from_folder(layout(tmp), val_fraction=1),
        Value,
        "val_fraction",
        "1",
    ),
    (
        "folder-one-image",
        lambda tmp: data.from_folder(layout(tmp, n=1)),
        Value,
        "train",
        "at least two",
    ),
    # measures of performance
    (
        "auroc-nan",
        lambda _: metrics.auroc(spoiled(SCORES, NAN), LABELS),
        Value,
        "scores",
        "1 that are NaN",
    ),
    (
        "auroc-infinite",
        lambda _: metrics.auroc(spoiled(SCORES, INF), LABELS),
        Value,
        "scores",
        "infinite",
    ),
    (
        "auroc-empty",
        lambda _: metrics.auroc([], []),
        Value,
        "scores",
        "non-empty",
        "(0,)",
    ),
    (
        "auroc-rank",
        lambda _: metrics.auroc(SCORES[:, None], LABELS),
        Value,
        "scores",
        "(N,)",
        "(8, 1)",
    ),
    ("auroc-text", lambda _: metrics.auroc("scores", LABELS), Type, "scores", "str"),
    (
        "auroc-one-class",
        lambda _: metrics.auroc(SCORES, LABELS * 0),
        Value,
        "labels",
        "both classes",
        "[0]",
    ),
    (
        "roc-curve-length",
        lambda _: metrics.roc_curve(SCORES, LABELS[:7]),
        Value,
        "labels",
        "(8,)",
        "(7,)",
    ),
    (
        "pr-curve-labels",
        lambda _: metrics.precision_recall_curve(SCORES, LABELS * 2),
        Value,
        "labels",
        "2",
    ),
    (
        "ap-labels",
        lambda _: metrics.average_precision(SCORES, LABELS - 1),
        Value,
        "labels",
        "-1",
    ),
    (
        "f1-one-class",
        lambda _: metrics.best_f1(SCORES, LABELS * 0 + 1),
        Value,
        "labels",
        "[1]",
    ),
    (
        "youden-fractions",
        lambda _: metrics.best_tpr_tnr(SCORES, LABELS * 0.5),
        Value,
        "labels",
        "0.5",
    ),
    (
        "fpr-tpr",
        lambda _: metrics.fpr_at_tpr(SCORES, LABELS, tpr=95),
        Value,
        "tpr",
        "(0, 1]",
        "95",
    ),
    (
        "fpr-zero",
        lambda _: metrics.fpr_at_tpr(SCORES, LABELS, tpr=0),
        Value,
        "tpr",
        "(0, 1]",
        "0",
    ),
    (
        "accuracy-scores",
        lambda _: metrics.accuracy(SCORES, LABELS),
        Value,
        "verdicts",
        "True and False",
    ),
    (
        "accuracy-length",
        lambda _: metrics.accuracy(LABELS, LABELS[:3]),
        Value,
        "labels",
        "(8,)",
        "(3,)",
    ),
    ("rates-empty", lambda _: metrics.rates([], []), Value, "verdicts", "empty"),
    (
        "rates-one-class",
        lambda _: metrics.rates(LABELS, LABELS * 0),
        Value,
        "labels",
        "both classes",
    ),
    (
        "pixel-rank",
        lambda _: metrics.pixel_auroc(IMAGES, MASKS),
        Value,
        "maps",
        "(N, H, W)",
        "(8, 1, 6, 5)",
    ),
    (
        "pixel-size",
        lambda _: metrics.pixel_auroc(MAPS, MASKS[:, 1:]),
        Value,
        "masks",
        "(8, 6, 5)",
    ),
    (
        "pixel-nan",
        lambda _: metrics.pixel_auroc(spoiled(MAPS, NAN), MASKS),
        Value,
        "maps",
        "NaN",
    ),
    ("pro-grey-masks", lambda _: metrics.pro(MAPS, MAPS), Value, "masks", "0 and 1"),
    ("pro-no-masks", lambda _: metrics.pro(MAPS, None), Type, "masks", "NoneType"),
    (
        "pro-no-anomaly",
        lambda _: metrics.pro(MAPS, MASKS & False),
        Value,
        "masks",
        "no anomalous pixel",
    ),
    (
        "pro-no-normal",
        lambda _: metrics.pro(MAPS, MASKS | True),
        Value,
        "masks",
        "no normal pixel",
    ),
    (
        "pro-fpr",
        lambda _: metrics.pro(MAPS, MASKS, max_fpr=0),
        Value,
        "max_fpr",
        "(0, 1]",
        "0",
    ),
    (
        "pro-curve-fpr",
        lambda _: metrics.pro_curve(MAPS, MASKS, max_fpr=30),
        Value,
        "max_fpr",
        "30",
    ),
    (
        "oscr-known",
        lambda _: metrics.oscr([], [], SCORES),
        Value,
        "known_scores",
        "(0,)",
    ),
    (
        "oscr-correct",
        lambda _: metrics.oscr(SCORES, LABELS[:2], SCORES),
        Value,
        "known_correct",
        "(8,)",
    ),
    (
        "oscr-classes",
        lambda _: metrics.oscr(SCORES, np.arange(8), SCORES),
        Value,
        "known_correct",
        "True",
    ),
    (
        "oscr-unknown",
        lambda _: metrics.oscr(SCORES, LABELS, [NAN]),
        Value,
        "unknown_scores",
        "NaN",
    ),
    # decision rules
    (
        "quantile-percent",
        lambda _: decision.quantile_threshold(SCORES, 5),
        Value,
        "fpr",
        "(0, 1)",
        "5",
    ),
    (
        "quantile-zero",
        lambda _: decision.quantile_threshold(SCORES, 0),
        Value,
        "fpr",
        "(0, 1)",
        "0",
    ),
    (
        "quantile-few",
        lambda _: decision.quantile_threshold(SCORES, 0.01),
        Value,
        "scores",
        "99",
        "8",
    ),
    (
        "quantile-nan",
        lambda _: decision.quantile_threshold(spoiled(SCORES, NAN), 0.5),
        Value,
        "scores",
    ),
    (
        "sigma-one",
        lambda _: decision.sigma_threshold([1.0]),
        Value,
        "scores",
        "at least 2",
        "1",
    ),
    ("sigma-k", lambda _: decision.sigma_threshold(SCORES, k=-3), Value, "k", "-3"),
    (
        "sigma-maps",
        lambda _: decision.sigma_threshold(MAPS),
        Value,
        "scores",
        "(N,)",
        "(8, 6, 5)",
    ),
    (
        "bootstrap-fpr",
        lambda _: decision.bootstrap_threshold(SCORES, 1),
        Value,
        "fpr",
        "1",
    ),
    (
        "bootstrap-none",
        lambda _: decision.bootstrap_threshold(SCORES, 0.1, 0),
        Value,
        "n_resamples",
        "0",
    ),
    (
        "bootstrap-seed",
        lambda _: decision.bootstrap_threshold(SCORES, 0.1, seed=-1),
        Value,
        "seed",
        "-1",
    ),
    (
        "bootstrap-sure",
        lambda _: decision.bootstrap_threshold(SCORES, 0.1, confidence=5),
        Value,
        "confidence",
    ),
    (
        "bootstrap-text",
        lambda _: decision.bootstrap_threshold("abc", 0.1),
        Type,
        "scores",
        "str",
    ),
    # figures
    ("grid-images", lambda _: plots.image_grid(IMAGES * 2), Value, "images", "[0, 1]"),
    (
        "grid-titles",
        lambda _: plots.image_grid(IMAGES, ["one"]),
        Value,
        "titles",
        "8",
        "1",
    ),
    (
        "grid-masks",
        lambda _: plots.image_grid(IMAGES, masks=MASKS[:3]),
        Value,
        "masks",
        "(8, 6, 5)",
    ),
    (
        "grid-columns",
        lambda _: plots.image_grid(IMAGES, columns=0),
        Value,
        "columns",
        "0",
    ),
    (
        "maps-size",
        lambda _: plots.map_grid(IMAGES, MAPS[:, 1:]),
        Value,
        "maps",
        "(8, 6, 5)",
        "(8, 5, 5)",
    ),
    (
        "maps-nan",
        lambda _: plots.map_grid(IMAGES, spoiled(MAPS, NAN)),
        Value,
        "maps",
        "NaN",
    ),
    (
        "maps-titles",
        lambda _: plots.map_grid(IMAGES, MAPS, titles="ab"),
        Value,
        "titles",
        "8",
        "2",
    ),
    (
        "histogram-labels",
        lambda _: plots.score_histogram(SCORES, LABELS * 3),
        Value,
        "labels",
        "3",
    ),
    (
        "histogram-bins",
        lambda _: plots.score_histogram(SCORES, LABELS, bins=0),
        Value,
        "bins",
        "0",
    ),
    (
        "histogram-threshold",
        lambda _: plots.score_histogram(SCORES, LABELS, {"a": NAN}),
        Value,
        "thresholds",
    ),
    ("roc-nothing", lambda _: plots.roc({}), Value, "curves", "at least one"),
    ("roc-pair", lambda _: plots.roc((SCORES, LABELS)), Type, "curves", "tuple"),
    (
        "roc-one-class",
        lambda _: plots.roc({"a": (SCORES, LABELS * 0)}),
        Value,
        "labels",
        "both classes",
    ),
    ("show-builtin", lambda _: adlab.show(len), Type, "obj", "function", "len"),
    ("show-number", lambda _: adlab.show(3), Type, "obj", "3"),
]


# files and folders of images


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def draw(path, size=8, value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (size, size), value).save(path)


def layout(folder, n=4):
    """A small data set in the MVTec AD layout."""
    for i in range(n):
        draw(folder / "train" / "good" / f"{i}.png", value=10 * i)
    draw(folder / "test" / "good" / "0.png")
    draw(folder / "test" / "hole" / "1.png")
    draw(folder / "ground_truth" / "hole" / "1_mask.png", value=255)
    return folder


def without(folder, name):
    """The same data set, but a file is gone."""
    (layout(folder) / name).unlink()
    return folder


def with_text(folder, name):
    """The same data set, but a file is no image."""
    write(layout(folder) / name, "I am no image")
    return folder


def with_size(folder, name):
    """The same data set, but a file is of another size."""
    draw(layout(folder) / name, size=5)
    return folder


def archive(folder, name):
    """An archive that holds a file of that name."""
    text = write(folder / "innocent.txt", "text " * 5000)
    with tarfile.open(folder / "packed.tar", "w") as file:
        file.add(text, arcname=name)
    return folder / "packed.tar"


def halved(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def half_mnist(root):
    """MNIST as a broken download leaves it."""
    path = write(root / "MNIST" / "raw" / "train-images-idx3-ubyte", "")
    path.write_bytes(
        b"\0\0\x08\x03" + b"\0\0\xea\x60" + b"\0\0\0\x1c" * 2 + bytes(1000)
    )
    return root


FILES = [
    (
        "mnist-missing",
        lambda tmp: data.load("mnist", root=tmp, download=False),
        Missing,
        "train-images",
    ),
    (
        "mnist-half",
        lambda tmp: data.load("mnist", root=half_mnist(tmp)),
        Value,
        "train-images-idx3-ubyte",
    ),
    (
        "cifar-missing",
        lambda tmp: data.load("cifar10", root=tmp, download=False),
        Missing,
        "data_batch_1",
    ),
    (
        "mvtec-missing",
        lambda tmp: data.load("mvtec-ad", category="pill", root=tmp),
        Missing,
        "'pill'",
    ),
    (
        "btad-missing",
        lambda tmp: data.load("btad", category="01", root=tmp),
        Missing,
        "'01'",
        "github",
    ),
    ("folder-missing", lambda tmp: data.from_folder(tmp / "no"), Missing, "path", "no"),
    ("folder-empty", lambda tmp: data.from_folder(tmp), Missing, "path", "train"),
    (
        "folder-no-images",
        lambda tmp: data.from_folder(without(tmp, "test/good/0.png")),
        Value,
        "test/good",
    ),
    (
        "image-text",
        lambda tmp: data.from_folder(with_text(tmp, "train/good/1.png")),
        Value,
        "good/1.png",
    ),
    (
        "image-size",
        lambda t: data.from_folder(with_size(t, "test/good/0.png")),
        Value,
        "good/0.png",
        "5×5",
    ),
    ("mask-missing", lambda t: data.from_folder(without(t, MASK)), Value, "1_mask"),
    ("mask-text", lambda t: data.from_folder(with_text(t, MASK)), Value, "1_mask"),
    ("mask-size", lambda t: data.from_folder(with_size(t, MASK)), Value, "8×8", "5×5"),
    (
        "archive-missing",
        lambda tmp: unpack(tmp / "no.tar", tmp / "out"),
        Missing,
        "archive",
        "no.tar",
    ),
    (
        "archive-text",
        lambda tmp: unpack(write(tmp / "a.tar", "text"), tmp / "out"),
        Value,
        "a.tar",
    ),
    (
        "archive-half",
        lambda tmp: unpack(halved(archive(tmp, "a")), tmp / "out"),
        Value,
        "packed.tar",
    ),
    (
        "archive-escapes",
        lambda tmp: unpack(archive(tmp, "../evil"), tmp / "out"),
        Value,
        "'../evil'",
    ),
    (
        "archive-absolute",
        lambda tmp: unpack(archive(tmp, "a/../../evil"), tmp / "out"),
        Value,
        "evil",
    ),
]


def folder_of(path):
    """A folder of short name: messages quote it, and must not pass the test, or become
    too long, by that.
    """
    folder = path / "x"
    folder.mkdir()
    return folder


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("call", "error", "argument", "fragments"),
    [
        pytest.param(call, error, argument, fragments, id=name)
        for name, call, error, argument, *fragments in CASES
    ],
)
def test_bad_argument_is_refused(call, error, argument, fragments, tmp_path, capfd):
    with pytest.raises(error) as caught:
        call(folder_of(tmp_path))
    message = str(caught.value)
    assert message.startswith(argument), message
    missing = [text for text in ("expected", "got", *fragments) if text not in message]
    assert not missing, f"{missing} not in: {message}"
    assert len(message) < 500, "a message is read, not searched"
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("call", "error", "fragments"),
    [
        pytest.param(call, error, fragments, id=name)
        for name, call, error, *fragments in FILES
    ],
)
def test_bad_file_is_named(call, error, fragments, tmp_path, capfd):
    with pytest.raises(error) as caught:
        call(folder_of(tmp_path))
    message = str(caught.value)
    missing = [text for text in fragments if text not in message]
    assert not missing, f"{missing} not in: {message}"
    assert capfd.readouterr() == ("", "")
    assert not (tmp_path / "x" / "out").exists()
    assert not list(tmp_path.rglob("evil"))


def test_the_tables_are_long_and_their_names_unique():
    names = [name for name, *_ in CASES + FILES]
    assert len(names) >= 60
    assert len(set(names)) == len(names)
