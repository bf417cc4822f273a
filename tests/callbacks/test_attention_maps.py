"""AttentionMaps: what it keeps and logs of models for images and texts, and what it says where it cannot."""

import json

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, TensorDataset

from lightning_xai import AttentionMaps, Probe, load_run
from lightning_xai.callbacks.attention_maps.passes import of_real_queries, without_own
from lightning_xai.callbacks.attention_maps.positions import Windows
from lightning_xai.compare.earlier import revive
from lightning_xai.functional import attention_entropy, attention_maps, attention_relevance, attention_rollout
from lightning_xai.functional.metrics.attention import mean_of
from lightning_xai.render import draw
from lightning_xai.report import Filmstrip, Grid, Matrix, Tokens, Traces
from lightning_xai.reporting.tokens import LONGEST
from tests.support.attention_classifiers import Encoder, Model, Reader, Swin, Translator, ViT
from tests.support.classifier import classifier
from tests.support.data import SIZE, loader
from tests.support.messages import said
from tests.support.recorder import Recorder, assert_same
from tests.support.texts import LENGTH, decode, text_loader
from tests.support.training import NoPictures, seeded, trainer

TAG = "xai/attention_maps"
LAYERS = ["encoder.layers.0.self_attn", "encoder.layers.1.self_attn"]


def fit(folder, callback, model, train, validation=None, **settings):
    """The trainer after two epochs; the scalars it logged are those that the callback tells of."""
    run = trainer(folder, callback, logger=NoPictures(), **settings)
    run.fit(model, train, validation or train)
    assert {name for name in run.callback_metrics if name.startswith("xai/")} == set(callback.tags(None))
    return run


def last(folder):
    return load_run(folder).readings["attention_maps"][-1]


# images


@pytest.mark.parametrize("class_token", [True, False])
def test_images_keep_what_decides(tmp_path, class_token):
    """The class token's row without its prefix, or the mean over the cells; against the functions themselves."""
    model, callback = seeded(ViT, class_token=class_token), AttentionMaps(on_error="raise")
    run = fit(tmp_path, callback, model, loader(8))
    rows, inputs, labels = last(tmp_path).measured.rows, callback.explained.inputs, callback.explained.targets
    maps = attention_maps(model, inputs)
    relevance = attention_relevance(model, inputs, labels) - torch.eye(16 + class_token)
    whole = {name: m.mean(1) for name, m in maps.items()}
    whole |= {"rollout": attention_rollout(maps), "relevance": relevance}
    for name, matrix in whole.items():
        expected = (matrix[:, 0, 1:] if class_token else matrix.mean(1)).unflatten(1, (4, 4))
        assert_close(rows[f"maps/{name}"], expected.detach(), atol=2e-3, rtol=2e-3)  # stored in half precision
    for name in LAYERS:
        some = torch.linspace(0, 15 + class_token, 16).round().long()
        entropy = run.callback_metrics[f"{TAG}/{name}/entropy"]
        assert float(entropy) == pytest.approx(attention_entropy(maps[name][:, :, some]), rel=1e-4)
        assert 0 < run.callback_metrics[f"{TAG}/{name}/distance"] < 1


def test_images_are_shown_as_overlays_that_tell_attention_from_relevance(tmp_path):
    fit(tmp_path, AttentionMaps(matrices=LAYERS[1], on_error="raise"), seeded(ViT), loader(8))
    report = last(tmp_path).report()
    titles = {tag.removeprefix(f"{TAG}/"): picture.title for tag, picture in report.pictures.items()}
    assert titles[LAYERS[0]] == f"Attention of {LAYERS[0]}, epoch 1"
    assert titles["rollout"] == "Attention rollout, epoch 1"
    assert titles["relevance"] == "Relevance (gradient-weighted attention), epoch 1"
    for name in (*LAYERS, "rollout", "relevance"):
        assert isinstance(report.pictures[f"{TAG}/{name}"], Grid)
        assert report.pictures[f"{TAG}/{name}/filmstrip"].maps.shape == (8, 2, 4, 4)
        assert isinstance(report.pictures[f"{TAG}/{name}/filmstrip"], Filmstrip)
    matrix = report.pictures[f"{TAG}/{LAYERS[1]}/matrix"]
    assert isinstance(matrix, Matrix)
    assert [tuple(m.shape) for m in matrix.maps] == [(2, 17, 17)] * 4
    assert len(report.tables[f"{TAG}/relevance/samples"]) == 8


