"""The page in a real Chromium: list, filter, trace, span, keys, live updates, themes and widths."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from playwright.sync_api import Page, Route, expect
from tests.browser import application
from tests.browser.application import SCRIPT, span_id, trace_id

from otel_metadata.model.condition import Compare, Subject
from otel_metadata.model.record import SpanQuery
from otel_metadata.server.access import Access
from otel_metadata.server.run import LocalServer
from otel_metadata.server.sdk_settings import settings_of
from otel_metadata.server.tokens import Tokens
from otel_metadata.store.filter.language import parse
from otel_metadata.store.sqlite.store import SqliteStore

AXE = Path(__file__).parents[2] / "node_modules/axe-core/axe.min.js"
TRACE = f"{trace_id(7):032x}"
ROOT = f"{span_id(7, 1):016x}"
DAY_NS = 86_400 * application.SECOND
COMPARED = f"/compare?a={TRACE}-{ROOT}&b={trace_id(6):032x}-{span_id(6, 1):016x}"

pytestmark = pytest.mark.usefixtures("filled")


def rows(page: Page) -> Any:
    return page.locator(".rows tbody tr")


def tree_rows(page: Page) -> Any:
    return page.locator(".tree-rows [role=row]")


def late(store: SqliteStore, key: str, value: Any, trace: int = 7, number: int = 1) -> None:
    """Update a stored span, as another process does."""
    fields = {("span", "metadata", key): (value, (time.time_ns(), application.ADA))}
    store.patch_rows([(f"{trace_id(trace):032x}", f"{span_id(trace, number):016x}", fields)], route="late")


# List


def test_the_list_has_every_trace_newest_first(page: Page) -> None:
    page.goto("/")
    expect(rows(page)).to_have_count(24)
    expect(rows(page).first).to_contain_text("POST /answer")
    expect(rows(page).first).to_contain_text("○ 1 late")
    expect(rows(page).nth(2)).to_contain_text("✕ 3 errors")
    expect(page.get_by_text("That is all in this time.")).to_be_visible()


def test_a_filter_narrows_the_list_and_is_in_the_address(page: Page) -> None:
    page.goto("/")
    page.keyboard.press("/")
    page.keyboard.type("status_code = 'ERROR'")
    page.keyboard.press("Enter")
    expect(rows(page)).to_have_count(6)
    assert "filter=status_code" in page.url
    page.reload()
    expect(rows(page)).to_have_count(6)
    page.go_back()
    expect(rows(page)).to_have_count(24)
    expect(page.get_by_role("combobox", name="Filter")).to_have_value("")


def test_a_wrong_filter_is_shown_where_it_is_wrong(page: Page, problems: list[str]) -> None:
    page.goto("/?rows=spans")
    box = page.get_by_role("combobox", name="Filter")
    box.fill("metadata.plan == 'free'")
    box.press("Enter")
    problem = page.locator("#filter-problem")
    expect(problem.locator("mark")).to_have_text("=")
    expect(problem).to_contain_text("expected")
    expect(box).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_text("Nothing is searched until the filter is right.")).to_be_visible()
    assert problems
    assert all("400 (Bad Request)" in line for line in problems)
    problems.clear()


def test_a_wrong_filter_takes_the_bars_of_the_one_before_away(page: Page, problems: list[str]) -> None:
    page.goto("/?rows=spans")
    expect(page.locator(".bars")).to_be_visible()
    box = page.get_by_role("combobox", name="Filter")
    box.fill("metadata.plan == 'free'")
    box.press("Enter")
    expect(page.get_by_text("Nothing is searched until the filter is right.")).to_be_visible()
    expect(page.locator(".bars")).to_have_count(0)
    problems.clear()


def test_what_nobody_sees_adds_no_line_to_a_row(page: Page) -> None:
    page.goto("/?rows=spans")
    expect(rows(page).first).to_be_visible()
    below = page.eval_on_selector_all(
        ".compare-row",
        """all => all.filter(button => {
            const cell = button.closest('td').getBoundingClientRect();
            const link = button.parentElement.querySelector('a').getBoundingClientRect();
            const own = button.getBoundingClientRect();
            return own.top >= link.bottom || own.left < link.right || own.right > cell.right;
        }).length""",
    )
    assert below == 0


@pytest.mark.parametrize("width", [1280, 400])
def test_one_long_value_makes_no_place_wide(page: Page, store: SqliteStore, width: int) -> None:
    long = "w" * 20_000
    times = (time.time_ns(), application.ADA)
    fields: Any = {
        ("span", "user_id", ""): (long, times),
        ("span", "session_id", ""): (long, times),
        ("trace", "user_id", ""): (long, times),
        ("trace", "session_id", ""): (long, times),
        ("span", "metadata", long): (long, times),
        ("span", "evaluation", "Correctness"): ({"label": long, "source": "human"}, times),
        ("span", "evaluation", long): ({"label": long, "source": "human"}, times),
    }
    store.patch_rows([(TRACE, ROOT, fields)], route="late")
    page.set_viewport_size({"width": width, "height": 800})
    for path in (
        "/",
        "/?rows=spans",
        f"/?project={long[:5_000]}",
        "/overview?window=30d&by=user_id",
        f"/traces/{TRACE}",
        f"/traces/{TRACE}?span={ROOT}",
        f"/traces/{TRACE}?span={ROOT}&tab=evaluations",
        "/changes?window=30d",
        f"/compare?a={TRACE}&b={trace_id(6):032x}",
        COMPARED,
    ):
        page.goto(path)
        expect(page.locator(".loading")).to_have_count(0)
        page.wait_for_load_state("load")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path[:80]


def test_a_place_in_a_filter_counts_characters_as_the_server_does(page: Page, problems: list[str]) -> None:
    page.goto("/?filter=name+%3D+'%F0%9F%90%B6%F0%9F%90%B6'+AND+%3F")
    expect(page.locator("#filter-problem mark")).to_have_text("?")
    expect(page.get_by_text("Nothing is searched until the filter is right.")).to_be_visible()
    problems.clear()


def test_tab_takes_a_completion_and_enter_always_runs(page: Page) -> None:
    page.goto("/?rows=spans")
    box = page.get_by_role("combobox", name="Filter")
    box.click()
    page.keyboard.type("metadata.pl")
    expect(page.get_by_role("option", name="metadata.plan")).to_be_visible()
    page.keyboard.press("Tab")
    expect(box).to_have_value("metadata.plan ")
    page.keyboard.type("= 'free'")
    page.keyboard.press("Enter")
    expect(rows(page)).to_have_count(8)
    expect(page.get_by_role("listbox")).to_be_hidden()


def test_tab_takes_no_completion_of_what_was_written_before(page: Page) -> None:
    page.goto("/?rows=spans")
    box = page.get_by_role("combobox", name="Filter")
    box.click()
    page.keyboard.type("metadata.p")
    expect(page.get_by_role("option", name="metadata.plan")).to_be_visible()
    waiting: list[Route] = []
    page.route("**/api/v1/filter", lambda route: route.continue_() if waiting else waiting.append(route))
    with page.expect_request("**/api/v1/filter"):
        page.keyboard.type("l")
    with page.expect_request("**/api/v1/filter"):
        page.keyboard.press("Tab")
    expect(box).to_have_value("metadata.plan ")


def test_who_types_on_after_a_completion_writes_behind_it(page: Page) -> None:
    """Also faster than the next frame; values in use are completed too, and what is unfinished is no error yet."""
    page.goto("/?rows=spans")
    box = page.get_by_role("combobox", name="Filter")
    box.click()
    page.keyboard.type("metadata.pl")
    expect(page.get_by_role("option", name="metadata.plan")).to_be_visible()
    page.evaluate(
        """() => { const box = document.activeElement;
        box.dispatchEvent(new KeyboardEvent('keydown', {key: 'Tab', bubbles: true, cancelable: true}));
        document.execCommand('insertText', false, '= '); }"""
    )
    expect(box).to_have_value("metadata.plan = ")
    expect(page.get_by_role("option", name="'enterprise'")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("listbox")).to_be_hidden()
    expect(page.locator("#filter-problem")).to_have_count(0)
    page.keyboard.type("'tea")
    expect(page.get_by_role("option", name="'team'")).to_be_visible()
    page.keyboard.press("Tab")
    expect(box).to_have_value("metadata.plan = 'team' ")
    page.keyboard.press("Enter")
    expect(rows(page)).to_have_count(8)


def test_a_click_on_a_value_offers_conditions(page: Page) -> None:
    page.goto("/?rows=spans")
    box = page.get_by_role("combobox", name="Filter")
    chip = page.get_by_role("button", name="plan team", exact=True).first
    chip.click()
    expect(page.get_by_role("menuitem", name="With this value")).to_be_focused()
    page.keyboard.press("j")  # a key of the page, which is off while the menu is open
    page.keyboard.press("Escape")
    expect(page.get_by_role("menu")).to_have_count(0)
    expect(chip).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(box).to_have_value("metadata.\"plan\" != 'team'")
    expect(rows(page)).to_have_count(16)
    page.get_by_role("button", name="plan free", exact=True).first.click()
    page.get_by_role("menuitem", name="With this value").click()
    expect(box).to_have_value("metadata.\"plan\" != 'team' AND metadata.\"plan\" = 'free'")
    expect(rows(page)).to_have_count(8)
    page.get_by_role("button", name="Clear the filter").click()
    page.get_by_role("button", name="tokens", exact=False).first.click()
    expect(page.get_by_role("menuitem")).to_have_count(2)  # an object is compared with nothing
    page.get_by_role("menuitem", name="Only this trace").click()
    expect(rows(page)).to_have_count(9)


def test_a_trace_shows_the_metadata_of_its_root_and_its_own(page: Page, store: SqliteStore) -> None:
    root = store.query(SpanQuery(limit=1, condition=parse("parent_id IS NULL")))[0]
    fields: Any = {("trace", "metadata", "cohort"): ("b", (time.time_ns(), application.ADA))}
    store.write([application._span(950, 1, None, "of two", time.time_ns(), 1_000)])
    store.patch_rows([(f"{trace_id(950):032x}", "", fields)], route="late")
    page.goto("/")
    expect(rows(page)).to_have_count(25)
    page.get_by_role("button", name=f"plan {root.metadata['plan']}", exact=True).first.click()
    page.get_by_role("menuitem", name="With this value").click()
    expect(rows(page)).to_have_count(8)
    page.go_back()
    page.get_by_role("button", name="cohort b", exact=True).click()
    page.get_by_role("menuitem", name="With this value").click()
    expect(page.get_by_role("combobox", name="Filter")).to_have_value("trace.metadata.\"cohort\" = 'b'")
    expect(rows(page)).to_have_count(1)


def test_a_verdict_offers_its_label_wherever_it_was_given(page: Page, store: SqliteStore) -> None:
    verdict = {"source": "human", "label": "incorrect"}
    fields: Any = {("trace", "evaluation", "Correctness"): (verdict, (time.time_ns(), application.ADA))}
    store.patch_rows([(TRACE, "", fields)], route="late")
    page.goto("/")
    page.get_by_role("button", name="Correctness incorrect").first.click()
    page.get_by_role("menuitem", name="With this value").click()
    expect(rows(page)).to_have_count(7)  # six on roots, one on a trace
    expect(page.locator("#filter-problem")).to_have_count(0)


KEYS = ("timestamp", "and", "TRUE", "between", "plan", "user-id", 'say "hi"', "a.b", "ключ", "like ", "1", ".", "x'y")
VALUES = ("team", "it's", "a\nb", '"', "🐶", "--", "TRUE", "", 0, -1, 1.5, 1e-7, 2**53 - 1, True, False)


def test_the_server_reads_every_condition_that_the_page_writes(page: Page) -> None:
    page.goto("/")
    expect(rows(page)).to_have_count(24)
    written = page.evaluate(
        """async ([keys, values]) => {
        const { keyName, literal, narrowed } = await import(
          document.querySelector('link[href$="filter_text.js"]').href);
        return keys.flatMap(key => values.map(value => [key, value,
          narrowed("name = 'x' or 1 < latency_ms", `${keyName('metadata', key)} = ${literal(value)}`)]));
        }""",
        [KEYS, VALUES],
    )
    assert len(written) == len(KEYS) * len(VALUES)
    for key, value, text in written:
        condition: Any = parse(text)
        assert condition.parts[-1] == Compare(Subject("span", "metadata", key), "=", value), text
        assert type(condition.parts[-1].value) is type(value), text


def test_a_click_on_a_key_that_is_a_word_of_the_language_filters_by_it(page: Page, store: SqliteStore) -> None:
    late(store, "timestamp", "yesterday", number=2)
    page.goto("/?rows=spans")
    page.get_by_role("button", name="timestamp yesterday", exact=True).click()
    page.get_by_role("menuitem", name="With this value").click()
    expect(rows(page)).to_have_count(1)
    expect(page.locator("#filter-problem")).to_have_count(0)


def test_no_match_says_so_and_offers_a_way_out(page: Page) -> None:
    page.goto("/?filter=name+%3D+'nobody'")
    expect(page.get_by_text("No traces in this time match the filter.")).to_be_visible()
    page.get_by_role("button", name="Show all traces").click()
    expect(rows(page)).to_have_count(24)


def test_a_late_update_appears_without_losing_filter_scroll_or_focus(page: Page, store: SqliteStore) -> None:
    page.goto("/?rows=spans&filter=name+%3D+'POST+/answer'")
    expect(rows(page)).to_have_count(24)
    page.keyboard.press("j")
    page.keyboard.press("j")
    selected = page.locator(".rows tr.is-selected").get_attribute("id")
    assert selected == "row-1"
    page.evaluate("scrollTo(0, 300)")
    link = page.evaluate("document.activeElement.href")
    late(store, "reviewed", "yes", trace=5)
    expect(page.get_by_role("button", name="reviewed yes", exact=True)).to_have_count(1)
    assert page.evaluate("scrollY") == 300
    assert page.evaluate("document.activeElement.href") == link
    assert "filter=name" in page.url


def test_a_row_stays_selected_when_others_come_in_above(page: Page, store: SqliteStore) -> None:
    page.goto("/")
    expect(rows(page)).to_have_count(24)
    page.keyboard.press("j")
    started = page.locator(".rows tr.is-selected time").get_attribute("datetime")
    application.large(store, time.time_ns(), 3)
    expect(rows(page)).to_have_count(25)
    expect(page.locator(".rows tr.is-selected")).to_have_attribute("id", "row-1")
    assert page.locator(".rows tr.is-selected time").get_attribute("datetime") == started


def test_new_rows_wait_while_somebody_reads_further_down(page: Page, store: SqliteStore) -> None:
    page.goto("/")
    expect(rows(page)).to_have_count(24)
    page.evaluate("scrollTo(0, 400)")
    application.large(store, time.time_ns(), 3)
    page.get_by_role("button", name="1 new").click()
    expect(rows(page)).to_have_count(25)
    expect(rows(page).first).to_contain_text("batch")


def test_paused_means_that_nothing_moves(page: Page, store: SqliteStore) -> None:
    page.goto("/")
    expect(rows(page)).to_have_count(24)
    with page.expect_event("requestfailed"):  # the stream of events ends
        page.keyboard.press("p")
    application.large(store, time.time_ns(), 3)
    page.get_by_role("button", name="Resume live updates").click()
    expect(rows(page)).to_have_count(25)


def test_the_space_bar_looks_into_a_row_and_the_look_follows_the_selection(page: Page) -> None:
    page.goto("/")
    expect(rows(page)).to_have_count(24)
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press(" ")
    peek = page.get_by_role("complementary", name="Peek")
    expect(peek).to_contain_text("enterprise")
    expect(peek).to_contain_text("Which plan has SSO?")
    assert page.evaluate("scrollY") == 0
    page.keyboard.press("j")
    expect(peek).to_contain_text("Why was I billed twice in November?")
    page.keyboard.press("Escape")
    expect(peek).to_have_count(0)
    expect(page.locator(".rows tr.is-selected")).to_have_attribute("id", "row-2")


@pytest.mark.parametrize("path", ["/", f"/traces/{TRACE}?span={ROOT}"])
def test_a_row_or_span_is_copied_as_what_other_programs_take(page: Page, url: str, path: str) -> None:
    page.goto(path)
    if path == "/":
        expect(rows(page)).to_have_count(24)
        for _ in range(7):
            page.keyboard.press("j")
    else:
        expect(page.locator(".values tr", has_text="thumbs")).to_be_visible()
    copied = {}
    for name in ("Id", "JSON", "curl", "Python", "Command line", "Address of this page"):
        page.keyboard.press("c")
        page.get_by_role("menuitem", name=name, exact=True).click()
        expect(page.get_by_role("status").filter(has_text="Copied")).to_have_count(1)
        page.wait_for_function(
            "known => navigator.clipboard.readText().then(text => text && !known.includes(text))",
            arg=[*copied.values()],
        )
        copied[name] = page.evaluate("navigator.clipboard.readText()")
    is_span = path != "/"
    assert copied["Id"] == (ROOT if is_span else TRACE)
    assert copied["Address of this page"] == url + path
    record = json.loads(copied["JSON"])
    assert record["trace_id"] == TRACE
    assert record.get("span_id") == (ROOT if is_span else None)
    words = shlex.split(copied["curl"])
    assert words[0] == "curl"
    assert json.loads(urlopen(words[1]).read()) == record
    printed = subprocess.run(
        [sys.executable, "-c", copied["Python"] + f"print({'span.name' if is_span else 'spans[0].name'})"],
        capture_output=True,
        check=True,
        text=True,
    )
    assert printed.stdout.strip() == "POST /answer"
    shown = subprocess.run(
        [
            sys.executable,
            "-c",
            "from otel_metadata.cli import main; main()",
            *shlex.split(copied["Command line"])[1:],
            "--json",
        ],
        capture_output=True,
        check=True,
        text=True,
    )
    assert [json.loads(line)["trace_id"] for line in shown.stdout.splitlines()] == [TRACE] * (1 if is_span else 9)


def test_live_says_how_many_spans_a_second_come(page: Page, store: SqliteStore) -> None:
    page.goto("/")
    expect(rows(page)).to_have_count(24)
    expect(page.locator(".rate")).to_have_count(0)
    store.write([application._span(950, number, None, "now", time.time_ns(), 1_000) for number in range(1, 31)])
    expect(page.locator(".rate")).to_have_text("3.0/s")
    page.keyboard.press("p")
    expect(page.locator(".rate")).to_have_count(0)


def test_bars_over_time_come_after_the_list_and_have_their_numbers(page: Page) -> None:
    page.goto("/?window=24h")
    expect(page.get_by_role("img", name=re.compile("216 spans, 18 errors"))).to_be_visible()
    expect(page.locator(".bars .is-error-bar")).not_to_have_count(0)
    page.get_by_role("combobox", name="Filter").fill("status_code = 'ERROR'")
    page.keyboard.press("Enter")
    expect(page.get_by_role("img", name=re.compile("18 spans, 18 errors"))).to_be_visible()


def test_the_longest_of_yesterday_come_first(page: Page, store: SqliteStore) -> None:
    """Yesterday as the reader's clock has it; only what a page has can be sorted, and the page says so."""
    midnight = time.time_ns() // DAY_NS * DAY_NS
    application.large(store, midnight - 3_600 * application.SECOND, 30, number=901)
    application.large(store, midnight + application.MINUTE * 2, 3, number=902)
    page.goto("/?rows=spans")
    page.get_by_label("Time").select_option("Yesterday")
    page.get_by_role("combobox", name="Filter").fill("name = 'batch' OR name LIKE 'chat%'")
    page.keyboard.press("Enter")
    expect(rows(page).filter(has_text="batch")).to_have_count(1)
    page.get_by_role("button", name="Duration").click()
    expect(page).to_have_url(re.compile("window=yesterday.*sort=duration"))
    expect(page.get_by_role("columnheader", name="Duration")).to_have_attribute("aria-sort", "descending")
    expect(page.get_by_text("That is all in this time.")).to_be_visible()
    lengths = page.evaluate(
        "[...document.querySelectorAll('.rows .length > span')].map(one => parseFloat(one.style.width))"
    )
    assert lengths == sorted(lengths, reverse=True)
    assert len(lengths) > 3


