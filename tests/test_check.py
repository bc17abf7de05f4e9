"""A right answer passes; a wrong one is told what is wrong with it, in words."""

import random

import numpy as np
import pytest
import torch
from scipy.stats import expon, norm, rankdata, weibull_min
from skimage.metrics import structural_similarity
from sklearn.metrics import auc, average_precision_score, roc_auc_score
from torch.nn.functional import (
    adaptive_max_pool2d,
    conv2d,
    cross_entropy,
    max_pool2d,
    mse_loss,
    normalize,
    pad,
    softmax,
)

import adlab
from adlab import (
    capsules,
    check,
    continual,
    control,
    dagmm,
    decision,
    deep_svdd,
    draem,
    geotrans,
    inpainting,
    metrics,
    open_set,
    padim,
    patchcore,
    pyramids,
    reconstruction,
    similarity,
    spade,
    student_teacher,
    transfer,
    vectors,
    vt_adl,
    zero_shot,
)
from adlab.check import CheckError
from adlab.vectors import KNN, Gaussian, PixelGaussian

CHECKS = [name for name in check.__all__ if name not in ("CheckError", "detector")]


def kernel_svdd(x, support, weights, gamma):
    """The package's distance, for a ball that was not fitted."""
    svdd = vectors.KernelSVDD()
    svdd.support_, svdd.weights_, svdd.gamma_ = support, weights, gamma
    svdd.norm_ = float(weights @ svdd._similarity(support))
    return svdd._squared_distance(x)


def front(cost, quality):
    """By sorting: what is cheaper comes first, of equal cost what is better."""
    order = np.lexsort((-quality, cost))
    best = np.r_[-np.inf, np.maximum.accumulate(quality[order])[:-1]]
    ahead = quality[order] > best
    led = {(cost[i], quality[i]) for i in order[ahead]}
    return np.array([row in led for row in zip(cost, quality, strict=True)])


OWN = {
    "anomaly_probability": lambda z, n, a, scale: zero_shot.anomaly_probability(
        z, torch.stack([n, a]), scale
    ),
    "attention": lambda q, k, v: vt_adl.attention(q, k, v)[0],
    "auroc": metrics.auroc,
    "average_precision": metrics.average_precision,
    "best_radius": deep_svdd.best_radius,
    "cell_masks": inpainting.cell_masks,
    "cell_means": lambda features, k: pyramids.pyramid(features, [k])[0],
    "channel_factors": lambda means, first, second: gate(means, first, second),
    "contrastive_loss": zero_shot.contrastive_loss,
    "coreset": patchcore.greedy_coreset,
    "covariance_penalty": dagmm.covariance_penalty,
    "cusum": control.cusum,
    "dirichlet_score": geotrans.dirichlet_score,
    "distance_to_nearest": spade.distance_to_nearest,
    "e_step": lambda x, w, m, c: vectors.e_step(x, w, m, vectors.cholesky_factors(c)),
    "energy_score": open_set.energy_score,
    "error_and_variance": student_teacher.error_and_variance,
    "ewc_penalty": lambda *given: penalty_of_a_line(*given),
    "fit_weibull": open_set.fit_weibull,
    "focal_loss": lambda q, gamma: draem.focal_loss(
        torch.stack([q, 1 - q]).log()[None, :, :, None],
        q.new_zeros(1, len(q), 1),
        gamma,
    ),
    "forgetting": continual.forgetting,
    "images_needed": lambda d, effect: (
        (norm.ppf([0.975, 0.8]).sum() / effect) ** 2 * np.cov(d)
    ),
    "inpaint": inpainting.inpaint,
    "kernel_distance": kernel_svdd,
    "kl_divergence": reconstruction.kl_divergence,
    "knn_score": lambda train, test, k: KNN(k).fit(train).anomaly_score(test),
    "m_step": lambda x, r: vectors.m_step(x, r, reg_covar=0),
    "mahalanobis_map": padim.mahalanobis_map,
    "mixture_log_density": lambda z, weights, means, deviations: (
        vt_adl.mixture_log_density(z, weights.log(), means, deviations)
    ),
    "msp_score": open_set.msp_score,
    "oscr": metrics.oscr,
    "over_windows": zero_shot.over_windows,
    "p_values": lambda normal, scores: (
        (1 + len(normal) - np.searchsorted(np.sort(normal), scores)) / (len(normal) + 1)
    ),
    "pareto": lambda cost, quality: front(cost, quality),
    "pixel_gaussian": lambda train, test, reg_covar: (
        PixelGaussian(reg_covar).fit(train).anomaly_map(test)
    ),
    "pool": transfer.pool,
    "pro": metrics.pro,
    "quantile_threshold": decision.quantile_threshold,
    "route": lambda votes, n_iterations: capsules.route(votes, n_iterations)[1],
    "sample": reconstruction.sample,
    "soft_boundary_loss": deep_svdd.soft_boundary_loss,
    "softmax_score": geotrans.softmax_score,
    "squared_gradients": lambda x, y, w: fisher_of_a_line(x, y, w),
    "squash": capsules.squash,
    "ssim": lambda x, y, data_range: similarity.ssim(x, y, data_range=data_range),
    "transform": geotrans.transform,
    "with_reconstruction_features": dagmm.with_reconstruction_features,
}


