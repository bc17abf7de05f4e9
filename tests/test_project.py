"""The frame of the project: its settings agree with each other, and its tools do what
they say.
"""

import importlib.util
import os
import pkgutil
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import nbformat
import pytest
import yaml
from docutils import nodes
from packaging.requirements import Requirement
from packaging.version import Version
from PIL import Image

import adlab
from adlab._methods import methods
from tools import check_book, check_pages, portability, stamp

ROOT = Path(__file__).parents[1]
REQUIRED = {
    "jupyter",
    "jupyter-book",
    "torch",
    "torchvision",
    "matplotlib",
    "seaborn",
    "scikit-learn",
    "nbval",
}
# What Colab ships: the set-up cell installs adlab without its dependencies, so these
# must be enough.
COLAB = {
    "filelock",
    "jinja2",
    "lazy-loader",
    "matplotlib",
    "numpy",
    "pandas",
    "safetensors",
    "scikit-image",
    "scikit-learn",
    "scipy",
    "seaborn",
    "torch",
    "torchvision",
    "tqdm",
}
VERBS = ["book", "test", "help", "lab", "lint", "stamp", "portability"]
WORKFLOWS = sorted(
    path.relative_to(ROOT).as_posix() for path in ROOT.glob(".github/workflows/*.yml")
)
FORMS = sorted(
    path.relative_to(ROOT).as_posix() for path in ROOT.glob(".github/ISSUE_TEMPLATE/*")
)
ACTIONS = {"checkout", "setup-python", "upload-pages-artifact", "deploy-pages"}


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def load(name):
    return yaml.safe_load(read(name))


def array(key):
    """Return an array of strings of pyproject.toml; Python 3.10 has no reader of TOML
    of its own.
    """
    body = re.search(
        rf"^{re.escape(key)} = \[(.*?)\]$",
        read("pyproject.toml"),
        re.MULTILINE | re.DOTALL,
    )[1]
    return re.findall(r'"([^"]*)"', body)


@pytest.fixture(scope="module")
def requirements():
    return [
        Requirement(text)
        for key in ("dependencies", "book", "imagenet", "test")
        for text in array(key)
    ]


@pytest.fixture
def built(tmp_path):
    """A built book of one page without faults."""
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/index\n")
    page = tmp_path / "_build" / "html" / "book" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text("<html><body><article><p>Text.</p></article></body></html>")
    assert check_book.check(tmp_path) == []
    return tmp_path


# Dependencies


def test_required_packages_are_named(requirements):
    assert {each.name for each in requirements} >= REQUIRED


def test_dependencies_are_ranges(requirements):
    for each in requirements:
        operators = {part.operator for part in each.specifier}
        assert operators <= {">=", "<"}, each
        assert each.url is None


def test_nothing_replaces_what_colab_ships(requirements):
    assert {Requirement(text).name for text in array("dependencies")} <= COLAB
    bounded = {
        each.name
        for each in requirements
        if any(part.operator == "<" for part in each.specifier)
    }
    assert not bounded & COLAB


def test_every_package_and_the_tables_are_installed():
    found = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for path in ROOT.glob("adlab/**/__init__.py")
    }
    assert set(array("packages")) == found | {"adlab.results"}
    assert '"adlab.results" = "book/results"' in read("pyproject.toml")


def test_conda_environment_installs_what_pyproject_names():
    python, pip, by_pip = load("environment.yml")["dependencies"]
    supported = re.search(
        r'^requires-python = "(.*)"$', read("pyproject.toml"), re.MULTILINE
    )[1]
    assert python == f"python{supported}"
    assert pip == "pip"
    assert by_pip == {"pip": ["-e .[book,imagenet,test]"]}


def test_make_and_pages_install_the_same_extras():
    assert "'.[book,imagenet,test]'" in read("Makefile")
    assert '".[book,imagenet,test]"' in read("book/using.md")


# Table of contents


def test_contents_name_files_that_exist():
    for page in check_book.pages_of(load("_toc.yml")):
        assert [
            path for path in ROOT.glob(f"{page}.*") if path.suffix in {".md", ".ipynb"}
        ], page


def test_every_chapter_and_page_is_in_the_contents():
    pages = list(check_book.pages_of(load("_toc.yml")))
    files = [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("book/*.md")]
    assert sorted(pages) == sorted(
        path.relative_to(ROOT).with_suffix("").as_posix() for path in files
    )


@pytest.mark.parametrize("page", ["index", "instructors"])
def test_every_chapter_is_in_the_tables_of_pages(page):
    linked = re.findall(
        r"^\|.*?\]\(\.\./notebooks/(\S+)\.ipynb\)",
        read(f"book/{page}.md"),
        re.MULTILINE,
    )
    assert linked == sorted(path.stem for path in ROOT.glob("notebooks/*.ipynb"))


def test_every_data_set_is_on_the_page_of_data():
    found = re.findall(
        r'^\| `"([\w-]+)"` \|.*\| (.+) \|$', read("book/data.md"), re.MULTILINE
    )
    licences = dict(found)
    assert licences.keys() == adlab.data.DATA_SETS.keys()
    for name, data_set in adlab.data.DATA_SETS.items():
        assert data_set.licence in licences[name]


def test_chapters_are_numbered_as_in_the_contents():
    chapters = [
        page
        for page in check_book.pages_of(load("_toc.yml"))
        if re.match(r"notebooks/\d", page)
    ]
    assert [int(Path(page).name[:2]) for page in chapters] == list(
        range(1, len(chapters) + 1)
    )


# The address


