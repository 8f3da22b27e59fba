"""What the documents say is run: the README's example, the examples, the tables."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import Resource
from tests.backends import shown

import otel_metadata
from otel_metadata import backends
from otel_metadata.cli.app import app
from otel_metadata.dialects.canonical import JSON_NAMES
from otel_metadata.exporters.otlp import synthetic_span
from otel_metadata.model.evaluation import Annotation, annotation_key
from otel_metadata.model.merge import Fields
from otel_metadata.model.patch import Patch
from otel_metadata.model.span_ref import SpanRef
from otel_metadata.settings import VARIABLES, VENDOR_VARIABLES

ROOT = Path(__file__).parent.parent
DOCS = sorted(ROOT.glob("docs/**/*.md"))


def run(program: Path, directory: Path) -> str:
    """Run a program in an empty directory and return what it printed."""
    completed = subprocess.run(
        [sys.executable, str(program)], cwd=directory, capture_output=True, text=True, timeout=120, check=False
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE)


def test_the_readme_example_prints_what_the_readme_says(tmp_path: Path) -> None:
    """The first code block of the README, run as it stands, prints the block below it."""
    program = tmp_path / "readme.py"
    program.write_text(blocks(ROOT / "README.md", "python")[0])
    assert run(program, tmp_path) == blocks(ROOT / "README.md", "text")[0]


@pytest.mark.parametrize("name", ["dataframes", "history"])
def test_the_example_of_a_page_prints_what_the_page_says(tmp_path: Path, name: str) -> None:
    """The first code block of the page, run as it stands, prints the block below it."""
    page, program = ROOT / "docs" / f"{name}.md", tmp_path / f"{name}.py"
    program.write_text(blocks(page, "python")[0])
    assert run(program, tmp_path) == blocks(page, "text")[0]


# Blocks that need what is not here: a server of ClickHouse, packages of vendors, which `make test-backends` has.
NOT_RUN = ("clickhouse://", "from phoenix", "from langfuse import", 'configure("arize")')

COMPLETE = [
    (page, number)
    for page in [ROOT / "README.md", *DOCS]
    for number, block in enumerate(blocks(page, "python"))
    if re.search("^(import|from) otel_metadata", block, re.MULTILINE) and not any(one in block for one in NOT_RUN)
]

# What each vendor needs; nothing listens there, so that nothing leaves the machine.
NOWHERE = "http://127.0.0.1:9"
VENDORS = {
    "ARIZE_API_KEY": "k",
    "ARIZE_SPACE_ID": "s",
    "ARIZE_COLLECTOR_ENDPOINT": NOWHERE,
    "GALILEO_API_KEY": "k",
    "GALILEO_PROJECT": "p",
    "GALILEO_API_URL": NOWHERE,
    "LANGFUSE_PUBLIC_KEY": "pk",
    "LANGFUSE_SECRET_KEY": "sk",
    "LANGFUSE_BASE_URL": NOWHERE,
    "LANGWATCH_API_KEY": "sk-lw-k",
    "LANGWATCH_ENDPOINT": NOWHERE,
    "MLFLOW_TRACKING_URI": NOWHERE,
    "MLFLOW_EXPERIMENT_ID": "1",
    "PHOENIX_COLLECTOR_ENDPOINT": NOWHERE,
    "SPLUNK_AO_API_KEY": "k",
    "SPLUNK_AO_PROJECT": "p",
    "SPLUNK_AO_API_URL": NOWHERE,
    "SPLUNK_AO_CONSOLE_URL": NOWHERE,
}


@pytest.mark.parametrize(("page", "number"), COMPLETE, ids=[f"{page.stem}-{number}" for page, number in COMPLETE])
def test_a_block_that_imports_the_library_runs_as_it_is_copied(
    page: Path, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a store with one span, and with the variables of each vendor."""
    for name, value in VENDORS.items():
        monkeypatch.setenv(name, value)
    with otel_metadata.Client(f"sqlite:///{tmp_path}/spans.db", create=True) as client:
        times = {"start_time": "2026-01-31T00:00:00Z", "end_time": "2026-01-31T00:00:01Z"}
        ids = {"context.trace_id": "0af7651916cd43dd8448eb211c80319c", "context.span_id": "b7ad6b7169203331"}
        client.spans.log([{**ids, "name": "answer", **times}])
    program = tmp_path / "block.py"
    program.write_text(blocks(page, "python")[number])
    run(program, tmp_path)


def test_the_blocks_of_the_readme_run_one_after_the_other(tmp_path: Path) -> None:
    """The second block goes on with what the first has made."""
    program = tmp_path / "readme.py"
    program.write_text("".join(blocks(ROOT / "README.md", "python")))
    run(program, tmp_path)


@pytest.mark.parametrize("example", sorted(ROOT.glob("examples/*.py")), ids=lambda path: path.stem)
def test_an_example_runs_offline(example: Path, tmp_path: Path) -> None:
    """Every example ends well in an empty directory without a network."""
    assert run(example, tmp_path)


def test_the_test_of_the_testing_page_passes(tmp_path: Path) -> None:
    """The page about testing shows a test that passes with the fixtures as they are."""
    (tmp_path / "test_page.py").write_text(blocks(ROOT / "docs" / "testing.md", "python")[0])
    completed = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "test_page.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "1 passed" in completed.stdout, completed.stdout + completed.stderr


