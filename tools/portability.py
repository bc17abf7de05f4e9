"""Run the tests of the package as other processors and other versions would.

Usage: python tools/portability.py [--jobs J] [setting ...]

Floats differ in the last bit between processors: NumPy and torch choose their loops by
what the processor can do, and MKL its sums. Most of these choices can be undone by an
environment variable, so that one machine shows what the others do. "oldest" takes the
lower bound of every range in pyproject.toml, "colab" the versions that Colab has; both
get an environment of their own under `.portability`, where the outputs of the tests go
too.

Chapters are not run: `make test` runs them, and `make replicate` counts how often their
claims hold. Tests of files, as those of the style, are not run either.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / ".portability"
COLAB = ROOT / "tests" / "constraints" / "colab.txt"
NOT_RUN = ("docs", "notebooks", "project", "replicate", "typing")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
AVX512 = r"X86_V4|AVX512\w*"
SETTINGS = {  # what is set for each; for NumPy, which features it must not use
    "one-thread": {},
    "two-threads": {"OMP_NUM_THREADS": "2"},
    "numpy-avx2": {"NPY_DISABLE_CPU_FEATURES": AVX512},
    "numpy-plain": {"NPY_DISABLE_CPU_FEATURES": r"\w+"},
    "torch-avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "torch-plain": {"ATEN_CPU_CAPABILITY": "default"},
    "mkl-plain": {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"},
    "oldest": {},
    "colab": {},
}
PYTHONS = {"oldest": "3.10", "colab": "3.12"}
LOOK = """
import numpy, torch
try:
    from numpy._core import _multiarray_umath as core
except ImportError:  # NumPy 1
    from numpy.core import _multiarray_umath as core
print(*[name for name in core.__cpu_dispatch__ if core.__cpu_features__.get(name)])
print("numpy", numpy.__version__, "torch", torch.__version__, end=" ")
print(torch.backends.cpu.get_cpu_capability())
"""


def array(key):
    """Return an array of strings of pyproject.toml, which Python 3.10 cannot read."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    body = re.search(rf"^{key} = \[(.*?)\]$", text, re.MULTILINE | re.DOTALL)[1]
    return re.findall(r'"([^"]*)"', body)


def oldest():
    """Return the lower bounds of all ranges, as constraints for pip."""
    ranges = [*array("dependencies"), *array("imagenet"), *array("test")]
    return [re.sub(r">=([\d.]+).*", r"==\1", each) for each in ranges if ">=" in each]


def environment(setting):
    """Return the interpreter of a setting; of "oldest" and "colab" one of its own, made
    anew where its constraints have changed.
    """
    if setting not in PYTHONS:
        return sys.executable
    wanted = "\n".join(oldest()) if setting == "oldest" else COLAB.read_text()
    home = KEPT / setting
    python, constraints = home / "bin" / "python", home / "constraints.txt"
    if not constraints.exists() or constraints.read_text() != wanted:
        base = shutil.which(f"python{PYTHONS[setting]}")
        if base is None:
            raise OSError(f"no python{PYTHONS[setting]} on the path")
        print(f"{setting}: installing into {home.relative_to(ROOT)}", flush=True)
        subprocess.run([base, "-m", "venv", "--clear", home], check=True)
        new = home / "wanted.txt"
        new.write_text(wanted)
        install = ["-m", "pip", "install", "-qq", "--constraint", new]
        subprocess.run(
            [python, *install, "--editable", ".[imagenet,test]"], cwd=ROOT, check=True
        )
        new.replace(constraints)
    return str(python)


def look(python, variables):
    """Return the features that NumPy chooses its loops by, and a line about versions."""
    command = [python, "-W", "ignore", "-c", LOOK]
    printed = subprocess.run(
        command, env=variables, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    features, line = printed.splitlines()
    return features.split(), line


def prepare(setting, python):
    """Return the environment variables of a setting, and what took effect by them.

    Raises:
        OSError: NumPy still uses what it must not.
    """
    variables = os.environ | ONE_THREAD | SETTINGS[setting]
    pattern = variables.pop("NPY_DISABLE_CPU_FEATURES", "")
    features, line = look(python, variables)
    named = [name for name in features if re.fullmatch(pattern, name)]
    if not named:
        used = features[-1] if features else "no features"
        return variables, f"{line}, {used} in NumPy" + ", none to disable" * bool(
            pattern
        )
    variables["NPY_DISABLE_CPU_FEATURES"] = " ".join(named)
    left, line = look(python, variables)
    if set(left) & set(named):
        raise OSError(f"NumPy still uses {' '.join(left)}")
    return variables, f"{line}, NumPy without {' '.join(named)}"


def run(setting, jobs):
    """Run the tests under a setting; print its line of the table, and what failed.

    Returns:
        Whether all passed.
    """
    start = time.perf_counter()
    try:
        python = environment(setting)
        variables, effect = prepare(setting, python)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{setting:12}    not run: {error}", flush=True)
        return False
    workers = max(1, jobs // int(variables["OMP_NUM_THREADS"]))
    left_out = [f"--ignore=tests/test_{name}.py" for name in NOT_RUN]
    command = [python, "-m", "pytest", "tests", "-q", *left_out, "-n", str(workers)]
    log = KEPT / f"{setting}.log"
    with log.open("w") as output:
        code = subprocess.run(
            command, cwd=ROOT, env=variables, stdout=output, stderr=output
        ).returncode
    report(setting, log.read_text(), time.perf_counter() - start, effect)
    return code == 0


def report(setting, text, seconds, effect):
    """Print the line of a setting, and the tests that failed."""
    last = text.rstrip().rpartition("\n")[2]
    passed, failed = (
        sum(int(n) for n in re.findall(rf"(\d+) (?:{word})", last))
        for word in ("passed", "failed|error")
    )
    print(f"{setting:12} {passed:6} {failed:6} {seconds:7.0f}   {effect}", flush=True)
    for line in re.findall(r"^(?:FAILED|ERROR) .*", text, re.MULTILINE):
        print(f"    {line}", flush=True)


def main():
    """Run the settings that are asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("settings", nargs="*", help=", ".join(SETTINGS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    given = parser.parse_args()
    unknown = set(given.settings) - set(SETTINGS)
    if unknown:
        parser.error(f"settings: expected some of {', '.join(SETTINGS)}")
    KEPT.mkdir(exist_ok=True)
    print(f"{'setting':12} passed failed seconds   what took effect")
    chosen = given.settings or list(SETTINGS)
    return sum(not run(setting, given.jobs) for setting in chosen)


if __name__ == "__main__":
    sys.exit(main())