def test_address_is_stamped_everywhere(tmp_path):
    """Give a copy of the project another address: after stamping, nothing remembers the
    old one.
    """
    for name in ["README.md", "CITATION.cff", "pyproject.toml", "_config.yml"]:
        shutil.copy(ROOT / name, tmp_path)
    for folder in ["book", "notebooks"]:
        shutil.copytree(ROOT / folder, tmp_path / folder)
    old, _ = stamp.repository(ROOT)
    config = read("_config.yml").replace(old, "https://github.com/Someone/her-course")
    (tmp_path / "_config.yml").write_text(config, encoding="utf-8")

    stamp.stamp(tmp_path)
    texts = [
        path
        for pattern in ("*.*", "book/*.md", "notebooks/**/*.ipynb")
        for path in tmp_path.glob(pattern)
    ]
    slug = old.removeprefix(stamp.GITHUB)
    assert not [path for path in texts if slug in path.read_text(encoding="utf-8")]
    assert not [
        path for path in texts if stamp.site(old) in path.read_text(encoding="utf-8")
    ]
    assert stamp.stamp(tmp_path) == []


def test_nothing_is_left_to_stamp(tmp_path):
    url, _ = stamp.repository(ROOT)
    assert f'Repository = "{url}"' in read("pyproject.toml")
    assert f'Homepage = "{stamp.site(url)}"' in read("pyproject.toml")
    citation = load("CITATION.cff")
    assert citation["repository-code"] == url
    assert citation["url"] == stamp.site(url)
    assert load("_config.yml")["html"]["baseurl"] == f"{stamp.site(url)}/"
    assert url in read("README.md")


def test_no_other_address_of_the_project():
    url, _ = stamp.repository(ROOT)
    name = url.rsplit("/", 1)[1]
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("book/*.md"),
        *ROOT.glob("adlab/**/*.py"),
    ]:
        for found in re.findall(
            rf"https://github\.com/[\w.-]+/{name}\b", path.read_text(encoding="utf-8")
        ):
            assert found == url, path


URL = "https://github.com/Someone/her-course"


@pytest.fixture
def set_up(monkeypatch):
    """Run the set-up cell, in Colab or elsewhere, where pip fails for some packages;
    return those that it asked pip for.
    """

    def run(installed, in_colab, fails=()):
        asked = []

        def pip(command, **_):
            assert command[1:-1] == ["-m", "pip", "install", "-q", "--no-deps"]
            asked.append(command[-1])
            failed = command[-1].endswith(tuple(fails))
            return subprocess.CompletedProcess(command, failed, "", "fatal: no route\n")

        monkeypatch.setattr(subprocess, "run", pip)
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: installed or None)
        if in_colab:
            monkeypatch.setitem(sys.modules, "google.colab", adlab)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        exec(stamp.setup(URL, "trunk"), {"__name__": "__main__"})
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
        return asked

    return run


def line_of(error):
    """Return the one line that IPython shows of an error in place of its trace."""
    (line,) = error.value._render_traceback_()
    assert "\n" not in line
    return line


@pytest.mark.parametrize("in_colab", [False, True])
def test_setup_does_nothing_where_adlab_is(set_up, in_colab):
    assert set_up(True, in_colab) == []


def test_setup_installs_this_version_and_the_weights_of_the_extra(set_up, capsys):
    (weights,) = map(Requirement, array("imagenet"))
    version = f"git+{URL}@v{adlab.__version__}"
    assert set_up(False, True) == [version, weights.name]
    assert capsys.readouterr().out == ""


def test_setup_installs_the_branch_before_the_release(set_up, capsys):
    asked = set_up(False, True, fails=[adlab.__version__])
    assert asked[1] == f"git+{URL}@trunk"
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize("fails", [[adlab.__version__, "trunk"], ["model"]])
def test_setup_says_in_one_line_what_failed(set_up, fails):
    with pytest.raises(Exception, match="no route") as error:
        set_up(False, True, fails)
    assert "run this cell again" in line_of(error)


def test_setup_says_in_one_line_what_is_missing(set_up):
    with pytest.raises(Exception, match="adlab is missing") as error:
        set_up(False, False)
    command = f'pip install "adlab[imagenet] @ git+{URL}"'
    assert command in line_of(error)


@pytest.fixture
def chapter():
    """A notebook as an author may leave it: title, a figure, and links between files."""
    figure = {"name": "fig-x", "caption": "A circle,\n$x^*_1 = \\sqrt{a_2}$."}
    cells = [
        nbformat.v4.new_markdown_cell("# Title"),
        nbformat.v4.new_code_cell("draw()", metadata={"mystnb": {"figure": figure}}),
        nbformat.v4.new_markdown_cell(
            "[1](01_a.ipynb), [r](../book/results.md#top), [w](https://a.org/b.md)"
            ", ![d](../book/_static/drawings/d.svg)"
        ),
    ]
    return nbformat.v4.new_notebook(cells=cells)


def stamped(book):
    return stamp.notebook(book, URL, "trunk", "x.ipynb")


def captions(book):
    return [cell for cell in book.cells if stamp.is_caption(cell)]


def test_captions_are_repeated_below_their_figures(chapter):
    once = stamped(chapter)
    (cell,) = captions(once)
    words = "**Figure 1.** *A circle, $x^*_1 = \\sqrt{a_2}$.*"
    assert cell.source == f'<a id="fig-x"></a>{words}'
    assert once.cells[once.cells.index(cell) - 1].source == "draw()"
    assert stamped(once) == once
    nbformat.validate(once)


def test_captions_follow_their_figures(chapter):
    once = stamped(chapter)
    once.cells[3].metadata.mystnb["figure"]["caption"] = "Another."
    (cell,) = captions(stamped(once))
    assert cell.source.endswith("*Another.*")
    assert cell.id == captions(once)[0].id
    del once.cells[3]
    assert captions(stamped(once)) == []


