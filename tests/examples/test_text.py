"""The planted truth: relevance finds the keyword that decides, not the worthless word before it."""

import pytest

from lightning_xai import load_run


def shares(output: str) -> dict[str, tuple[float, float]]:
    """The summary: what was looked at -> its share on the keyword, and on the worthless word."""
    lines = output.partition("share on")[2].splitlines()[1:]
    rows = [line.split() for line in lines if len(line.split()) == 3]
    return {name: (float(keyword), float(worthless)) for name, keyword, worthless in rows if keyword[0].isdigit()}


@pytest.mark.parametrize(("model", "how"), [("lstm", "run_example"), ("transformer", "call_example")])
def test_relevance_tells_the_keyword_from_the_worthless_word(request, tmp_path, model, how) -> None:
    run = request.getfixturevalue(how)
    done = run("text.py", "--model", model, "--epochs", 3, "--sentences", 1000, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    keyword, worthless = shares(done.stdout)["relevance"]
    assert keyword > 0.15  # the states of an LSTM carry it on to what follows
    assert keyword >= 3 * worthless
    stored = load_run(tmp_path / "runs" / "text")
    assert len(stored.readings["attention_maps"]) == 3
    assert stored.probes["attention_maps"].tokens[0][0] == "[CLS]"
    assert "tensorboard --logdir runs/text" in done.stdout


@pytest.mark.parametrize(("order", "header"), [("sentence first", False), ("label first", True)])
def test_a_file_of_labelled_sentences(call_example, tmp_path, order, header) -> None:
    samples = [("a fine film", "good"), ("a dull plot", "bad"), ("a fine plot", "good"), ("a dull film", "bad")] * 5
    named = [("sentence", "label"), *samples] if header else samples
    rows = [pair if order == "sentence first" else pair[::-1] for pair in named]
    (tmp_path / "data.tsv").write_text("\n".join("\t".join(row) for row in rows))
    done = call_example("text.py", "--data", "data.tsv", "--epochs", 1, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "16 training and 4 validation sentences, 8 words" in done.stdout
    assert list(load_run(tmp_path / "runs" / "text").probes["attention_maps"].class_names) == ["bad", "good"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "data.tsv is no file"),
        ("", "data.tsv needs a sentence and a label with one tab between them"),
        ("good\tgood\nno tab here", "data.tsv, line 2, needs a sentence and a label"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(call_example, tmp_path, content, message) -> None:
    if content is not None:
        (tmp_path / "data.tsv").write_text(content)
    done = call_example("text.py", "--data", "data.tsv", folder=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
