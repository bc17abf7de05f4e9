"""All tests, and the kernels of the notebooks that they run, do without the network."""

import os
import runpy
from pathlib import Path

OFFLINE = Path(__file__).parent / "tests" / "offline"

os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(OFFLINE), os.environ.get("PYTHONPATH")])
)
runpy.run_path(str(OFFLINE / "sitecustomize.py"))