@pytest.fixture
def formulas(chapter):
    """A chapter whose text refers to its figure and its formulas, which have no numbers."""
    chapter.cells += map(
        nbformat.v4.new_markdown_cell,
        [
            "By [Figure](#fig-x) and formulas (4.1) and (4.2), but (4.2).\n\n$$a = 1$$",
            "> $$\\begin{aligned} b &= 2 \\end{aligned}.$$\n\nNot formula (3.2).",
        ],
    )
    return chapter


def number(book):
    """Return the text of a notebook that is stamped as chapter 4."""
    book = stamp.notebook(book, URL, "trunk", "04_x.ipynb")
    assert stamp.notebook(book, URL, "trunk", "04_x.ipynb") == book
    return book, [cell.source for cell in book.cells]


def test_figures_and_formulas_are_numbered_by_chapter(formulas):
    _, (*_, first, second) = number(formulas)
    assert first == (
        "By [Figure 4.1](#fig-x) and formulas (4.1) and (4.2), but (4.2)."
        "\n\n$$a = 1 \\tag{4.1}$$"
    )
    assert "\\end{aligned}. \\tag{4.2}$$" in second


def test_references_follow_what_they_refer_to(formulas):
    book, _ = number(formulas)
    figure = {"name": "fig-new", "caption": "New."}
    new = nbformat.v4.new_code_cell("draw()", metadata={"mystnb": {"figure": figure}})
    book.cells[3:3] = [new, nbformat.v4.new_markdown_cell("$$c = 3$$")]
    _, texts = number(book)
    assert "$$c = 3 \\tag{4.1}$$" in texts
    assert "[Figure 4.2](#fig-x) and formulas (4.2) and (4.3), but (4.2)" in texts[-2]
    assert "\\tag{4.3}" in texts[-1] and "formula (3.2)" in texts[-1]


def test_a_reference_to_no_figure_is_refused(formulas):
    formulas.cells[-1].source += "[Figure](#fig-gone)"
    with pytest.raises(ValueError, match=r"fig-gone.*fig-x"):
        number(formulas)


def test_links_between_files_become_links_to_the_published_pages(chapter):
    home = "https://someone.github.io/her-course"
    assert stamped(chapter).cells[-1].source == (
        f"[1]({home}/notebooks/01_a.html), [r]({home}/book/results.html#top), "
        f"[w](https://a.org/b.md), ![d]({home}/_static/drawings/d.svg)"
    )


def test_address_must_be_of_github(tmp_path):
    (tmp_path / "_config.yml").write_text(
        "repository: {url: 'https://example.org/x', branch: main}"
    )
    with pytest.raises(
        ValueError,
        match=r"repository\.url in _config\.yml must be .* got 'https://example",
    ):
        stamp.repository(tmp_path)


# Licence, citation, README


def test_licences():
    assert "MIT License" in read("LICENSE")
    assert "https://creativecommons.org/licenses/by/4.0/legalcode" in read(
        "LICENSE-text"
    )
    assert 'license = "MIT"' in read("pyproject.toml")
    assert load("CITATION.cff")["license"] == ["MIT", "CC-BY-4.0"]


def test_version_has_one_home():
    """Setuptools reads it there without importing the package, if it is a literal."""
    assert 'dynamic = ["version"]' in read("pyproject.toml")
    assert 'version = { attr = "adlab.__version__" }' in read("pyproject.toml")
    assert f'\n__version__ = "{adlab.__version__}"\n' in read("adlab/__init__.py")


def test_citation_and_changelog_are_of_this_version():
    """A version has the same date in both, and before its release in neither."""
    citation = load("CITATION.cff")
    versions = re.findall(r"^## \[(.*)\] - (.*)$", read("CHANGELOG.md"), re.MULTILINE)
    assert versions[0][0] == str(citation["version"]) == adlab.__version__
    assert str(citation.get("date-released", "unreleased")) == versions[0][1]


def test_changelog_is_in_order():
    text = read("CHANGELOG.md")
    versions = re.findall(r"^## \[(.*)\] - (?:unreleased|\d{4}-\d\d-\d\d)$", text, re.M)
    assert len(versions) == len(re.findall(r"^## ", text, re.M))
    numbers = [Version(each) for each in versions]
    assert numbers == sorted(set(numbers), reverse=True)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.M)) <= kinds


def test_readme_names_the_two_commands():
    assert {"make book", "make test"} <= set(re.findall(r"make \w+", read("README.md")))


def test_pages_say_how_long_the_chapters_take(monkeypatch):
    """By the rates of the page for instructors."""
    monkeypatch.syspath_prepend(ROOT / "book" / "_ext")
    course = importlib.import_module("course")
    minutes = [chapter.minutes for chapter in course.chapters(ROOT)]
    hours = f"about {sum(minutes) / 60:.0f} hours"
    assert hours in " ".join(read("README.md").split())
    assert hours in " ".join(read("book/index.md").split())


# Continuous integration


def test_ci_runs_the_two_commands_and_stops_at_a_failure():
    script = read(".ci/run")
    verbs = re.findall(r"(?m)^make (\w+)$", script)
    assert verbs == ["test", "pages"]
    assert re.search(r"(?m)^pages: book\b", read("Makefile"))
    assert "set -eu\n" in script and "apt-get install --yes chromium" in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_ci_fails_when_a_command_fails(tmp_path):
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    (tmp_path / "Makefile").write_text("test:\n\tfalse\npages:\n\ttouch built\n")
    assert (
        subprocess.run([tmp_path / ".ci" / "run"], capture_output=True).returncode != 0
    )
    assert not (tmp_path / "built").exists()


