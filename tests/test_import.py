"""Importing adlab costs little, and brings in only what is used."""

import ast
import importlib
import json
import pkgutil
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import pytest

import adlab
from adlab._methods import methods

HEAVY = {
    "sphinx",
    "jupyter",
    "notebook",
    "IPython",
    "ipykernel",
    "sklearn",
    "scipy",
    "matplotlib",
    "torchvision",
}

ROOMS = [
    "adlab",
    *(module.name for module in pkgutil.walk_packages(adlab.__path__, "adlab.")),
]


SCRIPT = """
import json, sys
brought = []
for statement in ["import adlab", "from adlab import data, decision, metrics, training, vectors"]:
    known = set(sys.modules)
    exec(statement)
    brought.append(sorted({name.partition(".")[0] for name in set(sys.modules) - known}))
print(json.dumps(brought))
"""


def run(script):
    """What a fresh process prints, as JSON."""
    process = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    return json.loads(process.stdout)


@pytest.fixture(scope="module")
def brought():
    """The packages that come along with adlab, and then with its rooms."""
    return [set(packages) for packages in run(SCRIPT)]


def test_importing_adlab_brings_in_no_package_but_the_lazy_loader(brought):
    assert brought[0] - sys.stdlib_module_names == {"adlab", "lazy_loader"}


def test_all_that_detectors_need_brings_in_nothing_heavy(brought):
    assert set.union(*brought) & HEAVY == set()
    assert "torch" in brought[1]


def test_importing_writes_and_prints_nothing(tmp_path):
    script = "import adlab; adlab.vectors, adlab.data"
    process = subprocess.run(
        [sys.executable, "-B", "-c", script],
        check=True,
        capture_output=True,
        cwd=tmp_path,
    )
    assert process.stdout == process.stderr == b""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "module", [name for name in ROOMS if not name.endswith("__main__")]
)
def test_every_module_imports_by_itself(module):
    assert importlib.import_module(module).__doc__


@pytest.mark.parametrize("name", adlab.__all__)
def test_every_name_is_there_and_listed(name):
    assert getattr(adlab, name) is not None
    assert name in dir(adlab)


def public(names):
    return {name for name in names if not name.startswith("_")}


def test_the_stub_lists_every_room_and_every_method():
    """What to write where something is missing: a line of `adlab/__init__.pyi`."""
    rooms = public(module.name for module in pkgutil.iter_modules(adlab.__path__))
    made = {each.make for each in methods().values() if isinstance(each.make, type)}
    classes = {cls.__name__ for cls in made if ".vectors." not in cls.__module__}
    others = {"Detector", "LabelledDetector", "Localizer"}
    others |= {"FeatureDetector", "OpenSetClassifier"}
    functions = {"check_detector", "load_detector", "show"}
    assert set(adlab.__all__) == rooms | classes | others | functions


# The arrows between the rooms


# A detector makes its module, and exports it, by rooms that know detectors: only when asked
LATE = {("adlab.detector", "adlab._module"), ("adlab.detector", "adlab._onnx")}
# Methods that are made of another
BUILT_ON = {
    ("adlab.bench.compositions", "adlab.dagmm"),
    ("adlab.pyramids", "adlab.capsules"),
}


def statements(tree):
    """All statements and expressions, but those that only a type checker reads."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith(
            "TYPE_CHECKING"
        ):
            continue
        yield node
        yield from statements(node)


def named(node):
    """The full names that a statement imports."""
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "expected full names, got a relative import"
        return [f"{node.module}.{each.name}" for each in node.names]
    return [each.name for each in node.names] if isinstance(node, ast.Import) else []


def arrows(sources):
    """The pairs (room, room that it imports) of sources by their rooms."""
    found = set()
    for room, source in sources.items():
        for name in chain.from_iterable(map(named, statements(ast.parse(source)))):
            while name and name not in sources:  # a name of a room, or of a library
                name = name.rpartition(".")[0]
            found |= {(room, name)} if name else set()
    return found


def circle(pairs):
    """The rooms of one circle, or none."""
    graph = {}
    for room, other in pairs:
        graph.setdefault(room, set()).add(other)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return set(error.args[1])
    return set()


@pytest.fixture(scope="module")
def graph():
    return arrows(
        {
            room: Path(find_spec(room).origin).read_text(encoding="utf-8")
            for room in ROOMS
        }
    )


def test_no_room_imports_itself_by_way_of_others(graph):
    assert circle(graph - LATE) == set()
    for arrow in LATE:
        assert circle(graph - LATE | {arrow}) >= set(arrow)


def test_no_method_knows_another(graph):
    rooms = {each.make.__module__ for each in methods().values()}
    between = {(a, b) for a, b in graph if a != b and {a, b} <= rooms}
    assert between == BUILT_ON


@pytest.mark.parametrize(
    ("last", "found"),
    [
        ("from p import a", {"p.a", "p.b", "p.c"}),
        ("def f():\n    import p.a", {"p.a", "p.b", "p.c"}),
        ("from p.c import f", {"p.c"}),
        ("if TYPE_CHECKING:\n    from p.a import f", set()),
        ("import q.a, p", set()),
    ],
)
def test_a_circle_is_found(last, found):
    made = {"p": "", "p.a": "from p.b import f", "p.b": "import p.c", "p.c": last}
    assert circle(arrows(made)) == found


def test_a_star_brings_in_all_names():
    names = {}
    exec("from adlab import *", names)
    assert set(adlab.__all__) <= set(names)


def test_show_is_the_function_whatever_was_imported():
    assert callable(adlab.show)
    assert importlib.import_module("adlab.show").show is adlab.show


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="adlab attribute nonsense"):
        _ = adlab.nonsense
    with pytest.raises(ImportError):
        exec("from adlab import nonsense", {})


def test_version_is_known_without_installation():
    """From the source alone: an editable installation remembers an older one."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", adlab.__version__)
