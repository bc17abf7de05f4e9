"""Seeding, device choice, batches, and the one training loop."""

import io
import itertools
import math
import sys

import numpy as np
import pytest
import torch
from bad_input import IMAGES, NAN, refuses, spoiled
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from adlab._checks import check_images, check_vectors
from adlab.data import ImageSet
from adlab.training import joined, minimise, resolve_device, seeded, stream, train


def pictures(n=20, channels=1, height=6, width=5, seed=0):
    return torch.rand(
        n, channels, height, width, generator=torch.Generator().manual_seed(seed)
    )


def toy(seed=0, **changes):
    """A network, its reconstruction loss, and arguments of `train`."""
    with seeded(seed):
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Conv2d(4, 1, 1),
        )
    arguments = {
        "epochs": 3,
        "batch_size": 8,
        "lr": 0.01,
        "seed": 0,
        "device": "cpu",
    } | changes
    return network, lambda batch: (network(batch) - batch).square().mean(), arguments


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


# Devices and seeds


def test_auto_is_the_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda")


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_a_named_device_is_taken(device):
    assert resolve_device(device) == torch.device("cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "", None, 3.5, "cpu:x"])
def test_a_device_that_is_not_here_is_refused(device):
    with pytest.raises(ValueError, match=r"device: expected .* got"):
        resolve_device(device)


class WithoutFloat64(TorchFunctionMode):
    """A stand-in for "mps", which refuses it by a TypeError."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.to and torch.float64 in args:
            raise TypeError("no float64 here")
        return func(*args, **kwargs or {})


def test_a_device_without_float64_is_refused_before_any_work():
    with (
        WithoutFloat64(),
        pytest.raises(ValueError, match=r"device: expected .*float64, got 'cpu'"),
    ):
        resolve_device("cpu")


def test_seeded_draws_the_same_and_leaves_the_callers_state():
    torch.manual_seed(3)
    expected = torch.rand(5)
    torch.manual_seed(3)
    with seeded(1):
        first = torch.rand(4)
    with seeded(1):
        again = torch.rand(4)
    with seeded(2):
        other = torch.rand(4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.rand(5), expected)


def test_seeded_gives_the_state_back_after_an_error_and_when_nested():
    torch.manual_seed(3)
    expected = torch.rand(5)
    torch.manual_seed(3)
    with pytest.raises(ZeroDivisionError), seeded(1), seeded(2):
        torch.rand(4)
        raise ZeroDivisionError
    assert torch.equal(torch.rand(5), expected)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, None, "0", True])
def test_a_bad_seed_is_refused(seed):
    with (
        pytest.raises(
            (ValueError, TypeError), match=r"seed: expected an integer.* got"
        ),
        seeded(seed),
    ):
        pass


# Batches


class WithEverything(Dataset):
    """Images with a label, no mask and a name, and with a list of files, as data sets
    of torchvision have.
    """

    images = ("a.png", "b.png")

    def __init__(self, images):
        self.pictures = images

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, i):
        return self.pictures[i], 0, None, f"{i}.png"


class Endless(IterableDataset):
    """A stream of images, which has no length."""

    def __init__(self, images):
        self.pictures = images

    def __iter__(self):
        return iter(self.pictures)


FORMS = {
    "tensor": lambda x: x,
    "array": lambda x: x.numpy(),
    "list": list,
    "image-set": ImageSet,
    "dataset": TensorDataset,
    "dataset-of-tuples": WithEverything,
    "iterable-dataset": Endless,
    "loader": lambda x: DataLoader(x, 3),
    "loader-of-tuples": lambda x: DataLoader(TensorDataset(x, torch.arange(len(x))), 4),
    "batches": lambda x: list(x.split(3)),
    "batches-of-tuples": lambda x: [(part, None) for part in x.split(3)],
    "generator": lambda x: (part for part in x.split(3)),
    "generator-of-lists": lambda x: [
        [part, torch.zeros(len(part))] for part in x.split(3)
    ],
}


@pytest.mark.parametrize("form", FORMS)
def test_stream_gives_all_images_in_their_order(form):
    images = pictures()
    batches = list(stream(FORMS[form](images), 7))
    assert torch.equal(torch.cat(batches), images)
    assert all(batch.dtype == torch.float32 and batch.ndim == 4 for batch in batches)


@pytest.mark.parametrize(
    "form", ["tensor", "array", "list", "image-set", "dataset", "iterable-dataset"]
)
@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(7, [7, 7, 6]), (20, [20]), (64, [20]), (1, [1] * 20)]
)
def test_stream_cuts_batches_of_the_size_asked_for(form, batch_size, sizes):
    assert [
        len(batch) for batch in stream(FORMS[form](pictures()), batch_size)
    ] == sizes


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("pixels", [1, 2 * 6 * 5 + 1, 10**6])
def test_stream_cuts_batches_by_their_pixels(form, pixels):
    images = pictures(20, height=6, width=5)
    whole = list(stream(FORMS[form](images), 7, pixels=None))
    parts = list(stream(FORMS[form](images), 7, pixels=pixels))
    assert torch.equal(torch.cat(parts), images)
    largest = max(len(batch) for batch in whole)
    assert max(map(len, parts)) == max(1, min(largest, pixels // 30))


def test_training_batches_are_not_cut(monkeypatch):
    monkeypatch.setattr(stream, "__defaults__", (64, check_images, 1))
    sizes = []
    network, loss, arguments = toy(batch_size=7, epochs=1)
    train(network, lambda x: sizes.append(len(x)) or loss(x), pictures(), **arguments)
    assert sizes == [7, 7, 6]


def test_stream_is_lazy():
    def images():
        yield pictures(4)
        raise AssertionError("read ahead")

    assert len(next(stream(images()))) == 4


def test_stream_takes_another_check():
    batches = list(stream(np.arange(12).reshape(6, 2), 4, check_vectors))
    assert [tuple(batch.shape) for batch in batches] == [(4, 2), (2, 2)]


@pytest.mark.parametrize(
    "data", [3, None, "images.png", b"x", {"images": 1}, object(), nn.Linear(2, 2)]
)
def test_stream_refuses_what_is_no_data(data):
    with pytest.raises(TypeError, match=r"images: expected a tensor, .* got \w+"):
        list(stream(data))


@pytest.mark.parametrize(
    "data", [iter([]), DataLoader(TensorDataset(torch.zeros(0, 1, 2, 2))), ()]
)
def test_stream_refuses_what_is_empty(data):
    with pytest.raises(ValueError, match="images: expected at least one, got an empty"):
        list(stream(data))


def test_stream_refuses_a_bad_batch_when_it_comes():
    batches = stream([pictures(3), pictures(3) + 1])
    next(batches)
    with pytest.raises(ValueError, match=r"expected values in \[0, 1\]"):
        next(batches)


class Ragged(WithEverything):
    """Images of different widths."""

    def __getitem__(self, i):
        return self.pictures[i, :, :, : 2 + i % 2]


def test_a_dataset_of_images_of_different_size_is_refused():
    with pytest.raises(
        ValueError, match=r"images: expected .* got rows of unequal length"
    ):
        list(stream(Ragged(pictures())))


# Training


@pytest.mark.filterwarnings("error")
def test_batches_are_joined_where_they_are_of_one_size():
    batches = [pictures(2), pictures(3, seed=1)]
    assert torch.equal(joined(iter(batches)), torch.cat(batches))
    with pytest.raises(
        ValueError, match=r"images: expected all of one size, got .*6, 5\) and .*6, 7\)"
    ):
        joined([*batches, pictures(2, width=7)])


def test_a_last_batch_of_one_is_named_where_a_network_cannot_learn_from_it():
    network = nn.Sequential(nn.Flatten(), nn.Linear(30, 4), nn.BatchNorm1d(4))

    def learn(n):
        images, options = pictures(n), {"epochs": 1, "batch_size": 4, "device": "cpu"}
        return train(network, lambda x: network(x).mean(), images, **options)

    assert len(learn(8)) == 1
    with pytest.raises(
        ValueError, match=r"batch_size: expected .*got one of 1; Expected"
    ):
        learn(9)


def test_training_lowers_the_loss():
    network, loss, arguments = toy(epochs=20)
    history = train(network, loss, pictures(), **arguments)
    assert len(history) == 20
    assert history[-1] < 0.5 * history[0]


def test_training_is_reproducible():
    results = []
    for caller in (1, 2):
        torch.manual_seed(caller)
        network, loss, arguments = toy()
        results.append(
            (train(network, loss, pictures(), **arguments), weights(network))
        )
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


def test_training_leaves_the_callers_random_state():
    before = torch.random.get_rng_state()
    network, loss, arguments = toy()
    train(network, loss, pictures(), **arguments)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    "form", ["array", "list", "image-set", "dataset", "dataset-of-tuples"]
)
def test_training_on_any_form_of_images_is_the_same(form):
    histories = []
    for images in (pictures(), FORMS[form](pictures())):
        network, loss, arguments = toy()
        histories.append(train(network, loss, images, **arguments))
    assert histories[0] == histories[1]


@pytest.mark.parametrize(
    "form",
    [
        *("loader", "loader-of-tuples", "iterable-dataset"),
        *("batches", "batches-of-tuples", "generator"),
    ],
)
def test_training_on_what_has_its_own_order(form):
    network, loss, arguments = toy(epochs=20)
    history = train(network, loss, FORMS[form](pictures()), **arguments)
    assert history[-1] < 0.5 * history[0]


def orders(seed, epochs=2):
    """In which order training sees the images 0, 1, …, 19, each of one brightness."""
    images = torch.arange(20.0).view(20, 1, 1, 1) / 20
    network, seen = nn.Linear(1, 1), []

    def loss(batch):
        seen.extend((batch.flatten() * 20).round().int().tolist())
        return network(batch).mean()

    train(network, loss, images, epochs=epochs, batch_size=6, seed=seed, device="cpu")
    return seen[:20], seen[20:]


def test_every_epoch_sees_all_images_in_a_new_order():
    first, second = orders(seed=0)
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert first != sorted(first)


def test_the_seed_chooses_the_order():
    assert orders(seed=0) == orders(seed=0)
    assert orders(seed=0) != orders(seed=1)


def test_history_is_the_mean_over_images_not_over_batches():
    images = torch.tensor([0.0, 0, 0, 0, 1]).view(5, 1, 1, 1)
    parameter = nn.Linear(1, 1)
    history = train(
        parameter,
        lambda b: b.mean() + 0 * parameter.bias.sum(),
        images,
        epochs=1,
        batch_size=4,
        device="cpu",
    )
    assert history == [pytest.approx(0.2)]


def test_adam_steps_are_those_of_torch():
    ours, theirs = nn.Linear(1, 1), nn.Linear(1, 1)
    theirs.load_state_dict(ours.state_dict())
    images = pictures(4, height=1, width=1)
    train(
        ours,
        lambda b: ours(b).square().mean(),
        images,
        epochs=5,
        lr=0.1,
        weight_decay=0.3,
        device="cpu",
    )
    optimizer = torch.optim.Adam(theirs.parameters(), lr=0.1, weight_decay=0.3)
    for _ in range(5):
        optimizer.zero_grad()
        theirs(images).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(weights(ours), weights(theirs))


def test_minimise_takes_labels_any_optimiser_and_a_schedule():
    """A line through zero, by hand: y = w x, with halved steps."""
    network = nn.Linear(1, 1, bias=False).double()
    w, lr, losses = network.weight.item(), 0.1, []
    x = torch.tensor([[1.0], [2], [3]], dtype=torch.float64)
    batches = [(x[:2], 2 * x[:2] + 1), (x[2:], x[2:])]
    optimizer = torch.optim.SGD(network.parameters(), lr)
    history = minimise(
        network,
        lambda images, labels: (network(images) - labels).square().mean(),
        lambda: iter(batches),
        optimizer,
        epochs=2,
        schedule=torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5),
    )
    for images, labels in batches * 2:
        gap = w * images - labels
        losses.append(float(gap.square().mean()) * len(images))
        w, lr = w - lr * float((2 * gap * images).mean()), lr / 2
    assert network.weight.item() == pytest.approx(w)
    assert history == [pytest.approx(sum(losses[i : i + 2]) / 3) for i in (0, 2)]
    assert not network.training


@pytest.mark.parametrize(
    ("batches", "epochs", "message"),
    [
        ([], 1, "batches: expected at least one in each epoch, got none"),
        ([(torch.ones(1, 1),)], 0, r"epochs: expected an integer in \[1, inf\), got 0"),
    ],
)
def test_minimise_refuses_to_do_nothing(batches, epochs, message):
    network = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    with pytest.raises(ValueError, match=message):
        minimise(network, network, lambda: batches, optimizer, epochs=epochs)


def test_the_network_trains_in_training_mode_and_ends_in_eval_mode():
    network, loss, arguments = toy()
    modes = []

    def watched(batch):
        modes.append(network.training)
        return loss(batch)

    network.eval()
    train(network, watched, pictures(), **arguments)
    assert modes == [True] * 9
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_training(bad):
    network, loss, arguments = toy(epochs=5, batch_size=20)
    calls = []

    def breaking(batch):
        calls.append(batch)
        return loss(batch) * (bad if len(calls) == 2 else 1)

    with pytest.raises(
        FloatingPointError, match=f"loss: expected a finite value, got {bad} in epoch 2"
    ):
        train(network, breaking, pictures(), **arguments)
    assert len(calls) == 2


# Progress


class Terminal(io.StringIO):
    """What looks like a terminal."""

    def isatty(self):
        return True


def test_progress_is_silent_where_nobody_watches(capfd):
    network, loss, arguments = toy()
    train(network, loss, pictures(), **arguments)
    assert capfd.readouterr() == ("", "")


def test_progress_shows_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    seconds = itertools.count()  # each look at the clock is a second later
    monkeypatch.setattr("tqdm.std.time", lambda: next(seconds))
    network, loss, arguments = toy(epochs=4)
    train(network, loss, pictures(), **arguments)
    assert "4/4 [" in sys.stderr.getvalue()
    assert "loss" in sys.stderr.getvalue()


def test_progress_leaves_one_line_in_a_notebook():
    nbclient, nbformat = (
        pytest.importorskip("nbclient"),
        pytest.importorskip("nbformat"),
    )
    source = """
import torch
from adlab.training import train
network = torch.nn.Linear(5, 5)
loss = lambda batch: network(batch).square().mean()
train(network, loss, torch.rand(8, 1, 6, 5), epochs=8);
"""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.NotebookClient(book, timeout=600, kernel_name="python3").execute()
    [output] = book.cells[0].outputs
    text = output["data"]["text/plain"]
    assert "8/8" in text
    assert "loss" in text
    assert "\n" not in text


# Bad input


def train_linear(images=IMAGES, loss=None, **options):
    network = nn.Linear(5, 5)
    loss = loss or (lambda batch: network(batch).square().mean())
    options = {"epochs": 1, "device": "cpu"} | options
    return train(network, loss, images, **options)


def exploding(batch):
    return (batch.mean() * NAN).requires_grad_()


test_bad_input = refuses(
    (lambda: resolve_device("tpu0"), ValueError, "device…'tpu0'"),
    (lambda: seeded(-3).__enter__(), ValueError, "seed…-3"),
    (lambda: list(stream(IMAGES, 0)), ValueError, "batch_size…0"),
    (lambda: list(stream(IMAGES, pixels=0)), ValueError, "pixels…0"),
    (lambda: list(stream("images")), TypeError, "images…DataLoader…str"),
    (lambda: train_linear(epochs=0), ValueError, "epochs…0"),
    (lambda: train_linear(batch_size=2.0), TypeError, "batch_size…2.0"),
    (lambda: train_linear(lr=0), ValueError, "lr…0"),
    (lambda: train_linear(weight_decay=-1), ValueError, "weight_decay…-1"),
    (lambda: train_linear(seed="0"), TypeError, "seed…str"),
    (lambda: train_linear(device="abacus"), ValueError, "device…'abacus'"),
    (lambda: train_linear(spoiled(IMAGES, NAN)), ValueError, "images…NaN"),
    (lambda: train_linear(None), TypeError, "images…NoneType"),
    (lambda: train_linear(TensorDataset(IMAGES * 2)), ValueError, "images…[0, 1]"),
    (lambda: train_linear(loss=exploding), FloatingPointError, "loss…epoch 1"),
)
