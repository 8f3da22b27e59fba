"""Requests that Schemathesis makes from the OpenAPI document alone: what it allows, and what it does not.

https://schemathesis.readthedocs.io
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from tests.server.api import SPAN_ID, TRACE_ID, fill
from tests.server.conftest import Server

from otel_metadata.server.app import OPERATIONS
from otel_metadata.server.vendors.galileo_ids import derived_uuid4

PROGRAM = Path(__file__).parents[2] / ".venv-schemathesis" / "bin" / "schemathesis"

# Our own calls answer exactly as the document says; what vendors document is theirs, and theirs must not fail.
CONFORMING = "not_a_server_error,response_schema_conformance,status_code_conformance,content_type_conformance"
RUNS = [
    ("^/api/v1/", CONFORMING, ""),
    ("^/api/v1/", CONFORMING, f'[parameters]\n"path.span_id" = "{SPAN_ID}"\n"path.trace_id" = "{TRACE_ID}"\n'),
    (r"^/api/v1/spans/\{span_id\}$", CONFORMING, f'[parameters]\n"path.span_id" = "{SPAN_ID}"\n"query.exact" = true\n'),
    ("^/(?!api/v1/)", "not_a_server_error", ""),
    (
        "^/(v2/)?projects|^/ingest/|^/api/traces/|^/api/public/(scores|ingestion|projects)|^/v1/info",
        CONFORMING,
        f"""[parameters]
"path.project_id" = "{derived_uuid4("project", "shop")}"
"path.span_id" = "{SPAN_ID}"
"path.trace_id" = "{TRACE_ID}"
"path.traceId" = "{TRACE_ID}"
""",
    ),
]
NAMES = ["ours", "ours, of a stored span", "exact", "others", "vendors', of stored spans"]


@pytest.mark.parametrize(("paths", "checks", "config"), RUNS, ids=NAMES)
def test_what_the_document_allows_is_answered_and_the_rest_refused(
    server: Server, tmp_path: Path, paths: str, checks: str, config: str
) -> None:
    """No 5xx, and each answer has a status, a type and a body that the document promises."""
    fill(server.store)
    server.call("POST", "/projects", json={"name": "shop"})
    (tmp_path / "schemathesis.toml").write_text(config)
    done = subprocess.run(
        [
            *(PROGRAM, "--config-file", tmp_path / "schemathesis.toml", "run", f"{server.url}/api/v1/openapi.json"),
            *("--include-path-regex", paths, "--exclude-path", "/api/v1/events"),  # that one does not end
            *("--checks", checks, "--phases", "coverage,fuzzing", "--max-examples", "20", "--no-color"),
            *("--request-timeout", "60", "--seed", "1"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{Path(__file__).parent}", "SCHEMATHESIS_HOOKS": "schemathesis_hooks"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr
    passed = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert passed is not None, done.stdout
    assert int(passed[1]) > 50
    if "path.project_id" in config:
        # Refusals alone would mean that no body was looked at.
        counted = server.call("GET", "/metrics").data.decode()
        reached = set(re.findall(r'requests_total\{operation="(\w+)",status="2\d\d"\}', counted))
        wanted = {one.name for one in OPERATIONS if re.search(paths, one.path)}
        assert wanted <= reached, (wanted - reached, counted)
    assert server.call("GET", f"/api/v1/spans/{SPAN_ID}").status in {200, 404}