def test_masks_of_the_probe_are_measured(tmp_path):
    images, labels = next(iter(loader(8, batch_size=8)))
    mask = torch.zeros(8, SIZE, SIZE, dtype=torch.bool)
    mask[:, :8] = True
    callback = AttentionMaps(probe=Probe(images, labels, masks={"top": mask}), on_error="raise")
    run = fit(tmp_path, callback, seeded(ViT), loader(8))
    assert 0 < run.callback_metrics[f"{TAG}/relevance/share/top"] < 1


def test_windows_are_put_back_into_the_image(tmp_path, caplog):
    """Against a loop over cells: where each was before the roll, and who of its window looks at it."""
    caplog.set_level("INFO")
    model = seeded(Swin)
    callback = AttentionMaps(on_error="raise")
    fit(tmp_path, callback, model, loader(8))
    rows, maps = last(tmp_path).measured.rows, attention_maps(model, callback.explained.inputs)
    for name, shift in (("plain", 0), ("shifted", 1)):
        windows = maps[name][:, 0].unflatten(0, (8, 4))
        expected = torch.zeros(8, 4, 4)
        for row in range(4):
            for column in range(4):
                down, across = (row - shift) % 4, (column - shift) % 4
                window, cell = down // 2 * 2 + across // 2, down % 2 * 2 + across % 2
                expected[:, row, column] = windows[:, window, :, cell].sum(1) / 16
        assert_close(rows[f"maps/{name}"], expected, atol=1e-3, rtol=1e-3)
        assert_close(expected.sum((1, 2)), torch.ones(8))
    assert {key for key in rows if key.startswith("maps/")} == {"maps/plain", "maps/shifted"}
    assert said(caplog, "no relevance is shown: the attention in 'plain' is (32, 4, 4)") == 1
    assert said(caplog, "no rollout is shown") == 1


