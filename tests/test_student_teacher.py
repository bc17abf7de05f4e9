"""Student and teacher, against NumPy, SciPy and closed forms."""

from typing import get_args

import numpy as np
import pytest
import torch
from bad_input import IMAGES, refuses
from scipy.interpolate import RegularGridInterpolator
from scipy.ndimage import gaussian_filter
from torch import nn
from torch.nn.functional import pad
from torch.utils.data import DataLoader, TensorDataset

import adlab
from adlab import student_teacher
from adlab.backbones import Backbone
from adlab.data import ImageSet
from adlab.student_teacher import (
    MultiScale,
    PatchNetwork,
    StudentTeacher,
    augment,
    compactness_loss,
    correlation_matrix,
    enlarge,
    error_and_variance,
    triplet_loss,
)
from adlab.vectors import Gaussian

QUICK = {
    "receptive_field": 9,
    "width": 4,
    "n_features": 3,
    "epochs": 2,
    "teacher_epochs": 2,
}
SIZES = [(p, s) for p in (9, 17, 33, 65) for s in (1, 2, 4, 8, 16) if p > 2 * s]


def pictures(n, channels=1, height=24, width=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, height // 4, width // 4, generator=generator)
    return nn.functional.interpolate(coarse, (height, width), mode="bilinear")


def features(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small_backbone(channels=1):
    """A network of one's own; its last layer has the stride 4."""
    with adlab.training.seeded(0):
        return nn.Sequential(
            nn.Conv2d(channels, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1)
        )


def detector(teacher="backbone", **options):
    own = {"backbone": small_backbone(), "layers": ("2",)}
    return StudentTeacher(teacher, **own | QUICK | options)


every_teacher = pytest.mark.parametrize("teacher", get_args(student_teacher.Teacher))


# Networks


@pytest.mark.parametrize(("p", "stride"), SIZES)
def test_a_patch_within_an_image_is_described_as_when_it_comes_alone(p, stride):
    images = pictures(2, 3, 28, 40)
    with adlab.training.seeded(1), torch.no_grad():
        network = PatchNetwork(3, 5, p, stride, width=8).eval()
        if p // 2 >= 28:
            images = pictures(2, 3, 36, 40)
        dense = network.dense(images)
        mirrored = pad(images, [p // 2] * 4, mode="reflect")
        _, _, h, w = dense.shape
        assert (h, w) == (-(-images.shape[2] // stride), -(-images.shape[3] // stride))
        for i, j in [(0, 0), (h - 1, 0), (h // 2, w // 3), (h - 1, w - 1)]:
            top, left = stride * i, stride * j
            patch = mirrored[:, :, top : top + p, left : left + p]
            alone = network(patch)
            assert alone.shape == (2, 5, 1, 1)
            np.testing.assert_allclose(dense[:, :, i, j], alone[..., 0, 0], atol=1e-5)


@pytest.mark.parametrize(("p", "stride"), SIZES)
def test_receptive_field_is_exactly_the_patch(p, stride):
    network = PatchNetwork(1, 1, p, stride, width=2).eval()
    for parameter in network.parameters():  # positive all over: nothing can cancel
        nn.init.constant_(parameter, 0.1)
    x = torch.ones(1, 1, 2 * p + 1, 2 * p + 1, requires_grad=True)
    y = network(x)
    y[0, 0, 0, 0].backward()
    assert (x.grad[0, 0, :p, :p] > 0).all()
    assert (x.grad[0, 0, p:] == 0).all() and (x.grad[0, 0, :, p:] == 0).all()


def test_borders_of_a_flat_image_are_like_its_middle():
    network = PatchNetwork(1, 4, 17, 4, width=8).eval()
    with torch.no_grad():
        flat = network.dense(torch.full((1, 1, 32, 32), 0.7))
    np.testing.assert_allclose(flat, flat[:, :, :1, :1].expand_as(flat), atol=1e-6)


def test_backbone_does_not_see_black_beyond_the_border():
    model = StudentTeacher(**QUICK).fit(pictures(5, 1, 32, 32))
    flat = model.target(torch.full((1, 1, 32, 32), 0.7))
    np.testing.assert_allclose(flat, flat[:, :, 4:5, 4:5].expand_as(flat), atol=1e-4)


def test_weights_of_a_random_backbone_come_from_the_seed():
    train, options = pictures(5), {"backbone": "texnet-random", "layers": ("stem.0",)}
    model = StudentTeacher(**QUICK | options, n_students=1, seed=3).fit(train)
    (features,) = Backbone("texnet-random", ("stem.0",), seed=3)(train)
    expected = (features - model.mean_) / model.std_
    inner = slice(2, -2)  # away from the borders, which are mirrored
    ours = model.target(train)[..., inner, inner]
    np.testing.assert_allclose(ours, expected[..., inner, inner], atol=1e-3)


@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize(("height", "width"), [(17, 33), (18, 66), (200, 41), (66, 66)])
def test_stride_is_that_of_the_layer_whatever_the_size_of_an_image(
    layer, height, width
):
    model = StudentTeacher(
        backbone="texnet-random", layers=(f"layer{layer}",), width=4, epochs=1
    )
    model.input_shape_ = [1, height, width]
    model._probe()
    model._build()
    assert model.stride_ == 2**layer
    x = pictures(1, 1, 4 * height, 4 * width)[..., :height, :width]
    assert model._predict(x)[:, 0].shape == model._features(x).shape


# Losses


def test_correlation_is_that_of_numpy_over_features_and_not_over_samples():
    x = features(50, 6).double() @ features(6, 6, seed=1).double() + 3
    expected = np.corrcoef(x.numpy(), rowvar=False)
    np.testing.assert_allclose(correlation_matrix(x), expected, atol=1e-12)
    others = expected[~np.eye(6, dtype=bool)]
    assert float(compactness_loss(x)) == pytest.approx(np.mean(others**2))


def test_compactness_is_nothing_for_independent_features_and_one_for_copies():
    hadamard = torch.tensor([[1.0, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]])
    assert float(compactness_loss(hadamard)) == pytest.approx(0, abs=1e-6)
    copies = features(20, 1) * torch.tensor([1.0, -2, 3])
    assert float(compactness_loss(copies)) == pytest.approx(1, abs=1e-5)
    assert torch.isfinite(compactness_loss(torch.zeros(4, 3)))


def test_triplet_loss_swaps_the_anchor():
    anchor, positive, negative = (features(40, 5, seed=i).numpy() for i in range(3))
    expected = []
    for a, p, n in zip(anchor, positive, negative, strict=True):
        far = min(np.sum((a - n) ** 2), np.sum((p - n) ** 2))
        expected.append(max(0, 1 + np.sum((a - p) ** 2) - far))
    ours = triplet_loss(*map(torch.from_numpy, (anchor, positive, negative)))
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


def test_triplet_loss_is_zero_once_the_margin_is_kept():
    anchor, positive = torch.zeros(1, 2), torch.tensor([[1.0, 0]])
    far, near = torch.tensor([[0, 1.5]]), torch.tensor([[2.0, 0]])
    assert float(triplet_loss(anchor, positive, far)) == 0  # 1 + 1 <= 2.25
    assert float(triplet_loss(anchor, positive, near)) == 1  # near the positive


def test_augmentation_moves_lights_and_adds_noise():
    x = pictures(40)
    with adlab.training.seeded(0):
        assert torch.equal(augment(x, 0, 0, 0), x)
        lit = augment(x, 0, 0.2, 0) - x
        moved = augment(x, 2, 0, 0)
        noisy = augment(x, 0, 0, 0.05) - x
    assert (lit.flatten(1).std(1) < 1e-6).all() and lit.abs().max() <= 0.2
    assert lit.min() < -0.1 and lit.max() > 0.1  # darker or brighter, as it happens
    mirrored = pad(x, [2] * 4, mode="reflect").unfold(2, 24, 1).unfold(3, 20, 1)
    for shifts, image in zip(mirrored, moved, strict=True):
        assert (shifts[0] == image).flatten(-2).all(-1).any()
    assert float(noisy.std()) == pytest.approx(0.05, rel=0.1)


# Score


def test_error_and_variance_are_those_of_a_loop():
    predictions, target = features(2, 3, 4, 2, 3), features(2, 4, 2, 3, seed=1)
    error, variance = error_and_variance(predictions, target)
    for b, r, c in np.ndindex(2, 2, 3):
        students = predictions[b, :, :, r, c].double().numpy()
        y = target[b, :, r, c].double().numpy()
        mean = students.mean(0)
        assert float(error[b, r, c]) == pytest.approx(np.sum((mean - y) ** 2), rel=1e-5)
        printed = np.mean(np.sum(students**2, 1)) - np.sum(mean**2)
        assert float(variance[b, r, c]) == pytest.approx(printed, rel=1e-5)


def test_equal_students_have_no_variance_and_right_ones_no_error():
    target = features(2, 4, 2, 3)
    error, variance = error_and_variance(
        target[:, None].expand(-1, 3, -1, -1, -1), target
    )
    assert float(error.abs().max()) < 1e-10 and float(variance.abs().max()) < 1e-10


def test_variance_does_not_cancel():
    spread = 1e-3 * features(1, 3, 8, 4, 4)
    _, expected = error_and_variance(spread, torch.zeros(1, 8, 4, 4))
    _, variance = error_and_variance(spread + 100, torch.zeros(1, 8, 4, 4))
    np.testing.assert_allclose(variance, expected, rtol=0.05)


def test_enlarged_map_has_its_values_at_the_right_pixels():
    maps = features(2, 4, 3)
    ours = enlarge(maps, 4, 15, 12)
    assert torch.equal(ours[:, ::4, ::4], maps)
    rows, columns = np.arange(0, 13, 4), np.arange(0, 9, 4)
    where = np.stack(np.meshgrid(np.arange(15), np.arange(12), indexing="ij"), -1)
    for one, expected in zip(ours, maps, strict=True):
        inside = RegularGridInterpolator((rows, columns), expected.double().numpy())
        nearest = np.minimum(where, [12, 8])
        np.testing.assert_allclose(one, inside(nearest), atol=1e-5)


# The detector


@every_teacher
def test_both_terms_are_standardised_on_the_held_out_images(teacher):
    train = pictures(20)
    model = detector(teacher).fit(train)
    _, held_out = student_teacher._hold_out(TensorDataset(train), 0.2, 0)
    assert len(held_out) == 4
    held_out = torch.stack([image for (image,) in held_out])
    error, variance = error_and_variance(
        model.predict(held_out), model.target(held_out)
    )
    for i, term in enumerate((error, variance)):
        term = term.double()
        assert float(model.term_mean_[i]) == pytest.approx(float(term.mean()), rel=1e-4)
        std = float(term.std(correction=0))
        assert float(model.term_std_[i]) == pytest.approx(std, rel=1e-4)
    e = (error - error.mean()) / error.std(correction=0)
    v = (variance - variance.mean()) / variance.std(correction=0)
    for model.term, expected in [("error", e), ("variance", v), ("both", e + v)]:
        maps = model.anomaly_map(held_out)[:, ::4, ::4]
        np.testing.assert_allclose(maps, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("n", "share", "expected"), [(30, 0.3, 9), (7, 0.25, 2), (2, 0.1, 1)]
)
def test_held_out_images_are_apart_from_the_others(n, share, expected):
    learn, held_out = student_teacher._hold_out(
        TensorDataset(torch.arange(n)), share, 5
    )
    assert len(held_out) == expected
    assert sorted([*learn.indices, *held_out.indices]) == list(range(n))


@every_teacher
def test_nothing_is_learned_from_held_out_images(teacher):
    train, options = pictures(20), {"val_fraction": 0.3, "seed": 1}
    _, held_out = student_teacher._hold_out(TensorDataset(train), 0.3, 1)
    other = train.clone()
    other[held_out.indices] = 1 - other[held_out.indices]
    one, two = (detector(teacher, **options).fit(images) for images in (train, other))
    assert_same_weights(one.students_, two.students_)
    assert torch.equal(one.mean_, two.mean_)
    if teacher != "backbone":
        assert_same_weights(one.teacher_, two.teacher_)
    assert not torch.equal(one.term_mean_, two.term_mean_)


@every_teacher
def test_target_is_standardised_over_the_images_learned_from(teacher):
    train = pictures(20)
    model = detector(teacher).fit(train)
    learn, _ = student_teacher._hold_out(TensorDataset(train), 0.2, 0)
    target = model.target(train[learn.indices])
    np.testing.assert_allclose(target.mean((0, 2, 3)), 0, atol=1e-4)
    std = target.std((0, 2, 3), correction=0)
    floor = model.std_.flatten() <= model.std_.min() * 1.001
    np.testing.assert_allclose(std[~floor], 1, rtol=1e-4)
    assert float(std.max()) < 1 + 1e-4


def test_a_channel_that_hardly_moves_does_not_drown_the_others():
    network = small_backbone()
    with torch.no_grad():
        network[2].weight[0] *= 1e-5
    model = StudentTeacher(backbone=network, layers=("2",), **QUICK)
    target = model.fit(pictures(20)).target(pictures(20, seed=1))
    assert float(target[:, 0].std()) < 1e-3


def test_no_channel_is_divided_by_less_than_half_the_median_deviation():
    """Channels that are one image, 1, 1, 1, 0.6 and 0.3 times; the floor is at 0.5."""
    network = nn.Conv2d(1, 5, 1, 4, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([1, 0.3, 1, 0.6, 1]).view(5, 1, 1, 1))
    train = pictures(10)
    model = detector(backbone=nn.Sequential(network), layers=("0",)).fit(train)
    learn, _ = student_teacher._hold_out(TensorDataset(train), 0.2, 0)
    std = model.target(train[learn.indices]).std((0, 2, 3), correction=0)
    np.testing.assert_allclose(std, [1, 0.3 / 0.5, 1, 1, 1], rtol=1e-4)


def assert_same_weights(one, two):
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        np.testing.assert_allclose(a.detach(), b.detach(), rtol=1e-4, atol=1e-6)


def test_students_start_apart_and_each_learns_as_it_would_alone():
    train = pictures(12)
    three = detector(n_students=3).fit(train)
    alone = detector(n_students=1).fit(train)
    assert_same_weights(three.students_[0], alone.students_[0])
    first = [student.layers[0].weight for student in three.students_]
    for i in range(3):
        assert not torch.allclose(first[i], first[(i + 1) % 3], atol=0.01)


def test_loss_is_the_sum_over_students_of_what_each_would_have_alone():
    train, standing = pictures(20), {"epochs": 1, "lr": 1e-12, "batch_size": 64}
    model = detector(n_students=3, **standing).fit(train)
    learn, _ = student_teacher._hold_out(TensorDataset(train), 0.2, 0)
    images = train[learn.indices]
    target = model.target(images)
    model.students_.train()  # with the statistics of the batch, as they learned
    with torch.no_grad():
        alone = [
            float((student.dense(images) - target).square().mean())
            for student in model.students_
        ]
    assert model.history_ == [pytest.approx(sum(alone), rel=1e-4)]


@every_teacher
def test_teacher_is_frozen_and_in_eval_mode_while_students_learn(teacher, monkeypatch):
    seen = []

    def loss(self, batch):
        network = self.network_.network if teacher == "backbone" else self.teacher_
        weights = torch.cat([p.detach().flatten() for p in network.parameters()])
        frozen = not any(p.requires_grad for p in network.parameters())
        modes = [m.training for m in network.modules()]
        target = self._target(batch)
        seen.append((weights.clone(), frozen, any(modes), target.requires_grad))
        return original(self, batch)

    original = StudentTeacher._student_loss
    monkeypatch.setattr(StudentTeacher, "_student_loss", loss)
    detector(teacher).fit(pictures(20))
    assert len(seen) == 8
    for weights, frozen, training, learns in seen:
        assert torch.equal(weights, seen[0][0])
        assert frozen and not training and not learns


def test_backbone_given_is_left_as_it_was():
    network = small_backbone()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    StudentTeacher(backbone=network, layers=("2",), **QUICK).fit(pictures(8))
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in before)
    assert network[0].padding_mode == "zeros"


def test_students_learn():
    model = detector(epochs=30, width=16, lr=5e-3).fit(pictures(40))
    assert model.history_[-1] < 0.5 * model.history_[0]
    assert model.history_[-1] < 3 * 0.6  # of a variance of one each


@pytest.mark.parametrize("teacher", ["distilled", "triplet"])
def test_teacher_learns(teacher):
    model = detector(teacher, teacher_epochs=20, width=16, lr=5e-3).fit(pictures(40))
    assert len(model.teacher_history_) == 20 and len(model.history_) == 2
    assert model.teacher_history_[-1] < 0.3 * model.teacher_history_[0]
    assert model.target(pictures(3)).shape == (3, 3, 6, 5)


def test_units_of_the_backbone_do_not_matter_to_a_distilled_teacher():
    network, train = small_backbone(), pictures(10)
    here = detector("distilled", backbone=network).fit(train).teacher_history_
    with torch.no_grad():
        for parameter in network[2].parameters():
            parameter *= 1000
    there = detector("distilled", backbone=network).fit(train).teacher_history_
    np.testing.assert_allclose(there, here, rtol=1e-2)


def test_a_patch_is_told_from_those_of_other_images_and_places(monkeypatch):
    """And known again though it has changed; the loss is that of the formulas."""
    seen, losses = [], []

    def spy(*triplet):
        seen.append([t.detach().double() for t in triplet[:3]])
        return triplet_loss(*triplet)

    monkeypatch.setattr(student_teacher, "triplet_loss", spy)
    model = detector("triplet", width=16).fit(pictures(10))
    assert len(seen) == 4  # two epochs of two batches of four images
    for anchor, positive, negative in seen:
        own = torch.arange(4 * 30)
        rows = [student_teacher._rows(t) for t in (negative, anchor)]
        other = torch.cdist(*rows).argmin(1)
        assert (other // 30 != own // 30).all()  # the image
        assert (other % 30 != own % 30).all()  # the place
        near, far, swapped = (
            (a - b).square().sum(1)
            for a, b in [(anchor, positive), (anchor, negative), (positive, negative)]
        )
        assert (near > 1e-12).double().mean() > 0.9
        triplet = np.maximum(0, (1 + near - torch.minimum(far, swapped)).numpy()).mean()
        correlation = np.corrcoef(rows[1].numpy(), rowvar=False)
        repeated = np.mean(correlation[~np.eye(3, dtype=bool)] ** 2)
        losses.append(float(triplet) + repeated)
    expected = np.reshape(losses, (2, 2)).mean(1)
    np.testing.assert_allclose(model.teacher_history_, expected, rtol=1e-4)


@pytest.mark.parametrize("teacher", ["distilled", "triplet"])
def test_the_first_loss_of_a_teacher_holds_its_whole_compactness(teacher, monkeypatch):
    """Without it, the loss is less by the squared correlations of NumPy."""
    train, seen, once = pictures(10), [], {"teacher_epochs": 1, "batch_size": 8}
    whole = detector(teacher, **once).fit(train).teacher_history_[0]

    def nothing(descriptions):
        seen.append(descriptions.detach())
        return 0 * descriptions.sum()

    monkeypatch.setattr(student_teacher, "compactness_loss", nothing)
    rest = detector(teacher, **once).fit(train).teacher_history_[0]
    correlation = np.corrcoef(seen[0].double().numpy(), rowvar=False)
    others = correlation[~np.eye(3, dtype=bool)]
    assert whole - rest == pytest.approx(np.mean(others**2), abs=1e-4)
    assert whole - rest > 1e-3


def test_distilled_features_repeat_one_another_less_than_those_they_come_from():
    train = pictures(40)
    model = detector("distilled", teacher_epochs=20, width=16, lr=5e-3).fit(train)
    rows = [
        student_teacher._rows(m.target(train)) for m in (detector().fit(train), model)
    ]
    assert compactness_loss(rows[1]) < 0.5 * compactness_loss(rows[0])


def test_one_student_scores_by_the_error():
    train, test = pictures(20), pictures(5, seed=1)
    model = detector(n_students=1).fit(train)
    both = model.anomaly_map(test)
    model.term = "error"
    assert torch.equal(model.anomaly_map(test), both)
    assert torch.isfinite(both).all()
    model.term = "variance"
    with pytest.raises(ValueError, match="n_students"):
        model.anomaly_map(test)


def test_flat_training_images_give_finite_scores():
    model = detector().fit(torch.full((6, 1, 24, 20), 0.5))
    assert torch.isfinite(model.anomaly_map(pictures(3))).all()


class Pictures(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images_of_mine = images

    def __len__(self):
        return len(self.images_of_mine)

    def __getitem__(self, i):
        return self.images_of_mine[i], "no label"


def test_all_kinds_of_input_give_the_same():
    train, test = pictures(12), pictures(3, seed=1)
    expected = detector().fit(train).anomaly_score(test)
    loader = DataLoader(TensorDataset(train), batch_size=5)
    for same in [
        train.numpy(),
        ImageSet(train),
        Pictures(train),
        loader,
        iter(train.split(5)),
    ]:
        torch.rand(7)  # the state of the caller's generator does not matter
        assert torch.equal(detector().fit(same).anomaly_score(test), expected)


def test_other_sizes_than_the_training_images_will_do():
    model = detector().fit(pictures(12))
    assert model.anomaly_map(pictures(2, 1, 33, 41)).shape == (2, 33, 41)
    with pytest.raises(ValueError, match="images: expected H, W above half"):
        model.anomaly_map(pictures(2, 1, 4, 40))


@every_teacher
def test_saved_and_loaded(teacher, tmp_path):
    test = pictures(3, 3, seed=1)
    model = StudentTeacher(teacher, layers=("layer1", "layer2"), **QUICK)
    model.fit(pictures(8, 3))
    model.save(tmp_path / "model.safetensors")
    again = adlab.load_detector(tmp_path / "model.safetensors")
    assert torch.equal(again.anomaly_map(test), model.anomaly_map(test))
    assert torch.equal(again.predict(test), model.predict(test))
    assert again.history_ == model.history_
    tensors = adlab.detector._pack(model)[1]
    holds_backbone = any(name.startswith("network_") for name in tensors)
    assert holds_backbone == (teacher == "backbone")


# Several scales


def test_several_scales_are_the_mean_of_each_alone(tmp_path):
    train, test = pictures(12), pictures(3, seed=1)
    model = MultiScale(StudentTeacher(**QUICK, n_students=2), (9, 17)).fit(train)
    expected = torch.zeros(3, 24, 20)
    for p in (9, 17):
        one = StudentTeacher(**QUICK | {"receptive_field": p}, n_students=2)
        expected += one.fit(train).anomaly_map(test) / 2
    np.testing.assert_allclose(model.anomaly_map(test), expected, atol=1e-5)
    model.save(tmp_path / "model.safetensors")
    again = adlab.load_detector(tmp_path / "model.safetensors")
    assert torch.equal(again.anomaly_map(test), model.anomaly_map(test))


def test_several_scales_of_a_stream():
    model = MultiScale(detector(n_students=1), (9, 17), device="cpu")
    expected = model.fit(pictures(12)).anomaly_score(pictures(3))
    assert model.detector.device == "auto"
    assert model.scale_9_.device == model.scale_17_.device == "cpu"
    scores = model.fit(iter(pictures(12).split(5))).anomaly_score(pictures(3))
    assert torch.equal(scores, expected)


# On real textures


def test_finds_foreign_texture():
    splits = adlab.data.load("textures", n_train=48, n_val=1, n_test=40, seed=0)
    model = StudentTeacher(n_students=2, receptive_field=17, width=16, lr=5e-3)
    model.epochs = 5
    maps = model.fit(splits.train.images).anomaly_map(splits.test.images)
    assert adlab.metrics.pixel_auroc(maps, splits.test.masks) > 0.8


@pytest.mark.parametrize("sigma", [0.7, 3])
def test_the_map_is_smoothed_as_scipy_does(sigma):
    model = detector(image_score="mean").fit(pictures(8))
    test = pictures(3, seed=1)
    sharp = model.anomaly_map(test)
    model.sigma = sigma
    expected = [gaussian_filter(one, sigma) for one in sharp.numpy()]
    np.testing.assert_allclose(model.anomaly_map(test), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        model.anomaly_score(test), np.mean(expected, (1, 2)), rtol=1e-4, atol=1e-5
    )
    assert not torch.allclose(model.anomaly_map(test), sharp, atol=0.1)


def test_training_images_of_different_sizes_are_refused():
    sizes = [pictures(4), pictures(4, width=24)]
    with pytest.raises(ValueError, match="images: expected all of one size"):
        detector().fit(iter(sizes))


# Bad input


ALONE = {"n_students": 1, "term": "variance"}


def scales(receptive_fields):
    return MultiScale(StudentTeacher(), receptive_fields)


def fit_by_three():
    """To a backbone whose stride is no power of two."""
    network = nn.Sequential(nn.Conv2d(1, 4, 3, 3))
    model = StudentTeacher(backbone=network, layers=("0",), epochs=1)
    model.fit(pictures(4, 1, 40, 40))


def triplet(receptive_field):
    return StudentTeacher("triplet", receptive_field=receptive_field)


test_bad_input = refuses(
    (lambda: StudentTeacher("master"), ValueError, "teacher…'master'"),
    (lambda: scales((17, None)), TypeError, "receptive_fields…an integer…None"),
    (lambda: fit_by_three(), ValueError, "layers…H / 2**k…(13, 13)"),
    (lambda: StudentTeacher(term="doubt"), ValueError, "term…'doubt'"),
    (lambda: StudentTeacher(**ALONE), ValueError, "n_students…at least 2"),
    (lambda: StudentTeacher(val_fraction=1), ValueError, "val_fraction…(0, 1)"),
    (lambda: StudentTeacher(epochs=0), ValueError, "epochs…0"),
    (
        lambda: triplet(33).fit(IMAGES),
        ValueError,
        "images…above half of receptive_field = 33…(4, 1, 6, 5)",
    ),
    (lambda: triplet(9).fit(IMAGES[:1]), ValueError, "images…hold out…1"),
    (lambda: PatchNetwork(1, 4, 17, 3), ValueError, "stride…a power of two…3"),
    (lambda: PatchNetwork(1, 4, 17, 16), ValueError, "receptive_field…33…17"),
    (lambda: scales((17, 17)), ValueError, "receptive_fields…different…(17, 17)"),
    (lambda: scales(17), TypeError, "receptive_fields…17"),
    (lambda: MultiScale(Gaussian()), TypeError, "detector…StudentTeacher…Gaussian"),
)