# Trace


def test_a_trace_opens_with_the_keyboard_alone(page: Page) -> None:
    page.goto("/")
    expect(rows(page)).to_have_count(24)
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("POST /answer")
    expect(tree_rows(page)).to_have_count(9)
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(page.get_by_role("heading", level=2)).to_have_text("agent support")
    page.keyboard.press("h")
    expect(tree_rows(page)).to_have_count(3)
    page.keyboard.press("l")
    expect(tree_rows(page)).to_have_count(9)
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(rows(page)).to_have_count(24)


def test_the_grid_names_its_selected_row_to_assistive_technology(page: Page) -> None:
    page.goto(f"/traces/{TRACE}?span={ROOT}")
    grid = page.get_by_role("treegrid")
    expect(grid).to_have_attribute("aria-activedescendant", f"span-{ROOT}")
    expect(grid).to_have_attribute("aria-rowcount", "10")
    root = page.locator(f"#span-{ROOT}")
    expect(root).to_have_attribute("aria-selected", "true")
    expect(root).to_have_attribute("aria-expanded", "true")
    expect(root).to_have_attribute("aria-level", "1")
    root.locator(".twisty").click()
    expect(root).to_have_attribute("aria-expanded", "false")
    expect(root).to_contain_text("+8")
    page.reload()
    expect(tree_rows(page)).to_have_count(1)


