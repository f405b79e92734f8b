"""The labelling page over HTTP: what is shown, what is written, and who is refused."""

import base64
import http.client
import io
import json
import re
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from tesserl_preference_data import StoreError, load_pairs, read_labels
from tesserl_preference_data.labelling import session as sessions
from tesserl_preference_data.labelling.server import LabelServer
from tesserl_preference_data.labelling.session import LabellingSession

from .full_disk import files_of_at_most
from .stores import write_pairs

pytestmark = pytest.mark.kernel_free


def request(server, path, body=None, *, method=None, host=None, token=None, **headers):
    """Status and parsed answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
        content = None if body is None else json.dumps(body)
        if body is not None:
            headers = {"Content_Type": "application/json", **headers}
        url = f"/{server.token if token is None else token}/{path}"
        connection.putrequest(method or ("GET" if body is None else "POST"), url, skip_host=True)
        connection.putheader("Host", host or f"127.0.0.1:{server.port}")
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        if content is not None:
            connection.putheader("Content-Length", str(len(content)))
        connection.endheaders(None if content is None else content.encode())
        response = connection.getresponse()
        text = response.read()
        is_json = response.headers.get_content_type() == "application/json"
        return response, json.loads(text) if is_json else text.decode()


def shades(clip) -> list[int]:
    """The shade of each picture of a clip."""
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(each))).convert("RGB")) for each in clip["frames"]]
    return [int(each.mean()) for each in pictures]


def lines(store) -> list[dict]:
    return [json.loads(line) for line in (store / "labels.jsonl").read_text().splitlines()]


@pytest.fixture
def store(tmp_path):
    return write_pairs(tmp_path / "pairs")


@pytest.fixture
def server(store):
    with LabelServer(LabellingSession(store)) as serving:
        yield serving


def judge(server, number, answers):
    """Answers ``number`` pairs in turn, as the page does."""
    for _ in range(number):
        _, state = request(server, "api/state")
        response, _ = request(server, "api/answer", {"pair": state["next"], "answer": answers[state["next"]]})
        assert response.status == 200


def test_ten_pairs_are_labelled_although_it_is_closed_in_the_middle(store):
    answers = ["left", "right", "tie", "left", "skip", "right", "right", "left", "tie", "left"]
    with LabelServer(LabellingSession(store)) as server:
        judge(server, 4, answers)
        assert len(lines(store)) == 4
    with LabelServer(LabellingSession(store, name="Ada")) as server:
        _, state = request(server, "api/state")
        assert (state["judged"], state["total"], state["next"]) == (4, 10, 4)
        judge(server, 6, answers)
        _, state = request(server, "api/state")
        assert (state["judged"], state["next"]) == (10, None)
        assert state["counts"] == {"left": 4, "right": 3, "tie": 2, "skip": 1}
    assert [line["pair"] for line in lines(store)] == list(range(10))
    assert [line["source"] for line in lines(store)] == ["person"] * 4 + ["Ada"] * 6
    assert len(load_pairs(store)) == 9  # one was skipped


def test_the_side_that_was_better_becomes_the_chosen_one(store, server):
    """By the pictures: the shade of a step is ten times the number of its trajectory, which the observation holds."""
    for number in range(10):
        _, shown = request(server, f"api/pairs/{number}")
        better = ("left", "right")[number % 2]
        request(server, "api/answer", {"pair": number, "answer": better})
        pair = load_pairs(store, unlabelled=True)[number]
        for side, name in ((better, "chosen"), ({"left": "right", "right": "left"}[better], "rejected")):
            steps = pair[name][0][pair[name]["mask"][0]]
            expected = [int(10 * a + t) for a, t in steps["observation"].tolist()]
            assert shades(shown[side]) == expected
            assert shown[side]["length"] == len(expected)
        assert pair["label"].item() == 1.0


def test_both_orders_are_shown(store, server):
    """The segment that a store calls chosen is not always on the same side."""
    for number in range(10):
        request(server, "api/answer", {"pair": number, "answer": "left"})
    assert {line["choice"] for line in lines(store)} == {"first", "second"}


def test_a_pair_looks_the_same_when_it_is_opened_again(store):
    with LabelServer(LabellingSession(store)) as server:
        before = [request(server, f"api/pairs/{number}")[1] for number in range(10)]
        judge(server, 10, ["left", "right"] * 5)
    with LabelServer(LabellingSession(store)) as server:
        assert [request(server, f"api/pairs/{number}")[1] for number in range(10)] == before
        _, state = request(server, "api/state")
        assert state["counts"] == {"left": 5, "right": 5, "tie": 0, "skip": 0}


def test_an_answer_that_is_taken_back_is_no_label_and_is_asked_again(store):
    with LabelServer(LabellingSession(store)) as server:
        judge(server, 3, ["left"] * 3)
        for expected in (2, 1):
            _, state = request(server, "api/undo", {})
            assert (state["undone"], state["next"]) == (expected, expected)
        assert len(load_pairs(store)) == 1
    with LabelServer(LabellingSession(store)) as server:
        _, state = request(server, "api/state")
        assert (state["judged"], state["next"]) == (1, 1)
        judge(server, 9, ["right"] * 10)
    assert len(load_pairs(store)) == 10
    assert {choice for choice, _ in read_labels(store).values()} == {"first", "second"}


def test_nothing_is_taken_back_where_nothing_was_said(store, server):
    _, state = request(server, "api/undo", {})
    assert (state["undone"], state["judged"]) == (None, 0)
    assert not (store / "labels.jsonl").exists()


def test_long_clips_are_thinned(store, monkeypatch):
    monkeypatch.setattr(sessions, "MAX_FRAMES", 3)
    shown = LabellingSession(store).pair(0)
    for side in ("left", "right"):
        clip = shown[side]
        assert clip["every"] == -(-clip["length"] // 3)
        assert len(clip["frames"]) == -(-clip["length"] // clip["every"]) <= 3


def test_the_page_needs_nothing_from_elsewhere(server):
    for path in ("", "page.css", "page.js"):
        response, text = request(server, path)
        assert response.status == 200
        assert "http://" not in text
        assert "https://" not in text
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert response.headers["Referrer-Policy"] == "no-referrer"
    assert server.url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("token", ["", "wrong", "api", "..%2f.."])
def test_a_wrong_token_is_refused(store, server, token):
    for path, body in (("", None), ("api/state", None), ("api/answer", {"pair": 0, "answer": "tie"})):
        response, answer = request(server, path, body, token=token)
        assert response.status == 403
        assert server.token not in json.dumps(answer)
    assert not (store / "labels.jsonl").exists()


@pytest.mark.parametrize("host", ["example.org", "127.0.0.1", "example.org:{port}", "127.0.0.1.example.org:{port}"])
def test_another_host_is_refused(store, server, host):
    """A foreign name can be made to resolve to this machine (DNS rebinding)."""
    host = host.format(port=server.port)
    assert request(server, "api/state", host=host)[0].status == 403
    assert request(server, "api/answer", {"pair": 0, "answer": "tie"}, host=host)[0].status == 403
    assert not (store / "labels.jsonl").exists()


def test_answers_from_pages_of_other_origins_are_refused(store, server):
    answer = {"pair": 0, "answer": "tie"}
    assert request(server, "api/answer", answer, Origin="http://example.org")[0].status == 403
    assert request(server, "api/answer", answer, Content_Type="text/plain")[0].status == 400
    assert not (store / "labels.jsonl").exists()
    assert request(server, "api/answer", answer, Origin=server.url.rsplit("/", 2)[0])[0].status == 200


@pytest.mark.parametrize(
    "path",
    ["../server.py", "page/../../server.py", "%2e%2e/server.py", "..%2fserver.py", "/etc/passwd", "__init__.py", "api"],
)
def test_nothing_else_is_served(server, path):
    response, _ = request(server, path)
    assert response.status == 404


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("api/pairs/10", None, "a pair must be in [0, 10), got 10"),
        ("api/answer", {"pair": 10, "answer": "left"}, "a pair must be in [0, 10), got 10"),
        ("api/answer", {"pair": "0", "answer": "left"}, "a pair must be in [0, 10), got '0'"),
        ("api/answer", {"pair": True, "answer": "left"}, "a pair must be in [0, 10), got True"),
        ("api/answer", {"pair": 0, "answer": "first"}, "an answer must be one of left, right, tie, skip, got 'first'"),
        ("api/answer", {}, "a pair must be in [0, 10), got None"),
        ("api/answer", [], "a JSON object is needed"),
    ],
)
def test_a_wrong_request_is_explained_and_writes_nothing(store, server, path, body, message):
    response, answer = request(server, path, body)
    assert response.status == 400
    assert answer["error"] == message
    assert not (store / "labels.jsonl").exists()


def test_a_long_body_is_refused_unread(server):
    response, _ = request(server, "api/answer", {"pair": 0, "answer": "left", "more": "x" * 1000})
    assert response.status == 413


def test_other_methods_are_refused(server):
    assert request(server, "api/state", method="DELETE")[0].status == 501


def test_an_answer_on_a_full_disk_is_refused_on_the_page_and_can_be_given_again(store, server):
    judge(server, 1, ["left"])
    with files_of_at_most((store / "labels.jsonl").stat().st_size + 10):
        response, answer = request(server, "api/answer", {"pair": 1, "answer": "left"})
        assert response.status == 500
        assert re.search(r"File too large: .*labels.jsonl", answer["error"])
        assert request(server, "api/state")[1]["judged"] == 1
    assert request(server, "api/answer", {"pair": 1, "answer": "left"})[1]["judged"] == 2
    assert len(read_labels(store)) == 2


def test_pairs_without_pictures_are_refused(tmp_path):
    with pytest.raises(StoreError, match="has no pictures to show; collect episodes with --frames"):
        LabellingSession(write_pairs(tmp_path / "blind", frames=False))


@pytest.mark.parametrize("name", ["", "Ada, undone"])
def test_a_name_that_says_nothing_is_refused(store, name):
    with pytest.raises(ValueError, match="the name of who judges must not be empty or end with ', undone'"):
        LabellingSession(store, name=name)
