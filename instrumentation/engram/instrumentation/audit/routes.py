"""Routes: FastAPI, Starlette, Flask and Django; prefixes of routers, blueprints and mounts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final

from . import marks
from .code import Code, Function, Module, Place, Scope
from .findings import Finding, Kind, Verdict

_HTTP: Final = frozenset({"get", "post", "put", "patch", "delete", "head", "options", "trace"})
_OWNERS: Final = {
    "fastapi": re.compile(r"^fastapi\.(?:.*\.)?(?:FastAPI|APIRouter)\(\)$"),
    "starlette": re.compile(r"^starlette\.(?:.*\.)?(?:Starlette|Router)\(\)$"),
    "flask": re.compile(r"^(?:flask|quart)\.(?:.*\.)?(?:Flask|Blueprint|Quart)\(\)$"),
}
_BOTH: Final = "request_intent and request_outcome"
_NAMED: Final = re.compile(r"(?:^|_)(?:app|application|api|router|routes|bp|blueprint)$")
_ADDERS: Final = frozenset(
    {"add_api_route", "add_route", "add_url_rule", "add_api_websocket_route", "add_websocket_route"}
)
_STARLETTE: Final = re.compile(
    r"^(?:starlette|fastapi)\.routing\.(Route|WebSocketRoute|APIRoute|APIWebSocketRoute)$"
)
_DJANGO: Final = re.compile(r"^django\.(?:urls|conf\.urls)(?:\.\w+)?\.(path|re_path|url)$")
_PARAMETER: Final = re.compile(r"\{(\w+):\w+\}")


class Routes:
    """The routes of a code base; built once, because prefixes cross modules."""

    def __init__(self, code: Code, instrumented: frozenset[str]) -> None:
        self._code = code
        self._instrumented = instrumented
        self._own: dict[tuple[str, str], str] = {}
        self._parents: dict[tuple[str, str], tuple[tuple[str, str], str]] = {}
        for module in code.modules.values():
            self._prefixes(module)

    def _prefixes(self, module: Module) -> None:
        for name, values in module.scope.values.items():
            for value in values:
                if isinstance(value, ast.Call):
                    prefix = _word(value, "prefix", "url_prefix")
                    text = self._code.text(prefix, module.scope)
                    if text:
                        self._own[module.name, name] = text
        for place in self._code.places[module.file]:
            call = place.node
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                continue
            if call.func.attr in ("include_router", "register_blueprint") and call.args:
                child, prefix = call.args[0], _word(call, "prefix", "url_prefix")
            elif call.func.attr == "mount" and len(call.args) > 1:
                child, prefix = call.args[1], call.args[0]
            else:
                continue
            parent = self._identity(call.func.value, place.scope)
            of_child = self._identity(child, place.scope)
            if parent and of_child and parent != of_child:
                text = self._code.text(prefix, place.scope) or ""
                # A blueprint's prefix at registration replaces its own; FastAPI joins the two.
                if call.func.attr == "register_blueprint" and text:
                    self._own.pop(of_child, None)
                self._parents[of_child] = parent, text

    def _identity(self, node: ast.expr, scope: Scope) -> tuple[str, str] | None:
        """Module and name of the variable that an expression names, across imports."""
        dotted = _dotted(node)
        if dotted is None:
            return None
        head, *rest = dotted.split(".")
        at: Scope | None = scope
        while at is not None and not at.binds(head):
            at = at.parent
        if at is None:
            return None
        if head not in at.imports:
            return (at.module.name, head) if not rest else None
        path = ".".join([at.imports[head], *rest])
        for _ in range(5):  # through the `__init__` of packages
            module, _, name = path.rpartition(".")
            found = self._code.modules.get(module)
            if found is None or name not in found.scope.imports:
                return module, name
            path = found.scope.imports[name]
        return None

    def _whole(self, owner: ast.expr, scope: Scope, path: str) -> str:
        at = self._identity(owner, scope)
        seen: set[tuple[str, str]] = set()
        while at is not None and at not in seen:
            seen.add(at)
            path = self._own.get(at, "") + path
            parent = self._parents.get(at)
            if parent is None:
                break
            at, path = parent[0], parent[1] + path
        return path

    def find(self, module: Module) -> Iterator[Finding]:
        """The routes of a module."""
        for place in self._code.places[module.file]:
            node = place.node
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for decorator in node.decorator_list:
                    if isinstance(decorator, ast.Call):
                        yield from self._decorated(module, node, decorator, place.scope)
            elif isinstance(node, ast.Call):
                yield from self._called(module, node, place)

    def _framework(self, owner: ast.expr, scope: Scope) -> str | None:
        path = self._code.resolve(owner, scope)
        if path is None:  # from outside the code base, or made in a way that is not followed
            named = (_dotted(owner) or "").rsplit(".", 1)[-1].lower()
            return "unknown" if _NAMED.search(named) else None
        for framework, pattern in _OWNERS.items():
            if pattern.match(path):
                return framework
        at = self._code.definition(path.removesuffix("()")) if path.endswith("()") else None
        if at is not None and isinstance(at[0], ast.ClassDef):  # class Api(FastAPI)
            for base in at[0].bases:
                said = f"{self._code.resolve(base, at[1])}()"
                for framework, pattern in _OWNERS.items():
                    if pattern.match(said):
                        return framework
        return None

    def _decorated(
        self, module: Module, function: Function, call: ast.Call, scope: Scope
    ) -> Iterator[Finding]:
        if not isinstance(call.func, ast.Attribute):
            return
        verb = call.func.attr
        if verb not in _HTTP | {"route", "api_route", "websocket", "websocket_route"}:
            return
        framework = self._framework(call.func.value, scope)
        path = self._code.text(call.args[0] if call.args else _word(call, "path", "rule"), scope)
        if framework is None or path is None:
            return
        if framework == "unknown" and not path.startswith("/"):
            return
        path = self._whole(call.func.value, scope, path)
        methods = (verb.upper(),) if verb in _HTTP else self._methods(call, scope, framework)
        if "websocket" in verb:
            methods = ("WEBSOCKET",)
        yield self._finding(module, function.lineno, framework, path, methods, function, scope)

    def _called(self, module: Module, call: ast.Call, place: Place) -> Iterator[Finding]:
        scope = place.scope
        if isinstance(call.func, ast.Attribute) and call.func.attr in _ADDERS and call.args:
            framework = self._framework(call.func.value, scope)
            path = self._code.text(call.args[0], scope)
            if framework in (None, "unknown") or path is None:
                return
            target = _word(call, "view_func", "endpoint") or (
                call.args[-1] if len(call.args) > 1 else None
            )
            path = self._whole(call.func.value, scope, path)
            websocket = "websocket" in call.func.attr
            methods = ("WEBSOCKET",) if websocket else self._methods(call, scope, framework)
            yield self._of(module, call, framework, path, methods, target, scope)
            return
        said = self._code.resolve(call.func, scope)
        if said is None or not call.args:
            return
        found = _STARLETTE.match(said)
        path = self._code.text(call.args[0], scope)
        if found and path is not None:
            target = call.args[1] if len(call.args) > 1 else _word(call, "endpoint")
            websocket = "WebSocket" in found[1]
            methods = ("WEBSOCKET",) if websocket else self._methods(call, scope, "starlette")
            framework = "fastapi" if found[1].startswith("API") else "starlette"
            yield self._of(module, call, framework, path, methods, target, scope)
        elif _DJANGO.match(said) and path is not None and len(call.args) > 1:
            target = call.args[1]
            if isinstance(target, ast.Call) and (_dotted(target.func) or "").endswith("include"):
                return
            if isinstance(target, ast.Attribute) and target.attr == "urls":  # admin.site.urls
                return
            yield self._of(module, call, "django", path, (), target, scope)

    def _methods(self, call: ast.Call, scope: Scope, framework: str | None) -> tuple[str, ...]:
        word = _word(call, "methods")
        if isinstance(word, ast.List | ast.Tuple | ast.Set):
            said = [self._code.text(one, scope) for one in word.elts]
            return tuple(one.upper() for one in said if one)
        return () if framework == "django" else ("GET",)

    def _of(
        self,
        module: Module,
        call: ast.Call,
        framework: str | None,
        path: str,
        methods: tuple[str, ...],
        target: ast.expr | None,
        scope: Scope,
    ) -> Finding:
        at = self._code.definition(self._code.resolve(target, scope))
        function, around = at if at is not None else (None, scope)
        if isinstance(function, ast.ClassDef):
            function = None
        return self._finding(
            module, call.lineno, framework or "unknown", path, methods, function, around
        )

    def _finding(
        self,
        module: Module,
        line: int,
        framework: str,
        path: str,
        methods: tuple[str, ...],
        function: Function | None,
        scope: Scope,
    ) -> Finding:
        verdict, do = Verdict.ZERO_CODE, ""
        why = f"{_BOTH}, by the telemetry of FastAPI"
        if framework in ("flask", "django", "starlette"):
            why = f"{_BOTH}, by opentelemetry-instrumentation-{framework}"
            if framework not in self._instrumented:
                verdict = Verdict.NONE
                why = f"nothing instruments {framework.capitalize()} in this environment"
                do = f"pip install opentelemetry-instrumentation-{framework}"
        elif framework == "unknown":
            why = "request_intent and request_outcome, if its app is FastAPI (not followed to it)"
        if verdict is Verdict.NONE and function is not None:
            said = marks.of_function(function, self._code, scope)
            if said:
                verdict, why, do = Verdict.EXPLICIT, f"it says {said}", ""
        name = f"{'|'.join(methods) or 'ANY'} {path}"
        seen = tuple(dict.fromkeys((path, _PARAMETER.sub(r"{\1}", path))))
        return Finding(
            file=module.file,
            line=line,
            kind=Kind.ROUTE,
            name=name,
            verdict=verdict,
            why=why,
            do=do,
            seen_as=seen,
            methods=methods,
        )


def _word(call: ast.Call, *names: str) -> ast.expr | None:
    return next((word.value for word in call.keywords if word.arg in names), None)


def _dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value)
        return base and f"{base}.{node.attr}"
    return None
