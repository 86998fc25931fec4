"""OrthoReg and task arithmetic in JAX.

The public list is `__init__.pyi`. Its names are imported when first used, so that the command
line and the files of a run do not wait for JAX.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
