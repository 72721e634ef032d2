"""Found first on the path of a program under `engram run`: instruments it before it starts.

The environment is inherited, so this also runs in every worker and reloaded child. It must be
silent in an interpreter that has no Engram, and leave the sitecustomize of others its turn.
"""

import contextlib
import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _theirs() -> None:
    """Run the sitecustomize that ours hides, of the environment or of the app."""
    from importlib.machinery import PathFinder

    places = [p for p in sys.path if os.path.abspath(p or os.curdir) != _HERE]
    spec = PathFinder.find_spec("sitecustomize", places)
    if spec is not None and spec.loader is not None:
        from importlib.util import module_from_spec

        module = module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


def _ours() -> None:
    path = os.environ.get("PYTHONPATH")
    if path is not None:  # a program that is started meanwhile must not be instrumented too
        rest = [p for p in path.split(os.pathsep) if p and os.path.abspath(p) != _HERE]
        os.environ["PYTHONPATH"] = os.pathsep.join(rest)
    try:
        from opentelemetry.instrumentation.auto_instrumentation import initialize

        import engram.instrumentation.distro  # noqa: F401 - none of it, where it is not installed

        initialize()
    finally:
        if path is not None:
            os.environ["PYTHONPATH"] = path


with contextlib.suppress(ImportError):
    _ours()
_theirs()
