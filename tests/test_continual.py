"""Continual learning: Fisher information, EWC, reservoir and measures, by closed forms."""

import numpy as np
import pytest
import torch
from bad_input import IMAGES, NAN, SCORES, VECTORS, refuses
from scipy.linalg import hadamard
from scipy.stats import binomtest
from sklearn.exceptions import NotFittedError
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils import parameters_to_vector

import adlab
from adlab.continual import (
    ContinualAutoencoder,
    Reservoir,
    average_score,
    backward_transfer,
    ewc_penalty,
    fisher_diagonal,
    forgetting,
)
from adlab.metrics import auroc
from adlab.reconstruction import ConvolutionalAutoencoder
from adlab.training import minimise, seeded
from adlab.vectors import KNN

# -- linear regression with noise of variance 1, where all is known in closed form

BASIS = torch.from_numpy(hadamard(8)).double()
OLD_X = BASIS[:, 1:4] * torch.tensor([1.0, 2.0, 0.5])  # orthogonal columns
OLD_Y = OLD_X @ torch.tensor([1.0, -1.0, 2.0]).double() + BASIS[:, 7]  # residuals ±1
NEW_X, NEW_Y = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 6, 3)))
NEW_Y = NEW_Y.sum(1)


def least_squares(x, y):
    return torch.linalg.lstsq(x, y[:, None]).solution[:, 0]


def regression(weights):
    """A linear network with these weights, and the mean of its −log p."""
    network = nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        network.weight.copy_(weights)
    return network, lambda x, y: (network(x)[:, 0] - y).square().mean() / 2


def test_the_fisher_information_of_a_regression_is_the_mean_square_of_its_inputs():
    network, loss = regression(least_squares(OLD_X, OLD_Y))
    fisher = fisher_diagonal(network, loss, [(OLD_X, OLD_Y)])
    torch.testing.assert_close(fisher, OLD_X.square().mean(0))
    (of_the_batch,) = torch.autograd.grad(loss(OLD_X, OLD_Y), network.parameters())
    assert of_the_batch.square().max() < 1e-20 < fisher.min()


def small_network():
    with seeded(0):
        network = nn.Sequential(
            nn.Linear(30, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 30)
        )
    return network.double()


@pytest.mark.parametrize("size", [1, 3, 8])
def test_the_fisher_information_is_that_of_functional_gradients(size):
    """Of a network with a batch norm, and whatever the batches."""
    network, x = small_network(), VECTORS.double()

    def loss(batch):
        return (network(batch) - batch).square().sum()

    def of_sample(weights, sample):
        made = functional_call(network, weights, sample[None])[0]
        return (made - sample).square().sum()

    found = fisher_diagonal(network, loss, ((part,) for part in x.split(size)))
    weights = {name: w.detach() for name, w in network.named_parameters()}
    gradients = vmap(grad(of_sample), (None, 0))(weights, x)
    squares = [g.square().mean(0) for g in gradients.values()]
    torch.testing.assert_close(found, parameters_to_vector(squares))
    assert not network.training and (found >= 0).all()


def test_weights_in_another_layout_and_weights_without_a_part_in_the_loss():
    network = ConvolutionalAutoencoder(1, (4, 8), 2)  # channels last
    fisher = fisher_diagonal(
        network, lambda batch: network.encode(batch).square().sum(), [(IMAGES,)]
    )
    encoder, decoder = fisher.split(
        [sum(w.numel() for w in part.parameters()) for part in network.children()]
    )
    assert encoder.max() > 0 == decoder.max()
    assert ewc_penalty(network, fisher, 1)() == 0


def learn_new(strength):
    """The weights after the old task was learned, and then the new one with EWC."""
    network, loss = regression(least_squares(OLD_X, OLD_Y))
    fisher = fisher_diagonal(network, loss, [(OLD_X, OLD_Y)])
    penalty = ewc_penalty(network, fisher, strength)
    optimizer = torch.optim.SGD(network.parameters(), 0.5 / (1 + strength))
    minimise(
        network,
        lambda x, y: loss(x, y) + penalty(),
        lambda: [(NEW_X, NEW_Y)],
        optimizer,
        epochs=1000,
    )
    return network.weight.detach()[0]


def test_ewc_is_bayes_rule():
    """With the right λ, the old task is as well remembered as if its data were there."""
    joint = least_squares(torch.cat([OLD_X, NEW_X]), torch.cat([OLD_Y, NEW_Y]))
    torch.testing.assert_close(learn_new(len(OLD_X) / len(NEW_X)), joint)
    assert not torch.allclose(learn_new(1.0), joint, atol=1e-3)


def test_ewc_lies_between_fine_tuning_and_a_frozen_network():
    torch.testing.assert_close(learn_new(0), least_squares(NEW_X, NEW_Y))
    old = least_squares(OLD_X, OLD_Y)
    torch.testing.assert_close(learn_new(1e8), old, atol=1e-6, rtol=0)
    assert (learn_new(1e8) - old).norm() < (learn_new(1) - old).norm()


