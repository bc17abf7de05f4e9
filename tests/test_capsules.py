"""Capsules: the squashing function, routing against a loop, the margin loss by hand, and
the detector that learns from a few anomalies.
"""

import math

import numpy as np
import pytest
import torch
from bad_input import refuses

from adlab import metrics
from adlab.capsules import (
    CapsuleAnomaly,
    CapsuleNetwork,
    margin_loss,
    route,
    squash,
)
from adlab.data import ImageSet


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normals(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


# squash


def test_squash_keeps_the_direction_and_shortens():
    s = normals(100, 5) * torch.logspace(-3, 3, 100, dtype=torch.float64)[:, None]
    v = squash(s, eps=0)
    lengths, before = v.norm(dim=1), s.norm(dim=1)
    torch.testing.assert_close(v / lengths[:, None], s / before[:, None])
    torch.testing.assert_close(lengths, before**2 / (1 + before**2))
    assert lengths.max() < 1
    assert (lengths[before.argsort()].diff() > 0).all()


def test_squash_at_zero_has_a_gradient():
    s = torch.zeros(2, 3, requires_grad=True)
    squash(s).sum().backward()
    torch.testing.assert_close(s.grad, torch.full((2, 3), 1e-4))
    naive = torch.zeros(3, requires_grad=True)
    square = naive.square().sum()
    (square / (1 + square) * naive / square.sqrt()).sum().backward()
    assert naive.grad.isnan().all()  # the formula as it is written


# routing


def slow_route(votes, n_iterations):
    """One image, one capsule, one step after the other."""
    votes = votes.numpy()
    results, shares = [], []
    for image in votes:
        below, above, _ = image.shape
        b = np.zeros((below, above))
        for step in range(n_iterations):
            c = np.exp(b) / np.exp(b).sum(1, keepdims=True)
            v = np.zeros(image.shape[1:])
            for j in range(above):
                s = sum(c[i, j] * image[i, j] for i in range(below))
                v[j] = (s @ s) / (1 + s @ s) * s / math.sqrt(s @ s)
            if step < n_iterations - 1:
                for i in range(below):
                    for j in range(above):
                        b[i, j] += image[i, j] @ v[j]
        results.append(v)
        shares.append(c)
    return np.array(results), np.array(shares)


@pytest.mark.parametrize("n_iterations", [1, 2, 3, 5])
def test_routing_is_that_of_a_loop(n_iterations):
    votes = normals(2, 6, 3, 4)
    found = route(votes, n_iterations)
    for ours, theirs in zip(found, slow_route(votes, n_iterations), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_shares_sum_to_one_over_the_capsules_above():
    _, shares = route(3 * normals(2, 6, 3, 4))
    torch.testing.assert_close(shares.sum(2), torch.ones(2, 6, dtype=torch.float64))
    assert (shares.sum(1) - 2).abs().max() > 0.1  # not over those below


def test_one_iteration_shares_alike():
    votes = normals(2, 6, 3, 4)
    found, shares = route(votes, 1)
    assert (shares == 1 / 3).all()
    torch.testing.assert_close(found, squash(votes.mean(1) * 2))


def test_the_same_vote_for_all_above_stays_shared_alike():
    votes = normals(2, 6, 1, 4).expand(-1, -1, 3, -1)
    torch.testing.assert_close(
        route(votes, 4)[1], torch.full((2, 6, 3), 1 / 3, dtype=torch.float64)
    )


def test_one_capsule_above_leaves_nothing_to_route():
    votes = normals(2, 6, 1, 4)
    torch.testing.assert_close(route(votes, 5)[0], route(votes, 1)[0])


def test_agreement_grows_with_iterations():
    """Half of the votes for one capsule are alike, those for the other at random."""
    votes = normals(1, 20, 2, 4)
    votes[:, :10, 0] = torch.ones(4, dtype=torch.float64) + 0.1 * normals(10, 4, seed=1)
    gained = [route(votes, n)[1][0, :10, 0].mean() for n in (1, 2, 3, 4)]
    assert (np.diff(gained) > 0.01).all()


def test_turned_votes_give_turned_capsules():
    """Equivariance: an orthogonal Q on all votes is Q on the result; shares stay."""
    votes = normals(2, 6, 3, 4)
    turn, _ = torch.linalg.qr(normals(4, 4, seed=1))
    before, after = route(votes), route(votes @ turn.T)
    torch.testing.assert_close(after[0], before[0] @ turn.T)
    torch.testing.assert_close(after[1], before[1])


def test_gradients_pass_through_the_last_iteration_only():
    votes = normals(1, 5, 2, 3).requires_grad_()
    found, shares = route(votes)
    assert not shares.requires_grad
    weight = normals(1, 2, 3, seed=1)
    [gradient] = torch.autograd.grad((found * weight).sum(), votes)
    fixed = votes.detach().clone().requires_grad_()
    s = torch.einsum("bij,bijd->bjd", shares, fixed)
    [expected] = torch.autograd.grad((squash(s) * weight).sum(), fixed)
    torch.testing.assert_close(gradient, expected)


# the margin loss


def test_margin_loss_by_hand():
    lengths = torch.tensor([[0.95, 0.05], [0.6, 0.4], [0.2, 0.9]])
    found = margin_loss(lengths, torch.tensor([0, 0, 0]))
    expected = torch.tensor([0, 0.3**2 + 0.5 * 0.3**2, 0.7**2 + 0.5 * 0.8**2])
    torch.testing.assert_close(found, expected)


# the network


def test_primary_capsules_are_channels_of_one_place():
    """Moving the image by the stride moves capsules from place to place, whole."""
    torch.manual_seed(0)
    network = CapsuleNetwork((1, 15, 15), 3, 2, 4, 5, kernel_size=3)
    image = torch.rand(1, 1, 17, 17)
    first = network.primary(image[..., :15, :15]).view(6, 6, 2, 4)
    moved = network.primary(image[..., 2:, 2:]).view(6, 6, 2, 4)
    torch.testing.assert_close(moved[:-1, :-1], first[1:, 1:])


def test_shapes_and_ranges():
    network = CapsuleNetwork((3, 19, 18), 4, 2, 4, 5, 3, kernel_size=5, widths=(7,))
    images = torch.rand(2, 3, 19, 18)
    capsules = network(images)
    assert capsules.shape == (2, 3, 5)
    assert capsules.norm(dim=2).max() < 1
    decoded = network.decode(capsules[:, 0])
    assert decoded.shape == images.shape
    assert decoded.min() >= 0 and decoded.max() <= 1


def test_size_of_the_paper():
    """With the numbers of the paper, the parameters that Sabour et al. count, but for the
    capsules of eight more classes and the mask of the decoder.
    """
    network = CapsuleNetwork((1, 28, 28), 256, 32, 8, 16, 2, 3, 9, (512, 1024))
    convolutions = 256 * 82 + 256 * (256 * 81 + 1)
    routed = 1152 * 2 * 16 * 8
    decoder = 17 * 512 + 513 * 1024 + 1025 * 784
    total = sum(p.numel() for p in network.parameters())
    assert total == convolutions + routed + decoder


# the detector


SMALL = {"n_filters": 6, "n_primary": 2, "kernel_size": 5, "widths": (16,)}


def bars(n, upright=False, seed=0):
    """A bright bar, lying or upright, at a random place on noise."""
    images = 0.3 * torch.rand(n, 1, 16, 16, generator=generator(seed))
    for image, at in zip(
        images, torch.randint(3, 13, (n,), generator=generator(seed + 1)), strict=True
    ):
        line = image[0, :, at : at + 2] if upright else image[0, at : at + 2]
        line += 0.7
    return images


def known(n=4):
    return ImageSet(bars(n, True, seed=5), torch.ones(n))


@pytest.fixture(scope="module")
def fitted():
    return CapsuleAnomaly(epochs=40, lr=3e-3, **SMALL).fit(bars(80), known(8))


def test_few_anomalies_are_enough_to_rank(fitted):
    test = torch.cat([bars(40, seed=8), bars(40, True, seed=9)])
    labels = torch.arange(80) >= 40
    assert metrics.auroc(fitted.anomaly_score(test), labels) > 0.9
    assert fitted.history_[-1] < 0.5 * fitted.history_[0]


def test_score_is_made_of_its_terms(fitted):
    images = bars(5, seed=8)
    difference, error = fitted.terms(images)
    torch.testing.assert_close(fitted.anomaly_score(images), difference + error)
    capsules = fitted.capsules(images)
    lengths = capsules.norm(dim=2)
    torch.testing.assert_close(difference, lengths[:, 1] - lengths[:, 0])
    decoded = fitted.network_.decode(capsules[:, 0]).detach()
    torch.testing.assert_close(error, (decoded - images).square().mean((1, 2, 3)))


@pytest.mark.parametrize("score, which", [("difference", 0), ("reconstruction", 1)])
def test_each_term_alone(score, which):
    model = CapsuleAnomaly(score, epochs=1, **SMALL).fit(bars(20), known(2))
    images = bars(5, seed=8)
    torch.testing.assert_close(model.anomaly_score(images), model.terms(images)[which])


def test_loss_is_margin_and_weighted_error(fitted):
    images, labels = bars(6, seed=8), torch.tensor([0, 1, 0, 1, 0, 1])
    with torch.no_grad():
        capsules = fitted.network_(images)
        error = (fitted.network_.decode(capsules[:, 0]) - images).square().mean()
        expected = margin_loss(capsules.norm(dim=2), labels).mean() + 0.392 * error
        torch.testing.assert_close(fitted._loss(images, labels), expected)


def test_labels_of_labelled_images_count():
    """Known normal images among the labelled ones are normal."""
    images, anomalies = bars(20), bars(3, True, seed=5)
    mixed = ImageSet(torch.cat([images[:5], anomalies]), torch.arange(8) >= 5)
    first = CapsuleAnomaly(epochs=2, **SMALL)
    first._labelled = mixed
    found, labels = first._examples(images)
    assert len(found) == 28
    assert labels.tolist() == [0] * 25 + [1] * 3


def test_without_anomalies_the_difference_is_the_same_for_all():
    model = CapsuleAnomaly(epochs=15, lr=3e-3, **SMALL).fit(bars(80))
    difference, _ = model.terms(torch.cat([bars(20, seed=8), bars(20, True, seed=9)]))
    assert difference.max() < -0.3


test_bad_input = refuses(
    (lambda: CapsuleAnomaly("length"), ValueError, "score…'sum'"),
    (lambda: CapsuleAnomaly(n_iterations=0), ValueError, "n_iterations…[1"),
    (lambda: CapsuleAnomaly(kernel_size=0), ValueError, "kernel_size…[1"),
    (lambda: CapsuleAnomaly().fit(bars(4)), ValueError, "images…17"),
    (lambda: CapsuleAnomaly().fit(bars(4), bars(2)), TypeError, "labelled…ImageSet"),
    (lambda: route(torch.zeros(2, 3, 4)), ValueError, "votes…(2, 3, 4)"),
    (lambda: route(torch.zeros(1, 2, 3, 4), 0), ValueError, "n_iterations…[1"),
    (lambda: CapsuleNetwork((1, 9, 9), kernel_size=6), ValueError, "shape…11"),
)
