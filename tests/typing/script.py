"""What a user writes, checked by mypy with all its strictness."""

import numpy as np

import adlab
from adlab.data import ImageSet, Splits

splits: Splits = adlab.data.load("nanofibres", n_train=8)
train: ImageSet = splits.train

padim = adlab.PaDiM(n_features=20, image_score="mean", seed=1).fit(train.images)
maps = padim.anomaly_map(splits.test.images)
shape: tuple[int, ...] = tuple(maps.shape)
padim.save("padim.safetensors")
again: adlab.Detector = adlab.load_detector("padim.safetensors")

gamma: float = adlab.decision.quantile_threshold(
    again.anomaly_score(splits.val.images), fpr=0.05
)
scores = again.anomaly_score(splits.test.images)
verdict: list[bool] = (scores > gamma).tolist()
auroc: float = adlab.metrics.auroc(scores, splits.test.labels)

neighbours: adlab.vectors.KNN = adlab.vectors.KNN(3).fit(np.zeros((9, 2)))
lower_is_odder: np.ndarray = neighbours.score_samples(np.ones((2, 2)))
adlab.check_detector(adlab.DeepSVDD("soft-boundary", epochs=1))
