"""Which of the project's files imports which, read from their text: also where the import is inside a function, for
type checkers alone, or a module's name in a string that a program loads it by.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

LAZY = ("eventbridge", "eventbridge.testing")
"""Packages that name what they hand out without importing it until it is asked for."""


def modules(root: Path) -> dict[str, Path]:
    """Return every module of ``eventbridge/`` and ``adapters/`` by its dotted name."""
    found = {}
    for folder, prefix in ((root / "eventbridge", "eventbridge"), (root / "adapters", "eventbridge.adapters")):
        for path in folder.rglob("*.py"):
            if folder / "adapters" not in path.parents:
                parts = path.relative_to(folder).with_suffix("").parts
                found[".".join((prefix, *(part for part in parts if part != "__init__")))] = path
    return found


def imports(files: Mapping[str, Path]) -> dict[str, set[str]]:
    """Return, for each module, the modules that it imports.

    ``from package import module`` imports the module; ``from package import name`` imports the package, whose
    ``__init__`` has the name.
    """
    return {name: set(_imports(name, path, files)) - {name} for name, path in files.items()}


def _imports(name: str, path: Path, files: Mapping[str, Path]) -> Iterator[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, package)
            for alias in node.names:
                module = f"{base}.{alias.name}"
                if module in files or base in files:
                    yield module if module in files else base
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and name not in LAZY:
            module = node.value.partition(":")[0]
            if module in files and module != "eventbridge":
                yield module


def _base(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    return ".".join((*parts[: len(parts) - node.level + 1], *filter(None, [node.module])))


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other, each sorted (Tarjan's strongly connected components)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for other in sorted(graph[module]):
            if other not in order:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], order[other])
        if low[module] == order[module]:
            at = stack.index(module)
            group, stack[at:] = stack[at:], []
            if len(group) > 1:
                found.append(sorted(group))

    for module in sorted(graph):
        if module not in order:
            visit(module)
    return found


def edges_within(graph: Mapping[str, set[str]], group: Iterable[str]) -> list[tuple[str, str]]:
    """Return the imports that tie a group together."""
    members = set(group)
    return sorted((module, other) for module in members for other in graph[module] & members)