def told(name, answer, seed=0):
    """What a check says of an answer."""
    with pytest.raises(CheckError) as caught:
        getattr(check, name)(answer, seed)
    return str(caught.value)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.filterwarnings("ignore:anomaly_score")
def test_the_packages_own_function_is_right(name, seed, capsys):
    getattr(check, name)(OWN[name], seed)
    assert capsys.readouterr().out == f"{name}: 100 instances, all right\n"


def ssim_of_skimage(x, y, data_range):
    usual = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    pairs = zip(x[:, 0].numpy(), y[:, 0].numpy(), strict=True)
    return [structural_similarity(*p, data_range=data_range, **usual) for p in pairs]


def sum_of_ranks(scores, labels):
    n = np.sum(labels == 1)
    pairs = n * (len(labels) - n)
    return (rankdata(scores)[labels == 1].sum() - n * (n + 1) / 2) / pairs


OTHERWISE = [
    ("auroc", lambda scores, labels: roc_auc_score(labels, scores)),
    ("auroc", sum_of_ranks),
    (
        "average_precision",
        lambda scores, labels: average_precision_score(labels, scores),
    ),
    ("ssim", ssim_of_skimage),
    ("msp_score", lambda logits: 1 - logits.float().softmax(1).amax(1)),
    ("energy_score", lambda logits, t: -t * torch.logsumexp(logits.float() / t, 1)),
    (
        "knn_score",
        lambda train, test, k: (
            torch.cdist(test.float(), train.float()).topk(k, largest=False)[0].mean(1)
        ),
    ),
]


@pytest.mark.parametrize(("name", "answer"), OTHERWISE)
def test_what_other_libraries_give_is_right_and_so_is_float32(name, answer):
    getattr(check, name)(answer)


KNOWN = [
    (name, words, mistake)
    for name in CHECKS
    for words, mistake in getattr(check, name).mistakes.items()
]


@pytest.mark.parametrize(
    ("name", "words", "mistake"), KNOWN, ids=[f"{row[0]}: {row[1]}" for row in KNOWN]
)
@pytest.mark.filterwarnings("ignore")
def test_every_known_mistake_is_told_by_its_own_words(name, words, mistake):
    message = told(name, mistake)
    assert message.startswith(f"your {name} {words}: "), message
    assert "; " in message
    assert "expected" in message
    assert len(message) < 600


# As students write them

