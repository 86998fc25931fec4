"""OrthoReg and task arithmetic in JAX.

The public list is `__init__.pyi`. Its names are imported when first used, so that the command
line and the files of a run do not wait for JAX, and that penalties, task vectors and merging need
no package of the extra [experiments].
"""

from typing import Any

import lazy_loader

from .extras import explained

_attribute, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":  # looked up when asked for: it takes longer than this import
        from .versions import version

        return version("orthoreg-jax")
    if name not in __all__ and not name.startswith("_"):
        import difflib

        near = difflib.get_close_matches(name, __all__, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise AttributeError(f"{__name__} has no {name!r}{hint}", name=name)
    with explained(f"{__name__}.{name}"):
        return _attribute(name)