def steps_of(workflow):
    return [step for job in workflow["jobs"].values() for step in job.get("steps", [])]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_may_read_only_end_and_give_way_to_newer_runs(name):
    workflow = load(name)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    for job in workflow["jobs"].values():
        assert "uses" in job or 0 < job["timeout-minutes"] <= 90


def test_workflows_do_not_cancel_each_other():
    groups = [load(name)["concurrency"]["group"] for name in WORKFLOWS]
    assert len(set(groups)) == len(WORKFLOWS) >= 4


def test_workflows_use_official_actions_only_each_in_one_version():
    used = [
        re.fullmatch(r"actions/([\w-]+)@v\d+", step["uses"])
        for name in WORKFLOWS
        for step in steps_of(load(name))
        if "uses" in step
    ]
    assert all(used)
    assert {match[1] for match in used} == ACTIONS
    assert len({match[0] for match in used}) == len(ACTIONS)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflows_keep_what_they_download_until_pyproject_changes(name):
    for step in steps_of(load(name)):
        if step.get("uses", "").startswith("actions/setup-python"):
            assert step["with"]["cache"] == "pip"
            assert step["with"]["cache-dependency-path"] == "pyproject.toml"


def test_workflow_tests_every_python_from_the_oldest_to_the_newest():
    workflow = load(".github/workflows/test.yml")
    assert {"push", "pull_request", "workflow_call"} <= set(
        workflow[True]
    )  # YAML reads the key `on` as true
    tested = workflow["jobs"]["test"]["strategy"]["matrix"]["python-version"]
    minors = [int(version.removeprefix("3.")) for version in tested]
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert tested == [text.rsplit(" ", 1)[1] for text in array("classifiers")]
    assert f'requires-python = ">={tested[0]}"' in read("pyproject.toml")
    newest = {
        step["with"]["python-version"].split()[-1]
        for name in set(WORKFLOWS) - {".github/workflows/test.yml"}
        for step in steps_of(load(name))
        if step.get("uses", "").startswith("actions/setup-python")
    }
    assert newest == {tested[-1]}


def test_workflow_runs_the_tests_of_the_package_on_other_systems():
    job = load(".github/workflows/systems.yml")["jobs"]["systems"]
    assert set(job["strategy"]["matrix"]["os"]) == {"macos-latest", "windows-latest"}
    command = job["steps"][-1]["run"]
    assert "\n" not in command
    ignored = re.findall(r"--ignore=tests/test_(\w+)\.py", command)
    assert ignored == list(portability.NOT_RUN)


def test_workflow_runs_every_setting():
    workflow = load(".github/workflows/portability.yml")
    assert {"schedule", "workflow_dispatch"} <= set(workflow[True])
    job = workflow["jobs"]["portability"]
    assert job["strategy"]["matrix"]["setting"] == list(portability.SETTINGS)
    pythons = job["steps"][1]["with"]["python-version"]
    assert set(portability.PYTHONS.values()) < set(pythons.split())


def test_workflow_publishes_from_main_after_the_tests():
    workflow = load(".github/workflows/publish.yml")
    branches = [load("_config.yml")["repository"]["branch"]]
    assert workflow[True]["push"]["branches"] == branches
    assert load(".github/workflows/test.yml")[True]["push"] == {
        "branches-ignore": branches  # or they would run twice
    }
    jobs = workflow["jobs"]
    assert jobs["test"] == {"uses": "./.github/workflows/test.yml"}
    assert [jobs["build"]["needs"], jobs["deploy"]["needs"]] == ["test", "build"]
    assert jobs["deploy"]["permissions"] == {"pages": "write", "id-token": "write"}


# For people who carry on


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_issues_are_whole(name):
    form = load(name)
    assert form["name"]
    assert form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in fields} <= {"input", "textarea", "checkboxes"}
    assert all(field["attributes"]["label"] for field in fields)
    assert len({field["id"] for field in fields}) == len(fields)
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_a_claim_that_failed_can_be_followed():
    form = load(".github/ISSUE_TEMPLATE/claim.yml")
    ids = {field.get("id") for field in form["body"]}
    assert {"chapter", "cell", "seed", "machine", "versions"} <= ids


