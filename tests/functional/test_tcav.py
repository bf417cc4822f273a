import copy
from collections.abc import Callable, Iterator
from dataclasses import fields

import pytest
import torch
from torch import Tensor, nn

from lightning_xai.example_sources.indexed import set_size
from lightning_xai.functional.activations import activations, earlier_layer, layer_gradients
from lightning_xai.functional.concepts.directions import CAVs, Sensitivities
from lightning_xai.functional.fit_cavs import fit_cavs
from lightning_xai.functional.tcav import TCAVScores, score_concepts, tcav
from tests.support import textbook_cav
from tests.support.hooks import hooks_of
from tests.support.nets import ChannelsLast, Deep, Plain, ResNet, Text, ViT

# net, layer, shape of the input
CASES: dict[str, tuple[Callable[[], nn.Module], str, tuple[int, ...]]] = {
    "conv": (Deep, "target", (3, 12, 12)),
    "in place": (lambda: Plain(inplace=True), "first", (3, 15, 11)),
    "residual": (ResNet, "layer2.0", (3, 14, 10)),
    "channels last": (ChannelsLast, "patches", (3, 12, 8)),
    "vit": (ViT, "blocks.0", (3, 16, 16)),
}


def case(name: str) -> tuple[nn.Module, str, Tensor, Tensor, dict[str, Tensor], list[Tensor]]:
    """A model, a layer, probes, their classes, and activations of two concepts and four random sets."""
    make, layer, shape = CASES[name]
    torch.manual_seed(len(name))
    model = make()
    nn.init.normal_(model.head.weight)
    inputs = torch.randn(9, *shape)
    targets = torch.tensor([3, 1, 1, 3, 3, 1, 4, 3, 1])
    images = {f"concept {i}": torch.randn(12 + i, *shape) + 0.3 * (i + 1) for i in range(2)}
    concepts = {name: activations(model, x, layer)[layer] for name, x in images.items()}
    randoms = [activations(model, torch.randn(12, *shape), layer)[layer] for _ in range(4)]
    return model, layer, inputs, targets, concepts, randoms


# ------------------------------------------------------------ against loops


@pytest.mark.parametrize("name", CASES)
def test_scores_and_effects_equal_a_loop(name: str) -> None:
    model, layer, inputs, targets, concepts, randoms = case(name)
    scores = tcav(model, inputs, targets, fit_cavs(concepts, randoms), layer=layer)
    assert scores.classes.tolist() == [1, 3, 4]
    assert scores.names == ("concept 0", "concept 1")
    assert scores.probes.tolist() == [4, 4, 1]
    reach = 0.0
    for row, target in enumerate(scores.classes.tolist()):
        gradients = torch.stack(
            [
                textbook_cav.gradient(model, layer, x, target)
                for x, y in zip(inputs, targets, strict=True)
                if y == target
            ]
        )
        for column, concept in enumerate(concepts.values()):
            vectors = torch.stack([textbook_cav.cav(concept, random) for random in randoms])
            assert float(scores.score[row, column]) == pytest.approx(textbook_cav.sign_score(gradients, vectors), abs=0)
            expected = textbook_cav.effect(gradients, vectors, concept, randoms)
            assert float(scores.effect[row, column]) == pytest.approx(expected, rel=1e-3, abs=1e-5)
            reach = max(reach, abs(expected))
    assert reach > 1e-2, "an empty comparison"


def test_null_effects_equal_a_loop() -> None:
    model, layer, inputs, targets, concepts, randoms = case("conv")
    cavs = fit_cavs(concepts, randoms)
    gradients = layer_gradients(model, inputs, targets, layer)[layer]
    found = cavs.sensitivities(gradients)
    flat = gradients.flatten(1).double()
    for index, random in enumerate(randoms):
        others = [other for other in range(len(randoms)) if other != index]
        for sample, gradient in enumerate(flat):
            vectors = cavs.null_vectors[index, others]
            expected = textbook_cav.effect(gradient[None], vectors, random, [randoms[o] for o in others])
            assert float(found.null_effects[sample, index]) == pytest.approx(expected, rel=1e-3, abs=1e-5)
    torch.testing.assert_close(found.gradient_norm.double(), flat.norm(dim=1), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("name", "pool"), [("conv", "mean"), ("vit", "mean_last")])