WRONG = {
    "p_values": {
        "does not count the new image itself, so that p can be 0": lambda normal, s: [
            np.mean(normal >= each) for each in s
        ],
        "leaves out normal scores that are equal": lambda normal, s: [
            (1 + np.sum(normal > each)) / (len(normal) + 1) for each in s
        ],
        "counts lower scores, so that a high score has a high p": lambda normal, s: OWN[
            "p_values"
        ](-normal, -s),
    },
    "pareto": {
        "takes a high cost for good": lambda cost, quality: front(-cost, quality),
        "takes a low quality for good": lambda cost, quality: front(cost, -quality),
        "marks the rows that are beaten": lambda cost, quality: ~front(cost, quality),
    },
    "pixel_gaussian": {
        "forgets the absolute value": lambda train, test, reg: (
            (test - train.mean(0)) / (train.var(0) + reg) ** 0.5
        )[:, 0],
        "divides the variance by N": lambda train, test, reg: (
            (test - train.mean(0)).abs() / (train.numpy().var(0) + reg) ** 0.5
        )[:, 0],
        "is the square of what it should be": lambda train, test, reg: (
            (test - train.mean(0)) ** 2 / (train.var(0) + reg)
        )[:, 0],
        "returns another shape": lambda train, test, reg: (
            (test - train.mean(0)).abs() / (train.var(0) + reg).sqrt()
        ),
    },
    "auroc": {
        "counts ties as wins": lambda scores, labels: np.mean(
            [a >= b for a in scores[labels == 1] for b in scores[labels == 0]]
        ),
        "counts ties as losses": lambda scores, labels: np.mean(
            [a > b for a in scores[labels == 1] for b in scores[labels == 0]]
        ),
        "takes low scores": lambda scores, labels: metrics.auroc(scores, 1 - labels),
        "is wrong": lambda scores, labels: metrics.auroc(scores.round(), labels),
    },
    "average_precision": {
        "takes trapezoids": lambda scores, labels: auc(
            *metrics.precision_recall_curve(scores, labels)[1::-1]
        ),
        "takes low scores": lambda scores, labels: metrics.average_precision(
            -scores, labels
        ),
        "is the AUROC": metrics.auroc,
        "takes the normal class": lambda scores, labels: metrics.average_precision(
            scores, labels == 0
        ),
    },
    "quantile_threshold": {
        "interpolates": lambda scores, fpr: np.quantile(scores, 1 - fpr),
        "takes the quantile of the n scores": lambda scores, fpr: np.quantile(
            scores, 1 - fpr, method="higher"
        ),
        "takes the lower end": lambda scores, fpr: np.sort(scores)[
            int(np.ceil((len(scores) + 1) * fpr - 1e-9)) - 1
        ],
        "is mean plus three deviations": lambda scores, fpr: (
            decision.sigma_threshold(scores) if len(scores) > 1 else np.nan
        ),
    },
    "pro": {
        "takes max_fpr for 0.3": lambda maps, masks, max_fpr: metrics.pro(maps, masks),
        "forgets to divide": lambda maps, masks, max_fpr: (
            max_fpr * metrics.pro(maps, masks, max_fpr)
        ),
        "takes the whole curve": lambda maps, masks, max_fpr: metrics.pro(
            maps, masks, 1
        ),
        "is wrong": lambda maps, masks, max_fpr: metrics.pixel_auroc(maps, masks),
    },
    "ssim": {
        "takes the data range for 1": lambda x, y, data_range: similarity.ssim(
            x, y, data_range=1
        ),
        "is one minus what it should be": lambda x, y, data_range: (
            1 - similarity.ssim(x, y, data_range=data_range)
        ),
        "weighs all pixels of a window alike": lambda x, y, data_range: similarity.ssim(
            x, y, data_range=data_range, sigma=1e6
        ),
        "is wrong": lambda x, y, data_range: similarity.gms(
            x, y, data_range=data_range
        ),
    },
    "kl_divergence": {
        "has the wrong sign": lambda mean, log_variance: (
            (1 + log_variance - mean**2 - log_variance.exp()) / 2
        ),
        "is twice what it should be": lambda mean, log_variance: (
            mean**2 + log_variance.exp() - 1 - log_variance
        ),
        "is the sum over what should be kept apart": lambda mean, log_variance: (
            (mean**2 + log_variance.exp() - 1 - log_variance).sum() / 2
        ),
        "takes the log-variance for the logarithm of the deviation": (
            lambda mean, log_variance: reconstruction.kl_divergence(
                mean, 2 * log_variance
            )
        ),
    },
    "sample": {
        "takes the variance for the deviation": lambda mean, log_variance, noise: (
            mean + torch.exp(log_variance) * noise
        ),
        "forgets the mean": lambda mean, log_variance, noise: (
            torch.exp(0.5 * log_variance) * noise
        ),
        "is wrong": lambda mean, log_variance, noise: (
            mean + torch.exp(0.5 * log_variance) * torch.randn_like(noise)
        ),
    },
    "e_step": {
        "forgets the weights": lambda x, w, m, c: OWN["e_step"](
            x, torch.ones_like(w), m, c
        ),
        "multiplies densities that are rounded to 0": lambda x, w, m, c: naive_e_step(
            x, w, m, c
        ),
        "returns something else": lambda *given: OWN["e_step"](*given)[0],
        "is wrong": lambda x, w, m, c: OWN["e_step"](
            x, w, m, torch.eye(x.shape[1]).to(c).expand_as(c)
        ),
    },
    "m_step": {
        "forgets to subtract the means": lambda x, r: (
            r.mean(0),
            r.T @ x / r.sum(0)[:, None],
            torch.einsum("nk,ni,nj->kij", r, x, x) / r.sum(0)[:, None, None],
        ),
        "divides by N": lambda x, r: (
            r.mean(0),
            r.T @ x / len(x),
            vectors.m_step(x, r, reg_covar=0)[2] * r.mean(0)[:, None, None],
        ),
        "returns counts for weights": lambda x, r: (
            r.sum(0),
            *vectors.m_step(x, r, reg_covar=0)[1:],
        ),
        "is wrong": lambda x, r: vectors.m_step(x, r, reg_covar=0.1),
        "returns another shape": lambda x, r: vectors.m_step(x, r, "diag", 0),
    },
    "with_reconstruction_features": {
        "forgets to divide": lambda z, x, y: torch.cat(
            [z, (x - y).norm(dim=1)[:, None], torch.cosine_similarity(x, y)[:, None]], 1
        ),
        "divides the distance by the length of the reconstruction": lambda z, x, y: (
            dagmm.with_reconstruction_features(z, y, x)
        ),
        "returns another shape": lambda z, x, y: dagmm.with_reconstruction_features(
            z, x, y
        )[:, z.shape[1] :],
        "is wrong": lambda z, x, y: dagmm.with_reconstruction_features(z, x, x),
    },
    "coreset": {
        "takes the largest distance to those chosen, not the smallest": lambda x, n: (
            farthest(x, n, torch.amax)
        ),
        "adds the distances to all that are chosen": lambda x, n: farthest(
            x, n, torch.sum
        ),
        "takes the first rows as they come": lambda x, n: torch.arange(n),
    },
    "covariance_penalty": {
        "takes the trace of the inverse": lambda covariances: sum(
            each.inverse().trace() for each in covariances
        ),
        "is one over the sum": lambda covariances: (
            1 / sum(each.trace() for each in covariances)
        ),
        "is the mean over components": lambda covariances: (
            dagmm.covariance_penalty(covariances) / len(covariances)
        ),
        "has the wrong sign": lambda covariances: (
            -dagmm.covariance_penalty(covariances)
        ),
    },
    "pool": {
        "takes the maximum": lambda maps: torch.cat(
            [layer.flatten(2).max(2).values for layer in maps], 1
        ),
        "takes the last layer": lambda maps: transfer.pool(maps[-1:]),
        "has the layers in reverse order": lambda maps: transfer.pool(maps[::-1]),
        "averages over the channels": lambda maps: torch.cat(
            [layer.mean(1).flatten(1) for layer in maps], 1
        ),
    },
    "knn_score": {
        "takes the k-th distance": lambda train, test, k: (
            torch.cdist(test, train).topk(k, largest=False).values[:, -1]
        ),
        "takes the nearest only": lambda train, test, k: OWN["knn_score"](
            train, test, 1
        ),
        "takes the k farthest": lambda train, test, k: (
            torch.cdist(test, train).topk(k).values.mean(1)
        ),
        "averages squared distances": lambda train, test, k: (
            torch.cdist(test, train).topk(k, largest=False).values ** 2
        ).mean(1),
    },
    "mahalanobis_map": {
        "is the square of what it should be": lambda *given: (
            padim.mahalanobis_map(*given) ** 2
        ),
        "forgets the covariance": lambda train, test, reg: (
            (test - train.mean(0)).square().sum(-1).sqrt()
        ),
        "forgets the correlations": lambda train, test, reg: (
            ((test - train.mean(0)).square() / (train.var(0) + reg)).sum(-1).sqrt()
        ),
        "is wrong": lambda train, test, reg: padim.mahalanobis_map(
            train, test, 2 * reg
        ),
    },
    "distance_to_nearest": {
        "returns the squared distance": lambda x, gallery: (
            torch.cdist(x, gallery).amin(1) ** 2
        ),
        "returns the index": lambda x, gallery: torch.cdist(x, gallery).argmin(1),
        "looks for the nearest of x from the gallery": lambda x, gallery: torch.cdist(
            x, gallery
        ).amin(0),
        "takes the mean over the gallery": lambda x, gallery: torch.cdist(
            x, gallery
        ).mean(1),
    },
    "error_and_variance": {
        "averages the errors of the students": lambda p, t: (
            sum(((p[:, i] - t) ** 2).sum(1) for i in range(p.shape[1])) / p.shape[1],
            student_teacher.error_and_variance(p, t)[1],
        ),
        "divides the variance by M - 1": lambda p, t: (
            student_teacher.error_and_variance(p, t)[0],
            p.var(1).sum(1),
        ),
        "returns the variance before the error": lambda p, t: (
            student_teacher.error_and_variance(p, t)[::-1]
        ),
        "returns something else": lambda p, t: mse_loss(p.mean(1), t),
    },
    "transform": {
        "turns clockwise": lambda images, name: geotrans.transform(
            images,
            name.replace("rot90", "x")
            .replace("rot270", "rot90")
            .replace("x", "rot270"),
        ),
        "does the steps from right to left": lambda images, name: geotrans.transform(
            images, " ".join(reversed(name.split()))
        ),
        "is wrong": lambda images, name: images,
    },
    "softmax_score": {
        "takes the largest probability": lambda log_p: (
            1 - log_p.exp().max(2).values.mean(1)
        ),
        "is minus the mean logarithm": lambda log_p: (
            -torch.stack([each.diag().mean() for each in log_p])
        ),
        "is the mean probability of the right answer": lambda log_p: (
            1 - geotrans.softmax_score(log_p)
        ),
    },
    "dirichlet_score": {
        "forgets the constant": lambda log_p, alpha: -((alpha - 1) * log_p).sum((1, 2)),
        "is the log-likelihood": lambda log_p, alpha: sum(
            torch.distributions.Dirichlet(a, validate_args=False).log_prob(p.exp())
            for a, p in zip(alpha, log_p.transpose(0, 1), strict=True)
        ),
        "is wrong": lambda log_p, alpha: geotrans.dirichlet_score(log_p, alpha.T),
    },
    "cell_masks": {
        "is true where hidden": lambda h, w, cell, n: (
            ~inpainting.cell_masks(h, w, cell, n)
        ),
        "never hides a pixel": lambda h, w, cell, n: torch.ones(n, h, w, dtype=bool),
        "hides a pixel more than once": lambda h, w, cell, n: torch.rand(n, h, w) > 0.9,
        "cuts a cell": lambda h, w, cell, n: inpainting.cell_masks(h, w, 1, n),
        "deals unequal numbers": lambda h, w, cell, n: unequal_masks(h, w, cell, n),
    },
    "images_needed": {
        "forgets the square": lambda d, effect: 2.8015852 * np.std(d, ddof=1) / effect,
        "forgets the power": lambda d, effect: (
            3.8414588 * np.var(d, ddof=1) / effect**2
        ),
        "divides the variance by n, and not by n - 1": lambda d, effect: (
            OWN["images_needed"](d, effect) * (len(d) - 1) / len(d)
        ),
        "counts twice, as for two groups that are not paired": lambda d, effect: (
            2 * OWN["images_needed"](d, effect)
        ),
    },
    "inpaint": {
        "lets the network see": lambda network, images, masks: sum(
            network(images) * ~mask for mask in masks
        ),
        "sums the guesses of the visible parts": lambda network, images, masks: sum(
            network(images * mask) * mask for mask in masks
        ),
        "hides what should be visible": lambda network, images, masks: (
            inpainting.inpaint(network, images, masks == 0)
            if len(masks) == 2
            else sum_of_visible(network, images, masks)
        ),
    },
    "soft_boundary_loss": {
        "forgets the squared radius": lambda d, r, nu: torch.relu(d - r**2).mean() / nu,
        "forgets that distances below": lambda d, r, nu: r**2 + (d - r**2).mean() / nu,
        "takes the sum over the samples": lambda d, r, nu: (
            r**2 + torch.relu(d - r**2).sum() / nu
        ),
        "multiplies by nu": lambda d, r, nu: r**2 + nu * torch.relu(d - r**2).mean(),
    },
    "best_radius": {
        "interpolates between distances:": lambda d, nu: np.sqrt(
            np.quantile(d, 1 - nu)
        ),
        "interpolates between distances, after": lambda d, nu: np.quantile(
            np.sqrt(d), 1 - nu
        ),
        "leaves a share 1 - nu outside": lambda d, nu: deep_svdd.best_radius(d, 1 - nu),
        "is the squared radius": lambda d, nu: deep_svdd.best_radius(d, nu) ** 2,
    },
    "kernel_distance": {
        "measures in the space of the data": lambda x, s, w, gamma: (
            (x - w @ s) ** 2
        ).sum(1),
        "forgets the squared length": lambda x, s, w, gamma: (
            1 - 2 * torch.exp(-gamma * torch.cdist(x, s) ** 2) @ w
        ),
        "takes the root": lambda *given: kernel_svdd(*given).sqrt(),
    },
    "msp_score": {
        "is the probability itself": lambda logits: logits.softmax(1).max(1).values,
        "takes the softmax over the samples": lambda logits: (
            1 - torch.softmax(logits, 0).max(1).values
        ),
        "raises e to large logits": lambda logits: (
            1 - logits.exp().max(1).values / logits.exp().sum(1)
        ),
    },
    "energy_score": {
        "has the wrong sign": lambda logits, t: t * torch.logsumexp(logits / t, 1),
        "forgets the temperature:": lambda logits, t: open_set.energy_score(logits),
        "forgets the temperature before": lambda logits, t: open_set.energy_score(
            logits / t
        ),
        "raises e to large logits": lambda logits, t: (
            -t * torch.log(torch.exp(logits / t).sum(1))
        ),
    },
    "fit_weibull": {
        "returns the location": lambda d: weibull_min.fit(d, floc=0)[:2],
        "fits a Gaussian": lambda d: norm.fit(d),
        "fits an exponential": lambda d: (1, expon.fit(d, floc=0)[1]),
    },
    "oscr": {
        "is the AUROC:": lambda known, correct, unknown: metrics.oscr(
            known, np.ones(len(known)), unknown
        ),
        "counts ties as accepted": lambda known, correct, unknown: np.mean(
            [c * (k <= u) for k, c in zip(known, correct, strict=True) for u in unknown]
        ),
        "takes high scores": lambda known, correct, unknown: metrics.oscr(
            -known, correct, -unknown
        ),
    },
    "focal_loss": {
        "weighs by the probability of being right": lambda q, gamma: (
            -(q**gamma) * q.log()
        ).mean(),
        "is the cross-entropy": lambda q, gamma: -q.log().mean(),
        "is a sum": lambda q, gamma: -((1 - q) ** gamma * q.log()).sum(),
        "is below zero": lambda q, gamma: ((1 - q) ** gamma * q.log()).mean(),
        "returns another shape": lambda q, gamma: -((1 - q) ** gamma * q.log()),
    },
    "squash": {
        "divides by a length that may be zero": lambda s: (
            s / s.norm(dim=1, keepdim=True) / (1 + s.norm(dim=1, keepdim=True) ** -2)
        ),
        "does not square the length": lambda s: s / (1 + s.norm(dim=1, keepdim=True)),
        "makes all vectors one long": lambda s: normalize(s),
        "takes one length for all vectors": lambda s: (
            s * s.norm() / (1 + s.square().sum())
        ),
    },
    "route": {
        "shares sum to one over the capsules below": lambda votes, n: routed(
            votes, n, 1
        ),
        "forgets what it had": lambda votes, n: routed(votes, n, 2, kept=0),
        "does one iteration too many": lambda votes, n: routed(votes, n + 1, 2),
        "returns another shape": lambda votes, n: capsules.route(votes, n)[0],
    },
    "cell_means": {
        "takes the maximum": lambda f, k: adaptive_max_pool2d(f, k),
        "takes the sum": lambda f, k: over_cells(f, k, torch.sum),
        "leaves out the places that two cells share": lambda f, k: over_cells(
            f, k, torch.mean, overlap=False
        ),
        "has rows and columns of cells the wrong way round": lambda f, k: (
            pyramids.pyramid(f, [k])[0].transpose(2, 3)
        ),
        "averages over all places": lambda f, k: f.mean((2, 3))[..., None, None].repeat(
            1, 1, k, k
        ),
        "returns another shape": lambda f, k: f.mean((2, 3)),
    },
    "channel_factors": {
        "forgets the sigmoid": lambda z, a, b: (z @ a.T).clamp_min(0) @ b.T,
        "has no ReLU": lambda z, a, b: torch.sigmoid(z @ (b @ a).T),
        "has a sigmoid between": lambda z, a, b: torch.sigmoid(
            torch.sigmoid(z @ a.T) @ b.T
        ),
        "has a softmax": lambda z, a, b: softmax((z @ a.T).clamp_min(0) @ b.T, dim=1),
        "multiplies the channels": lambda z, a, b: z * gate(z, a, b),
        "returns another shape": lambda z, a, b: gate(z, a, b)[..., None, None],
    },
    "cusum": {
        "lets the sum fall below zero": lambda s, mean, k: np.cumsum(s - mean - k),
        "forgets the slack": lambda s, mean, k: control.cusum(s, mean, 0),
        "forgets the mean": lambda s, mean, k: control.cusum(s, 0, k),
        "adds the slack": lambda s, mean, k: control.cusum(s, mean - 2 * k, k),
        "looks at falling scores, too": lambda s, mean, k: np.maximum(
            control.cusum(s, mean, k), control.cusum(-s, -mean, k)
        ),
        "returns another shape": lambda s, mean, k: np.r_[0, control.cusum(s, mean, k)],
    },
    "forgetting": {
        "has the wrong sign": lambda a: -continual.forgetting(a),
        "takes the diagonal": lambda a: (np.diag(a) - a[-1])[:-1],
        "counts the last row": lambda a: continual.forgetting(a).clip(0),
        "has rows and columns the wrong way": lambda a: continual.forgetting(a.T),
        "returns another shape": lambda a: a[:-1].max(0) - a[-1],
    },
    "squared_gradients": {
        "squares the mean gradient": lambda x, y, w: ((x @ w - y) @ x / len(x)) ** 2,
        "forgets the square": lambda x, y, w: (x @ w - y) @ x / len(x),
        "takes the sum over samples": lambda x, y, w: (x @ w - y) ** 2 @ x**2,
        "forgets the residual": lambda x, y, w: (x**2).mean(0),
        "takes the gradient of the squared error": lambda x, y, w: (
            4 * fisher_of_a_line(x, y, w)
        ),
    },
    "ewc_penalty": {
        "forgets the half": lambda w, old, f, k: 2 * penalty_of_a_line(w, old, f, k),
        "forgets the Fisher": lambda w, old, f, k: (
            k / 2 * mse_loss(w, old, reduction="sum")
        ),
        "forgets the strength": lambda w, old, f, k: penalty_of_a_line(w, old, f, 1),
        "pulls the weights to zero": lambda w, old, f, k: k / 2 * f @ w**2,
        "takes the mean": lambda w, old, f, k: (k / 2 * f * (w - old) ** 2).mean(),
        "takes absolute": lambda w, old, f, k: k / 2 * f @ abs(w - old),
    },
    "attention": {
        "forgets to divide by the root of d": lambda q, k, v: (q @ k.T).softmax(1) @ v,
        "divides by d, not by its root": lambda q, k, v: (
            (q @ k.T / q.shape[1]).softmax(1) @ v
        ),
        "takes the softmax over the queries": lambda q, k, v: (
            (q @ k.T / q.shape[1] ** 0.5).softmax(0) @ v
        ),
        "takes no softmax": lambda q, k, v: q @ k.T @ v / q.shape[1] ** 0.5,
        "computes powers of e that are infinite": lambda q, k, v: (
            overflowing(q @ k.T / q.shape[1] ** 0.5) @ v
        ),
    },
    "mixture_log_density": {
        "takes the mean of the logarithms": lambda z, w, m, s: gaussians(z, m, s) @ w,
        "counts log 2 pi once": lambda z, w, m, s: (
            (gaussians(z, m, s) + w.log()).logsumexp(1)
            + (z.shape[1] - 1) * np.log(2 * np.pi) / 2
        ),
        "forgets the weights": lambda z, w, m, s: gaussians(z, m, s).logsumexp(1),
        "adds densities that are rounded to 0": lambda z, w, m, s: (
            gaussians(z, m, s).exp() @ w
        ).log(),
        "returns another shape": lambda z, w, m, s: gaussians(z, m, s),
    },
    "contrastive_loss": {
        "asks only which text belongs": lambda z, t, scale: one_way(z, t, scale),
        "asks only which image belongs": lambda z, t, scale: one_way(t, z, scale),
        "forgets the scale": lambda z, t, scale: zero_shot.contrastive_loss(z, t, 1),
        "divides by the scale": lambda z, t, scale: zero_shot.contrastive_loss(
            z, t, 1 / scale
        ),
        "adds the two directions": lambda z, t, scale: (
            2 * zero_shot.contrastive_loss(z, t, scale)
        ),
        "is a sum over the pairs": lambda z, t, scale: (
            len(z) * zero_shot.contrastive_loss(z, t, scale)
        ),
        "is wrong": lambda z, t, scale: ((z - t) ** 2).sum(),
    },
    "anomaly_probability": {
        "gives the probability of the normal": lambda z, n, a, scale: (
            1 - OWN["anomaly_probability"](z, n, a, scale)
        ),
        "forgets the scale": lambda z, n, a, scale: OWN["anomaly_probability"](
            z, n, a, 1
        ),
        "divides by the scale": lambda z, n, a, scale: OWN["anomaly_probability"](
            z, n, a, 1 / scale
        ),
        "gives the difference": lambda z, n, a, scale: scale * (z @ a - z @ n),
        "gives the cosine": lambda z, n, a, scale: (z * a).sum(1),
        "competes over the images": lambda z, n, a, scale: softmax(scale * z @ a, 0),
        "returns another shape": lambda z, n, a, scale: torch.stack([z @ n, z @ a], 1),
    },
    "over_windows": {
        "takes the arithmetic mean": lambda v, k: spread(v, k) / spread(0 * v + 1, k),
        "takes the lowest": lambda v, k: -highest(-v, k),
        "takes the highest": lambda v, k: highest(v, k),
        "divides by the square of the side": lambda v, k: k * k / spread(1 / v, k),
        "sums the inverses": lambda v, k: spread(1 / v, k),
        "returns another shape": lambda v, k: v[:, None],
    },
}


