"""The labelling page as a person meets it: real episodes, the real command, a real browser without a window."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tesserl_preference_data import load_pairs
from tesserl_preference_data.labelling.server import LabelServer
from tesserl_preference_data.labelling.session import LabellingSession
from tesserl_trainer.pairs.making import make_store

CONFIG = """
total_steps: 1024
environment: {id: CartPole-v1}
nn: {vector: {kind: mlp, hidden_sizes: [8]}}
algorithm: ppo
"""
NUM_PAIRS = 10
READY = "body[data-pair]:not([data-pair=''])"


@pytest.fixture(scope="session")
def trajectories(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("episodes")
    (root / "cartpole.yaml").write_text(CONFIG)
    tesserl("collect", root / "cartpole.yaml", "--random", "--frames", "--episodes", 6, "--out", root / "episodes")
    return root / "episodes"


@pytest.fixture
def pairs(trajectories, tmp_path) -> Path:
    make_store([trajectories], out=tmp_path / "pairs", num=NUM_PAIRS, labelled=False)
    return tmp_path / "pairs"


def command(*arguments) -> list[str]:
    return [sys.executable, "-m", "tesserl_trainer.cli", *map(str, arguments)]


def tesserl(*arguments) -> None:
    subprocess.run(command(*arguments), check=True, stdout=subprocess.DEVNULL)


@contextmanager
def labelling(pairs: Path) -> Iterator[tuple[str, LabellingSession]]:
    """The address of the page, and what it writes to."""
    session = LabellingSession(pairs)
    with LabelServer(session) as server:
        yield server.url, session


@contextmanager
def running_command(pairs: Path) -> Iterator[tuple[str, dict]]:
    """The same of the command in a process of its own; and, afterwards, what it printed."""
    result: dict = {}
    with subprocess.Popen(
        command("pairs", "label", pairs, "--no-open"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            address = re.search(r"http://\S+", process.stderr.readline())
            assert address is not None
            yield address.group(), result
        finally:
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    result.update(json.loads(out))


@contextmanager
def opened(browser: Browser, address: str, **options) -> Iterator[Page]:
    """The page; whatever it complains of is an error."""
    complaints: list[str] = []
    context = browser.new_context(**options)
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(address) else complaints.append(request.url))
    page.goto(address)
    page.wait_for_selector(READY)
    yield page
    context.close()
    assert complaints == []


def picture(page: Page, side: str) -> str:
    return page.eval_on_selector(f"#{side} canvas", "canvas => canvas.toDataURL()")


def judge(page: Page, key: str) -> None:
    """Presses a key, and waits for the next pair, or the end."""
    pair = page.get_attribute("body", "data-pair")
    page.keyboard.press(key)
    page.wait_for_function(
        "pair => document.body.dataset.pair !== pair && (document.body.dataset.pair || !byId('done').hidden)", arg=pair
    )


def test_ten_pairs_are_labelled_although_it_is_closed_in_the_middle(browser, pairs):
    with running_command(pairs) as (address, result), opened(browser, address) as page:
        for number, key in enumerate(["ArrowLeft", "ArrowRight", "t", "s"]):
            expect(page.locator("#count")).to_have_text(f"{number} of 10 judged")
            judge(page, key)
        expect(page.locator("#said")).to_have_text("Saved: skipped.")
    assert (result["judged"], result["counts"]) == (4, {"left": 1, "right": 1, "tie": 1, "skip": 1})
    with running_command(pairs) as (address, result), opened(browser, address) as page:
        expect(page.locator("#count")).to_have_text("4 of 10 judged")
        for _ in range(6):
            judge(page, "ArrowRight")
        expect(page.locator("#done")).to_be_visible()
        expect(page.locator("#task")).to_be_hidden()
    assert (result["judged"], result["counts"]) == (10, {"left": 1, "right": 7, "tie": 1, "skip": 1})
    lines = [json.loads(line) for line in (pairs / "labels.jsonl").read_text().splitlines()]
    assert [line["pair"] for line in lines] == list(range(10))
    assert len(load_pairs(pairs)) == 9


def test_an_answer_is_taken_back_and_given_anew(browser, pairs):
    with labelling(pairs) as (address, session), opened(browser, address) as page:
        expect(page.locator("#undo")).to_be_disabled()
        judge(page, "ArrowLeft")
        assert page.get_attribute("body", "data-pair") == "1"
        judge(page, "u")
        assert page.get_attribute("body", "data-pair") == "0"
        expect(page.locator("#count")).to_have_text("0 of 10 judged")
        judge(page, "ArrowRight")
    assert session.state()["counts"] == {"left": 0, "right": 1, "tie": 0, "skip": 0}


def test_the_buttons_do_what_the_keys_do(browser, pairs):
    with labelling(pairs) as (address, session), opened(browser, address) as page:
        for number, name in enumerate(["Left is better", "Right is better", "Equally good", "Cannot say, skip"]):
            page.get_by_role("button", name=name).click()
            expect(page.locator("body")).to_have_attribute("data-pair", str(number + 1))
        page.get_by_role("button", name="Undo last answer").click()
        expect(page.locator("#count")).to_have_text("3 of 10 judged")
    assert session.state()["counts"] == {"left": 1, "right": 1, "tie": 1, "skip": 0}


def test_clips_play_pause_and_are_moved_by_hand(browser, pairs):
    with labelling(pairs) as (address, _), opened(browser, address) as page:
        before = picture(page, "left")
        page.wait_for_function("before => document.querySelector('#left canvas').toDataURL() !== before", arg=before)
        page.keyboard.press(" ")
        expect(page.locator("#play")).to_have_text("Play space")
        position = page.locator("#position")
        position.fill("0")
        expect(page.locator("#step")).to_have_text(re.compile("^step 1 of "))
        first = picture(page, "left")
        position.fill("7")
        assert picture(page, "left") != first
        position.fill("0")
        assert picture(page, "left") == first
        page.locator("#speed").select_option("4")
        page.get_by_role("button", name="Play").click()
        expect(page.locator("#step")).not_to_have_text(re.compile("^step 1 of "))


def test_clips_stand_still_for_who_wants_less_motion(browser, pairs):
    with labelling(pairs) as (address, _), opened(browser, address, reduced_motion="reduce") as page:
        expect(page.locator("#play")).to_have_text("Play space")
        expect(page.locator("#step")).to_have_text(re.compile("^step 1 of "))


def test_everything_is_reached_by_the_keyboard_and_has_a_name(browser, pairs):
    with labelling(pairs) as (address, _), opened(browser, address) as page:
        names = []
        for _ in range(8):
            page.keyboard.press("Tab")
            names.append(
                page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText")
            )
        assert [name.split("\n")[0].strip() for name in names[:3]] == [
            "Left is better ←",
            "Right is better →",
            "Pause space",
        ]
        assert "Step" in names
        for canvas in page.locator("canvas").all():
            assert canvas.get_attribute("aria-label")
        assert page.evaluate("document.documentElement.lang") == "en"


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_runs_over_the_edge(browser, pairs, width):
    with (
        labelling(pairs) as (address, _),
        opened(browser, address, viewport={"width": width, "height": 800}) as page,
    ):
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_program_that_was_ended_is_named_on_the_page(browser, pairs):
    context = browser.new_context()
    page = context.new_page()
    with labelling(pairs) as (address, _):
        page.goto(address)
        page.wait_for_selector(READY)
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#error")).to_contain_text("The program does not answer. Every answer so far is saved")
    context.close()
    assert not (pairs / "labels.jsonl").exists()