def test_next_error_and_search_go_from_one_to_the_next(page: Page) -> None:
    page.goto(f"/traces/{TRACE}?span={span_id(7, 2):016x}")
    expect(tree_rows(page)).to_have_count(9)
    page.keyboard.press("e")
    expect(page.get_by_role("heading", level=2)).to_have_text("tool lookup_order")
    expect(page.locator(".status-message")).to_have_text("OrderNotFound: order 1042 does not exist")
    page.keyboard.press("/")
    page.keyboard.type("chat")
    expect(page.get_by_text("2 matches")).to_be_visible()
    page.get_by_label("Matches only").check()
    expect(tree_rows(page)).to_have_count(4)
    expect(page).to_have_url(re.compile("find=chat.*only=1"))
    page.get_by_role("treegrid").focus()
    page.keyboard.press("n")
    expect(page.get_by_role("heading", level=2)).to_have_text("chat gpt-5")


def test_a_value_shows_how_it_came_from_whom_and_what_it_replaced(page: Page) -> None:
    page.goto(f"/traces/{TRACE}?span={ROOT}")
    row = page.locator(".values tr", has_text="thumbs")
    expect(row).to_contain_text('"down"')
    expect(row).to_contain_text("○ late +2 h 14 min")
    expect(row).to_contain_text("page:ada")
    was = page.locator(".values tr.was")
    expect(was).to_contain_text('"up"')
    expect(was).to_contain_text("shop")
    expect(page.locator(".values tr", has_text="plan")).to_contain_text("● live")


