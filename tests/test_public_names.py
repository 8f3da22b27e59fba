"""The root of the package: which names are public, and what it costs to import it."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import otel_metadata
from otel_metadata import backends

CONSTANTS = {"UNSET", "__version__"}

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("examples/*.py"))]

# What an application must not pay for with `import otel_metadata` alone.
HEAVY = {
    "sqlite3",
    "otel_metadata.exporters",
    "otel_metadata.server",
    "otel_metadata.store",
    "pandas",
    "urllib3",
    "opentelemetry.sdk",
}


def test_there_are_at_most_27_names() -> None:
    """The interface stays small enough to learn: the calls, and what goes into them or comes out of them.

    Two were added to the first 25 because no argument of another call can stand for them: what an update became after
    its delivery, and a destination made of the application's own exporter.
    """
    assert len(otel_metadata.__all__) <= 27


def test_the_list_is_sorted_and_without_doubles() -> None:
    """Constants, classes, functions, as ruff sorts `__all__`."""
    groups = [
        [name for name in otel_metadata.__all__ if name.isupper()],
        [name for name in otel_metadata.__all__ if name[0].isupper() and not name.isupper()],
        [name for name in otel_metadata.__all__ if not name[0].isupper()],
    ]

    assert otel_metadata.__all__ == [name for group in groups for name in sorted(group)]
    assert len(set(otel_metadata.__all__)) == len(otel_metadata.__all__)


def test_the_list_is_what_there_is() -> None:
    """`dir`, the lazy homes and what type checkers see are the same names."""
    source = ast.parse(Path(otel_metadata.__file__).read_text())
    (checked,) = (node for node in source.body if isinstance(node, ast.If))
    imported = {alias.name for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names}

    assert set(otel_metadata.__all__) == set(dir(otel_metadata)) == set(otel_metadata._HOMES) == imported


@pytest.mark.parametrize("name", otel_metadata.__all__)
def test_every_name_exists_and_is_documented(name: str) -> None:
    """Each can be loaded, and says what it is unless it is a constant."""
    value = getattr(otel_metadata, name)

    assert name in CONSTANTS or inspect.getdoc(value)


PUBLIC = set(otel_metadata._PUBLIC_MODULES) | {f"backends.{name}" for name in backends.NAMES}


@pytest.mark.parametrize("module", otel_metadata._PUBLIC_MODULES)
def test_every_public_module_says_what_is_public_in_it(module: str) -> None:
    """By its `__all__`; each of these names is there, and documented unless it is a value."""
    loaded = importlib.import_module(f"otel_metadata.{module}")

    assert loaded.__all__
    assert inspect.getdoc(loaded)
    for name in loaded.__all__:
        value = getattr(loaded, name)
        # A generic alias such as `Mask` is a class to Python 3.10.
        is_class = inspect.isclass(value) and not hasattr(value, "__origin__")
        assert not (is_class or inspect.isfunction(value)) or inspect.getdoc(value), name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_what_people_read_uses_public_names_only(page: Path) -> None:
    """README, documentation and examples import from the root and the public modules, and no name that is not there."""
    found = re.findall(r"^\s*from otel_metadata(?:\.([a-z_.]+))? import ([\w, ]+)", page.read_text(), re.MULTILINE)

    for module, names in found:
        assert not module or module in PUBLIC, module
        loaded = importlib.import_module(f"otel_metadata.{module}") if module else otel_metadata
        assert {name.partition(" as ")[0].strip() for name in names.split(",")} <= set(loaded.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As of any module."""
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        otel_metadata.no_such_name  # noqa: B018


def test_importing_it_loads_nothing_heavy() -> None:
    """An application that only imports it pays for next to nothing."""
    program = "import sys, otel_metadata; print(*sorted(sys.modules))"

    # Coverage follows child processes and loads sqlite3 in them.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    out = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment
    ).stdout

    loaded = set(out.split())
    assert "otel_metadata" in loaded
    assert not {name for name in loaded if any(name == heavy or name.startswith(heavy + ".") for heavy in HEAVY)}