def test_the_configuration_page_lists_every_variable() -> None:
    """The table of the configuration page is the table of the code, row by row."""
    page = (ROOT / "docs" / "configuration.md").read_text()
    rows = re.findall(r"^\| `(OTEL_[A-Z_]+)` \| `(.*?)` \| (.*?) \|$", page, re.MULTILINE)
    assert rows == [tuple(variable) for variable in VARIABLES]


def test_the_configuration_page_lists_every_variable_of_a_vendor() -> None:
    """The table of the page is the table of the code, and the table of the code has what a vendor's folder reads."""
    page = (ROOT / "docs" / "configuration.md").read_text().partition("## Variables of the vendors")[2]
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \| (.*?) \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    assert rows == [
        (one.name, vendor, one.default, one.meaning) for vendor, several in VENDOR_VARIABLES.items() for one in several
    ]
    assert tuple(VENDOR_VARIABLES) == backends.NAMES
    for vendor, several in VENDOR_VARIABLES.items():
        folder = ROOT / "src" / "otel_metadata" / "backends" / vendor
        sources = "".join(path.read_text() for path in sorted(folder.glob("*.py")))
        read = set(re.findall(rf'"({vendor.upper()}_[A-Z0-9_]+)"', sources)) - {"ARIZE_LOG_ENABLE"}  # that one is set
        assert {one.name for one in several} == read, vendor


def test_the_command_line_page_has_every_command() -> None:
    """Each command is shown on the page at least once."""
    page = (ROOT / "docs" / "cli.md").read_text()
    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    names += [group.name for group in app.registered_groups if group.name]
    assert [name for name in names if f"otel-metadata {name}" not in page] == []


def test_the_backends_page_shows_what_the_code_does() -> None:
    """Its generated tables are those of the dialects and exporters as they are; `python -m tests.backends.shown`."""
    _, _, rest = shown.PAGE.read_text().partition(shown.BEGIN)
    assert rest.partition(shown.END)[0] == f"\n{shown.tables()}\n"


@pytest.mark.parametrize("name", backends.NAMES)
def test_every_backend_has_a_page(name: str) -> None:
    """With set-up, what goes where, verify, troubleshooting, and what is not verified."""
    page = (ROOT / "docs" / "backends" / f"{name}.md").read_text()
    for heading in ("Set-up", "What goes where", "Verify", "Troubleshooting", "Not verified"):
        assert re.search(rf"^## {heading}", page, re.MULTILINE), heading
    assert f"(backends/{name}.md)" in (ROOT / "docs" / "backends.md").read_text()


def test_the_attributes_page_names_the_list_of_json_attributes() -> None:
    """The page about attributes says which attribute lists those whose text is JSON."""
    assert f"`{JSON_NAMES}`" in (ROOT / "docs" / "attributes.md").read_text()


def test_the_attributes_page_names_every_attribute_of_a_late_span() -> None:
    """What the span of a late update carries beside canonical attributes is in the table of the page."""
    fields: Fields = {
        ("span", "annotation", annotation_key("q", annotator)): (Annotation("q", annotator=annotator).to_json(), (1, 1))
        for annotator in ("first", "second")
    }
    attributes = synthetic_span(Patch(SpanRef(1, 1), fields), Resource({})).attributes or {}
    page = (ROOT / "docs" / "attributes.md").read_text()

    ours = {name for name in attributes if name.startswith("otel_metadata.")}
    assert "otel_metadata.annotations" in ours
    assert {name for name in ours if f"`{name}`" not in page} == set()


def test_the_map_of_the_house_shows_what_is_there() -> None:
    """Every folder and module on the map of CONTRIBUTING exists, and every one that exists is on it."""
    house = (ROOT / "CONTRIBUTING.md").read_text().partition("src/otel_metadata/\n")[2].partition("tests/")[0]
    shown = set(re.findall(r"\b([a-z_]+(?:/|\.py))(?= |$)", house, re.MULTILINE))
    package = ROOT / "src" / "otel_metadata"
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert shown == folders | {path.name for path in package.glob("[a-z]*.py")}


def test_the_changelog_names_what_a_user_can_call() -> None:
    """Every public name is in the changelog by its full name, and each name in it exists."""
    changelog = (ROOT / "CHANGELOG.md").read_text()
    named = set(re.findall(r"\botel_metadata\.([A-Za-z_]+)", changelog))
    assert {name for name in otel_metadata.__all__ if name != "__version__"} <= named
    for name in named:
        assert hasattr(otel_metadata, name) or find_spec(f"otel_metadata.{name}") is not None


def test_the_test_that_contributing_names_exists() -> None:
    """The command that runs one test selects one."""
    (name,) = re.findall(r"pytest tests -k (\w+)", (ROOT / "CONTRIBUTING.md").read_text())
    assert any(f"def {name}(" in path.read_text() for path in ROOT.glob("tests/**/*.py"))


PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + DOCS


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_link_between_documents_leads_somewhere(page: Path) -> None:
    """Every relative link of a page names a file that is there, and a heading that the file has."""
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target