def test_pooled_effect_is_that_of_a_shift_of_all_cells(name: str, pool: str) -> None:
    model, layer, inputs, targets, concepts, randoms = case(name)
    cavs = fit_cavs(concepts, randoms, pool=pool)
    gradients = layer_gradients(model, inputs, targets, layer)[layer]
    direction = cavs.vectors[0, 0]
    everywhere = direction[:, None, None] if pool == "mean" else direction
    expected = (gradients * everywhere).flatten(1).sum(1)
    torch.testing.assert_close(cavs.sensitivities(gradients).derivatives[:, 0, 0], expected, rtol=1e-3, atol=1e-5)


def test_effect_foretells_an_intervention() -> None:
    """In a model that is linear behind the layer, moving along a CAV by the separation costs the effect exactly."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 30), nn.Identity(), nn.Linear(30, 4))
    x, y = torch.randn(6, 3, 4, 4), torch.tensor([0, 0, 0, 0, 0, 0])
    concepts = {"c": activations(model, torch.randn(15, 3, 4, 4) + 0.2, "1")["1"]}
    randoms = [activations(model, torch.randn(15, 3, 4, 4), "1")["1"] for _ in range(3)]
    cavs = fit_cavs(concepts, randoms)
    with pytest.warns(UserWarning, match="the same for every probe"):
        effect = float(tcav(model, x, y, cavs, layer="1").effect)
    model.requires_grad_(False)
    moved = (cavs.vectors[0] * cavs.separation[0][:, None]).mean(0)
    gained = model[3](activations(model, x, "1")["1"] + moved)[:, 0] - model(x)[:, 0]
    assert effect == pytest.approx(float(gained.mean()), rel=1e-3)


def test_interval_covers_refits_to_fresh_examples() -> None:
    torch.manual_seed(1)
    gradient = torch.randn(30, 20) + 0.15

    def draw(shift: float) -> Tensor:
        return torch.randn(25, 20) + shift

    def score(concept: Tensor, randoms: list[Tensor], replicates: int) -> TCAVScores:
        cavs = fit_cavs({"c": concept}, randoms, replicates=replicates)
        return score_concepts(
            cavs.sensitivities(gradient), torch.zeros(30).long(), names=cavs.names, separation=cavs.separation
        )

    fresh = torch.stack([score(draw(0.2), [draw(0) for _ in range(4)], 0).score for _ in range(60)])
    intervals = [score(draw(0.2), [draw(0) for _ in range(4)], 40) for _ in range(30)]
    covered = sum(bool(s.lower <= fresh.median() <= s.upper) for s in intervals)
    width = sum(float(s.upper - s.lower) for s in intervals) / 30
    assert covered >= 20
    assert width == pytest.approx(4 * float(fresh.std()), rel=0.5)
    assert all(bool(s.lower <= s.score <= s.upper) for s in intervals)
    without = score(draw(0.2), [draw(0) for _ in range(4)], 0)
    assert without.lower == without.score == without.upper


# ------------------------------------------------------------ scores are a function of stored tensors


def stored(randoms: int = 10, concepts: int = 2) -> tuple[Sensitivities, Tensor, Tensor]:
    random = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    rows = Sensitivities(
        draw(8, concepts, randoms), draw(8, randoms), draw(8, concepts, 20).sigmoid(), draw(8).abs() + 1
    )
    return rows, torch.tensor([0, 0, 0, 0, 2, 2, 2, 2]), draw(concepts, randoms).abs()


def assert_equal(one: TCAVScores, other: TCAVScores) -> None:
    for field in fields(TCAVScores):
        a, b = getattr(one, field.name), getattr(other, field.name)
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b, field.name


def test_scores_from_rows_that_were_cut_and_joined() -> None:
    rows, targets, separation = stored()
    whole = score_concepts(rows, targets, names=("a", "b"), separation=separation)
    parts = [rows[:3], rows[3:]]
    joined = Sensitivities(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Sensitivities)))
    assert_equal(score_concepts(joined, targets, names=("a", "b"), separation=separation), whole)


def test_classes_are_those_asked_for() -> None:
    rows, targets, separation = stored()
    whole = score_concepts(rows, targets, names=("a", "b"), separation=separation)
    one = score_concepts(rows, targets, names=("a", "b"), separation=separation, classes=[2])
    assert one.classes.tolist() == [2]
    assert torch.equal(one.effect[0], whole.effect[1])


def test_a_hit_is_strictly_positive() -> None:
    rows, targets, separation = stored()
    rows.derivatives[:4] = 0
    rows.gradient_norm[:3] = 0
    scores = score_concepts(rows, targets, names=("a", "b"), separation=separation)
    assert scores.score[0].tolist() == [0, 0]
    assert scores.zero_gradients.tolist() == [3, 0]
    assert not scores.constant_gradient.any()


def test_a_large_effect_is_significant_and_a_negative_one_is_not() -> None:
    rows, targets, separation = stored()
    rows.derivatives[:, 0] += 30
    rows.derivatives[:, 1] -= 30
    for test in ("t", "rank"):
        many, targets, separation = stored(39)
        many.derivatives[:, 0] += 30
        many.derivatives[:, 1] -= 30
        scores = score_concepts(many, targets, names=("a", "b"), separation=separation, test=test)
        assert (scores.p_value[:, 0] <= 0.05).all()
        assert (scores.effect > scores.effect_upper).tolist() == [[True, False]] * 2
        assert (scores.p_value[:, 1] > 0.9).all()
        assert scores.saturated.all()


def test_dead_layer_scores() -> None:
    cavs = fit_cavs({"dead": torch.zeros(5, 7)}, [torch.zeros(5, 7)] * 4)
    scores = score_concepts(
        cavs.sensitivities(torch.randn(6, 7)), torch.ones(6).long(), names=cavs.names, separation=cavs.separation
    )
    assert (float(scores.score), float(scores.effect), float(scores.p_value)) == (0, 0, 1)
    assert not scores.constant_gradient.any()


# ------------------------------------------------------------ layers before global average pooling


class Pooled(nn.Module):
    """A convolution last, nothing that bends behind it but the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(6, 8, 3), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.first(x)).mean((2, 3)))


