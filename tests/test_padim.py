"""PaDiM against SciPy, NumPy, scikit-learn and slow explicit loops."""

import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from bad_input import IMAGES, refuses
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import mahalanobis
from sklearn.decomposition import PCA
from torch import nn
from torch.nn.functional import interpolate

import adlab
from adlab import inspection
from adlab._maps import enlarge_and_blur, shrink
from adlab.backbones import concatenate
from adlab.data import ImageFolder
from adlab.padim import (
    PaDiM,
    mahalanobis_map,
    shared_places,
    squared_distances,
    whiten,
)
from adlab.vectors import Moments

LAYERS = ("fine", "middle", "coarse")


class Network(nn.Module):
    """Three layers with strides 2, 4 and 8, of 6, 8 and 12 channels."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.fine = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU())
            self.middle = nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
            self.coarse = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.Tanh())

    def forward(self, x):
        return self.coarse(self.middle(self.fine(x)))


def pictures(n, channels=1, height=32, width=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, channels, height, width, generator=generator)


def padim(n_features=10, layers=LAYERS, **options):
    options = {"sigma": 0, "reg_covar": 1e-3} | options
    return PaDiM(Network(), layers, n_features, **options)


def embedding(detector, images):
    """Vectors (N, d, h, w) of all places, by upsampling and concatenation, float64."""
    features = concatenate(detector._grids(images))
    return features[:, detector.channels_].double().numpy()


def reference(detector, train, test):
    """Distances (N, h, w): SciPy's, with NumPy's covariance, place by place."""
    train, test = embedding(detector, train), embedding(detector, test)
    n, d, height, width = test.shape
    distances = np.zeros((n, height, width))
    for r, c in np.ndindex(height, width):
        covariance = np.cov(train[:, :, r, c], rowvar=False).reshape(d, d)
        inverse = np.linalg.inv(covariance + detector.reg_covar * np.eye(d))
        mean = train[:, :, r, c].mean(0)
        for i in range(n):
            distances[i, r, c] = mahalanobis(test[i, :, r, c], mean, inverse)
    return distances


def places_map(detector, images):
    """Distances (N, h, w) at the places, before enlarging and blurring."""
    return detector.layer_distances(images).sum(1).sqrt().numpy()


# the distance


@pytest.mark.parametrize("n_train", [60, 7], ids=["N > d", "N < d"])
@pytest.mark.parametrize("n_features", [10, None])
@pytest.mark.parametrize(
    "shape", [(1, 32, 24), (3, 32, 24), (1, 30, 21), (3, 17, 40)], ids=str
)
def test_distances_are_scipys_at_every_place(shape, n_features, n_train):
    # 30 × 21 gives maps of 15 × 11, 8 × 6 and 4 × 3, which do not divide one another
    train, test = pictures(n_train, *shape), pictures(3, *shape, seed=1)
    detector = padim(n_features).fit(train)
    expected = reference(detector, train, test)
    np.testing.assert_allclose(places_map(detector, test), expected, rtol=1e-3)


@pytest.mark.parametrize("shape", [(1, 32, 24), (3, 17, 40)], ids=str)
def test_the_fast_form_is_the_plain_one(shape):
    train, test = pictures(30, *shape), pictures(3, *shape, seed=1)
    detector = padim(20).fit(train)
    places = (embedding(detector, images) for images in (train, test))
    vectors = [torch.from_numpy(x).movedim(1, 3) for x in places]
    expected = mahalanobis_map(*vectors, detector.reg_covar)
    np.testing.assert_allclose(places_map(detector, test), expected, rtol=1e-3)


def test_in_double_precision_distances_are_scipys_to_rounding():
    moments, maps = model(60)
    fine = moments.layers[-1]
    means = [layer.mean[:, -layer.last :] for layer in moments.layers]
    whitening = whiten(moments, 1e-3)
    places = shared_places(moments.sizes)
    double = [x.double().flatten(1, 2) for x in maps]
    got = sum(squared_distances(double, means, whitening, places)).sqrt().numpy()
    h, w = moments.sizes[-1]
    up = interpolate(double[0].unflatten(1, moments.sizes[0]).movedim(3, 1), (h, w))
    x = torch.cat([up.movedim(1, 3).flatten(1, 2), double[1]], 2).numpy()
    for place in range(h * w):
        covariance = np.cov(x[:, place], rowvar=False) + 1e-3 * np.eye(x.shape[2])
        inverse, mean = np.linalg.inv(covariance), x[:, place].mean(0)
        np.testing.assert_allclose(fine.mean[place], mean, rtol=1e-9, atol=1e-12)
        expected = [mahalanobis(row, mean, inverse) for row in x[:, place]]
        np.testing.assert_allclose(got[:, place], expected, rtol=1e-9)


def test_embedding_is_nearest_upsampling_and_concatenation():
    detector = padim(None).fit(pictures(4))
    maps = detector.network_(pictures(2, seed=1))
    upsampled = [interpolate(m, (16, 12), mode="nearest") for m in maps]
    torch.testing.assert_close(concatenate(maps), torch.cat(upsampled, 1))
    assert embedding(detector, pictures(2, seed=1)).shape == (2, 26, 16, 12)


@pytest.mark.parametrize("layers", [("coarse",), ("middle", "coarse"), LAYERS])
def test_layers_add_up_by_the_chain_rule(layers):
    train, test = pictures(50), pictures(4, seed=1)
    whole = padim(None).fit(train)
    part = padim(None, layers).fit(train)
    shares = whole.layer_distances(test)
    assert shares.shape == (4, 3, 16, 12)
    assert bool((shares >= 0).all())
    expected = torch.from_numpy(places_map(part, test)).square()
    expected = interpolate(expected[:, None], whole.sizes_[-1])[:, 0]
    got = shares[:, : len(layers)].sum(1)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_order_of_layers_does_not_matter():
    train, test = pictures(30), pictures(3, seed=1)
    maps = [
        padim(None, layers).fit(train).anomaly_map(test)
        for layers in (LAYERS, ("coarse", "fine", "middle"))
    ]
    torch.testing.assert_close(*maps, rtol=1e-4, atol=1e-4)


def model(n_images=50, seed=0, sizes=((2, 3), (4, 6)), widths=(3, 2)):
    """Moments of drawn vectors on two grids, as `PaDiM._gather` would make them."""
    detector = padim(None)
    detector._reduce(None)
    drawn = np.random.default_rng(seed)
    maps = [
        torch.from_numpy(drawn.normal(size=(n_images, *size, width))).float()
        for size, width in zip(sizes, widths, strict=True)
    ]
    detector._stream = lambda images: iter([images])
    detector._embed, detector.input_shape_ = lambda batch: maps, [1, 8, 8]
    return detector._gather(None), maps


def test_distance_at_the_mean_is_zero():
    moments, _ = model()
    places = shared_places(moments.sizes)
    means = [layer.mean[:, -layer.last :] for layer in moments.layers]
    maps = [mean[None] for mean in means]
    shares = squared_distances(maps, means, whiten(moments, 1e-3), places)
    assert float(sum(shares).abs().max()) < 1e-20


def test_round_gaussian_gives_euclidean_distance_in_units_of_sigma():
    moments, maps = model()
    for layer in moments.layers:
        unit = torch.eye(layer.mean.shape[1])[-layer.last :].double()
        layer.scatter = 0.25 * unit.expand_as(layer.scatter) * (layer.count - 1)
        layer.mean = torch.zeros_like(layer.mean)
    maps = [x.flatten(1, 2).double() for x in maps]
    means = [layer.mean[:, -layer.last :] for layer in moments.layers]
    places = shared_places(moments.sizes)
    got = sum(squared_distances(maps, means, whiten(moments, 1e-12), places)).sqrt()
    coarse = maps[0].mT.unflatten(2, (2, 3))
    fine = maps[1].mT.unflatten(2, (4, 6))
    expected = concatenate([coarse, fine]).norm(dim=1).flatten(1) / 0.5
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)


def test_mean_of_squared_distance_is_the_number_of_features():
    n, d = 3000, 5
    moments, _ = model(n)
    _, fresh = model(n, seed=1)
    means = [layer.mean[:, -layer.last :] for layer in moments.layers]
    squared = sum(
        squared_distances(
            [x.flatten(1, 2).double() for x in fresh],
            means,
            whiten(moments, 1e-12),
            shared_places(moments.sizes),
        )
    )
    expected = d * (n + 1) * (n - 1) / (n * (n - d - 2))  # of a new Gaussian vector
    assert abs(float(squared.mean()) / expected - 1) < 0.01


@pytest.mark.parametrize("block", [1, 5])
def test_blocks_of_places_do_not_show(block, monkeypatch):
    moments, _ = model(sizes=((2, 3), (3, 5), (4, 6)), widths=(3, 2, 4))
    whole = whiten(moments, 1e-3)
    monkeypatch.setattr("adlab.padim.BLOCK", block)
    for there, here in zip(whole, whiten(moments, 1e-3), strict=True):
        torch.testing.assert_close(there, here, rtol=1e-9, atol=1e-9)


# large grids


@pytest.mark.parametrize(
    ("size", "max_grid", "side"),
    [((6, 4), 3, 2), ((7, 4), 3, 3), ((6, 4), 6, 1), ((6, 4), None, 1), ((5, 9), 1, 9)],
)
def test_large_grids_are_means_over_squares(size, max_grid, side):
    maps = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    small = shrink(maps, max_grid)
    assert small.shape[2:] == tuple(-(-n // side) for n in size)
    for r, c in np.ndindex(*small.shape[2:]):
        square = maps[:, :, r * side : (r + 1) * side, c * side : (c + 1) * side]
        torch.testing.assert_close(small[:, :, r, c], square.mean((2, 3)))


def test_a_large_grid_has_a_gaussian_for_each_square():
    train, test = pictures(60), pictures(3, seed=1)
    detector = padim(max_grid=8).fit(train)
    assert detector.sizes_ == [(4, 3), (8, 6), (8, 6)]
    expected = reference(detector, train, test)
    np.testing.assert_allclose(places_map(detector, test), expected, rtol=1e-3)
    assert detector.anomaly_map(test).shape == (3, 32, 24)


# the moments


def test_moments_are_numpys_covariance():
    detector, images = padim(), pictures(40)
    moments = detector.moments(images)
    detector.fit(images)
    vectors = embedding(detector, images)
    fine = moments.layers[-1]
    mine = fine.covariance().unflatten(0, moments.sizes[-1])
    assert moments.sizes == [(4, 3), (8, 6), (16, 12)]
    # from coarse to fine is the other way round than the order of the channels
    counts = [layer.last for layer in moments.layers]
    blocks = np.split(np.arange(10), np.cumsum(counts[::-1])[:-1])
    order = np.concatenate(blocks[::-1])
    for r, c in [(0, 0), (7, 5), (15, 11)]:
        expected = np.cov(vectors[:, order, r, c], rowvar=False)
        np.testing.assert_allclose(mine[r, c], expected[-fine.last :], atol=1e-9)


def test_last_rows_of_moments():
    x = torch.randn(30, 4, 5, generator=torch.Generator().manual_seed(0)).double()
    full, last = Moments(), Moments(last=2)
    for part in x.split(7):
        full.update(part)
        last.update(part)
    torch.testing.assert_close(last.covariance(), full.covariance()[:, -2:])


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_one_pass_in_batches_is_the_whole(batch_size):
    detector = padim()
    detector.batch_size = batch_size
    detector.fit(pictures(64))
    whole = padim()
    whole.batch_size = 64
    whole.fit(pictures(64))
    for mine, theirs in zip(detector.rows_, whole.rows_, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_halves_fitted_apart_and_merged_are_the_whole():
    images, detector = pictures(50), padim()
    merged = detector.moments(images[:13]).merge(detector.moments(images[13:]))
    whole = padim().fit(images)
    parts = padim().fit(merged)
    for name in ("rows_", "means_"):
        pairs = zip(getattr(parts, name), getattr(whole, name), strict=True)
        for mine, theirs in pairs:
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)
    test = pictures(4, seed=1)
    torch.testing.assert_close(
        parts.anomaly_map(test), whole.anomaly_map(test), rtol=1e-6, atol=1e-6
    )


def test_merging_changes_only_the_one_that_takes_in():
    detector = padim()
    a, b = detector.moments(pictures(5)), detector.moments(pictures(6, seed=1))
    before = b.layers[0].scatter.clone()
    a.merge(b).merge(b)
    assert a.layers[0].count == 17
    torch.testing.assert_close(b.layers[0].scatter, before)
    assert not hasattr(detector, "input_shape_")  # moments() leaves it unfitted


def test_moments_of_other_images_are_refused():
    detector = padim()
    with pytest.raises(ValueError, match="other: expected moments of images"):
        detector.moments(pictures(3)).merge(detector.moments(pictures(3, 3)))
    with pytest.raises(ValueError, match="other: expected moments of images"):
        detector.moments(pictures(3)).merge(
            detector.moments(pictures(3, height=30, width=21))
        )


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (padim(seed=1), "seed"),
        (padim(max_grid=8), "max_grid"),
        (padim(4), "channels"),
        (padim(layers=LAYERS[1:]), "layers"),
        (PaDiM("texnet-random", n_features=10), "backbone"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_moments_of_other_features_are_refused(other, what):
    detector = padim()
    mine, theirs = (d.moments(pictures(3)) for d in (detector, other))
    with pytest.raises(ValueError, match=f"other: expected moments of {what}"):
        mine.merge(theirs)
    with pytest.raises(ValueError, match=f"images: expected moments of {what}"):
        detector.fit(theirs)


def test_moments_of_a_trained_and_of_a_random_network_are_not_merged():
    trained, random = (
        PaDiM(name, ("layer1",), 4).moments(pictures(3))
        for name in ("texnet", "texnet-random")
    )
    with pytest.raises(ValueError, match="expected moments of backbone texnet, got"):
        trained.merge(random)


def test_one_image_has_no_covariance():
    with pytest.raises(ValueError, match="at least 2 vectors"):
        padim().fit(pictures(1))


def test_nothing_is_kept_of_the_images():
    refs = []

    def batches(n):
        for seed in range(n):
            batch = pictures(4, seed=seed)
            refs.append(weakref.ref(batch))
            yield batch
            del batch
            assert sum(ref() is not None for ref in refs) <= 2

    def numbers(moments):
        return sum(m.scatter.numel() + m.mean.numel() for m in moments.layers)

    few, many = (padim().moments(batches(n)) for n in (2, 12))
    assert numbers(few) == numbers(many)


# principal components


def test_pca_projects_on_scikit_learns_components():
    train, test = pictures(20), pictures(3, seed=1)
    detector = padim(5, reduction="pca").fit(train)
    rows = concatenate(detector.network_(train)).permute(0, 2, 3, 1).flatten(0, 2)
    theirs = torch.from_numpy(PCA(5).fit(rows.double().numpy()).components_.T)
    mine = detector.components_.double()
    torch.testing.assert_close(
        mine @ mine.T, theirs @ theirs.T, atol=1e-5, rtol=1e-5
    )  # signs are free
    projected = [
        torch.einsum(
            "bdhw,de->behw", concatenate(detector.network_(x)), detector.components_
        ).numpy()
        for x in (train, test)
    ]
    got = places_map(detector, test)
    for r, c in [(0, 0), (9, 4)]:
        x, y = (p[:, :, r, c].astype(float) for p in projected)
        inverse = np.linalg.inv(np.cov(x, rowvar=False) + 1e-3 * np.eye(5))
        expected = [mahalanobis(v, x.mean(0), inverse) for v in y]
        np.testing.assert_allclose(got[:, r, c], expected, rtol=1e-3)


def test_pca_with_all_components_changes_nothing():
    train, test = pictures(40), pictures(3, seed=1)
    pca = padim(None, reduction="pca").fit(train)
    expected = places_map(padim(None).fit(train), test)
    np.testing.assert_allclose(places_map(pca, test), expected, rtol=1e-3)


def test_pca_needs_to_read_the_images_twice():
    detector = padim(3, reduction="pca")
    with pytest.raises(ValueError, match="read twice"):
        detector.fit(iter([pictures(4)]))
    with pytest.raises(ValueError, match='expected "random"'):
        detector.moments(pictures(4))


# the map


@pytest.mark.parametrize("sigma", [0.5, 2, 4])
@pytest.mark.parametrize("size", [(24, 40), (7, 6)], ids=str)
def test_blur_is_that_of_scipy(size, sigma):
    maps = pictures(2, 1, 6, 5)[:, 0].double()
    enlarged = interpolate(maps[:, None], size, mode="bilinear")[:, 0].numpy()
    expected = [gaussian_filter(m, sigma, mode="reflect") for m in enlarged]
    got = enlarge_and_blur(maps, *size, sigma)
    np.testing.assert_allclose(got, expected, rtol=1e-10)


@pytest.mark.parametrize("sigma", [0, 1.5])
def test_map_is_the_distance_enlarged_and_blurred_by_scipy(sigma):
    test = pictures(2, seed=1)
    detector = padim(sigma=sigma).fit(pictures(20))
    places = torch.from_numpy(places_map(detector, test))
    wide = interpolate(places[:, None], (32, 24), mode="bilinear")[:, 0].numpy()
    expected = [gaussian_filter(m, sigma) if sigma else m for m in wide]
    np.testing.assert_allclose(detector.anomaly_map(test), expected, rtol=1e-4)


def test_constant_map_stays_constant():
    got = enlarge_and_blur(torch.full((1, 5, 4), 3.0), 33, 21, 4)
    torch.testing.assert_close(got, torch.full((1, 33, 21), 3.0))


def test_score_of_an_image_is_the_maximum_or_mean_of_its_map():
    train, test = pictures(20), pictures(3, seed=1)
    for name, of in {"max": torch.amax, "mean": torch.mean}.items():
        detector = padim(sigma=2, image_score=name).fit(train)
        expected = of(detector.anomaly_map(test), (1, 2))
        torch.testing.assert_close(detector.anomaly_score(test), expected)


def test_defect_is_found_where_it_is():
    test = pictures(2, seed=1) * 0.1
    test[1, 0, 8:14, 12:18] = 1
    maps = padim(sigma=1).fit(pictures(40) * 0.1).anomaly_map(test)
    row, column = divmod(int(maps[1].argmax()), 24)
    assert 7 <= row <= 15
    assert 11 <= column <= 19
    assert maps[1].max() > 2 * maps[0].max()


# What is drawn, saved and kept


def test_channels_follow_the_seed():
    images = pictures(4)
    draws = [padim(seed=seed).fit(images).channels_.tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]
    assert len(set(draws[0])) == 10
    assert padim(99).fit(images).channels_.tolist() == list(range(26))


def test_weights_of_a_random_backbone_come_from_the_seed():
    """Of all channels, so that none is drawn."""
    images, test = pictures(4), pictures(2, seed=1)
    one, same, other = (
        PaDiM("texnet-random", ("layer1",), None, seed=seed).fit(images)
        for seed in (1, 1, 2)
    )
    maps = [model.anomaly_map(test) for model in (one, same, other)]
    assert torch.equal(maps[0], maps[1])
    assert float((maps[0] - maps[2]).abs().max()) > 0.01 * float(maps[0].max())


def test_network_of_ones_own_cannot_be_saved(tmp_path):
    with pytest.raises(TypeError, match="a file can hold"):
        padim().fit(pictures(4)).save(tmp_path / "padim.safetensors")


def test_fitted_detector_survives_a_failed_fit():
    detector = padim().fit(pictures(10))
    before = detector.anomaly_map(pictures(2))
    with pytest.raises(ValueError, match="at least 2"):
        detector.fit(pictures(1))
    assert torch.equal(detector.anomaly_map(pictures(2)), before)


def test_size_on_disk_for_a_resnet(tmp_path):
    # the matrices at all places alone would take 125 MB, half of each 63 MB
    images = pictures(2, 3, 224, 224)
    detector = PaDiM("resnet18-random", n_features=100).fit(images)
    detector.save(tmp_path / "padim.safetensors")
    assert (tmp_path / "padim.safetensors").stat().st_size < 65e6
    assert detector.anomaly_map(images[:1]).shape == (1, 224, 224)


# on several processes


def write_images(folder, images):
    from PIL import Image

    for i, image in enumerate(images):
        (folder / str(i % 2)).mkdir(exist_ok=True)
        pixels = (image[0] * 255).byte().numpy()
        Image.fromarray(pixels).save(folder / str(i % 2) / f"{i}.png")


def run(*command):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_processes_fit_what_one_does(tmp_path):
    write_images(tmp_path, pictures(9))
    option = ("-o", "backbone=texnet-random", "--seed", 1, "--size", 32)
    fit = ("adlab", "fit", tmp_path, *option, "--held-out", 0.3)
    path = tmp_path / "two.safetensors"
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    printed = run(*torchrun, "-m", *fit, "--out", path)
    assert printed.count("6 images learned, 3 held out") == 1
    two = adlab.load_detector(path)
    images = ImageFolder(tmp_path, size=32)
    digests = inspection.digests_of(images.files)
    learn, held_out = inspection.hold_out(digests, 0.3, seed=1)
    part = ImageFolder(learn, reading=images.reading)
    one = inspection.fit(PaDiM("texnet-random", seed=1), part, held_out, digests)
    assert one.reading == two.reading == images.reading
    scores = [sorted(inspection.normal_of(each).scores) for each in (one, two)]
    np.testing.assert_allclose(*scores, rtol=1e-5)
    for name in ("rows_", "means_"):
        pairs = zip(getattr(one, name), getattr(two, name), strict=True)
        for mine, theirs in pairs:
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)
    test = pictures(2, width=32, seed=1)
    torch.testing.assert_close(
        one.anomaly_map(test), two.anomaly_map(test), rtol=1e-6, atol=1e-6
    )


def test_images_of_a_folder_are_read_one_by_one(tmp_path):
    images = pictures(3)
    write_images(tmp_path, images)
    folder = ImageFolder(tmp_path)
    assert len(folder) == 3
    names = [file.name for file in folder.files]
    assert names == ["0.png", "2.png", "1.png"]
    torch.testing.assert_close(folder[1], images[2], atol=1 / 255, rtol=0)
    assert ImageFolder(tmp_path, size=20, crop=16)[0].shape == (1, 16, 16)
    with pytest.raises(FileNotFoundError, match="expected a folder with images"):
        ImageFolder(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"size: expected an integer in \[1"):
        ImageFolder(tmp_path, size=0)
    with pytest.raises(ValueError, match=r"crop: expected an integer in \[1, 20"):
        ImageFolder(tmp_path, size=20, crop=24)
    write_images(tmp_path, pictures(1, height=30))  # the first one, anew
    with pytest.raises(
        ValueError, match=r"2\.png: expected shape \(1, 30, 24\).* got \(1, 32, 24\)"
    ):
        ImageFolder(tmp_path)[1]


# Bad input


def on_images():
    return PaDiM().fit(IMAGES)


test_bad_input = refuses(
    (lambda: PaDiM(reduction="svd"), ValueError, "reduction…'svd'"),
    (lambda: PaDiM(padding="edge"), ValueError, "padding…'edge'"),
    (lambda: PaDiM(max_grid=0), ValueError, "max_grid…[1"),
    (lambda: PaDiM(reg_covar=0), ValueError, "reg_covar…(0"),
    (lambda: PaDiM().fit(IMAGES[:1]), ValueError, "images…at least 2"),
    (lambda: PaDiM().fit(IMAGES * 255), ValueError, "images…[0, 1]"),
    (lambda: on_images().anomaly_map(IMAGES.mT), ValueError, "images…(N, 1, 6, 5)"),
    (lambda: PaDiM(reduction="pca").moments(IMAGES), ValueError, "reduction…pca"),
)