def one_way(images, texts, scale):
    """Cross-entropy over the texts only."""
    logits = scale * images @ texts.T
    return cross_entropy(logits, torch.arange(len(logits)))


def spread(values, side):
    """Sums over the windows that each place lies in."""
    return conv2d(
        pad(values, [side - 1] * 4)[:, None], values.new_ones(1, 1, side, side)
    )[:, 0]


def highest(values, side):
    """Maxima over the windows that each place lies in."""
    padded = pad(values, [side - 1] * 4, value=-np.inf)
    return max_pool2d(padded, side, 1)


def gate(means, first, second):
    """The package's factors, for given matrices; a map of one place is its mean."""
    block = pyramids.SqueezeExcitation(4 * len(first)).double()
    block.squeezed.weight, block.excited.weight = (
        torch.nn.Parameter(matrix, requires_grad=False) for matrix in (first, second)
    )
    return block.factors(means[:, :, None, None])


def line(weights):
    """A regression, and half of the mean of its squared errors."""
    model = torch.nn.Linear(len(weights), 1, bias=False).double()
    model.weight.data[0] = weights
    return model, lambda x, y: mse_loss(model(x)[:, 0], y) / 2


def fisher_of_a_line(x, y, w):
    return continual.fisher_diagonal(*line(w), [(x, y)])


