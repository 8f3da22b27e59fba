"""What the OpenAPI document cannot say: the id in a body of Galileo's is the one in the path.

A module of its own, which the environment of Schemathesis imports.
"""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.hook
def before_call(_context: Any, case: Any, _arguments: Any) -> None:
    """Put the id of the path into a body that has one."""
    if not isinstance(case.body, dict):
        return
    for name in ("span_id", "trace_id"):
        if name in (case.path_parameters or {}) and case.body.get(name):
            case.body[name] = case.path_parameters[name]
