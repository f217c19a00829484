"""The page in a real browser, against a running server."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Page, expect, sync_playwright

from raypo.serving.answers import Service
from raypo.serving.app import make_app
from tests.evaluation.browser import CHROMIUM

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here"),
]

# Where to keep pictures of the page, to be looked at.
PICTURES = os.environ.get("RAYPO_PICTURES")


@pytest.fixture(scope="module")
def url(service: Service) -> Iterator[str]:
    yield from _running(make_app(service))


def _running(app: FastAPI) -> Iterator[str]:
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1100, "height": 760})
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    page.goto(url)
    expect(page.locator("#first option")).to_have_count(3)
    yield page
    context.close()
    assert not problems


def names(page: Page) -> list[str]:
    return page.locator("#history .name").all_inner_texts()


def add(page: Page, title: str) -> None:
    before = len(names(page))
    page.locator("#title").fill(title)
    expect(page.locator("#found li").first).to_be_visible()
    page.locator("#title").press("ArrowDown")
    page.locator("#title").press("Enter")
    expect(page.locator("#history li")).to_have_count(before + 1)


def ranking(page: Page) -> list[str]:
    expect(page.locator("#status")).to_contain_text(" ms")
    return page.locator("#results tbody button").all_inner_texts()


def picture(page: Page, name: str) -> None:
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)


def test_titles_complete_themselves_and_recommendations_follow_the_history(page: Page) -> None:
    for title in ("film a0", "film b1", "film c2"):
        add(page, title)
    assert names(page) == ["Film A0", "Film B1", "Film C2"]
    first = ranking(page)
    assert len(first) == 10 and not set(first) & set(names(page))
    page.get_by_label("Film A0: later").click()
    expect(page.locator("#history .name").first).to_have_text("Film B1")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Film A0: later"
    page.get_by_label("Film C2: remove").click()
    expect(page.locator("#history li")).to_have_count(2)
    page.locator("#history li").first.drag_to(page.locator("#history li").last)
    expect(page.locator("#history .name").first).to_have_text("Film A0")
    ranking(page)
    picture(page, "history")


def test_pasted_titles_are_added_and_unknown_ones_named(page: Page) -> None:
    page.locator("#title").fill("Film A0\nNo such film\nFilm D3")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#history li")).to_have_count(2)
    assert names(page) == ["Film A0", "Film D3"]
    assert page.locator("#title").input_value() == "No such film"


def test_two_models_stand_side_by_side_with_what_changed(page: Page) -> None:
    add(page, "film a0")
    add(page, "film b1")
    page.locator("#second").select_option("recommender")
    expect(page.locator("#results table")).to_have_count(2)
    captions = page.locator("#results caption").all_inner_texts()
    assert captions == ["sft", "recommender"]
    marks = page.locator("#results tbody tr td:first-child span").all_inner_texts()
    assert len(marks) == 20 and all(mark[0] in "▲▼=n" for mark in marks)
    picture(page, "two-models")


def test_a_random_user_comes_with_what_they_chose_and_an_item_with_its_reason(page: Page) -> None:
    page.get_by_role("button", name="A random test user").click()
    expect(page.locator("#next")).to_contain_text("Chose next: Film ")
    ranking(page)
    page.locator("#results tbody button").first.click()
    reason = re.compile("matters most; without it, #|no item of the history speaks")
    expect(page.locator("#status")).to_have_text(reason)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#results table")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(browser: Any, url: str, scheme: Any) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page = context.new_page()
    page.goto(url)
    add(page, "film a0")
    add(page, "film b1")
    ranking(page)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360
    picture(page, f"phone-{scheme}")
    context.close()


def test_a_token_is_asked_for_and_kept(browser: Any, service: Service) -> None:
    running = _running(make_app(replace(service, token="s3cret")))
    page = browser.new_context().new_page()
    page.goto(next(running))
    expect(page.locator("#status")).to_contain_text("Authorization")
    expect(page.locator("#token")).to_be_visible()
    page.locator("#token").fill("s3cret")
    page.locator("#token").press("Enter")
    expect(page.locator("#first option")).to_have_count(3)
    page.reload()
    expect(page.locator("#first option")).to_have_count(3)
    page.context.close()
    next(running, None)