def test_a_value_of_a_span_leads_to_the_spans_that_have_it(page: Page) -> None:
    page.goto(f"/traces/{TRACE}?span={ROOT}")
    page.locator(".values td.offers", has_text="team").click()
    page.get_by_role("menuitem", name="With this value").click()
    expect(page.get_by_role("combobox", name="Filter")).to_have_value("metadata.plan = 'team'")
    expect(rows(page)).to_have_count(8)
    page.go_back()
    for name, condition, count in [
        ("vip", "'vip' IN tags", 24),
        ("http.route", "attributes.\"http.route\" = '/answer'", 24),
        ("user", "user_id = 'u-7'", 2),
        ("experiment", "trace.metadata.experiment = 'short-answers'", 100),
    ]:
        page.get_by_role("button", name=name, exact=True).click()
        page.get_by_role("menuitem").first.click()
        expect(page.get_by_role("combobox", name="Filter")).to_have_value(condition)
        expect(page.locator("#filter-problem")).to_have_count(0)
        expect(rows(page)).to_have_count(count)
        page.go_back()


def test_a_long_value_is_cut_and_shown_whole_on_demand(page: Page, store: SqliteStore) -> None:
    late(store, "letter", "word " * 1_000)
    fields: Any = {("span", "input", ""): ("line\n" * 10_000, (time.time_ns(), application.ADA))}
    store.patch_rows([(TRACE, ROOT, fields)], route="late")
    page.goto(f"/traces/{TRACE}?span={ROOT}")
    row = page.locator(".values tr", has_text="letter")
    assert len(row.inner_text()) < 600
    row.get_by_role("button", name="Show all 5,002 characters").click()
    assert len(row.inner_text()) > 5_000
    page.get_by_role("tab", name="Input and output").click()
    expect(page.get_by_text("These are the first 20,000 of 50,000 characters.")).to_be_visible()
    page.get_by_role("button", name="Show all", exact=True).click()
    assert len(page.locator("pre").first.inner_text()) >= 49_999


