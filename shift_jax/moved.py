"""Where the commands with older names went: for one release, `python -m OLD_NAME` says so."""

from __future__ import annotations

from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

_PACKAGE = "shift_jax.analysis"
_COMMANDS = {
    "shift_jax.stylize": "stylize",
    "shift_jax.verify": "verify",
    "shift_jax.data.align_faces": "align-faces",
    "shift_jax.training.arrays": "pack-arrays",
    "shift_jax.weights.import_torch": "import-weights",
    "shift_jax.weights.export_safetensors": "export",
    f"{_PACKAGE}.report": "report",
    f"{_PACKAGE}.count": "count",
    f"{_PACKAGE}.tables": "tables",
    f"{_PACKAGE}.sweep": "sweep",
    f"{_PACKAGE}.allocation": "allocation",
    f"{_PACKAGE}.results_page": "results",
    f"{_PACKAGE}.figures": "figures",
    f"{_PACKAGE}.accuracy_figures": "accuracy-figures",
}


class MovedFinder(Loader):
    """Finds the old modules on `sys.meta_path`, after all finders of modules that exist."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Returns what importing or running an old module takes."""
        if name == _PACKAGE or name in _COMMANDS:
            return ModuleSpec(name, self, is_package=name == _PACKAGE)
        return None

    def get_code(self, name: str) -> CodeType:
        """Returns what `python -m` runs."""
        source = f"import sys; print({_sentence(name)!r}, file=sys.stderr); sys.exit(2)"
        return compile(source, name, "exec")

    def create_module(self, spec: ModuleSpec) -> None:
        """Leaves the module to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Lets the package be imported on the way to its modules, and refuses those."""
        if module.__name__ != _PACKAGE:
            raise ImportError(_sentence(module.__name__), name=module.__name__)


def _sentence(name: str) -> str:
    return f"moved: use `shift-jax {_COMMANDS[name]}`"