def test_contributing_names_what_there_is():
    text = read("CONTRIBUTING.md")
    for name in re.findall(r"`((?:adlab|tests|book|tools)/[a-z_/]+\.[a-z]+)`", text):
        assert (ROOT / name).is_file(), name
    verbs = set(re.findall(r"^([a-z]+):.*##", read("Makefile"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)", text)) <= verbs
    assert "](CONTRIBUTING.md)" in read("README.md")


# make, and the settings of the book


def test_help_lists_the_verbs_and_is_the_default():
    outputs = [
        subprocess.run(
            ["make", *verb], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        for verb in ([], ["help"])
    ]
    assert outputs[0] == outputs[1]
    assert set(VERBS) <= set(re.findall(r"^  make (\w+)", outputs[0], re.MULTILINE))


@pytest.fixture
def extension(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "book" / "_ext")
    return importlib.import_module


def test_book_stops_at_failing_cells_and_warnings():
    config = load("_config.yml")
    assert config["sphinx"]["config"]["nb_execution_raise_on_error"] is True
    assert config["execute"]["allow_errors"] is False
    assert config["execute"]["stderr_output"] == "error"
    book = read("Makefile").split("\nbook:")[1].split("\n\n")[0]
    assert "jupyter-book build . --all -W -n --keep-going" in book
    assert "tools/check_book.py" in book


def test_book_is_not_stale_after_a_change_in_the_package(tmp_path):
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    import fresh

    (tmp_path / "adlab").mkdir()
    source = tmp_path / "adlab" / "metrics.py"
    digests = []
    for text in ["a = 1\n", "a = 2\n", "a = 1\n"]:
        source.write_text(text)
        digests.append(fresh.digest(tmp_path))
    source.unlink()
    assert digests[0] == digests[2]
    assert len({*digests, fresh.digest(tmp_path)}) == 3


# The page of the package


@pytest.fixture
def api(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "book" / "_ext")
    return importlib.import_module("api")


def test_every_room_is_on_the_page_of_the_package():
    """What to write where one is missing: a line of `book/api.md`. Of data, each loader
    has a room of its own.
    """
    rooms = [
        each.name
        for package in (adlab, adlab.data)
        for each in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    ]
    inner = {f"adlab.data.{name}" for name in ("imageset", "files", "sem")}
    public = {name for name in rooms if "._" not in name} - inner
    shown = re.findall(r"automodule:: (\S+)", read("book/api.md"))
    assert sorted(shown) == sorted(public)


def test_page_of_the_package_follows_the_chapters():
    numbers = re.findall(r"^## Chapter (\d+)", read("book/api.md"), re.MULTILINE)
    assert [int(n) for n in numbers] == sorted({int(n) for n in numbers})


def test_names_that_the_page_chooses_are_there():
    for room, option, listed in re.findall(
        r"automodule:: (\S+)\n +:((?:exclude-)?members): (.+)", read("book/api.md")
    ):
        for name in listed.split(", "):
            assert callable(getattr(importlib.import_module(room), name)), option


def test_docstrings_become_rst(api):
    text = (
        "Σ a b*, |a|, `x_`, ``y`` and means_ of\n:math:`a_k |b|`.\n    **options: any"
    )
    assert api.as_rst(text) == (
        r"Σ a b\*, \|a\|, ``x_``, ``y`` and means\_ of"
        "\n:math:`a_k |b|`.\n    **options: any"
    )


def test_uses_of_the_package_are_found(api):
    code = """
import adlab
from adlab.vectors import KNN as Nearest
Nearest(1).fit(adlab.data.load("digits", normal_class=3).train)
adlab.show(adlab.PaDiM)
"""
    assert {api.identity(each) for each in api.used(code)} >= {
        api.identity(each)
        for each in (
            adlab.vectors.KNN,
            adlab.data.load,
            adlab.data.loader("digits"),
            adlab.show,
            adlab.PaDiM,
        )
    }


def test_every_detector_of_a_chapter_is_told_its_chapter(api):
    links = api.chapters(str(ROOT))["adlab.padim", "PaDiM"]
    assert ":doc:`7 </notebooks/07_padim>`" in links


# Links and folds


@pytest.mark.parametrize(
    ("page", "text", "inside"),
    [
        ("notebooks/02", "[a](URL/notebooks/01.html#b)", "[a](01.ipynb#b)"),
        ("notebooks/02", "[a](URL/book/c.html)", "[a](../book/c.md)"),
        ("book/c", "[a](URL/book/d.html)", "[a](d.md)"),
        (
            "notebooks/02",
            "![a](URL/_static/drawings/e.svg)",
            "![a](../book/_static/drawings/e.svg)",
        ),
        ("book/c", "![a](URL/_static/e.svg)", "![a](_static/e.svg)"),
        ("book/c", "<URL/book/d.html>", "<URL/book/d.html>"),
        ("book/c", "[a](URL2/book/d.html)", "[a](URL2/book/d.html)"),
    ],
)
def test_links_to_the_published_book_stay_inside(extension, page, text, inside):
    def doc2path(name, base):
        return f"{name}.ipynb" if name.startswith("notebooks") else f"{name}.md"

    app = SimpleNamespace(
        config=SimpleNamespace(html_baseurl="https://a.org/b/"),
        env=SimpleNamespace(doc2path=doc2path),
    )
    source = [text.replace("URL", "https://a.org/b")]
    extension("links").keep_inside(app, page, source)
    assert source == [inside.replace("URL", "https://a.org/b")]


def test_folds_are_called_by_their_titles(extension):
    document = nodes.container()
    for code in ("# @title Set-up\na = 1", "a = 1"):
        cell = nodes.container(hide_mode="all", prompt_show="Show", prompt_hide="Hide")
        document += [cell]
        cell += nodes.literal_block(code, code)
    extension("folds").name_folds(None, document)
    assert [cell["prompt_show"] for cell in document] == ["Set-up", "Show"]
    assert [cell["prompt_hide"] for cell in document] == ["Set-up", "Hide"]


@pytest.mark.parametrize(
    ("page", "modes"),
    [("notebooks/a", ["all", "input", None, None]), ("book/a", [None] * 5)],
)
def test_code_of_the_first_picture_is_folded(extension, page, modes):
    def cell(*children):
        return nodes.container("", *children, nb_element="cell_code")

    document, later = nodes.container(), nodes.section("", cell(nodes.image()))
    top = [cell(), cell(), cell(nodes.image()), cell(nodes.image()), later]
    document += nodes.section("", *top)
    app = SimpleNamespace(env=SimpleNamespace(docname=page))
    extension("folds").fold_before_picture(app, document)
    cells = [n for n in document.findall(nodes.container) if "nb_element" in n]
    assert [each.get("hide_mode") for each in cells] == modes


def test_the_ladder_knows_the_parts_of_the_book():
    parts = [part for part in load("_toc.yml")["parts"] if "numbered" not in part]
    first = [Path(part["chapters"][0]["file"]).name[:2] for part in parts]
    assert list(map(int, first)) == list(adlab.plots._PARTS)


def test_a_drawing_is_no_thumbnail(extension):
    document = nodes.container("", nodes.image(uri="drawings/a.svg"))
    env = SimpleNamespace(get_doctree=lambda page: document)
    assert extension("thumbnails").thumbnail(SimpleNamespace(env=env), "a", "b") is None


def test_thumbnails_are_small_copies(extension, tmp_path):
    Image.effect_noise((1200, 500), 90).save(tmp_path / "large.png")
    small = tmp_path / "made" / "small.webp"
    extension("thumbnails").shrink(tmp_path / "large.png", small)
    with Image.open(small) as picture:
        assert picture.size == (300, 125)
    assert small.stat().st_size < 15_000


BARS = [
    "100%|████| 80/80 [00:00<00:00, 547.70epoch/s, loss 1.473]",
    "held out: 0%|█[?]",
]


def test_bars_of_progress_are_left_out_and_other_outputs_stay(extension):
    cells = nodes.section()
    for text in [*BARS, "accuracy: 100%"]:
        form = nodes.container("", mime_type="text/plain")
        form += nodes.literal_block(text, text)
        cells += nodes.container("", nodes.container("", form))
    cells += nodes.literal_block(BARS[0], BARS[0])  # code that looks like one
    extension("folds").leave_out_bars(None, cells)
    left = [each.astext() for each in cells.findall(nodes.literal_block)]
    assert left == ["accuracy: 100%", BARS[0]]
    assert len(cells) == 2


def test_figures_are_of_lines_or_of_twice_the_pixels(extension, tmp_path):
    drawings = ["<path/>", "<path/>", "<image/>", "<path/>" * 30_000]
    document = nodes.container()
    for n, drawing in enumerate(drawings):
        (tmp_path / f"{n}.svg").write_text(f"<svg>{drawing}</svg>")
        Image.new("RGBA", (80, 20)).save(tmp_path / f"{n}.png")
        svg = nodes.container(
            "", nodes.image(uri=f"/{n}.svg"), mime_type="image/svg+xml"
        )
        pixels = nodes.image(uri=f"/{n}.png", width="40px", height="10px")
        png = nodes.container("", pixels, mime_type="image/png")
        document += nodes.container("", svg, png, nb_element="mime_bundle")
    extension("sharp").choose(SimpleNamespace(srcdir=tmp_path), document)
    shown = list(document.findall(nodes.image))
    assert [image["uri"] for image in shown] == [
        "/0.webp",
        "/1.svg",
        "/2.webp",
        "/3.webp",
    ]
    assert [image.get("width") for image in shown] == ["40px", None, "40px", "40px"]
    assert not any("height" in image for image in shown)
    assert Image.open(tmp_path / "2.webp").size == (80, 20)


# References


TAGGED = nodes.math_block("", "a \\tag{7.1}"), nodes.math_block("", "b \\tag{7.2}")
FORMULAS = nodes.section("", *TAGGED)
GLOSSARY = {"roc curve": ("term-ROC", "Two rates."), "patch": ("term-patch", "A part.")}


@pytest.mark.parametrize(("page", "count"), [("notebooks/a", 2), ("book/a", 0)])
def test_displayed_formulas_of_chapters_are_numbered(extension, page, count):
    noted = {}
    domain = SimpleNamespace(
        note_equation=lambda page, label, location: noted.update({label: len(noted)}),
        get_equation_number_for=noted.get,
    )
    env = SimpleNamespace(docname=page, get_domain=lambda name: domain)
    document = FORMULAS.deepcopy()
    extension("references").number_formulas(SimpleNamespace(env=env), document)
    found = list(document.findall(nodes.math_block))
    numbers = [each.get("number") for each in found]
    assert numbers == [*range(count), *[None] * (2 - count)]
    assert len(noted) == count
    assert all("tag" in each.astext() for each in found) == (count == 0)


@pytest.fixture
def page():
    """What a build knows: chapter 7 has a second formula."""
    env = Mock(toc_fignumbers={"notebooks/7": {"displaymath": {"formula-2": (7, 2)}}})
    return Mock(env=env, **{"builder.get_relative_uri": lambda page, to: f"{to}.html"})


def links(document):
    return list(document.findall(nodes.reference))


def paragraph(text):
    return nodes.section("", nodes.paragraph("", "", nodes.Text(text)))


def test_the_first_mention_of_a_term_is_a_link(extension, monkeypatch, page):
    references = extension("references")
    monkeypatch.setattr(references, "glossary", lambda env: GLOSSARY)
    text = "ROC curves of patches, dispatch, a patch"
    document = paragraph(text)
    references.link_terms(page, document, "notebooks/7")
    assert document.astext() == text
    assert [(e["refuri"], e["reftitle"]) for e in links(document)] == [
        ("book/glossary.html#term-ROC", "Two rates."),
        ("book/glossary.html#term-patch", "A part."),
    ]


def test_the_build_finds_the_numbers_that_the_stamp_writes(extension):
    references = extension("references")
    assert references.TAG == stamp.TAG
    assert references.MENTION == stamp.MENTION


def test_the_number_of_a_formula_is_a_link(extension, page):
    document = paragraph("As in formula (7.2), not formula 7.2 or (7.2)")
    extension("references").link_formulas(page, document, "notebooks/8")
    (link,) = links(document)
    assert link.astext() == "(7.2)"
    assert link["refuri"] == "notebooks/7.html#formula-2"


def test_links_to_papers_show_their_entries(extension):
    people = [SimpleNamespace(last_names=[name]) for name in ("Ruff", "Görnitz")]
    fields = {
        "title": "Deep {SVDD}",
        "year": "2018",
        "doi": "10.1/X",
        "url": "https://a",
    }
    work = SimpleNamespace(persons={"author": people}, fields=fields)
    references = extension("references")
    assert references.entry(work) == "Ruff, Görnitz (2018). Deep SVDD."
    assert [*references.addresses(work)] == ["https://doi.org/10.1/X", "https://a"]


def test_formulas_in_definitions_become_letters(extension):
    text = r"A score, \mathcal{A}(c), of {MVTec} and \Omega"
    assert extension("references").as_title(text) == "A score, A(c), of MVTec and Omega"


@pytest.mark.parametrize(
    ("body", "mended"),
    [
        ('<th class="a">&nbsp;</th><th>b</th>', '<td class="a"></td><th>b</th>'),
        ("<thead><tr><th><p></p></th>", "<thead><tr><td></td>"),
        ('<div role="list" class="c">', '<div class="c">'),
        ('<summary aria-label="Toggle hidden content">', "<summary>"),
    ],
)
def test_pages_are_mended_for_screen_readers(extension, body, mended):
    context = {"body": body, "title": "Not found"}
    extension("accessible").mend(None, "404", "page.html", context, None)
    assert context == {"body": mended, "title": "Not found", "pagetitle": "Not found"}


# The page of methods


@pytest.fixture
def declared(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "book" / "_ext")
    return importlib.import_module("declared")


def test_the_page_of_methods_lists_them_all(declared):
    assert ":::{methods}\n:::" in read("book/methods.md")
    _, _, *rows = declared.table(ROOT).splitlines()
    assert re.findall(r"^\| `(\S+)` ", "\n".join(rows), re.MULTILINE) == list(methods())
    assert {row.count("|") for row in rows} == {len(declared.COLUMNS) + 1}
    for room, name in re.findall(r"\{py:class\}`~(\S+)\.(\w+)`", "\n".join(rows)):
        assert isinstance(getattr(importlib.import_module(room), name), type)
        assert f"automodule:: {room}\n" in read("book/api.md")


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("knn", "adlab.vectors.KNN`|||yes||detection"),
        ("inpainting", "adlab.inpainting.Inpainting`|yes|yes|||detection"),
        ("deep-sad", "adlab.deep_svdd.DeepSAD`||||1 %|detection"),
        ("segmentation", "adlab.segmentation.Segmentation`|yes|yes||10 %|detection"),
        ("open-set", "|||||open-set"),
    ],
)
def test_the_page_of_methods_says_what_each_can_do(declared, name, cells):
    cell = [each.strip() for each in cells.split("|")]
    row = declared.row(methods()[name], ROOT)
    assert [row[3].removeprefix("{py:class}`~"), *row[4:]] == cell


# tools/check_book.py


FAULTS = {
    '<script src="https://cdn.example.org/x.js"></script>': "fetches https://cdn.example.org/x.js",
    '<link rel="stylesheet" href="//fonts.example.org/x.css">': "from the network",
    '<link rel="preconnect" href="https://fonts.example.org">': "from the network",
    '<img src="http://example.org/x.png" alt="A picture with words enough">': "from the network",
    '<iframe src="https://example.org/"></iframe>': "from the network",
    "<style>@font-face {src: url('https://example.org/x.woff')}</style>": "a style fetches",
    '<p style="background: url(https://example.org/x.png)">': "a style fetches",
    '<script src="../_static/gone.js"></script>': "which was not built",
    '<img src="data:image/png;base64,A" alt="short">': "too short",
    '<img src="data:image/png;base64,A" alt="a_name_of_a_file_for_a_picture.png">': "too short",
}
HARMLESS = [
    '<a href="https://example.org/">link</a>',
    '<link rel="canonical" href="https://example.org/">',
    '<link rel="next" title="Next" href="elsewhere.html">',
    '<img src="data:image/png;base64,A,B" alt="A picture with words enough">',
]


@pytest.mark.parametrize("fault", FAULTS)
def test_check_book_finds(built, fault):
    page = built / "_build" / "html" / "book" / "index.html"
    page.write_text(f"<html><body><article>{fault}</article></body></html>")
    (complaint,) = check_book.check(built)
    assert "index.html" in complaint
    assert FAULTS[fault] in complaint


@pytest.mark.parametrize("harmless", HARMLESS)
def test_check_book_lets_pass(built, harmless):
    page = built / "_build" / "html" / "book" / "index.html"
    page.write_text(f"<html><body><article>{harmless}</article></body></html>")
    assert check_book.check(built) == []


PAGE = """<!doctype html><html lang="en"><title>A page</title><main><h1>A page</h1>
<article><p>Text.</p>BODY</article></main></html>"""
FIGURE = '<figure><img src="data:," alt="A picture"></figure>'


@pytest.mark.skipif(not check_pages.browser_here(), reason="no Chromium or Chrome")
def test_check_pages_finds_what_only_a_browser_sees(tmp_path, monkeypatch):
    pytest.importorskip("axe_playwright_python")
    monkeypatch.setattr(check_pages, "HEAVIEST", 1000)
    folder = tmp_path / "_build" / "html" / "notebooks"
    folder.mkdir(parents=True)
    bodies = {
        "well": FIGURE,
        "image-alt": FIGURE.replace('alt="A picture"', ""),
        "color-contrast": f'{FIGURE}<p style="color: #ccc">Pale.</p>',
        "first picture": f'<div style="height: 900px"></div>{FIGURE}',
        "pixels wide": f'{FIGURE}<div style="width: 391px">Wide.</div>',
        "weighs": f"{FIGURE}{'Long. ' * 200}",
    }
    for name, body in bodies.items():
        (folder / f"{name}.html").write_text(PAGE.replace("BODY", body))
    names = [f"notebooks/{name}" for name in bodies]
    faults = check_pages.check(tmp_path, check_pages.browser_here(), names)
    for name in bodies:
        found = [
            fault for fault in faults if fault.startswith(f"notebooks/{name}.html")
        ]
        assert all(name in fault.partition(": ")[2] for fault in found)
        assert bool(found) == (name != "well")


def test_check_book_finds_a_page_with_too_many_pictures_in_it(built):
    page = built / "_build" / "html" / "book" / "index.html"
    half = check_book.HEAVIEST // 2
    picture = f'<img src="data:,{"A" * half}" alt="A picture with words enough">'
    for n, faults in [(1, 0), (2, 1)]:
        page.write_text(f"<html><body><article>{picture * n}</article></body></html>")
        assert len(check_book.check(built)) == faults


def test_check_book_finds_links_to_the_published_book(built):
    page = built / "_build" / "html" / "book" / "index.html"
    head = '<link rel="canonical" href="https://a.org/b/book/index.html">'
    for link, faults in [("https://a.org/b/book/x.html", 1), ("https://a.org/", 0)]:
        page.write_text(f'{head}<article><a href="{link}">Text.</a></article>')
        assert len(check_book.check(built)) == faults


def test_check_book_follows_addresses_from_the_root_of_the_site(built):
    html = built / "_build" / "html"
    head = '<link rel="canonical" href="https://a.org/b/404.html">'
    for name in ("there", "missing"):
        script = f'<script src="/b/{name}.js"></script>'
        (html / "404.html").write_text(f"<html><head>{head}{script}</head></html>")
        (html / "there.js").write_text("")
        found = [f"404.html: fetches /b/{name}.js, which was not built"]
        assert check_book.check(built) == (found if name == "missing" else [])


def test_check_book_finds_missing_and_empty_pages(built):
    contents = "format: jb-book\nroot: book/index\nparts:\n- chapters:\n  - file: notebooks/01\n"
    (built / "_toc.yml").write_text(contents)
    assert "notebooks/01: named in _toc.yml" in check_book.check(built)[0]
    (built / "_build" / "html" / "book" / "index.html").write_text("<html></html>")
    assert len(check_book.check(built)) == 2


def test_check_book_finds_fonts_of_style_sheets(built):
    (built / "_build" / "html" / "x.css").write_text(
        "@import url(https://fonts.example.org/x.css);"
    )
    assert (
        "x.css: fetches https://fonts.example.org/x.css" in check_book.check(built)[0]
    )


def test_check_book_fails_as_a_command(built):
    command = [sys.executable, ROOT / "tools" / "check_book.py", built]
    assert subprocess.run(command, capture_output=True).returncode == 0
    (built / "_build" / "html" / "book" / "index.html").unlink()
    assert subprocess.run(command, capture_output=True).returncode == 1


# tools/portability.py


def test_oldest_are_the_lower_bounds(requirements):
    bounds = {Requirement(text).name: text for text in portability.oldest()}
    for each in requirements:
        if each.name in {Requirement(text).name for text in array("book")}:
            continue
        lower = [part.version for part in each.specifier if part.operator == ">="]
        assert [f"{each.name}=={version}" for version in lower] == [
            text for name, text in bounds.items() if name == each.name
        ]
    python = portability.PYTHONS["oldest"]
    assert f'requires-python = ">={python}"' in read("pyproject.toml")


def test_colabs_versions_are_known_and_in_our_ranges():
    lines = portability.COLAB.read_text(encoding="utf-8").splitlines()
    known = dict(line.split("==") for line in lines if not line.startswith("#"))
    needed = {each.name: each for each in map(Requirement, array("dependencies"))}
    assert known.keys() == needed.keys()
    for name, version in known.items():
        assert needed[name].specifier.contains(version), name


def test_portability_says_what_failed(capsys):
    text = "FAILED tests/a.py::b - no\n==== 2 failed, 7 passed, 1 error in 3.1s ====\n"
    portability.report("oldest", text, 3.1, "numpy 1")
    line, failed = capsys.readouterr().out.splitlines()
    assert line.split() == ["oldest", "7", "3", "3", "numpy", "1"]
    assert failed.split() == ["FAILED", "tests/a.py::b", "-", "no"]


def test_portability_sets_what_it_says():
    variables, effect = portability.prepare("torch-plain", sys.executable)
    assert variables["ATEN_CPU_CAPABILITY"] == "default"
    assert variables["OMP_NUM_THREADS"] == "1"
    assert "DEFAULT" in effect


# Style of the code


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_code_and_notebooks_are_in_the_common_style(command):
    result = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_nothing_big_is_committed():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    sizes = [
        (ROOT / name).stat().st_size
        for name in listed.stdout.split("\0")
        if (ROOT / name).is_file()
    ]
    assert sum(sizes) < 25e6


# Benchmarks


BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("file", BENCHMARKS, ids=lambda path: path.stem)
def test_benchmarks_start(file, monkeypatch, capsys):
    """All that they import is there; the commands say what they do."""
    monkeypatch.syspath_prepend(file.parent)
    assert runpy.run_path(str(file))["__doc__"]
    if "argparse" in file.read_text(encoding="utf-8"):
        monkeypatch.setattr(sys, "argv", [file.name, "--help"])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(file), run_name="__main__")
        assert end.value.code == 0
        assert file.name in capsys.readouterr().out