def test_a_late_update_appears_in_the_open_span(page: Page, store: SqliteStore) -> None:
    page.goto(f"/traces/{TRACE}?span={ROOT}")
    expect(page.locator(".values tr", has_text="thumbs")).to_be_visible()
    page.get_by_role("tab", name="Values").focus()
    late(store, "thumbs", "sideways")
    expect(page.locator(".values tr", has_text="sideways")).to_be_visible()
    assert page.evaluate("document.activeElement.id") == "tab-values"
    page.get_by_role("button", name="1 more").click()
    expect(page.locator(".values tr.was")).to_have_count(2)


def test_the_slider_shows_the_trace_as_it_was(page: Page) -> None:
    page.goto(f"/traces/{TRACE}?span={ROOT}")
    slider = page.get_by_role("slider", name="Moment")
    expect(slider).to_have_attribute("aria-valuetext", "As it is now")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    row = page.locator(".values tr", has_text="thumbs")
    expect(row).to_contain_text('"up"')
    expect(page.locator(".values tr.was")).to_have_count(0)
    expect(page.get_by_text(re.compile("^The trace as it was at"))).to_be_visible()
    expect(page).to_have_url(re.compile("at="))
    page.keyboard.press("Home")
    expect(slider).to_have_value("0")
    expect(page.locator("#tab-panel")).not_to_contain_text("thumbs")
    expect(page.get_by_role("treegrid")).to_have_attribute("aria-rowcount", "2")  # the others had not started
    page.reload()
    page.get_by_role("button", name="Show it as it is now").click()
    expect(row).to_contain_text('"down"')


def test_metadata_a_verdict_and_a_note_show_their_receipt(page: Page) -> None:
    page.goto(f"/traces/{TRACE}?span={ROOT}")
    page.get_by_role("button", name="Set metadata").click()
    page.get_by_role("textbox", name="Key", exact=True).fill("reviewed/by <b>")
    page.locator("[name=value]").fill("true")
    page.keyboard.press("Enter")
    receipt = page.locator(".receipt")
    expect(receipt).to_contain_text(re.compile(r"Stored: metadata reviewed/by <b>, at \d\d:\d\d:\d\d, as http:\w+\."))
    row = page.locator(".values tr", has_text="reviewed/by <b>")
    expect(row).to_contain_text("true")
    expect(row).to_contain_text("○ late")

    page.get_by_role("treegrid").focus()
    page.keyboard.press("s")
    page.get_by_label("Name", exact=True).fill("Correct/ness")
    page.get_by_label("Score").fill("lots")
    page.keyboard.press("Enter")
    expect(page.locator("input:invalid")).to_have_count(1)
    page.get_by_label("Score").fill("0.5")
    page.get_by_label("Label").fill("so so")
    page.get_by_role("button", name="Store").click()
    expect(receipt).to_contain_text("Stored: evaluation Correct/ness")
    page.get_by_role("tab", name="Evaluations 1").click()
    expect(page.locator("#tab-panel")).to_contain_text("so so")
    expect(page.locator("#tab-panel")).to_contain_text("by human")

    page.get_by_role("treegrid").focus()
    page.keyboard.press("a")
    page.keyboard.type("quality")
    page.get_by_label("Text").fill(SCRIPT)
    page.get_by_role("button", name="Store").click()
    expect(page.locator("#tab-panel")).to_contain_text(SCRIPT)


def test_a_verdict_without_a_span_is_about_the_first(page: Page) -> None:
    page.goto(f"/traces/{TRACE}")
    expect(tree_rows(page)).to_have_count(9)
    page.keyboard.press("s")
    expect(page.get_by_label("Name", exact=True)).to_be_focused()
    page.keyboard.type("Correctness")
    page.get_by_label("Label").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator(".receipt")).to_contain_text("Stored: evaluation Correctness")
    expect(page.get_by_role("heading", level=2)).to_have_text("POST /answer")
    page.get_by_role("button", name="Close the span").click()
    page.get_by_role("button", name="Show the first").click()
    expect(page.locator(".edit form")).to_have_count(0)
    page.keyboard.press("s")
    expect(page.locator(".edit form")).to_have_count(1)


def test_what_was_written_stays_if_it_is_refused(page: Page, problems: list[str]) -> None:
    page.goto(f"/traces/{TRACE}?span={ROOT}")
    page.get_by_role("button", name="Add a note").click()
    page.get_by_label("Name", exact=True).fill("quality")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("expected")
    expect(page.get_by_label("Name", exact=True)).to_have_value("quality")
    assert all("400" in line for line in problems)
    problems.clear()


def test_a_server_that_wants_a_token_asks_for_it(
    page: Page, store: SqliteStore, tmp_path: Path, problems: list[str]
) -> None:
    tokens = Tokens(str(tmp_path / "tokens.json"))
    token = tokens.create("ada", ["read", "traces:update"], None, time.time_ns())
    server = LocalServer(store, access=Access(tokens, needs_token=True)).start()
    try:
        page.goto(server.url)
        expect(page.get_by_role("button", name="Pause live updates")).to_contain_text("Not live")
        page.get_by_label("Token").fill("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_be_visible()
        expect(page.get_by_text("The server does not answer.")).to_have_count(0)
        assert problems
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Sign in").click()
        expect(rows(page)).to_have_count(24)
        expect(page.get_by_role("button", name="Pause live updates")).to_contain_text("Live")
    finally:
        page.close()
        server.stop()
    problems.clear()


def test_a_token_that_may_not_read_is_told_so_and_can_be_changed(
    page: Page, store: SqliteStore, tmp_path: Path, problems: list[str]
) -> None:
    tokens = Tokens(str(tmp_path / "tokens.json"))
    writer = tokens.create("ci", ["traces:write"], None, time.time_ns())
    reader = tokens.create("ada", ["read"], None, time.time_ns())
    server = LocalServer(store, access=Access(tokens, needs_token=True)).start()
    try:
        page.goto(server.url)
        page.get_by_label("Token").fill(writer)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="This token may not read")).to_be_visible()
        expect(page.get_by_text("The token 'ci' has the scope traces:write")).to_be_visible()
        expect(page.get_by_role("button", name="Pause live updates")).to_contain_text("Not live")
        expect(page.get_by_text("The server does not answer.")).to_have_count(0)
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        page.get_by_label("Token").fill(writer)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="This token may not read")).to_be_visible()
        page.get_by_label("Token").fill(reader)
        page.get_by_role("button", name="Sign in").click()
        expect(rows(page)).to_have_count(24)
        expect(page.get_by_role("button", name="Pause live updates")).to_contain_text("Live")
    finally:
        page.close()
        server.stop()
    problems.clear()


