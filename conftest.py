"""All tests, and the kernels of the notebooks that they run, do without the network and
without a GPU, as most of them look at single networks and numbers. ADLAB_TEST_GPU=0 gives
the first one to those that do not: tests/test_contract.py and tests/test_export.py.
"""

import os
import runpy
from pathlib import Path

OFFLINE = Path(__file__).parent / "tests" / "offline"

os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(OFFLINE), os.environ.get("PYTHONPATH")])
)
os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("ADLAB_TEST_GPU", "")
runpy.run_path(str(OFFLINE / "sitecustomize.py"))