def pooled_case(layer: str) -> tuple[nn.Module, Tensor, Tensor, CAVs]:
    torch.manual_seed(0)
    model = Pooled()
    cavs = fit_cavs(
        {"c": activations(model, torch.randn(8, 3, 9, 9), layer)[layer]},
        [activations(model, torch.randn(8, 3, 9, 9), layer)[layer] for _ in range(3)],
    )
    return model, torch.randn(6, 3, 9, 9), torch.tensor([0, 0, 1, 1, 1, 2]), cavs


def test_constant_gradient_is_found_and_an_earlier_layer_named() -> None:
    model, x, y, cavs = pooled_case("last")
    with pytest.warns(UserWarning, match="at layer 'last' the gradient is the same .* such as 'first'"):
        scores = tcav(model, x, y, cavs, layer="last")
    assert scores.constant_gradient.tolist() == [True, True, False]  # one probe cannot tell
    assert set((scores.score[:2] * 3).round(decimals=4).flatten().tolist()) <= {0, 1, 2, 3}


def test_no_warning_where_gradients_differ() -> None:
    model, x, y, cavs = pooled_case("first")
    assert not tcav(model, x, y, cavs, layer="first").constant_gradient.any()


def test_no_earlier_layer() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    assert earlier_layer(model, torch.randn(4, 3, 2, 2), torch.zeros(4).long(), model[0]) is None


# ------------------------------------------------------------ activations and gradients


@pytest.mark.parametrize("name", CASES)
def test_activations_are_those_of_a_plain_forward(name: str) -> None:
    model, layer, inputs, *_ = case(name)
    kept = []
    handle = dict(model.named_modules())[layer].register_forward_hook(lambda *call: kept.append(call[2].clone()))
    with torch.no_grad():
        model.eval()(inputs)
    handle.remove()
    for size in (2, 100):
        found = activations(model.train(), inputs, [layer, "head"], batch_size=size)
        assert list(found) == [layer, "head"]
        torch.testing.assert_close(found[layer], kept[0])
        assert not found[layer].requires_grad


def test_activations_of_batches_tuples_and_mappings() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sum = nn.Linear(4, 3)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.sum(a + b)

    model, a, b = Two(), torch.randn(5, 4), torch.randn(5, 4)
    expected = model(a, b).detach()

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        yield a[:3], b[:3]
        yield a[3:], b[3:]

    for inputs in ((a, b), {"a": a, "b": b}, batches()):
        torch.testing.assert_close(activations(model, inputs, "sum", batch_size=2)["sum"], expected)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_each_samples_own(name: str) -> None:
    model, layer, inputs, targets, *_ = case(name)
    for size in (4, 100):
        found = layer_gradients(model, inputs, targets, layer, batch_size=size)[layer]
        for sample, target, gradient in zip(inputs, targets, found, strict=True):
            expected = textbook_cav.gradient(model, layer, sample, int(target))
            torch.testing.assert_close(gradient.flatten().double(), expected, rtol=1e-4, atol=1e-6)