def test_tabs_show_contents_verdicts_events_and_json(page: Page) -> None:
    page.goto(f"/traces/{trace_id(4):032x}?span={span_id(4, 6):016x}&tab=io")
    expect(page.locator("#tab-panel pre").last).to_have_text("Let me look that up.")
    page.get_by_role("tab", name="Input and output").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tab-panel")).to_contain_text("Nobody has judged or annotated this span yet.")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tab-panel")).to_contain_text("gen_ai.choice")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tab-panel pre")).to_contain_text('"span_kind": "LLM"')
    assert "tab=raw" in page.url
    page.locator(f"#span-{span_id(4, 1):016x}").click()
    page.get_by_role("tab", name="Evaluations 1").click()
    expect(page.locator("#tab-panel")).to_contain_text("The answer names the order and its state.")


def test_a_value_in_the_shape_of_a_script_stays_text(page: Page) -> None:
    page.goto("/?rows=spans")
    expect(page.get_by_role("button", name="note <script>")).to_be_visible()
    page.goto(f"/traces/{trace_id(1):032x}?span={span_id(1, 6):016x}")
    expect(page.locator(".values tr", has_text="note")).to_contain_text("document.title")
    assert SCRIPT.replace('"', '\\"') in page.locator(".values tr", has_text="note").inner_text()
    expect(page).to_have_title(re.compile("^Trace "))


def test_a_trace_that_is_not_there_says_so(page: Page, problems: list[str]) -> None:
    page.goto(f"/traces/{1:032x}")
    expect(page.get_by_role("alert")).to_contain_text(f"{1:032x}")
    page.get_by_role("link", name="Show all traces").click()
    expect(rows(page)).to_have_count(24)
    assert all("404" in line for line in problems)
    problems.clear()


def test_a_large_trace_has_only_the_rows_in_view(page: Page, store: SqliteStore) -> None:
    large = application.large(store, time.time_ns(), 10_000)
    page.goto(f"/traces/{large}")
    expect(page.get_by_text("10,000 spans")).to_be_visible()
    grid = page.get_by_role("treegrid")
    expect(grid).to_have_attribute("aria-rowcount", "10001")
    assert tree_rows(page).count() < 60
    grid.focus()
    page.keyboard.press("End")
    expect(page.get_by_role("row", selected=True)).to_be_visible()
    assert page.get_by_role("row", selected=True).get_attribute("aria-rowindex") == "10001"
    page.keyboard.press("Home")
    page.keyboard.press("h")
    expect(tree_rows(page)).to_have_count(1)
    page.get_by_role("button", name="Next error").click()
    expect(page.get_by_role("row", selected=True)).to_be_visible()


def test_the_minimap_shows_the_part_in_view_and_goes_to_another(page: Page, store: SqliteStore) -> None:
    page.goto(f"/traces/{application.large(store, time.time_ns(), 2_000)}")
    view = page.locator(".minimap-view")
    expect(view).to_have_css("top", "0px")
    box = page.locator(".minimap").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 50, box["y"] + box["height"] - 4)
    expect(page.locator("[aria-rowindex='1864']")).to_be_visible()
    colours = page.evaluate(
        """() => { const canvas = document.querySelector('.minimap canvas'); const all = new Set();
        const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        for (let at = 0; at < data.length; at += 4) if (data[at + 3] === 255) all.add(data.slice(at, at + 3).join());
        return [...all] }"""
    )
    assert {"91,123,213", "179,32,27"} <= set(colours)  # spans, and errors


# Compare


def test_two_spans_are_compared_from_the_list(page: Page) -> None:
    """The first is in the address, so a filter may be changed before the second is chosen."""
    page.goto("/?rows=spans")
    page.get_by_role("combobox", name="Filter").fill("name LIKE 'chat%' AND metadata.temperature = 0.2")
    page.keyboard.press("Enter")
    expect(rows(page)).to_have_count(48)
    page.get_by_role("button", name="Compare chat gpt-5").first.click()
    expect(page.get_by_text("Compare the span")).to_be_visible()
    expect(page).to_have_url(re.compile(r"compare=[0-9a-f]{32}-[0-9a-f]{16}"))
    page.get_by_role("combobox", name="Filter").fill("name = 'chat claude-4'")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Compare chat gpt-5")).to_have_count(0)
    page.get_by_role("button", name="Compare chat claude-4").nth(1).click()
    expect(page).to_have_url(re.compile(r"/compare\?a=.*&b="))
    expect(page.get_by_role("heading", level=1)).to_have_text("Two spans")
    name = page.locator(".differences tbody tr", has_text="name").first
    expect(name.locator("mark").first).to_have_text("gpt-5")
    expect(page.locator(".differences tr", has_text="temperature")).to_have_count(0)
    page.get_by_label("Also what is the same").check()
    expect(page.locator(".differences tr", has_text="temperature")).to_have_count(1)
    page.reload()
    expect(page.locator(".differences tr", has_text="temperature")).to_have_count(1)
    page.get_by_role("button", name="Swap A and B").click()
    expect(name.locator("mark").first).to_have_text("claude-4")


def test_two_spans_are_compared_from_a_trace(page: Page, store: SqliteStore) -> None:
    """And what changes while one looks is there at once."""
    page.goto(f"/traces/{TRACE}?span={span_id(7, 6):016x}")
    page.get_by_role("button", name="Compare", exact=True).click()
    page.locator(f"#span-{span_id(7, 8):016x}").click()
    page.get_by_role("button", name="Compare with the chosen one").click()
    duration = page.locator(".differences tr", has_text="duration")
    expect(duration).to_contain_text("1.24 s")
    expect(duration).to_contain_text("610 ms")
    expect(duration).to_contain_text("\N{MINUS SIGN}630 ms, \N{MINUS SIGN}51 %")
    expect(page.locator(".differences tr", has_text="gen_ai.choice")).to_contain_text("not set")
    late(store, "review", "pending", number=8)
    expect(page.locator(".differences tr", has_text="review")).to_contain_text("pending")
    page.get_by_role("link", name="chat gpt-5").first.click()
    expect(page.get_by_role("heading", level=2)).to_have_text("chat gpt-5")


