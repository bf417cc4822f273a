import pytest
import torch
from scipy import stats

from lightning_xai.functional.metrics.significance import (
    beats_chance,
    check_test,
    holm,
    prediction_t,
    rank,
    student_t_quantile,
    student_t_tail,
)


@pytest.mark.parametrize("freedom", [1, 2, 3, 9, 30, 199])
def test_students_t(freedom: int) -> None:
    t = torch.tensor([-50.0, -2.0, 0.0, 0.3, 4.0, 30.0, 1000.0], dtype=torch.float64)
    expected = torch.from_numpy(stats.t.sf(t.numpy(), freedom))
    torch.testing.assert_close(student_t_tail(t, freedom), expected, rtol=1e-9, atol=0)
    for tail in (0.3, 0.05, 1e-6):
        assert student_t_quantile(tail, freedom) == pytest.approx(stats.t.isf(tail, freedom), rel=1e-9)


def test_prediction_t_is_the_two_sample_t_of_one_value() -> None:
    null, effect = torch.randn(4, 10, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    p, lower, upper = prediction_t(effect, null)
    expected = stats.ttest_ind(effect[:, None].numpy(), null.numpy(), axis=1, alternative="greater").pvalue
    torch.testing.assert_close(p, torch.from_numpy(expected))
    for edge, value in ((upper, 0.05), (lower, 0.95)):
        torch.testing.assert_close(prediction_t(edge, null)[0], torch.full((4,), value, dtype=torch.float64))


def test_nothing_to_compare_with_is_not_significant() -> None:
    p, lower, upper = prediction_t(torch.tensor([1.0, 0.0]).double(), torch.zeros(2, 5).double())
    assert p.tolist() == [1, 1]
    assert not lower.any()
    assert not upper.any()


@pytest.mark.parametrize(("randoms", "beaten"), [(19, 19), (39, 38), (99, 95), (9, 10)])
def test_rank(randoms: int, beaten: int) -> None:
    null = torch.randperm(randoms).double()
    effect = torch.arange(-1, randoms + 1).double()
    p, lower, upper = rank(effect, null.expand(len(effect), -1))
    assert p[0] == 1
    assert float(p[-1]) == pytest.approx(1 / (randoms + 1))
    # above the band and significant are the same, but for too few sets
    assert (p <= 0.05).tolist() == ((effect > upper) & (randoms >= 19)).tolist()
    assert float(upper[0]) == min(beaten, randoms) - 1
    assert float(lower[0]) == randoms - min(beaten, randoms)


def test_holm() -> None:
    p = torch.tensor([[0.04, 0.01, 0.02], [0.5, 0.9, 1.0], [0.001, 0.001, 0.03]]).double()
    expected = torch.tensor([[0.04, 0.03, 0.04], [1, 1, 1], [0.003, 0.003, 0.03]]).double()
    torch.testing.assert_close(holm(p), expected)
    torch.testing.assert_close(holm(p[0, :1]), p[0, :1])


def test_beats_chance() -> None:
    accuracy = torch.tensor([[0.9, 0.8], [0.49, 0.51], [0.45, 0.6]])
    assert beats_chance(accuracy, (50, 50)).tolist() == [True, False, False]
    assert beats_chance(accuracy, (5000, 5000)).tolist() == [True, False, True]


@pytest.mark.parametrize(("test", "concepts", "needed"), [("t", 5, 3), ("rank", 1, 19), ("rank", 5, 99)])
def test_too_few_random_sets(test: str, concepts: int, needed: int) -> None:
    check_test(test, concepts, needed)
    with pytest.raises(ValueError, match=f"needs at least {needed} random sets, and {needed - 1} were given"):
        check_test(test, concepts, needed - 1)


def test_unknown_test() -> None:
    with pytest.raises(ValueError, match="test='welch' is unknown; expected one of 't', 'rank'"):
        check_test("welch", 1, 10)
