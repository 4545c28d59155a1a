"""The source files on which a step depends, so that a change in the library reruns exactly the steps that use it.

ZenML's own cache key covers the source of the step function and no other code. A cache policy adds these files.
"""

import ast
import hashlib
import threading
from functools import cache
from pathlib import Path

from zenml.config import CachePolicy

ROOT = Path(__file__).resolve().parents[1]
# The folders of the project's own packages.
_PACKAGES = {"landslide": ROOT / "src" / "landslide", "steps": ROOT / "steps"}


def depends_on_code_of(module: str) -> CachePolicy:
    """Return the cache policy of the step in `module`: its key covers the module and all that it imports."""
    return CachePolicy(file_dependencies=list(source_files(module)))


def code_digest(*modules: str) -> str:
    """Return a digest of the source of some modules and all project modules that they import."""
    digest = hashlib.sha256()
    for file in sorted({file for module in modules for file in source_files(module)}):
        digest.update(file.encode() + b"\0" + (ROOT / file).read_bytes() + b"\0")
    return digest.hexdigest()


@cache
def source_files(module: str) -> tuple[str, ...]:
    """Return the source files of a module and of all project modules that it imports, directly or not.

    Args:
        module: A dotted name below `landslide` or `steps`.

    Returns:
        Sorted paths relative to the root of the project.
    """
    found: set[Path] = set()
    waiting = _files_of(module)
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += [file for name in _imported_names(file) for file in _files_of(name)]
    return tuple(sorted(str(file.relative_to(ROOT)) for file in found))


_parsing = threading.Lock()  # `ast.parse` of Python 3.11 may fail if two threads use it at once


@cache
def _imported_names(file: Path) -> list[str]:
    """Return every dotted name that a file imports, at its top or inside a function."""
    names = []
    with _parsing:
        tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def _files_of(module: str) -> list[Path]:
    """Return the source files that an import of a project module runs: its own, and those of the packages it is in."""
    package, *rest = module.split(".")
    if package not in _PACKAGES:
        return []
    folders = [_PACKAGES[package].joinpath(*rest[:depth]) for depth in range(len(rest) + 1)]
    files = [folder / "__init__.py" for folder in folders if folder.is_dir()]
    own = folders[-1].with_suffix(".py")
    return [*files, own] if own.is_file() else files
