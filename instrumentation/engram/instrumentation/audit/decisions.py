"""Decision points, by a heuristic that rather misses one than names what is none.

A function is one when the first word of its name decides (`approve_refund`, `decide`,
`score_lead`) and it returns a value; or when its public name may mean it (`select_plan`,
`should_retry`, `is_eligible`) and it returns at least two different literals.
Evaluations of feature flags are the other kind.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final

from . import marks
from .code import Code, Function, Module, Scope, walk_own
from .findings import Finding, Kind, Verdict

_DECIDES: Final = frozenset(
    {
        "adjudicate",
        "approve",
        "choose",
        "decide",
        "deny",
        "escalate",
        "prioritize",
        "prioritise",
        "recommend",
        "score",
        "triage",
    }
)
_MAY: Final = frozenset(
    {
        "accept",
        "allow",
        "allocate",
        "assign",
        "authorize",
        "classify",
        "determine",
        "evaluate",
        "grade",
        "pick",
        "rank",
        "rate",
        "reject",
        "route",
        "select",
        "should",
    }
)
_ELIGIBLE: Final = re.compile(
    r"^(?:is|can)_(?:\w+_)?(?:eligible|approved|allowed|acceptable|fraud\w*)"
)
_FLAG: Final = re.compile(
    r"^(?:openfeature\.(?:api\.get_client\(\)|client\.OpenFeatureClient\(\))"
    r"\.get_(?:boolean|string|integer|float|object)_(?:value|details)(?:_async)?"
    r"|ldclient\.(?:get\(\)|(?:client\.)?LDClient\(\))\.variation(?:_detail)?"
    r"|UnleashClient\.UnleashClient\(\)\.(?:is_enabled|get_variant)"
    r"|posthog\.(?:feature_enabled|get_feature_flag|Posthog\(\)\.(?:feature_enabled|get_feature_flag))"
    r"|statsig\.statsig\.(?:check_gate|get_experiment)"
    r"|flagsmith\.Flagsmith\(\)\.get_\w+_flags\(\)\.(?:is_feature_enabled|get_feature_value))$"
)
_DO: Final = "@decision on the function, or record_decision(...) where options and reason are known"


def find_decisions(code: Code, module: Module, hooked: bool) -> Iterator[Finding]:
    """Functions that decide, and evaluations of flags; `hooked`: OpenFeature tells OTel itself."""
    for place in code.places[module.file]:
        node = place.node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            why = _decides(node)
            if why is not None:
                yield _function(module, node, why, code, place.scope)
        elif isinstance(node, ast.Call):
            path = code.resolve(node.func, place.scope)
            if path is not None and _FLAG.match(path):
                yield _flag(module, node, path, hooked, code, place.scope)


def _decides(function: Function) -> str | None:
    first = function.name.lstrip("_").split("_", 1)[0].lower()
    if function.name.startswith("__") or _is_stub(function):
        return None
    returned = [
        one.value
        for one in walk_own(function)
        if isinstance(one, ast.Return) and one.value is not None
    ]
    if first in _DECIDES and any(not _is_none(one) for one in returned):
        return f"its name says {first}, and it returns a value"
    if function.name.startswith("_"):
        return None
    if first in _MAY or _ELIGIBLE.match(function.name):
        literals = {ast.dump(one) for one in _literals(returned) if not _is_none(one)}
        if len(literals) > 1:
            return f"its name may say {first}, and it returns {len(literals)} different literals"
    return None


def _literals(returned: list[ast.expr]) -> Iterator[ast.expr]:
    for one in returned:
        if isinstance(one, ast.IfExp):
            yield from _literals([one.body, one.orelse])
        elif isinstance(one, ast.Constant) or (
            isinstance(one, ast.Attribute) and one.attr.isupper()
        ):
            yield one


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_stub(function: Function) -> bool:
    """Overloads, abstract methods and test doubles decide nothing."""
    said = {ast.unparse(one).rsplit(".", 1)[-1] for one in function.decorator_list}
    return bool(said & {"overload", "abstractmethod", "property", "fixture"})


def _function(module: Module, node: Function, why: str, code: Code, scope: Scope) -> Finding:
    said = marks.of_function(node, code, scope)
    return Finding(
        file=module.file,
        line=node.lineno,
        kind=Kind.DECISION,
        name=node.name,
        verdict=Verdict.EXPLICIT if said else Verdict.NONE,
        why=f"it says {said}" if said else why + "; nothing records what it decides",
        do="" if said else _DO,
    )


def _flag(
    module: Module, call: ast.Call, path: str, hooked: bool, code: Code, scope: Scope
) -> Finding:
    flag = code.text(call.args[0], scope) if call.args else None
    told = hooked and path.startswith("openfeature.")
    return Finding(
        file=module.file,
        line=call.lineno,
        kind=Kind.DECISION,
        name=f"flag {flag or '?'}",
        verdict=Verdict.ZERO_CODE if told else Verdict.NONE,
        why="business_decision, by the OpenTelemetry hook of OpenFeature"
        if told
        else "the flag's value is not recorded",
        do=""
        if told
        else "pip install openfeature-hooks-opentelemetry and add its hook"
        if path.startswith("openfeature.")
        else _DO,
    )
