"""The page's data, and that the page holds all it needs."""

import base64
import json
import re

import pytest
import torch

from lightning_xai.compare import gather, to_page
from lightning_xai.compare.encode import encode
from lightning_xai.store import load_run
from tests.support import runs


def data(*folders):
    return encode(gather([load_run(folder) for folder in folders]))


def maps_of(heats, frame):
    shape = (-1, len(heats["labels"]), heats["height"], heats["width"])
    held = torch.frombuffer(bytearray(base64.b64decode(heats["maps"])), dtype=torch.uint8).view(shape)
    tops = torch.tensor([top or 0.0 for top in frame["tops"]])
    levels = held[frame["block"]].float()
    return ((levels - 128) / 127 if heats["signed"] else levels / 255) * tops[:, None, None]


def test_maps_come_back_to_half_a_level_of_their_largest_value(tmp_path):
    folder = runs.write(tmp_path / "a")
    (group,) = data(folder)["groups"]
    heats = group["runs"][0]["heats"][""]
    readings = load_run(folder).readings["grad_cam"]
    for frame, reading in zip(heats["frames"], readings, strict=True):
        maps = reading.measured.rows["maps/auto"]
        error = (maps_of(heats, frame) - maps).abs().flatten(1).amax(1)
        assert (error <= maps.flatten(1).amax(1) / 509).all()
    assert heats["top"] == pytest.approx(max(float(r.measured.shared["peak/auto"]) for r in readings))


def test_signed_maps_come_back_too(tmp_path):
    readings = [runs.signed(seed) for seed in range(3)]
    (group,) = data(runs.write(tmp_path / "a", readings=readings, kind=runs.Signed))["groups"]
    heats = group["runs"][0]["heats"][""]
    assert heats["signed"] and not heats["own"]
    for frame, reading in zip(heats["frames"], readings, strict=True):
        maps = reading.rows["maps/auto"]
        largest = maps.abs().flatten(1).amax(1)
        assert [top is None for top in frame["tops"]] == largest.isnan().tolist()
        error = (maps_of(heats, frame) - maps).abs().flatten(1).amax(1)
        assert (error <= largest / 250).logical_or(largest.isnan()).all()
    assert heats["top"] == pytest.approx(max(float(r.shared["peak/auto"]) for r in readings))


def test_fine_signed_maps_are_averaged_with_their_signs(tmp_path):
    fine = runs.measured(0, cells=90)
    fine.rows["maps/auto"].sub_(0.95)
    (group,) = data(runs.write(tmp_path / "a", epochs=(0,), readings=[fine], kind=runs.Signed))["groups"]
    heats = group["runs"][0]["heats"][""]
    assert maps_of(heats, heats["frames"][0]).mean() == pytest.approx(float(fine.rows["maps/auto"].mean()), rel=0.02)


def test_of_maps_without_a_sign_what_is_below_zero_is_nothing(tmp_path):
    reading = runs.measured(0)
    reading.rows["maps/auto"][0, 0, 0] = -9
    (group,) = data(runs.write(tmp_path / "a", epochs=(0,), readings=[reading]))["groups"]
    heats = group["runs"][0]["heats"][""]
    assert not heats["signed"]
    assert heats["frames"][0]["tops"][0] <= 1
    assert maps_of(heats, heats["frames"][0])[0, 0, 0] == 0


def test_maps_that_say_nothing_are_told_apart(tmp_path):
    (group,) = data(runs.write(tmp_path / "a", epochs=(0,), readings=[runs.silent()]))["groups"]
    (frame,) = group["runs"][0]["heats"][""]["frames"]
    assert frame["tops"][0] > 0 and frame["tops"][1] == 0 and frame["tops"][2] is None and frame["tops"][3] > 0


def test_maps_are_no_finer_than_what_is_drawn(tmp_path):
    fine = runs.measured(0, cells=90)
    (group,) = data(runs.write(tmp_path / "a", epochs=(0,), readings=[fine]))["groups"]
    heats = group["runs"][0]["heats"][""]
    assert (heats["height"], heats["width"]) == (24, 24)
    assert maps_of(heats, heats["frames"][0]).mean() == pytest.approx(float(fine.rows["maps/auto"].mean()), rel=0.01)


def test_agreement_is_with_the_first_run(tmp_path):
    one, same, other = (runs.write(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 50)))
    (group,) = data(one, same, other)["groups"]
    first, second, third = group["agreement"][""]
    assert first is None
    assert second == [[1.0] * 4] * 3
    assert max(value for row in third for value in row) < 0.6
    (chart,) = (chart for chart in group["charts"] if chart["name"] == "agreement")
    assert [line["run"] for line in chart["lines"]] == [1, 2] and chart["lines"][0]["y"] == [1, 1, 1]


def test_different_probes_are_neither_paired_nor_compared(tmp_path):
    one, other = runs.write(tmp_path / "a", runs.probe(0)), runs.write(tmp_path / "b", runs.probe(1))
    (group,) = data(one, other)["groups"]
    assert not group["paired"] and group["agreement"] == {}
    assert "<title>a and b on different samples</title>" in to_page(gather([load_run(one), load_run(other)]))


def test_every_layer_is_a_group_and_one_that_a_run_lacks_is_named(tmp_path):
    one = runs.write(tmp_path / "a", layers=("early", "late"))
    other = runs.write(tmp_path / "b", layers=("late",))
    early, late = data(one, other)["groups"]
    assert (early["layer"], late["layer"]) == ("early", "late")
    assert early["missing"] == {"b": "it has no layer early"} and late["missing"] == {}
    assert early["runs"][1] is None


def test_charts_hold_every_scalar_with_shares_first(tmp_path):
    folder = runs.write(tmp_path / "a")
    found = gather([load_run(folder)])
    (group,) = encode(found)["groups"]
    names = [chart["name"] for chart in group["charts"]]
    moments = found.sections[0].tracks[0].moments
    assert set(names) == {tag.removeprefix("xai/grad_cam/auto/") for tag in moments[0].scalars}
    assert names[0] == "share/object"
    for chart in group["charts"]:
        logged = [moment.scalars[f"xai/grad_cam/auto/{chart['name']}"] for moment in moments]
        assert chart["lines"] == [{"run": 0, "x": [0, 1, 2], "y": pytest.approx(logged, rel=1e-4)}]


def test_bands_belong_to_their_curve(tmp_path):
    folder = runs.write(tmp_path / "a", name="curious", kind=runs.Curious)
    (group,) = data(folder)["groups"]
    (chart,) = group["charts"]
    assert chart["name"] == "effect" and chart["meaning"] == "how much" and chart["leads"]
    assert {"y", "lower", "upper", "chance"} <= chart["lines"][0].keys()


def test_the_page_asks_the_network_for_nothing(tmp_path):
    text = to_page(gather([load_run(runs.write(tmp_path / "a"))]))
    code = re.sub(r'<script type="application/json".*?</script>', "", text, flags=re.DOTALL)
    assert set(re.findall(r"https?://[^\s\"']+", code)) <= {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in text


def test_a_name_cannot_end_the_script(tmp_path):
    held = runs.probe()
    named = type(held)(held.inputs, held.targets, class_names=["</script><b>", "/*style*/", "<!--title-->"])
    text = to_page(gather([load_run(runs.write(tmp_path / "a", named))]))
    found = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert json.loads(found[1])["groups"][0]["runs"][0]["heats"][""]["labels"][:3] == named.class_names