def test_the_penalty_is_written_out():
    network, _ = regression(torch.tensor([1.0, 2.0, 3.0]))
    penalty = ewc_penalty(network, torch.tensor([1.0, 0.0, 4.0]), 3)
    assert penalty() == 0
    with torch.no_grad():
        network.weight += torch.tensor([2.0, 7.0, -1.0])
    assert penalty().item() == 3 / 2 * (1 * 4 + 0 * 49 + 4 * 1)


# -- replay


@pytest.mark.parametrize("sizes", [[12], [5, 7], [1] * 12])
def test_every_item_of_the_stream_is_kept_with_the_same_probability(sizes):
    counts, draws = np.zeros(12), 1500
    for seed in range(draws):
        memory = Reservoir(3, seed)
        for part in torch.arange(12).split(sizes):
            memory.add(part)
        assert memory.items.unique().shape == (3,) and memory.seen == 12
        counts[memory.items.numpy()] += 1
    assert min(binomtest(int(c), draws, 3 / 12).pvalue for c in counts) > 1e-4


def test_a_reservoir_that_is_not_full_holds_all_as_it_came():
    memory = Reservoir(20)
    given = VECTORS.clone()
    memory.add(given)
    given.zero_()
    assert torch.equal(memory.items, VECTORS)


# -- the detector

OLD = torch.rand(24, 6, generator=torch.Generator().manual_seed(0))
OLD[:, 1:] *= 0.1
NEW = OLD.flip(1)  # the first coordinate varies in one, the last in the other


def detector(strategy, **options):
    return ContinualAutoencoder(strategy, width=16, n_latent=2, seed=4, **options)


def learned_both(strategy, **options):
    return detector(strategy, **options).fit(OLD).fit_next(NEW)


def test_both_remedies_forget_less_than_fine_tuning():
    forgot = learned_both("fine-tune").anomaly_score(OLD).mean()
    for remedy in (
        learned_both("ewc", strength=1000),
        learned_both("replay", capacity=12),
    ):
        assert remedy.anomaly_score(OLD).mean() < forgot / 2


def test_without_strength_ewc_is_fine_tuning():
    scores = learned_both("ewc", strength=0, epochs=5).anomaly_score(OLD)
    expected = learned_both("fine-tune", epochs=5).anomaly_score(OLD)
    torch.testing.assert_close(scores, expected)
    held = learned_both("ewc", strength=10.0, epochs=5).anomaly_score(OLD)
    assert not torch.allclose(held, expected)


def test_squared_gradients_of_all_old_images_add_up():
    model = detector("ewc", epochs=3).fit(OLD)
    before = model.fisher_
    model.fit_next(NEW)
    new = len(NEW) * fisher_diagonal(model.network_, model._loss, [(NEW,)])
    torch.testing.assert_close(model.fisher_, before + new)


@pytest.fixture
def asked(monkeypatch):
    """The losses and images that `_optimise` is asked to train with, without training."""
    found = []
    monkeypatch.setattr(
        ContinualAutoencoder,
        "_optimise",
        lambda self, network, loss, images, **options: found.append((loss, images)),
    )
    return found


def test_the_penalty_counts_old_images_against_new_ones(asked):
    model = detector("ewc", strength=3).fit(OLD).fit_next(NEW[:6])
    fisher = len(OLD) / 6 * fisher_diagonal(model.network_, model._loss, [(OLD,)])
    with torch.no_grad():
        for weight in model.network_.parameters():
            weight += 0.5
        added = asked[1][0](NEW) - model._loss(NEW)
    expected = 3 / 2 * fisher.sum() * 0.5**2
    torch.testing.assert_close(added, expected, rtol=0.01, atol=0)


def test_replay_with_room_for_all_trains_on_all(asked):
    detector("replay", capacity=99).fit(OLD).fit_next(NEW).fit_next(OLD)
    expected = [OLD], [NEW, OLD], [OLD, OLD, NEW]
    for (_, images), parts in zip(asked, expected, strict=True):
        assert torch.equal(images, torch.cat(parts))


def test_the_memory_of_replay_is_a_reservoir_of_all_that_passed(asked):
    model = detector("replay", capacity=5).fit(OLD).fit_next(NEW).fit_next(NEW)
    assert model.seen_ == 72 and model.memory_.shape == (5, 6)


@pytest.mark.parametrize("strategy", ["ewc", "replay"])
def test_a_loaded_detector_goes_on_as_the_saved_one(strategy, tmp_path):
    model = detector(strategy, epochs=3, capacity=5).fit(OLD)
    model.save(tmp_path / "model.safetensors")
    again = adlab.load_detector(tmp_path / "model.safetensors")
    found, expected = (each.fit_next(NEW).fit_next(OLD) for each in (again, model))
    torch.testing.assert_close(found.anomaly_score(OLD), expected.anomaly_score(OLD))


