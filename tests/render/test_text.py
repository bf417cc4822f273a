import pytest

from lightning_xai.render import text

TEXTS = [
    "label: automobile",
    "label: great white shark, white shark, man-eater, Carcharodon carcharias",
    "label: Staphylococcus_aureus_resistant_strain_of_the_hospital",
    "pred: n01440764_tench 0.87",
    "x" * 80,
    "Äpfel & Öl",
    "",
]


@pytest.mark.parametrize("line", TEXTS)
@pytest.mark.parametrize("width", [40, 90, 128, 192])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_wrapped_lines_fit(line, width, rows):
    wrapped = text.wrap(line, width, 12, rows=rows)
    assert 1 <= len(wrapped) <= rows
    assert all(text.measure(part, 12) <= width for part in wrapped)


@pytest.mark.parametrize("bold", [False, True])
@pytest.mark.parametrize("line", TEXTS)
def test_no_ink_is_cut(line, bold):
    """A box as wide as measured holds the same ink as a far larger one."""
    width = text.measure(line, 13, bold)
    tight = text.block(line, width, 13, rows=1, bold=bold)
    roomy = text.block(line, width + 60, 13, rows=1, bold=bold)
    assert (roomy[:, :width] == tight).all()
    assert (roomy[:, width:] == roomy[0, -1]).all()


def test_ink_stays_inside_its_line():
    lines = text.block("gjpqÄÅ|", 200, 12)
    assert lines.shape[0] == text.line_height(12)
    paper = lines[0, -1]
    assert (lines[-1] == paper).all()


def test_a_text_that_fits_is_not_touched():
    assert text.wrap("label: cat", 200, 12) == ["label: cat"]


def test_a_long_line_keeps_its_number():
    wrapped = text.wrap("pred: great white shark, white shark, man-eater 0.87", 110, 12)
    assert wrapped[-1].endswith("0.87")
    assert "…" in wrapped[-1]


def test_wrapping_loses_no_word_while_there_are_rows():
    assert " ".join(text.wrap("pred: hammerhead shark 0.87", 90, 12, rows=3)) == "pred: hammerhead shark 0.87"


def test_a_newline_starts_a_new_line():
    assert text.lines("label: cat\npred: dog 0.5", 200, 12) == ["label: cat", "pred: dog 0.5"]
    assert text.block("a\nb\nc", 50, 12).shape == (3 * text.line_height(12), 50, 3)


@pytest.mark.parametrize("side", [4, 20, 96])
def test_a_stamp_stays_on_its_picture(side):
    import torch

    picture = torch.full((side, side, 3), 90, dtype=torch.uint8)
    stamped = text.stamp(picture.numpy(), "no relevance")
    assert stamped.shape == picture.shape
    assert bool((picture == 90).all())
    assert (stamped != 90).any()
