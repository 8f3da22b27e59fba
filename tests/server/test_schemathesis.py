"""Requests that Schemathesis makes from the OpenAPI document alone: what it allows, and what it does not.

https://schemathesis.readthedocs.io
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tests.server.api import SPAN_ID, TRACE_ID, fill
from tests.server.conftest import Server

PROGRAM = Path(__file__).parents[2] / ".venv-schemathesis" / "bin" / "schemathesis"

# Our own calls answer exactly as the document says; what vendors document is theirs, and theirs must not fail.
CONFORMING = "not_a_server_error,response_schema_conformance,status_code_conformance,content_type_conformance"
RUNS = [
    ("^/api/v1/", CONFORMING, ""),
    ("^/api/v1/", CONFORMING, f'[parameters]\n"path.span_id" = "{SPAN_ID}"\n"path.trace_id" = "{TRACE_ID}"\n'),
    (r"^/api/v1/spans/\{span_id\}$", CONFORMING, f'[parameters]\n"path.span_id" = "{SPAN_ID}"\n"query.exact" = true\n'),
    ("^/(?!api/v1/)", "not_a_server_error", ""),
]


@pytest.mark.parametrize(("paths", "checks", "config"), RUNS, ids=["ours", "ours, of a stored span", "exact", "others"])
def test_what_the_document_allows_is_answered_and_the_rest_refused(
    server: Server, tmp_path: Path, paths: str, checks: str, config: str
) -> None:
    """No 5xx, and each answer has a status, a type and a body that the document promises."""
    fill(server.store)
    (tmp_path / "schemathesis.toml").write_text(config)
    done = subprocess.run(
        [
            *(PROGRAM, "--config-file", tmp_path / "schemathesis.toml", "run", f"{server.url}/api/v1/openapi.json"),
            *("--include-path-regex", paths, "--exclude-path", "/api/v1/events"),  # that one does not end
            *("--checks", checks, "--phases", "coverage,fuzzing", "--max-examples", "20", "--no-color"),
            *("--request-timeout", "60", "--seed", "1"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr
    passed = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert passed is not None, done.stdout
    assert int(passed[1]) > 50
    assert server.call("GET", f"/api/v1/spans/{SPAN_ID}").status in {200, 404}