@pytest.mark.parametrize("bad", [NEW[:, 1:], NEW * NAN, 1e30 * NEW])
def test_a_task_that_fails_does_no_harm(bad):
    model = detector("replay", epochs=2).fit(OLD)
    scores = model.anomaly_score(OLD)
    with pytest.raises((ValueError, FloatingPointError)):
        model.fit_next(bad)
    assert torch.equal(model.anomaly_score(OLD), scores)


def test_a_first_task_is_needed():
    with pytest.raises(NotFittedError):
        detector("ewc").fit_next(NEW)


# -- measures

MATRIX = [[0.9, 0.2, 0.3], [0.7, 0.8, 0.4], [0.6, 0.85, 0.9]]


def test_measures_by_hand():
    assert average_score(MATRIX) == pytest.approx((0.6 + 0.85 + 0.9) / 3)
    np.testing.assert_allclose(forgetting(MATRIX), [0.3, -0.05])
    assert backward_transfer(MATRIX) == pytest.approx((-0.3 + 0.05) / 2)


def scores_after_each_task(bank_of):
    """AUROC of nearest neighbours on three clusters, against points between them."""
    rng = np.random.default_rng(1)
    centres = 10 * np.eye(3)
    tasks = [centre + rng.normal(size=(20, 3)) for centre in centres]
    odd = 10 + rng.normal(size=(20, 3))
    labels = np.repeat([0, 1], 20)
    return [
        [
            auroc(bank.anomaly_score(np.r_[centre + 0.1 * task, odd]), labels)
            for centre, task in zip(centres, tasks, strict=True)
        ]
        for bank in (KNN(1).fit(np.concatenate(bank_of(tasks, i))) for i in range(3))
    ]


def test_a_memory_bank_of_all_tasks_forgets_nothing_and_one_of_the_last_does():
    kept = scores_after_each_task(lambda tasks, i: tasks[: i + 1])
    assert forgetting(kept).tolist() == [0, 0] and backward_transfer(kept) == 0
    assert average_score(kept) == 1
    lost = scores_after_each_task(lambda tasks, i: tasks[i : i + 1])
    assert forgetting(lost).min() > 0.1 and backward_transfer(lost) < -0.1


# -- bad input

NETWORK, LOSS = regression(torch.zeros(3))
FROZEN = nn.Linear(3, 1).requires_grad_(False)


def add(*parts):
    memory = Reservoir(2)
    for part in parts:
        memory.add(part)


test_bad_input = refuses(
    (lambda: fisher_diagonal(NETWORK, LOSS, []), ValueError, "batches…none"),
    (lambda: fisher_diagonal(NETWORK, LOSS, [OLD]), TypeError, "batches…Tensor"),
    (lambda: fisher_diagonal(FROZEN, LOSS, []), ValueError, "network…Linear"),
    (lambda: ewc_penalty(NETWORK, torch.ones(2), 1), ValueError, "fisher…(3,)…(2,)"),
    (lambda: ewc_penalty(NETWORK, -torch.ones(3), 1), ValueError, "fisher…3 that are"),
    (lambda: ewc_penalty(NETWORK, "one", 1), TypeError, "fisher…str"),
    (lambda: ewc_penalty(NETWORK, torch.ones(3), -1), ValueError, "strength…-1"),
    (lambda: Reservoir(0), ValueError, "capacity…0"),
    (lambda: Reservoir(2, seed=-1), ValueError, "seed…-1"),
    (lambda: Reservoir(2).items, ValueError, "items…none"),
    (lambda: add(VECTORS, VECTORS[:, 1:]), ValueError, "items…(B, 30)…(8, 29)"),
    (lambda: add(3), ValueError, "items…()"),
    (lambda: add(["a"]), TypeError, "items…list"),
    (lambda: detector("none"), ValueError, "strategy…'fine-tune'…'none'"),
    (lambda: detector("ewc", strength=-1), ValueError, "strength…-1"),
    (lambda: detector("ewc", capacity=0), ValueError, "capacity…0"),
    (lambda: detector("ewc", lr=0), ValueError, "lr…0"),
    (lambda: detector("ewc").fit(NEW).fit_next(VECTORS), ValueError, "images…(8, 30)"),
    (lambda: forgetting(SCORES), ValueError, "scores…(T, T)…(8,)"),
    (lambda: average_score([[1.0]]), ValueError, "scores…T >= 2…(1, 1)"),
    (lambda: backward_transfer(VECTORS), ValueError, "scores…(8, 30)"),
    (lambda: forgetting([[1, NAN], [0, 1]]), ValueError, "scores…finite…1"),
)