class Unsaid(Swin):
    """Windows that do not tell how they were cut."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, image):
        x = self.patches(image).movedim(1, -1).flatten(1, 2).reshape(-1, 4, 16)
        return self.head(self.plain(x, x, x)[0].reshape(len(image), 16, 16).mean(1))


def test_windows_whose_places_are_unknown_are_said_and_not_drawn(tmp_path, caplog):
    caplog.set_level("INFO")
    run = fit(tmp_path, AttentionMaps(on_error="raise"), seeded(Unsaid), loader(8))
    assert f"{TAG}/plain/entropy" in run.callback_metrics
    assert not any(key.startswith("maps/") for key in last(tmp_path).measured.rows)
    assert said(caplog, "tells its window_size and shift_size") == 1


def test_distance_of_windows_is_measured_over_the_whole_image():
    windows = Windows((2, 2), (4, 4), (0, 0))
    assert mean_of(windows.distances(torch.eye(4).expand(4, 1, 4, 4))) == 0
    opposite = torch.eye(4).flip(0).expand(4, 1, 4, 4)  # across the diagonal of each window
    assert mean_of(windows.distances(opposite)) == pytest.approx(1 / 3)


# texts


@pytest.mark.parametrize("kind", ["lstm", "bert", "gpt"])
def test_texts_keep_the_row_that_decides_without_padding(tmp_path, kind):
    built = seeded(Reader) if kind == "lstm" else seeded(Encoder, causal=kind == "gpt")
    callback = AttentionMaps(decode=decode, on_error="raise")
    fit(tmp_path, callback, built, text_loader(mapping=kind != "lstm"))
    reading, inputs = last(tmp_path), callback.explained.inputs
    real = (inputs if kind == "lstm" else inputs["input_ids"]) > 0
    asked = real.sum(1) - 1 if kind == "gpt" else torch.zeros(8, dtype=torch.long)
    for name, maps in attention_maps(built, inputs, heads="mean").items():
        kept = reading.measured.rows[f"maps/{name}"]
        assert_close(kept, maps[torch.arange(8), 0, asked], atol=1e-3, rtol=1e-3)
        picture = reading.report().pictures[f"{TAG}/{name}"]
        assert isinstance(picture, Tokens)
        assert picture.lines == ["epoch 0", "epoch 1"]
        for sample, (tokens, weights) in enumerate(zip(picture.tokens, picture.weights, strict=True)):
            assert len(tokens) == int(real[sample].sum())
            assert "[PAD]" not in tokens
            assert_close(torch.from_numpy(weights[-1]), kept[sample, real[sample]], atol=1e-3, rtol=1e-3)
    maps = {key for key in reading.measured.rows if key.startswith("maps/")}
    assert ("maps/rollout" in maps) == (kind != "lstm")
    assert "maps/relevance" in maps


def test_a_decoder_is_told_from_its_encoder(tmp_path, caplog):
    """All maps are 9 x 9, but the decoder's own keys are not the probe's tokens, and no rollout goes through."""
    caplog.set_level("INFO")
    model, callback = seeded(Translator), AttentionMaps(decode=decode, matrices=["decoder", "cross"], on_error="raise")
    run = fit(tmp_path, callback, model, text_loader(mapping=True))
    reading, inputs = last(tmp_path), callback.explained.inputs
    pictures = reading.report().pictures
    kinds = {tag.removeprefix(f"{TAG}/"): type(picture) for tag, picture in pictures.items()}
    matrices = {"decoder/matrix": Matrix, "cross/matrix": Matrix}
    assert kinds == {"encoder": Tokens, "decoder": Traces, "cross": Tokens, "relevance": Tokens} | matrices
    assert not any(pictures[f"{TAG}/decoder/matrix"].rows)
    ends = torch.arange(8), inputs["attention_mask"].sum(1) - 1
    maps = attention_maps(model, inputs, heads="mean")
    assert_close(reading.measured.rows["maps/cross"], maps["cross"][:, 0][ends], atol=1e-3, rtol=1e-3)
    relevance = attention_relevance(model, inputs, callback.explained.targets)[ends]
    assert_close(reading.measured.rows["maps/relevance"], relevance.detach(), atol=1e-3, rtol=1e-2)
    assert f"{TAG}/decoder/special" not in run.callback_metrics
    assert said(caplog, "no rollout is shown") == 1


def test_share_on_special_tokens(tmp_path):
    model, callback = seeded(Encoder), AttentionMaps(decode=decode, on_error="raise")
    run = fit(tmp_path, callback, model, text_loader(mapping=True))
    inputs = callback.explained.inputs
    maps = attention_maps(model, inputs, heads="mean")[LAYERS[0]][:, 0]
    real = inputs["input_ids"] > 0
    assert float(run.callback_metrics[f"{TAG}/{LAYERS[0]}/special"]) == pytest.approx(
        float(maps[..., 0][real].mean()), rel=1e-4
    )


def test_queries_that_are_padding_do_not_count():
    real = torch.tensor([[True, True, False]])
    maps = torch.rand(1, 2, 3, 3).softmax(-1)
    maps[:, :, :2] = torch.tensor([1.0, 0, 0])
    assert attention_entropy(of_real_queries(maps, real)) == 0


def test_the_matrix_of_each_head_is_cut_to_the_tokens(tmp_path):
    callback = AttentionMaps(decode=decode, matrices="encoder.layers.0*", on_error="raise")
    fit(tmp_path, callback, seeded(Encoder), text_loader(mapping=True))
    picture = last(tmp_path).report().pictures[f"{TAG}/{LAYERS[0]}/matrix"]
    lengths = (callback.explained.inputs["input_ids"] > 0).sum(1).tolist()[:4]
    assert [tuple(m.shape) for m in picture.maps] == [(2, n, n) for n in lengths]
    assert [len(names) for names in picture.rows] == lengths
    assert draw(picture).shape[2] == 3


def test_without_tokens_there_are_strips(tmp_path):
    fit(tmp_path, AttentionMaps(on_error="raise"), seeded(Reader), text_loader())
    pictures = last(tmp_path).report().pictures
    assert {type(picture) for picture in pictures.values()} == {Traces}


def test_long_texts_are_drawn_in_part(tmp_path, caplog):
    caplog.set_level("INFO")

    class Long(Model):
        def __init__(self):
            super().__init__()
            self.embedding, self.attention = nn.Embedding(9, 8), nn.MultiheadAttention(8, 2, batch_first=True)
            self.head = nn.Linear(8, 2)

        def forward(self, ids):
            x = self.embedding(ids)
            return self.head(self.attention(x, x, x)[0][:, 0])

    data = DataLoader(TensorDataset(torch.randint(0, 9, (4, 200)), torch.tensor([0, 1, 0, 1])), 4)
    callback = AttentionMaps(
        probe_size=4, decode=lambda ids: [str(i) for i in ids.tolist()], matrices="attention", on_error="raise"
    )
    fit(tmp_path, callback, seeded(Long), data)
    assert said(caplog, f"the first {LONGEST} tokens are kept") == 1
    reading = last(tmp_path).measured
    assert reading.rows["maps/attention"].shape == (4, 200)
    assert reading.rows["matrices/attention"].shape == (4, 2, LONGEST, LONGEST)
    pictures = callback.report(callback.explained, [*load_run(tmp_path).readings["attention_maps"]]).pictures
    tokens = pictures[f"{TAG}/attention"]
    assert {len(row) for row in tokens.tokens} == {LONGEST}
    assert f"the first {LONGEST} of 200 tokens" in tokens.captions[0]
    assert draw(pictures[f"{TAG}/attention/matrix"]).shape[2] == 3


# what is wrong is said


def test_tokens_that_do_not_fit_are_said_and_left_out(tmp_path, caplog):
    caplog.set_level("INFO")
    callback = AttentionMaps(decode=lambda ids: ["one"], on_error="raise")
    fit(tmp_path, callback, seeded(Reader), text_loader())
    assert said(caplog, f"sample 0 has 1 tokens for {LENGTH} positions, 5 of them no padding") == 1


def test_a_decode_that_fails_is_warned_of(tmp_path):
    def fails(ids):
        raise ZeroDivisionError

    with pytest.warns(RuntimeWarning, match="decode= made no tokens of the probe"):
        fit(tmp_path, AttentionMaps(decode=fails), seeded(Reader), text_loader())


@pytest.mark.parametrize("setting", ["layers", "matrices"])
def test_a_layer_that_is_not_there_is_answered_before_training(tmp_path, setting):
    run = trainer(tmp_path, AttentionMaps(**{setting: "encoder.layers.0.self_atn"}), logger=False)
    with pytest.raises(ValueError, match=r"Did you mean 'encoder\.layers\.0\.self_attn'"):
        run.fit(seeded(ViT), loader(8), loader(8))
    assert run.global_step == 0


@pytest.mark.parametrize(
    ("model", "settings", "match"),
    [
        (classifier, {}, "found no attention in this forward of Classifier"),
        (
            lambda: seeded(ViT),
            {"layers": "head"},
            "no attention runs in layers='head'.* Attention was seen in: encoder",
        ),
    ],
)
def test_no_attention_is_said_and_training_goes_on(tmp_path, model, settings, match):
    run = trainer(tmp_path, AttentionMaps(**settings), logger=False)
    with pytest.warns(RuntimeWarning, match=match):
        run.fit(model(), loader(8), loader(8))
    assert run.current_epoch == 2


def test_of_many_layers_the_first_are_logged(tmp_path, caplog):
    caplog.set_level("INFO")
    callback = AttentionMaps(probe_size=2, on_error="raise")
    fit(tmp_path, callback, seeded(ViT, depth=26), loader(2), max_epochs=1)
    assert len(callback.layer_names) == 24
    assert said(caplog, "attention runs in 26 of the layers; the first 24 are logged") == 1


# as every explanation


def test_training_is_bit_identical(tmp_path):
    seen = []
    for callbacks in ([], [AttentionMaps(matrices=LAYERS[0], on_error="raise")]):
        model, recorder = seeded(ViT), Recorder()
        run = trainer(tmp_path, *callbacks, recorder, logger=NoPictures())
        run.fit(model, loader(20, shuffle=True), loader(8, seed=1))
        recorder.record("after fit", model)
        seen.append(recorder.seen)
    assert_same(*seen)


def test_a_monitor_may_be_named_before_the_scalars_are_known(tmp_path):
    stop = EarlyStopping(f"{TAG}/{LAYERS[0]}/entropy", stopping_threshold=10.0, mode="min")
    run = trainer(tmp_path, AttentionMaps(every_n_epochs=5, on_error="raise"), stop, logger=NoPictures(), max_epochs=3)
    run.fit(seeded(ViT), loader(8), loader(8))
    assert run.current_epoch == 1


def test_weights_of_a_hidden_kernel_are_extracted(tmp_path, caplog):
    caplog.set_level("INFO")
    callback = AttentionMaps(extract={"plain": f"{__name__}:even"}, layers="plain", on_error="raise")
    fit(tmp_path, callback, seeded(Swin), loader(8), max_epochs=1)
    assert_close(last(tmp_path).measured.rows["maps/plain"], torch.full((8, 4, 4), 1 / 16), atol=1e-4, rtol=1e-3)
    assert said(caplog, "the weights of extract= have no gradient") == 1
    entry = load_run(tmp_path).callbacks["attention_maps"]
    assert entry["settings"]["extract"] == {"plain": f"{__name__}:even"}
    assert set(revive(json.loads(json.dumps(entry))).extract) == {"plain"}


def even(module, args, kwargs, output):
    return torch.full((len(output), 1, 16, 16), 1 / 16)


def test_own_relevance_is_taken_out_where_there_is_one():
    relevance = torch.eye(3)[[0, 2]] + 0.5
    cleaned, own = without_own(relevance[None], [0, 2])
    assert own
    assert_close(cleaned, torch.full((1, 2, 3), 0.5))
    between = torch.full((1, 2, 3), 0.25)
    assert without_own(between, [0, 1]) == (between, False)