def penalty_of_a_line(weights, anchor, fisher, strength):
    model, _ = line(anchor)
    penalty = continual.ewc_penalty(model, fisher, strength)
    model.weight.data[0] = weights
    return penalty()


def over_cells(features, k, summary, overlap=True):
    height, width = features.shape[2:]
    rounded = -1 if overlap else 1
    result = features.new_empty(*features.shape[:2], k, k)
    for i, j in np.ndindex(k, k):
        rows = slice(i * height // k, rounded * (rounded * (i + 1) * height // k))
        columns = slice(j * width // k, rounded * (rounded * (j + 1) * width // k))
        result[:, :, i, j] = summary(features[:, :, rows, columns], (2, 3))
    return result


def naive_e_step(x, weights, means, covariances):
    """By the formula of the density, which is rounded to 0 far away."""
    gaps = x[:, None] - means
    power = -torch.einsum("nki,kij,nkj->nk", gaps, covariances.inverse(), gaps) / 2
    scales = ((2 * torch.pi) ** x.shape[1] * covariances.det()).sqrt()
    joint = weights * power.exp() / scales
    return joint / joint.sum(1, keepdim=True), joint.sum(1).log()


def unequal_masks(height, width, cell_size, n_sets):
    """The last set gets all but a few cells."""
    rows, columns = -(-height // cell_size), -(-width // cell_size)
    sets = torch.full((rows, columns), n_sets - 1)
    sets.view(-1)[: n_sets - 1] = torch.arange(n_sets - 1)
    sets = sets.repeat_interleave(cell_size, 0).repeat_interleave(cell_size, 1)
    return sets[:height, :width] != torch.arange(n_sets)[:, None, None]


def sum_of_visible(network, images, masks):
    """The masks are taken for their opposites, one after the other."""
    result = torch.zeros_like(images)
    for mask in masks:
        result[:, :, mask] = network(images * ~mask)[:, :, mask]
    return result


def overflowing(alike):
    """The softmax over the keys, as it is written in books."""
    return alike.exp() / alike.exp().sum(1, keepdim=True)


def gaussians(z, means, deviations):
    """The log-densities (N, K) of each component by itself."""
    each = torch.distributions.Normal(means, deviations)
    return each.log_prob(z[:, None]).sum(2)


def farthest(x, n, over):
    """Rows whose distances to those chosen, taken together, are the largest."""
    rows = [0]
    for _ in range(n - 1):
        far = over(torch.cdist(x, x[rows]), 1)
        far[rows] = -1
        rows.append(int(far.argmax()))
    return torch.tensor(rows)


def routed(votes, n_iterations, over, kept=1):
    """Shares of routing with the softmax over an axis; `kept` of the agreement so far."""
    b = votes.new_zeros(votes.shape[:3])
    for _ in range(n_iterations - 1):
        above = capsules.squash((b.softmax(over)[..., None] * votes).sum(1))
        b = kept * b + (votes * above[:, None]).sum(3)
    return b.softmax(over)


ROWS = [(name, *row) for name, rows in WRONG.items() for row in rows.items()]


@pytest.mark.parametrize(
    ("name", "words", "answer"), ROWS, ids=[f"{row[0]}: {row[1]}" for row in ROWS]
)
@pytest.mark.filterwarnings("ignore")
def test_typical_mistakes_are_told(name, words, answer):
    message = told(name, answer)
    assert message.startswith(f"your {name} {words}"), message


def test_no_check_is_without_wrong_answers():
    assert list(OWN) == sorted(WRONG) == CHECKS
    assert min(map(len, WRONG.values())) >= 3


# Whatever is asked


def fails(scores, labels):
    return scores[len(scores)]


def sorts(scores, labels):
    right = metrics.auroc(scores, labels)
    scores.sort()
    return right


ANY = [
    (fails, "raises IndexError: scores [0, 0], labels [0, 1]; “index 2 is out of"),
    (sorts, "changes its argument scores: scores ["),
    (lambda scores: 1, "raises TypeError: scores [0, 0], labels [0, 1]; “"),
    (
        lambda scores, labels: None,
        "returns None: scores [0, 0], labels [0, 1]; is there",
    ),
    (lambda scores, labels: "high", "returns str: "),
    (lambda scores, labels: float("nan"), "returns NaN or infinite values: "),
    (lambda scores, labels: np.array([0.5]), "returns another shape: "),
    (lambda scores, labels: scores, "returns another shape: "),
]


@pytest.mark.parametrize(("answer", "words"), ANY, ids=[row[1] for row in ANY])
def test_what_any_answer_can_get_wrong_has_words(answer, words):
    assert told("auroc", answer).startswith(f"your auroc {words}")


@pytest.mark.parametrize("name", CHECKS)
def test_nothing_returned_is_told_by_every_check(name):
    assert told(name, lambda *given: None).startswith(f"your {name} returns None: ")


def test_the_students_own_error_is_the_cause():
    with pytest.raises(CheckError) as caught:
        check.auroc(fails)
    assert isinstance(caught.value.__cause__, IndexError)


def test_a_counter_example_is_small():
    """The mistake shows first in a larger one, with unequal scores about."""

    def wrong(scores, labels):
        return metrics.auroc(scores, labels) + (len(scores) > 5) * 0.1

    message = told("auroc", wrong)
    scores = message.partition("scores [")[2].partition("]")[0].split(", ")
    assert len(scores) == 6
    assert all(float(score).is_integer() for score in scores)


def test_the_words_of_the_docstring():
    message = told("auroc", lambda s, y: np.mean(s[y == 1][:, None] >= s[y == 0]))
    assert message in check.__doc__


@pytest.mark.parametrize("name", ["auroc", "cell_masks", "e_step"])
def test_the_same_seed_gives_the_same_verdict(name):
    def guesses(*given):
        return np.random.rand() + random.random() + float(torch.rand(()))

    assert told(name, guesses, 3) == told(name, guesses, 3)


def test_the_callers_random_numbers_are_left_alone():
    def state():
        return torch.rand(1).item(), np.random.rand(), random.random()

    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    expected = state()
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    check.cell_masks(inpainting.cell_masks)
    told("auroc", fails)
    assert state() == expected


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("answer", [3, None, "auroc"])
def test_what_is_no_function_is_refused(name, answer):
    with pytest.raises(TypeError, match="answer: expected a function, got "):
        getattr(check, name)(answer)


# Detectors


class Short(Gaussian):
    """It scores all images but the last."""

    def _score(self, batch):
        return super()._score(batch)[:-1]


def test_a_detector_is_answered_in_the_same_way(capsys):
    images = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    check.detector(Gaussian(reg_covar=0.1), images)
    assert capsys.readouterr().out == "Gaussian: 12 promises, all right\n"
    with pytest.raises(
        CheckError, match="your Short does not keep the contract:\n  - "
    ):
        check.detector(Short(reg_covar=0.1), images)


@pytest.mark.parametrize("answer", [3, Gaussian, metrics.auroc])
def test_what_is_no_detector_is_refused(answer):
    with pytest.raises(TypeError, match=r"answer: expected an adlab\.Detector, got "):
        check.detector(answer)


def test_it_is_found_from_the_package():
    assert adlab.check.auroc is check.auroc
    assert check.auroc.__name__ == "auroc"
    assert "tie" in check.auroc.__doc__