def test_two_traces_are_compared(page: Page) -> None:
    page.goto(f"/traces/{TRACE}")
    page.get_by_role("button", name="Compare the trace").click()
    expect(page.get_by_role("combobox", name="Filter")).to_have_value("name = 'POST /answer'")
    page.get_by_role("button", name="Compare POST /answer").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Two traces")
    expect(page.locator(".differences tr", has_text="errors")).to_contain_text("\N{MINUS SIGN}3")
    expect(page.locator(".differences tr", has_text="chat gpt-5: time")).to_have_count(0)
    page.goto(f"/compare?a={TRACE}&b={trace_id(6):032x}")
    expect(page.get_by_role("row", name=re.compile("^user u-7"))).to_have_count(1)
    expect(page.get_by_role("row", name=re.compile("^plan "))).to_have_count(1)
    page.goto("/compare?a=x")
    expect(page.get_by_text("Choose two traces, or two spans")).to_be_visible()


# Overview


def test_the_overview_adds_many_traces_up(page: Page) -> None:
    page.goto("/overview")
    tiles = page.locator(".tiles")
    expect(tiles.locator("div", has_text="traces").locator("dd")).to_have_text("24")
    expect(tiles.locator("div", has_text="with an error").locator("dd")).to_have_text("6 (25 %)")
    expect(tiles.locator("div", has_text="tokens in").locator("dd")).to_have_text("19.5 k")
    expect(page.locator(".stack", has_text="Correctness")).to_contain_text("incorrect 6 50 %")
    page.get_by_role("button", name="Numbers of Latency").click()
    expect(page.get_by_role("region", name="Numbers of Latency").locator("tbody tr").first).to_be_visible()
    expect(page).to_have_url(re.compile("numbers=latency"))
    page.reload()
    expect(page.get_by_role("region", name="Numbers of Latency").locator("tbody tr").first).to_be_visible()


def test_usage_is_summed_by_any_key_and_leads_to_its_traces(page: Page) -> None:
    page.goto("/overview")
    page.get_by_role("combobox", name="by").select_option("metadata.plan")
    expect(page).to_have_url(re.compile(r"by=metadata\.plan"))
    expect(page.locator(".amounts li")).to_have_count(3)
    expect(page.locator(".amounts li", has_text="enterprise")).to_contain_text("0.02 6.5 k in, 1.31 k out")
    page.get_by_role("link", name="enterprise").click()
    expect(rows(page)).to_have_count(8)
    expect(page.get_by_role("combobox", name="Filter")).to_have_value("metadata.\"plan\" = 'enterprise'")
    page.go_back()
    page.get_by_role("link", name="incorrect 6").click()
    expect(rows(page)).to_have_count(6)


def test_the_overview_takes_a_filter_and_shows_what_comes_late(
    page: Page, store: SqliteStore, problems: list[str]
) -> None:
    page.goto("/overview?rows=spans&filter=name+LIKE+'chat%25'")
    tiles = page.locator(".tiles")
    expect(tiles.locator("div", has_text="spans").locator("dd")).to_have_text("48")
    page.get_by_role("combobox", name="Filter").fill("name ==")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Nothing is searched until the filter is right.")).to_be_visible()
    page.get_by_role("combobox", name="Filter").fill("status_code = 'ERROR'")
    page.keyboard.press("Enter")
    expect(tiles.locator("div", has_text="spans").locator("dd")).to_have_text("18")
    page.goto("/overview")
    expect(page.locator(".stack", has_text="Tone")).to_have_count(0)
    verdict = {("span", "evaluation", "Tone"): ({"source": "llm", "label": "curt"}, (time.time_ns(), application.ADA))}
    store.patch_rows([(TRACE, ROOT, verdict)])
    expect(page.locator(".stack", has_text="Tone")).to_contain_text("curt 1 100 %")
    assert all("400" in line for line in problems)
    problems.clear()


def test_a_store_of_more_than_a_moment_is_added_up_part_by_part(page: Page) -> None:
    """Each part has a few rows here; one can stop, and the page says how far the numbers go."""
    page.add_init_script(
        "const real = fetch; fetch = (to, ...more) => real(String(to).replace('limit=300', 'limit=1'), ...more)"
    )
    page.goto("/overview")
    expect(page.get_by_text(re.compile("The numbers are about the newest 20 traces, back to"))).to_be_visible()
    page.get_by_role("button", name="Read further back").click()
    expect(page.locator(".tiles div", has_text="traces").locator("dd")).to_have_text("24")
    expect(page.get_by_text("The numbers are about")).to_have_count(0)


# States


def test_an_empty_store_says_what_to_do(page: Page, store: SqliteStore) -> None:
    for number in range(1, 25):
        store.delete(
            [(f"{trace_id(number):032x}", f"{span_id(number, one):016x}") for one in range(1, 10)], (1 << 62, 1)
        )
    page.goto("/")
    expect(page.get_by_text("Nothing is stored yet.")).to_be_visible()
    expect(page.get_by_label("the lines for OpenTelemetry", exact=True)).to_contain_text(
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1"
    )


def test_a_window_without_spans_offers_a_wider_one(page: Page, store: SqliteStore) -> None:
    page.goto("/?window=1h")
    expect(page.get_by_text("No traces started in this time.")).to_be_visible()
    page.get_by_role("button", name="Widen to 30 days").click()
    expect(rows(page)).to_have_count(24)
    assert "window=30d" in page.url


# Changes and Connect


def test_what_came_late_is_told_with_who_when_and_what_it_replaced(page: Page, store: SqliteStore) -> None:
    page.goto("/")
    page.get_by_role("link", name="Came late").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("What came late")
    expect(rows(page)).to_have_count(
        8 * 2 + 12 * 2
    )  # thumbs twice on every third trace, verdict and cost on every other
    row = page.locator(".rows tbody tr", has_text='"down"').first
    expect(row).to_contain_text("metadata.thumbs")
    expect(row).to_contain_text("page:ada")
    expect(row).to_contain_text('was "up" ○ late, by shop')
    expect(row).to_contain_text("○ late +2 h 14 min")
    times = page.locator(".rows time").evaluate_all("all => all.map(one => one.dateTime)")
    assert times == sorted(times, reverse=True)

    page.get_by_role("combobox", name="Filter").focus()
    late(store, "reviewed", "yes", trace=5)
    expect(rows(page)).to_have_count(41)
    expect(rows(page).first).to_contain_text("metadata.reviewed")
    assert page.evaluate("document.activeElement.id") == "filter"

    page.locator(".rows button", has_text="metadata.thumbs").first.click()
    expect(rows(page)).to_have_count(16)
    page.locator(".rows button", has_text="page:ada").first.click()
    expect(rows(page)).to_have_count(16)
    expect(page.get_by_role("combobox", name="Filter")).to_have_value("author.metadata.thumbs = 'page:ada'")
    page.reload()
    expect(rows(page)).to_have_count(16)
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=2)).to_have_text("POST /answer")
    expect(page.locator(".values tr", has_text="thumbs")).to_be_visible()


