"""The page of ``tesserl report`` in a real browser, on light and dark screens."""

import subprocess
import sys

import pytest
from playwright.sync_api import Browser

RUN = """
total_steps: 64
environment: {id: CartPole-v1, num_envs: 2}
nn: {vector: {kind: mlp, hidden_sizes: [8]}}
algorithm: ppo
ppo: {num_steps: 16, num_minibatches: 2}
evaluation: {interval: 32, episodes: 1, final_episodes: 2, max_episode_steps: 12}
logging: {interval: 32, tensorboard: false}
"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """The report of a run with a film."""
    place = tmp_path_factory.mktemp("report")
    (place / "run.yaml").write_text(RUN)
    for command in (
        ["train", "run.yaml", "--run-dir", "run"],
        ["eval", "run", "--episodes", "1", "--video"],
        ["report", "run"],
    ):
        words = [sys.executable, "-m", "tesserl_trainer.cli", *command]
        subprocess.run(words, cwd=place, check=True, stdout=subprocess.DEVNULL)
    return place / "run/report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_shows_curves_and_a_film_and_loads_nothing(browser: Browser, page_file, scheme):
    complaints: list[str] = []
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith("data:") else complaints.append(request.url[:80]))
    page.goto(page_file.as_uri())
    assert page.title() == "run on CartPole-v1"
    assert page.inner_text(".big").startswith("Return ")
    image = page.locator("img")
    assert image.evaluate("image => image.complete && image.naturalWidth") > 500
    sources = page.locator("source").get_attribute("srcset"), image.get_attribute("src")
    assert image.evaluate("image => image.currentSrc") == sources[scheme == "light"]
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    if page.evaluate("document.createElement('video').canPlayType('video/mp4; codecs=\"avc1.42E01E\"')"):
        page.wait_for_function("document.querySelector('video').duration > 0")
    context.close()
    assert complaints == [page_file.as_uri()[:80]]
