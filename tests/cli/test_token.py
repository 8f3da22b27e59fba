"""`otel-metadata token`: what an operator sees and does."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from otel_metadata.cli.app import app
from otel_metadata.server.tokens import Tokens

# Before click 8.2 the two outputs were one, unless one asked.
RUNNER = CliRunner(**{"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {})


def call(*words: object) -> tuple[int, list[str], str]:
    """Run the command line; return its exit code, its lines, and what it said of an error."""
    result = RUNNER.invoke(app, ["token", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout.splitlines(), result.stderr


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_token_is_printed_once_and_works() -> None:
    code, lines, said = call("create", "--name", "ada", "--scope", "read", "--scope", "delete", "--project", "shop")
    assert (code, len(lines)) == (0, 1)
    assert "not shown again" in said
    token = Tokens("otel_metadata.tokens").find(lines[0])
    assert token is not None
    assert (token.name, token.scopes, token.project) == ("ada", ["read", "delete"], "shop")
    code, lines, _ = call("list")
    (shown,) = map(json.loads, lines)
    assert shown.pop("created").startswith("20")
    assert shown == {"name": "ada", "scopes": ["read", "delete"], "project": "shop"}


def test_the_file_is_beside_the_store_or_where_the_option_says(directory: Path) -> None:
    call("create", "--name", "a", "--scope", "read", "--store", f"sqlite:///{directory}/deep.db?history=off")
    call("create", "--name", "b", "--scope", "read", "--store", "clickhouse://user:password@host/db")
    call("create", "--name", "c", "--scope", "read", "--tokens", "named")
    assert sorted(path.name for path in directory.iterdir()) == ["deep.tokens", "named", "otel_metadata.tokens"]


def test_a_token_is_revoked() -> None:
    _, (text,), _ = call("create", "--name", "ada", "--scope", "read")
    assert call("revoke", "ada")[:2] == (0, ["ada revoked."])
    assert Tokens("otel_metadata.tokens").find(text) is None
    assert "no token is in force." in " ".join(call("list", "--no-json")[1])
    code, _, said = call("revoke", "ada")
    assert (code, "token list" in said) == (1, True)


def test_wrong_arguments_say_what_is_right() -> None:
    code, _, said = call("create", "--name", "ada", "--scope", "write")
    assert (code, "traces:write" in said) == (2, True)
    assert not Path("otel_metadata.tokens").exists()
    Path("otel_metadata.tokens").write_text("something else")
    Path("otel_metadata.tokens").chmod(0o600)
    code, _, said = call("create", "--name", "ada", "--scope", "read")
    assert (code, "line 1" in said) == (1, True)
    assert Path("otel_metadata.tokens").read_text() == "something else"


def test_a_missing_extra_is_named() -> None:
    program = "import sys; sys.modules['msgspec'] = None; from otel_metadata.cli import main; main()"
    words = ["token", "create", "--name", "ada", "--scope", "read"]
    ended = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "pip install 'otel-metadata[server]'" in ended.stderr
