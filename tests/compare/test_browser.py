"""The page as people see it: in headless Chromium."""

import io
import time
from dataclasses import replace

import numpy
import pytest
import torch
from PIL import Image

from lightning_xai.compare import gather, to_page
from lightning_xai.reading import Reading
from lightning_xai.render.overlay import overlaid
from lightning_xai.store import load_run
from tests.support import runs
from tests.support.browser import browsing, is_installed

pytestmark = pytest.mark.skipif(
    not is_installed(), reason="Chromium is not here: apt-get install chromium chromium-driver"
)

PICTURES = "return [...document.querySelectorAll('canvas.tile')].map((canvas) => canvas.toDataURL())"
PIXELS = """
const canvas = document.querySelectorAll(".samples tbody tr")[arguments[0]].querySelectorAll("canvas")[arguments[1]];
return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("profile")) as opened:
        opened.resize(1400, 1000)
        yield opened


@pytest.fixture
def show(tmp_path, browser):
    """Opens the page of runs; afterwards the console must hold no error."""

    def opened(*folders):
        found = gather([load_run(folder) for folder in folders])
        page = tmp_path / "page.html"
        page.write_text(to_page(found), encoding="utf-8")
        browser.open(page)
        browser.settle()
        return found

    yield opened
    assert browser.errors() == []


@pytest.fixture
def two(tmp_path):
    return runs.write(tmp_path / "first"), runs.write(tmp_path / "second", seed=40)


def set_slider(browser, value):
    script = "const s = document.getElementById('slider'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))"
    browser.run(script, value)
    browser.settle()


def text(browser, selector):
    return browser.run("return document.querySelector(arguments[0]).textContent", selector)


def test_the_slider_moves_the_pictures_of_all_runs(show, browser, two):
    show(*two)
    last = browser.run(PICTURES)
    seen = browser.screenshot()
    assert len(last) == 8 and len(set(last)) == 8
    set_slider(browser, 0)
    first = browser.run(PICTURES)
    assert all(before != after for before, after in zip(last, first, strict=True))
    assert browser.screenshot() != seen
    assert text(browser, "#now") == "0" and "epoch 0" in text(browser, ".samples thead")
    set_slider(browser, 2)
    assert browser.run(PICTURES) == last


@pytest.mark.parametrize("focused", ["body", "#slider", "#sort"])
def test_arrow_keys_move_one_epoch(show, browser, two, focused):
    show(*two)
    browser.press("left", focused)
    assert text(browser, "#now") == "1"
    browser.press("left", focused)
    browser.press("left", focused)
    assert text(browser, "#now") == "0"
    browser.press("right", focused)
    assert text(browser, "#now") == "1"
    assert browser.run("return document.getElementById('slider').getAttribute('aria-valuetext')") == "epoch 1"


@pytest.mark.parametrize("scale", ["shared", "run", "map"])
def test_pictures_are_those_of_the_loggers(show, browser, two, scale):
    found = show(*two)
    browser.run("document.querySelector(`input[value=${arguments[0]}]`).click()", scale)
    browser.run("document.getElementById('sort').click()")
    browser.settle()
    heats = [track.moments[-1].heats["xai/grad_cam/auto"] for track in found.sections[0].tracks]
    for run, heat in enumerate(heats):
        value = {"shared": max(h.scale for h in heats), "run": heat.scale, "map": None}[scale]
        images = numpy.stack([found.gallery.pictures[index] for index in heat.images])
        expected = torch.from_numpy(overlaid(images, heat.maps, value, side=24))
        for sample in range(4):
            drawn = torch.tensor(browser.run(PIXELS, sample, run)).view(24, 24, 4)[..., :3]
            # the maps are held as bytes, and a strength near 0 turns one level into a little more
            assert (drawn - expected[sample].int()).abs().max() <= 6
            assert (drawn - expected[sample].int()).abs().float().mean() < 1


@pytest.mark.parametrize("scale", ["run", "map"])
def test_signed_maps_are_those_of_the_loggers(show, browser, tmp_path, scale):
    found = show(runs.write(tmp_path / "a", readings=[runs.signed(seed) for seed in range(3)], kind=runs.Signed))
    browser.run("document.querySelector(`input[value=${arguments[0]}]`).click()", scale)
    browser.settle()
    heat = found.sections[0].tracks[0].moments[-1].heats["xai/grad_cam/auto"]
    images = numpy.stack([found.gallery.pictures[index] for index in heat.images])
    blank = numpy.isnan(heat.maps).any((1, 2)) | ~heat.maps.any((1, 2))  # have a plate in the loggers' picture
    value = heat.scale if scale == "run" else None
    expected = torch.from_numpy(overlaid(images, heat.maps, value, side=24, signed=True))
    for sample in numpy.flatnonzero(~blank).tolist():
        drawn = torch.tensor(browser.run(PIXELS, sample, 0)).view(24, 24, 4)[..., :3]
        assert (drawn - expected[sample].int()).abs().max() <= 9
        assert (drawn - expected[sample].int()).abs().float().mean() < 1.5
    notes = browser.run("return [...document.querySelectorAll('.map em')].map((e) => e.hidden ? '' : e.textContent)")
    assert notes == ["", "no relevance", "NaN", ""]
    assert "Red speaks for the explained class, blue against it" in text(browser, "#lead")
    legend = text(browser, ".legend")
    assert legend.startswith("againstfor") and ("±" in legend) == (scale == "run")
    ends = browser.run(
        "const { data } = document.querySelector('.legend canvas').getContext('2d').getImageData(0, 0, 160, 1);"
        "return [0, 80, 159].map((x) => [...data.slice(4 * x, 4 * x + 4)])"
    )
    assert ends[0][2] - ends[0][0] > 100 and ends[2][0] - ends[2][2] > 100
    assert max(ends[1][:3]) - min(ends[1][:3]) < 30


def test_maps_that_say_nothing_say_so(show, browser, tmp_path):
    show(runs.write(tmp_path / "a", epochs=(0,), readings=[runs.silent()]))
    notes = browser.run("return [...document.querySelectorAll('.map em')].map((e) => e.hidden ? '' : e.textContent)")
    assert notes == ["", "no relevance", "NaN", ""]


def test_curves_show_a_line_for_each_run(show, browser, two):
    show(*two)
    charts = browser.run(
        "return [...document.querySelectorAll('.chart')].map((c) => "
        "[c.querySelector('h3').textContent, [...c.querySelectorAll('.curve')].map((p) => p.getTotalLength())])"
    )
    drawn = dict(charts)
    assert {"share · object", "drift", "peak"} <= set(drawn)
    assert all(len(lines) == 2 and min(lines) > 100 for name, lines in drawn.items() if name != "agreement")
    assert len(drawn["agreement"]) == 1
    assert "zero maps 0, nan maps 0" in text(browser, "#curves")
    browser.run(
        "const svg = document.querySelector('.chart > svg'), box = svg.getBoundingClientRect();"
        "svg.dispatchEvent(new PointerEvent('pointerdown', { clientX: box.left + 50, clientY: box.top + 50 }))"
    )
    assert text(browser, "#now") == "0"


def test_the_samples_explained_most_differently_come_first(show, browser, two):
    show(*two)
    first = browser.run(
        "return [...document.querySelectorAll('.samples tbody tr')]"
        ".map((row) => row.textContent.match(/agreement (.*)/)[1])"
    )
    assert [float(value) for value in first] == sorted(map(float, first)) and len(set(first)) > 1
    browser.run("document.getElementById('sort').click()")
    browser.settle()
    labels = browser.run("return [...document.querySelectorAll('.samples th .said')].map((each) => each.textContent)")
    assert labels == ["cat", "dog", "emu", "cat"]


def test_an_epoch_that_a_run_did_not_read_is_said(show, browser, tmp_path):
    show(runs.write(tmp_path / "a", epochs=(0, 1, 2, 3)), runs.write(tmp_path / "b", epochs=(1, 3)))
    seen = []
    for position in range(3):
        set_slider(browser, position)
        seen.append(browser.run("return [...document.querySelectorAll('.samples thead th')].at(-1).textContent"))
    assert "nothing was read up to epoch 0" in seen[0]
    assert "Grad-CAM at features, epoch 1" in seen[1]
    assert "not read in epoch 2: epoch 1 is shown" in seen[2]


def test_different_probes_are_said_in_red(show, browser, tmp_path):
    show(runs.write(tmp_path / "a", runs.probe(0)), runs.write(tmp_path / "b", runs.probe(1)))
    assert "Different probes: a explained" in text(browser, "#warnings")
    red, green, blue = browser.run(
        "return getComputedStyle(document.querySelector('#warnings p')).color.match(/\\d+/g).map(Number)"
    )
    assert red > 100 and red > 3 * green and red > 3 * blue
    # each run beside images of its own
    sources = browser.run("return [...document.querySelectorAll('.samples tbody img')].map((image) => image.src)")
    assert len(sources) == len(set(sources)) == 8
    assert browser.run("return document.getElementById('sorting').hidden")


def test_a_callback_that_a_run_lacks_is_said(show, browser, tmp_path):
    show(runs.write(tmp_path / "a"), runs.write(tmp_path / "b", name="late"))
    assert text(browser, "#warnings") == "b shows nothing of grad_cam: the run has no callback of this name."
    browser.run("const g = document.getElementById('group'); g.value = 1; g.dispatchEvent(new Event('change'))")
    browser.wait("return document.getElementById('warnings').textContent.startsWith('a shows nothing of late')")


def test_pictures_of_other_kinds_are_shown_and_chance_is_hollow(show, browser, tmp_path, monkeypatch):
    show(runs.write(tmp_path / "a", name="curious", kind=runs.Curious))
    last = browser.run("return document.querySelector('.drawn').src")
    set_slider(browser, 0)
    assert last.startswith("data:image/png") and browser.run("return document.querySelector('.drawn').src") != last
    hollow = browser.run("return [...document.querySelectorAll('.chart [transform]')].map((e) => e.className.baseVal)")
    assert hollow == ["hollow", "hollow", ""]
    assert browser.run("return document.querySelectorAll('.chart polygon').length") == 1


def test_one_run_has_a_page(show, browser, tmp_path):
    show(runs.write(tmp_path / "alone"))
    assert text(browser, "h1") == "What alone looks at"
    assert len(browser.run(PICTURES)) == 4


@pytest.mark.parametrize(("width", "height"), [(1400, 1000), (500, 900)])
def test_the_page_fits_light_and_dark(show, browser, two, width, height):
    shades = {}
    try:
        for scheme in ("light", "dark"):
            browser.resize(width, height, scheme)
            show(*two)
            assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
            picture = Image.open(io.BytesIO(browser.screenshot())).convert("L")
            shades[scheme] = picture.getpixel((2, 2))
    finally:
        browser.resize(1400, 1000)
    assert shades["light"] > 230 and shades["dark"] < 40


def test_controls_have_names(show, browser, two):
    show(*two)
    nameless = browser.run(
        "return [...document.querySelectorAll('input, button, select, canvas[role], img')].filter((each) => "
        "!(each.labels?.length || each.getAttribute('aria-label') || each.alt)).map((each) => each.outerHTML)"
    )
    assert nameless == []


def test_a_run_of_3000_epochs_opens_at_once(browser, tmp_path):
    run = load_run(runs.write(tmp_path / "long", epochs=(0,)))
    held = [runs.measured(seed) for seed in range(5)]
    readings = [Reading(epoch, epoch, held[epoch % 5]) for epoch in range(3000)]
    found = gather([replace(run, readings={"grad_cam": readings})])
    assert len(found.positions) == 100
    page = tmp_path / "page.html"
    page.write_text(to_page(found), encoding="utf-8")
    assert page.stat().st_size < 2**20
    begun = time.monotonic()
    browser.open(page)
    assert time.monotonic() - begun < 3
    assert "100 of 3000 epochs are shown" in text(browser, "#notes")
    moved = browser.run(
        "const begun = performance.now(); for (let i = 0; i < 50; i++) { move(i); update(); }"
        "return (performance.now() - begun) / 50"
    )
    assert moved < 100  # milliseconds a move
    assert browser.errors() == []
