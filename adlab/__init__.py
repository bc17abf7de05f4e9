"""adlab: anomaly detection in images, the tested implementations behind the course
book.

What can be reached as `adlab.…` stands in `__init__.pyi`, for type checkers and for
the import alike. A room is imported when it is first named, so `import adlab` costs
little more than nothing.
"""

import lazy_loader

from adlab.show import show as show  # at once: its room has the same name

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
