"""adlab: anomaly detection in images, the tested implementations behind the course
book.

A room is imported when it is first named, so `import adlab` costs little more than
nothing.
"""

from importlib import import_module

from adlab.show import show

__version__ = "0.1.0"

_ROOMS = (
    "backbones",
    "bench",
    "dagmm",
    "data",
    "decision",
    "deep_svdd",
    "detector",
    "geotrans",
    "inpainting",
    "metrics",
    "open_set",
    "padim",
    "plots",
    "reconstruction",
    "similarity",
    "spade",
    "student_teacher",
    "training",
    "transfer",
    "vectors",
)
# a name that stands at the top of the package -> the room that holds it
_NAMES = {
    "Autoencoder": "reconstruction",
    "DAGMM": "dagmm",
    "DeepSAD": "deep_svdd",
    "DeepSVDD": "deep_svdd",
    "Detector": "detector",
    "FeatureDetector": "transfer",
    "GeoTrans": "geotrans",
    "Inpainting": "inpainting",
    "Localizer": "detector",
    "OpenSetClassifier": "open_set",
    "PaDiM": "padim",
    "SPADE": "spade",
    "StudentTeacher": "student_teacher",
    "VariationalAutoencoder": "reconstruction",
    "load_detector": "detector",
}
__all__ = [*_ROOMS, *_NAMES, "show"]


def __getattr__(name: str) -> object:
    if name in _NAMES:
        value = getattr(import_module(f"adlab.{_NAMES[name]}"), name)
    elif name in _ROOMS:
        value = import_module(f"adlab.{name}")
    else:
        raise AttributeError(f"module 'adlab' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
