"""A run in TensorBoard as people see it: the real server, in headless Chromium."""

import base64
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import torch

from lightning_xai import TCAV, Concept, GradCAM, Probe
from tests.support.browser import browsing, is_installed
from tests.support.classifier import classifier
from tests.support.data import SIZE, Samples, loader
from tests.support.events import read_events
from tests.support.png import pixels
from tests.support.training import trainer

pytestmark = [
    pytest.mark.skipif(not is_installed(), reason="Chromium is not here: apt-get install chromium chromium-driver"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard"),
]

EPOCHS = 12  # more than the ten images that TensorBoard keeps of a tag unless told otherwise
DEEP = """
const deep = (root, name) => {
  const found = [];
  const walk = (node) => {
    if (node.nodeType === 1 && node.matches(name)) found.push(node);
    if (node.shadowRoot) walk(node.shadowRoot);
    for (const child of node.childNodes) walk(child);
  };
  walk(root);
  return found;
};
const text = (node) => node.nodeType === 3 ? node.textContent : ["STYLE", "SCRIPT"].includes(node.tagName) ? ""
  : [...(node.shadowRoot ? node.shadowRoot.childNodes : []), ...node.childNodes].map(text).join(" ");
const cards = deep(document, "tf-image-loader");
const card = (tag) => cards.find((each) => each.tag === tag);
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with masks, concepts and more readings than TensorBoard keeps unless told otherwise."""
    folder = tmp_path_factory.mktemp("run")
    samples = Samples(8, seed=3)
    masks = torch.zeros(2, 8, SIZE, SIZE, dtype=torch.bool)
    masks[0, :, :8] = masks[1, :, 8:] = True
    probe = Probe(samples.images, samples.labels, masks={"upper": masks[0], "lower": masks[1]})
    bright = torch.randn(8, 3, SIZE, SIZE)
    bright[:, 0] += 4
    tcav = TCAV(
        concepts=[Concept("bright", bright)],
        layers="backbone.3",
        classes=[0, 1],
        randoms=torch.randn(80, 3, SIZE, SIZE),
    )
    callbacks = GradCAM(probe=probe, on_error="raise"), tcav
    trainer(folder, *callbacks, max_epochs=EPOCHS).fit(classifier(), loader(24), loader(24, seed=1))
    return folder


@pytest.fixture(scope="module")
def address(run):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = ["--logdir", str(run), "--host", "127.0.0.1", "--port", str(port), "--load_fast", "false"]
    command = [sys.executable, "-m", "tensorboard.main", *place, "--samples_per_plugin", "images=1000"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}/data/runs")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def wait_for(address):
    """Until the server has read the run."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                if b"version_0" in answer.read():
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise TimeoutError(address)


@pytest.fixture
def show(address, tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("profile")) as browser:
        browser.resize(1400, 1000)

        def opened(page, until):
            browser.go(f"{address}/#{page}")
            browser.wait(f"{DEEP} return {until}", seconds=60)
            return browser

        yield opened


def shown(browser, tag):
    """The pixels of a card's picture."""
    fetched = """
    const done = arguments[0];
    fetch(deep(card(TAG), "img")[0].src).then((answer) => answer.blob()).then((blob) => {
      const reader = new FileReader();
      reader.onload = () => done(reader.result.split(",")[1]);
      reader.readAsDataURL(blob);
    });
    """
    return pixels(base64.b64decode(browser.run_async(DEEP + fetched.replace("TAG", repr(tag)))))


def test_image_cards_have_a_slider_over_the_whole_run(show, run):
    browser = show("images", 'cards.filter((card) => deep(card, "img").some((img) => img.naturalWidth)).length === 3')
    assert browser.run(f"{DEEP} return cards.map((card) => card.tag).sort()") == [
        "xai/grad_cam/auto",
        "xai/grad_cam/auto/filmstrip",
        "xai/tcav/backbone.3/effects",
    ]
    (file,) = run.rglob("events.out.tfevents.*")
    logged = read_events(file)
    for tag in ("xai/grad_cam/auto", "xai/grad_cam/auto/filmstrip"):
        slider = f"deep(card({tag!r}), 'paper-slider')[0]"
        assert browser.run(f"{DEEP} return [{slider}.min, {slider}.max]") == [0, EPOCHS - 1]
        for place in (EPOCHS - 1, 0):
            event = logged.Images(tag)[place]
            browser.run(f"{DEEP} {slider}.value = {place}")
            browser.wait(f"{DEEP} return /step\\s+{event.step}\\b/.test(text(card({tag!r})))")
            expected, end = pixels(event.encoded_image_string), time.monotonic() + 20
            # the card's text may be ahead of its picture
            while not torch.equal(shown(browser, tag), expected):
                assert time.monotonic() < end


def test_scalars_show_the_run(show):
    browser = show("scalars&tagFilter=xai%2Fgrad_cam", 'deep(document, "tf-scalar-card").length >= 10')
    tags = browser.run(f'{DEEP} return deep(document, "tf-scalar-card").map((card) => card.tag)')
    assert {f"xai/grad_cam/auto/{name}" for name in ("drift", "peak", "share/upper", "lift/lower")} <= set(tags)


def test_custom_scalars_show_shares_and_the_concept_in_its_band(show):
    browser = show("custom_scalars", 'deep(document, "tf-custom-scalar-margin-chart-card").length === 2')
    titles = "deep(document, 'tf-custom-scalar-margin-chart-card').map((card) => card.title)"
    assert all("bright" in title for title in browser.run(f"{DEEP} return {titles}"))
    lines = "deep(document, 'path').filter((path) => path.getAttribute('d'))"
    browser.wait(f"{DEEP} return {lines}.length >= 3")
    (shares,) = browser.run(f"{DEEP} return deep(document, 'tf-custom-scalar-multi-line-chart-card').map(text)")
    assert "share/upper" in shares and "share/lower" in shares