def test_the_model_is_left_as_it_was() -> None:
    model, layer, inputs, targets, concepts, randoms = case("conv")
    model.train()
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    cavs = fit_cavs({**concepts, "more": activations(model, inputs, layer)[layer]}, randoms)
    with torch.inference_mode():
        tcav(model, inputs, targets, cavs, layer=layer)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert hooks_of(model) == {} and all(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(random, torch.get_rng_state())


def test_text_and_a_forward_of_ones_own() -> None:
    torch.manual_seed(0)
    model = Text()
    forward_calls = []

    def forward(x: Tensor) -> Tensor:
        forward_calls.append(len(x))
        return model(x)

    def draw(number: int) -> Tensor:
        return torch.randint(0, 20, (number, 6))

    layer = "blocks.0"
    cavs = fit_cavs(
        {"low": activations(model, draw(10) // 2, layer, forward=forward)[layer]},
        [activations(model, draw(10), layer, forward=forward)[layer] for _ in range(3)],
    )
    scores = tcav(model, draw(4), torch.tensor([0, 1, 0, 1]), cavs, layer=model.blocks[0], forward=forward)
    assert scores.score.shape == (2, 1)
    assert forward_calls == [10, 10, 10, 10, 4]


# ------------------------------------------------------------ bad input


def test_bad_input_of_tcav() -> None:
    model, layer, inputs, targets, concepts, randoms = case("conv")
    cavs = fit_cavs(concepts, randoms)
    with pytest.raises(ValueError, match=r"gradients have the shape \(9, 6, 10, 10\)"):
        tcav(model, inputs, targets, cavs, layer="stem.0")
    with pytest.raises(ValueError, match=r"targets is \(8,\) for 9 samples"):
        tcav(model, inputs, targets[1:], cavs, layer=layer)
    with pytest.raises(ValueError, match="targets is 'predicted' for 9 samples"):
        tcav(model, inputs, "predicted", cavs, layer=layer)
    with pytest.raises(IndexError, match="target 7"):
        tcav(model, inputs, torch.full((9,), 7), cavs, layer=layer)
    with pytest.raises(ValueError, match=r"no layer 'targt'.*'target'"):
        tcav(model, inputs, targets, cavs, layer="targt")
    with pytest.raises(ValueError, match="needs at least 39 random sets, and 4 were given"):
        tcav(model, inputs, targets, cavs, layer=layer, test="rank")
    with pytest.raises(ValueError, match="test='t' with 2 concepts needs at least 3 random sets"):
        tcav(model, inputs, targets, fit_cavs(concepts, randoms[:1]), layer=layer)


def test_bad_input_of_scores() -> None:
    rows, targets, separation = stored()
    with pytest.raises(ValueError, match=r"no probes of class 1, 7; targets has \[0, 2\]"):
        score_concepts(rows, targets, names=("a", "b"), separation=separation, classes=[0, 1, 7])
    with pytest.raises(ValueError, match="names of concepts repeat: 'a', 'a'"):
        score_concepts(rows, targets, names=("a", "a"), separation=separation)
    with pytest.raises(ValueError, match=r"of 8 probes, 2 concepts and 10 random sets; targets \(7,\)"):
        score_concepts(rows, targets[1:], names=("a", "b"), separation=separation)


def test_bad_input_of_activations() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.windows = nn.Identity()
            self.never = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.windows(x.flatten(0, 1)).view_as(x).sum(2)

    model = Flat()
    with pytest.raises(ValueError, match=r"'windows' returns \(6, 4\) for 2 samples"):
        activations(model, torch.randn(2, 3, 4), "windows")
    with pytest.raises(ValueError, match="'never' did not run"):
        activations(model, torch.randn(2, 3, 4), "never")
    with pytest.raises(ValueError, match="there are no inputs"):
        activations(model, iter([]), "windows")


# ------------------------------------------------------------ the rate of false positives


class Classifier(nn.Module):
    """A conv net that is not averaged before its head."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(12, 24, 3, 2, 1), nn.ReLU())
        self.c = nn.Sequential(nn.Conv2d(24, 24, 3, 1, 1), nn.ReLU())
        self.head = nn.Linear(24 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.c(self.b(self.a(x))).flatten(1))


def images(number: int, random: torch.Generator) -> Tensor:
    """Blobs of random colours and contrasts under noise; a few of very high contrast."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(number, *shape, generator=random)

    contrast = 2 * torch.rand(number, 1, 1, 1, generator=random)
    contrast = torch.where(torch.rand(number, 1, 1, 1, generator=random) < 0.05, 6 * contrast, contrast)
    blobs = nn.functional.interpolate(draw(3, 4, 4), size=16, mode="bilinear")
    return contrast * blobs + 0.5 * draw(3, 1, 1) + 0.3 * draw(3, 16, 16)


def brightest_quarter(x: Tensor) -> Tensor:
    return nn.functional.adaptive_avg_pool2d(x.mean(1, keepdim=True), 2).flatten(1).argmax(1)


NETS: dict[str, tuple[Callable[[], nn.Module], str, bool]] = {
    "conv": (Classifier, "b", True),
    "vit": (lambda: ViT(pool="mean", width=24, classes=4), "blocks.0", True),
    "untrained": (Classifier, "b", False),
}


def null_p_values(
    net: str, trials: int, *, test: str = "t", concepts: int = 5, randoms: int = 10, pool: int = 1000
) -> Tensor:
    """(trials, concepts), after Holm: the concepts are random examples too, and all are fresh in each trial."""
    make, layer, trained = NETS[net]
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(1)
    model = make()
    if trained:
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(200):
            x = images(64, random)
            loss = nn.functional.cross_entropy(model(x), brightest_quarter(x))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    probe = images(48, random)
    targets = brightest_quarter(probe)
    probe, targets = probe[targets == 0], targets[targets == 0]
    gradients = layer_gradients(model, probe, targets, layer)[layer]
    found = []
    for _ in range(trials):
        size = set_size(pool, randoms, 20)
        examples = activations(model, images(concepts * 20 + randoms * size, random), layer, batch_size=1000)[layer]
        of_concepts, of_randoms = examples[: concepts * 20].split(20), examples[concepts * 20 :].split(size)
        cavs = fit_cavs({str(i): concept for i, concept in enumerate(of_concepts)}, of_randoms, replicates=0)
        scores = score_concepts(
            cavs.sensitivities(gradients), targets, names=cavs.names, separation=cavs.separation, test=test
        )
        found.append(scores.p_value[0])
    return torch.stack(found)


def reaches(rejected: Tensor, level: float = 0.05) -> bool:
    """Whether the 95% interval (Clopper and Pearson 1934) of the rate begins at the level or below."""
    from scipy.stats import beta

    hits, trials = int(rejected.sum()), len(rejected)
    return hits == 0 or beta.ppf(0.025, hits, trials - hits + 1) <= level


@pytest.mark.parametrize("net", NETS)
def test_rate_of_false_positives(net: str) -> None:
    p = null_p_values(net, 60)
    assert reaches((p <= 0.05).any(1))
    assert (p < 1).any(), "an empty comparison"


@pytest.mark.slow
@pytest.mark.parametrize("pool", [60, 120])
@pytest.mark.parametrize("net", NETS)
def test_rate_of_false_positives_with_a_small_pool(net: str, pool: int) -> None:
    """The random sets are smaller than the concept then."""
    p = null_p_values(net, 500, concepts=1, pool=pool)
    assert reaches((p <= 0.05).any(1))
    assert reaches((p <= 0.01).any(1), 0.01)


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(
    ("test", "concepts", "randoms"), [("t", 1, 10), ("t", 5, 10), ("t", 5, 4), ("rank", 1, 19), ("rank", 2, 39)]
)
def test_rate_of_false_positives_in_full(net: str, test: str, concepts: int, randoms: int) -> None:
    p = null_p_values(net, 500, test=test, concepts=concepts, randoms=randoms)
    assert reaches((p <= 0.05).any(1))
    assert reaches((p <= 0.01).any(1), 0.01)


def test_the_rate_can_fail() -> None:
    """The usual test, all runs against one concept, calls most random concepts significant."""
    assert not reaches(torch.arange(60) < 25)
    assert reaches(torch.arange(60) < 5)
