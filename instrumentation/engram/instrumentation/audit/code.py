"""The code base as the audit reads it: modules, scopes, and what a name stands for.

`Code.resolve` turns an expression into one dotted path in which `()` marks a call:
after `from openai import OpenAI as Maker` and `client = Maker()`, the expression
`client.chat.completions.create` is `openai.OpenAI().chat.completions.create`.
It follows imports, assignments, annotations, `with`, `self.x = ...`, and functions of the code base
that return something, also across modules; it runs nothing, and gives None for what it cannot
follow.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
_DEPTH = 12  # of names behind names; real code has three or four


@dataclass(slots=True, eq=False)
class Scope:
    """The names that a module, class or function binds."""

    module: Module
    parent: Scope | None
    node: ast.Module | ast.ClassDef | Function
    imports: dict[str, str] = field(default_factory=dict)
    values: dict[str, list[ast.expr]] = field(default_factory=dict)
    """Assigned: what stands on the right."""
    typed: dict[str, ast.expr] = field(default_factory=dict)
    """Annotated: the name holds an instance of this."""
    made: dict[str, Function | ast.ClassDef] = field(default_factory=dict)
    """Defined by `def` or `class`."""
    other: set[str] = field(default_factory=set)
    """Bound to what is not followed: loops, parameters without a type, tuples."""
    inner: dict[int, Scope] = field(default_factory=dict)
    """Scopes of the definitions inside, by the `id` of their node."""

    def binds(self, name: str) -> bool:
        """Whether the name is one of this scope."""
        return (
            name in self.imports
            or name in self.values
            or name in self.typed
            or name in self.made
            or name in self.other
        )


@dataclass(slots=True, eq=False)
class Module:
    """One file that was parsed."""

    name: str
    """Dotted, as an import inside the code base would say it."""

    file: str
    tree: ast.Module
    package: bool
    scope: Scope = field(init=False)

    def __post_init__(self) -> None:
        self.scope = Scope(self, None, self.tree)


@dataclass(frozen=True, slots=True)
class Place:
    """A node with the scope that it stands in and the function around it."""

    node: ast.AST
    scope: Scope
    function: Function | None
    methods_of: Scope | None = None


class Code:
    """All modules, and the resolution of names in them."""

    def __init__(self) -> None:
        self.modules: dict[str, Module] = {}
        self.places: dict[str, list[Place]] = {}
        """Of every file: its calls, handlers, functions and `with` statements, in order."""
        self._known: dict[tuple[int, str], str | None] = {}
        """What names and functions stand for; None also while it is being found out: a circle."""

    def add(self, source: bytes, path: Path, file: str) -> Module:
        """Parse one file; `path` is relative to where imports begin. Raises as `ast.parse` does."""
        tree = ast.parse(source, filename=file)
        parts = list(path.with_suffix("").parts)
        package = parts[-1] == "__init__" and len(parts) > 1
        if package:
            parts.pop()
        if parts[0] == "src" and len(parts) > 1:
            parts = parts[1:]
        module = Module(".".join(parts), file, tree, package)
        self.modules[module.name] = module
        found: list[Place] = []
        _bind_all(module.scope, tree, None, found)
        self.places[file] = found
        return module

    # -- names -------------------------------------------------------------------------------------

    def resolve(self, node: ast.expr | None, scope: Scope, depth: int = _DEPTH) -> str | None:
        """The dotted path that an expression stands for, or None."""
        if node is None or depth == 0:
            return None
        if isinstance(node, ast.Name):
            return self._name(node.id, scope, depth)
        if isinstance(node, ast.Attribute):
            own = self._of_self(node, scope, depth)
            if own is not None:
                return own
            base = self.resolve(node.value, scope, depth)
            if base is None:
                return None
            return self._across(f"{base}.{node.attr}", depth)
        if isinstance(node, ast.Call):
            base = self.resolve(node.func, scope, depth)
            if base is None:
                return None
            if base in ("fastapi.Depends", "fastapi.param_functions.Depends") and node.args:
                base = self.resolve(node.args[0], scope, depth - 1)
                return base and self._called(base, depth)
            return self._called(base, depth)
        if isinstance(node, ast.Await | ast.NamedExpr | ast.Starred):
            return self.resolve(node.value, scope, depth)
        if isinstance(node, ast.BoolOp):
            options = (self.resolve(one, scope, depth - 1) for one in node.values)
            return next((one for one in options if one and one.endswith("()")), None)
        if isinstance(node, ast.IfExp):
            return self.resolve(node.body, scope, depth - 1) or self.resolve(
                node.orelse, scope, depth - 1
            )
        return None

    def _name(self, name: str, scope: Scope, depth: int) -> str | None:
        at: Scope | None = scope
        while at is not None:
            skipped = isinstance(at.node, ast.ClassDef) and at is not scope
            if not skipped and at.binds(name):
                return self._bound(name, at, depth)
            at = at.parent
        return name if name in _BUILTINS else None

    def _bound(self, name: str, at: Scope, depth: int) -> str | None:
        # Without memory, names that lead to each other cost minutes in SQLAlchemy.
        key = id(at), name
        if key not in self._known:
            self._known[key] = None
            self._known[key] = self._look_up(name, at, depth)
        return self._known[key]

    def _look_up(self, name: str, at: Scope, depth: int) -> str | None:
        for value in at.values.get(name, ()):
            if isinstance(value, ast.Name) and value.id == name:
                continue
            found = self.resolve(value, at, depth - 1)
            if found is not None:
                return found
        if name in at.made:
            return f"{_path(at)}.{name}"
        if name in at.imports:
            return self._across(at.imports[name], depth)
        if name in at.typed:
            return self._instance(at.typed[name], at, depth)
        return None

    def _instance(self, annotation: ast.expr, at: Scope, depth: int) -> str | None:
        """What a value of this annotation is: `Annotated[X, Depends(f)]`, `X | None`, `X`, "X"."""
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            try:
                annotation = ast.parse(annotation.value, mode="eval").body
            except SyntaxError:
                return None
        if isinstance(annotation, ast.BinOp):
            return self._instance(annotation.left, at, depth) or self._instance(
                annotation.right, at, depth
            )
        if isinstance(annotation, ast.Subscript):
            inside = annotation.slice
            said = ast.unparse(annotation.value).rsplit(".", 1)[-1]
            if said == "Annotated" and isinstance(inside, ast.Tuple):
                for extra in inside.elts[1:]:
                    if isinstance(extra, ast.Call) and extra.args:
                        found = self.resolve(extra, at, depth - 1)
                        if found and found.endswith("()") and not found.endswith("Depends()"):
                            return found
                return self._instance(inside.elts[0], at, depth - 1)
            if said == "Optional":
                return self._instance(inside, at, depth - 1)
            annotation = annotation.value
        base = self.resolve(annotation, at, depth - 1)
        return None if base is None or base in _BUILTINS else f"{base}()"

    def _of_self(self, node: ast.Attribute, scope: Scope, depth: int) -> str | None:
        if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
            return None
        at: Scope | None = scope
        while at is not None and not isinstance(at.node, ast.ClassDef):
            at = at.parent
        if at is None:
            return None
        for name in (f"self.{node.attr}", node.attr):
            if not at.binds(name):
                continue
            if name in at.made:
                return f"{_path(at)}.{node.attr}"
            for value in at.values.get(name, ()):
                # `self.client = ...` stands in a method, and is resolved there.
                inside = _scope_of(at, value)
                found = self.resolve(value, inside, depth - 1)
                if found is not None:
                    return found
            if name in at.typed:
                return self._instance(at.typed[name], at, depth)
        return None

    def _across(self, path: str, depth: int) -> str:
        """A path into a module of the code base, followed to what it is there."""
        if depth <= 1:
            return path
        parts = path.split(".")
        for cut in range(len(parts) - 1, 0, -1):
            module = self.modules.get(".".join(parts[:cut]))
            if module is None:
                continue
            name, rest = parts[cut], parts[cut + 1 :]
            call = name.endswith("()")
            name = name.removesuffix("()")
            if not module.scope.binds(name):
                return path
            found = self._bound(name, module.scope, depth - 1)
            if found is None or found == path:
                return path
            return ".".join([found + ("()" if call else ""), *rest])
        return path

    def _called(self, path: str, depth: int) -> str:
        """What calling it gives: of a function of ours, what it returns or yields."""
        at = self.definition(path)
        if at is None or isinstance(at[0], ast.ClassDef):
            return f"{path}()"
        key = id(at[0]), "()"
        if key not in self._known:
            self._known[key] = None
            self._known[key] = self._returned(path, at, depth)
        return self._known[key] or f"{path}()"

    def _returned(
        self, path: str, at: tuple[Function | ast.ClassDef, Scope], depth: int
    ) -> str | None:
        function, around = at
        assert not isinstance(function, ast.ClassDef)  # noqa: S101 - for the type checker
        inside = around.inner.get(id(function), around)
        for node in ast.walk(function):
            value = node.value if isinstance(node, ast.Return | ast.Yield) else None
            if value is not None:
                found = self.resolve(value, inside, depth - 1)
                if found is not None and "()" in found:
                    return found
        if function.returns is not None:
            return self._instance(function.returns, around, depth - 1)
        return None

    def definition(self, path: str | None) -> tuple[Function | ast.ClassDef, Scope] | None:
        """The `def` or `class` of a resolved path, where the code base has it."""
        parts = (path or "").split(".")
        for cut in range(len(parts) - 1, 0, -1):
            module = self.modules.get(".".join(parts[:cut]))
            if module is None:
                continue
            scope, node = module.scope, None
            for name in parts[cut:]:
                name = name.removesuffix("()")
                if node is not None:
                    scope = scope.inner.get(id(node), scope)
                node = scope.made.get(name)
                if node is None:
                    return None
            return None if node is None else (node, scope)
        return None

    def text(self, node: ast.expr | None, scope: Scope, depth: int = 6) -> str | None:
        """The value of a string: a literal, a constant, what is literal of an f-string."""
        if node is None or depth == 0:
            return None
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str) else None
        if isinstance(node, ast.JoinedStr):
            return "".join(
                (self.text(part.value, scope, depth - 1) or "{}")
                if isinstance(part, ast.FormattedValue)
                else (self.text(part, scope, depth - 1) or "")
                for part in node.values
            )
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            left = self.text(node.left, scope, depth - 1)
            return (
                None if left is None else left + (self.text(node.right, scope, depth - 1) or "{}")
            )
        if isinstance(node, ast.Name):
            at: Scope | None = scope
            while at is not None:
                for value in at.values.get(node.id, ()):
                    found = self.text(value, at, depth - 1)
                    if found is not None:
                        return found
                if node.id in at.imports:
                    return self._constant(at.imports[node.id], depth)
                at = at.parent
        if isinstance(node, ast.Attribute):
            path = self.resolve(node, scope)
            return self._constant(path, depth) if path else None
        return None

    def _constant(self, path: str, depth: int) -> str | None:
        module, _, name = path.rpartition(".")
        found = self.modules.get(module)
        for value in found.scope.values.get(name, ()) if found else ():
            said = self.text(value, found.scope, depth - 1) if found else None
            if said is not None:
                return said
        return None


_BUILTINS = frozenset(dir(builtins))


def _path(at: Scope) -> str:
    names: list[str] = []
    scope: Scope | None = at
    while scope is not None and not isinstance(scope.node, ast.Module):
        names.append(scope.node.name)
        scope = scope.parent
    return ".".join([at.module.name, *reversed(names)])


def _scope_of(at: Scope, value: ast.expr) -> Scope:
    """The scope in a class whose function has this line."""
    for inside in at.inner.values():
        node = inside.node
        if not isinstance(node, ast.Module) and (
            node.lineno <= value.lineno <= (node.end_lineno or node.lineno)
        ):
            return inside
    return at


# -- binding ---------------------------------------------------------------------------------------


def _bind_all(scope: Scope, body: ast.AST, function: Function | None, found: list[Place]) -> None:
    for node in ast.iter_child_nodes(body):
        _bind(scope, node, function, found)


def _bind(scope: Scope, node: ast.AST, function: Function | None, found: list[Place]) -> None:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            scope.made[node.name] = node
            inside = Scope(scope.module, scope, node)
            scope.inner[id(node)] = inside
            found.append(Place(node, scope, function))
            for outside in (*node.decorator_list, node.args):
                _bind(scope, outside, function, found)
            _parameters(inside, node.args)
            for statement in node.body:
                _bind(inside, statement, node, found)
            return
        case ast.ClassDef():
            scope.made[node.name] = node
            inside = Scope(scope.module, scope, node)
            scope.inner[id(node)] = inside
            found.append(Place(node, scope, function))
            for before in (*node.decorator_list, *node.bases, *node.keywords):
                _bind(scope, before, function, found)
            for statement in node.body:
                _bind(inside, statement, None, found)
            return
        case ast.Import():
            for alias in node.names:
                scope.imports[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        case ast.ImportFrom():
            base = _absolute(scope.module, node)
            for alias in node.names:
                scope.imports[alias.asname or alias.name] = f"{base}.{alias.name}"
        case ast.Assign():
            for target in node.targets:
                _target(scope, target, node.value)
        case ast.AnnAssign():
            if isinstance(node.target, ast.Name):
                scope.typed[node.target.id] = node.annotation
            if node.value is not None:
                _target(scope, node.target, node.value)
        case ast.NamedExpr():
            _target(scope, node.target, node.value)
        case ast.With() | ast.AsyncWith():
            found.append(Place(node, scope, function))
            for item in node.items:
                if item.optional_vars is not None:
                    _target(scope, item.optional_vars, item.context_expr)
        case ast.For() | ast.AsyncFor():
            _unknown(scope, node.target)
        case ast.Call() | ast.Try() | ast.TryStar():
            found.append(Place(node, scope, function))
        case _:
            pass
    _bind_all(scope, node, function, found)


def _parameters(scope: Scope, arguments: ast.arguments) -> None:
    plain = [*arguments.posonlyargs, *arguments.args]
    without = len(plain) - len(arguments.defaults)
    pairs: list[tuple[ast.arg, ast.expr | None]] = [
        (one, arguments.defaults[at - without] if at >= without else None)
        for at, one in enumerate(plain)
    ]
    pairs += list(zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
    pairs += [(one, None) for one in (arguments.vararg, arguments.kwarg) if one is not None]
    for one, default in pairs:
        scope.other.add(one.arg)
        if one.annotation is not None:
            scope.typed[one.arg] = one.annotation
        if isinstance(default, ast.Call):
            scope.values.setdefault(one.arg, []).append(default)


def _target(scope: Scope, target: ast.expr, value: ast.expr) -> None:
    if isinstance(target, ast.Name):
        scope.values.setdefault(target.id, []).append(value)
    elif isinstance(target, ast.Attribute):
        if isinstance(target.value, ast.Name) and target.value.id == "self":
            at: Scope | None = scope
            while at is not None and not isinstance(at.node, ast.ClassDef):
                at = at.parent
            if at is not None:
                at.values.setdefault(f"self.{target.attr}", []).append(value)
    else:
        _unknown(scope, target)


def _unknown(scope: Scope, target: ast.AST) -> None:
    for name in ast.walk(target):
        if isinstance(name, ast.Name):
            scope.other.add(name.id)


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    parts = parts[: len(parts) - node.level + (1 if module.package else 0)]
    return ".".join([*parts, *([node.module] if node.module else [])])


def walk_own(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes inside, without those of functions and classes defined in it."""
    waiting = list(ast.iter_child_nodes(node))
    while waiting:
        at = waiting.pop()
        yield at
        if not isinstance(at, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(at))