def test_no_late_value_says_so_and_a_wrong_filter_too(page: Page, problems: list[str]) -> None:
    page.goto("/changes?window=1h")
    expect(page.get_by_text("No value came late on the spans of this time.")).to_be_visible()
    page.get_by_role("button", name="Look at the spans of all time").click()
    expect(rows(page)).to_have_count(40)
    page.get_by_role("combobox", name="Filter").fill("name =")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Nothing is searched until the filter is right.")).to_be_visible()
    assert all("400" in line for line in problems)
    problems.clear()


def test_the_lines_to_connect_can_be_copied(page: Page, url: str) -> None:
    page.goto("/")
    page.get_by_role("link", name="Connect").click()
    page.get_by_role("button", name="Langfuse").click()
    page.get_by_role("button", name="Copy the lines for Langfuse").click()
    expect(page.locator(".copy")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.splitlines() == [f"export {line}" for line in settings_of("langfuse", url, "")]
    expect(page.get_by_text(f"otel-metadata serve --env langfuse --port {url.rpartition(':')[2]}")).to_be_visible()
    page.get_by_role("button", name="Arize").click()
    expect(page.get_by_text("does not listen for it")).to_be_visible()


def test_data_stays_when_the_server_goes_away_and_is_live_again_after(
    page: Page, store: SqliteStore, tmp_path: Path, problems: list[str]
) -> None:
    first = LocalServer(store).start()
    page.goto(first.url)
    expect(rows(page)).to_have_count(24)
    first.stop()
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer.")
    expect(rows(page)).to_have_count(24)
    application.large(store, time.time_ns(), 3)
    second = LocalServer(store, port=first.port).start()
    try:
        expect(rows(page)).to_have_count(25)
        expect(page.get_by_role("alert")).to_have_count(0)
    finally:
        page.close()
        second.stop()
    problems.clear()


def test_keys_are_off_while_typing_and_can_be_switched_off(page: Page) -> None:
    page.goto("/")
    expect(rows(page)).to_have_count(24)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.get_by_label("Use keys of one character").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.theme ?? ''") == ""
    page.reload()
    expect(rows(page)).to_have_count(24)
    page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.theme ?? ''") == ""
    page.get_by_role("button", name="Theme: System").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    "path",
    ["/", "/?rows=spans", f"/traces/{TRACE}?span={ROOT}", "/changes", "/connect", "/overview?numbers=usage", COMPARED],
)
def test_nothing_stands_in_the_way_of_anybody(page: Page, theme: Any, width: int, path: str) -> None:
    """Axe-core's rules of WCAG 2.2 AA; and no part is wider than the window."""
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(path)
    expect(page.locator(".rows tbody tr, .values tbody tr, .amounts li, .connect").first).to_be_visible()
    page.evaluate(AXE.read_text())
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = page.evaluate("tags => axe.run({runOnly: tags})", tags)
    assert [(one["id"], [node["html"][:150] for node in one["nodes"][:3]]) for one in found["violations"]] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_first_visit_is_light(page: Page) -> None:
    """What comes over the wire for the page itself."""
    sizes: dict[str, int] = {}

    def note(response: Any) -> None:
        if "/api/" not in response.url:
            sizes[response.url] = int(response.headers["content-length"])

    page.on("response", note)
    page.goto("/")
    expect(rows(page)).to_have_count(24)
    assert len(sizes) > 10
    assert sum(sizes.values()) <= 60_000, sizes
    sizes.clear()
    page.reload()
    expect(rows(page)).to_have_count(24)


def test_a_locked_store_is_one_sentence_and_loses_nothing(
    page: Page, tmp_path: Path, filled: SqliteStore, problems: list[str]
) -> None:
    """Another process writes and does not end."""
    impatient = SqliteStore(tmp_path / "page.db", busy_timeout_millis=0)
    server = LocalServer(impatient).start()
    other = sqlite3.connect(tmp_path / "page.db", isolation_level=None)
    try:
        page.goto(f"{server.url}/traces/{TRACE}?span={ROOT}")
        page.get_by_role("button", name="Set metadata").click()
        page.get_by_role("textbox", name="Key", exact=True).fill("reviewed")
        page.locator("[name=value]").fill("true")
        other.execute("BEGIN IMMEDIATE")
        page.keyboard.press("Enter")
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("locked")
        assert alert.inner_text().count(". ") <= 1
        expect(page.locator("[name=value]")).to_have_value("true")
        other.execute("ROLLBACK")
        page.get_by_role("button", name="Store", exact=True).click()
        expect(page.locator(".receipt")).to_contain_text("Stored: metadata reviewed")
    finally:
        other.close()
        page.close()
        server.stop()
        impatient.close()
    problems.clear()


def test_a_store_of_a_newer_version_is_one_sentence(page: Page, tmp_path: Path, problems: list[str]) -> None:
    """A newer release has upgraded the file that this server had not opened yet."""
    with contextlib.closing(sqlite3.connect(tmp_path / "page.db")) as other:
        other.execute("PRAGMA user_version = 99")
    later = SqliteStore(tmp_path / "page.db")
    server = LocalServer(later).start()
    try:
        page.goto(server.url)
        expect(page.get_by_role("alert")).to_contain_text("99")
        assert len(page.get_by_role("alert").inner_text()) < 400
    finally:
        page.close()
        server.stop()
        later.close()
    problems.clear()


def test_a_failed_answer_of_the_store_is_one_sentence(page: Page, problems: list[str]) -> None:
    def refuse(route: Route) -> None:
        route.fulfill(
            status=503, content_type="application/problem+json", body='{"title": "The store is locked.", "status": 503}'
        )

    page.route("**/api/v1/traces?*", refuse)
    page.goto("/")
    expect(page.get_by_role("alert")).to_have_text("The store is locked.")
    assert all("503" in line for line in problems)
    problems.clear()
