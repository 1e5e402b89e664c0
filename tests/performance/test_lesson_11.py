"""How long the filters of lesson 11 take: measured and reported, never asserted."""

import pytest
import torch

from course_utils.data import balanced, load
from course_utils.defenses.filters import activation_clustering, deep_knn, spectral_signatures
from course_utils.defenses.sanitizers import sanitizer
from course_utils.models import build
from course_utils.runtime import one_thread
from course_utils.training import Recipe, train

FILTERS = {
    "loss": sanitizer("loss"),
    "four sanitizers": sanitizer("sphere", "slab", "loss", "k-NN"),
    "spectral": spectral_signatures(0.15),
    "clustering": activation_clustering(),
    "deep 60-NN": deep_knn(60),
}


@pytest.fixture(scope="module")
def looks():
    """Images, and a model that looks at them, for two sizes of data."""
    found = {}
    for n in (3000, 10_000):
        data = balanced(load()[0], n, seed=0)
        with one_thread():
            model = train(build("mlp", data.shape, 10), data, Recipe(epochs=5))
        found[n] = data, model
    return found


@pytest.mark.benchmark(group="a filter, without its first training")
@pytest.mark.parametrize("n", [3000, 10_000])
@pytest.mark.parametrize("name", FILTERS)
def test_a_filter(benchmark, looks, name, n):
    data, model = looks[n]
    with one_thread():
        benchmark.pedantic(
            FILTERS[name].keep, (data, lambda part: model), rounds=3, warmup_rounds=1
        )


@pytest.mark.benchmark(group="a filter, without its first training")
@pytest.mark.parametrize("n", [3000, 10_000])
def test_the_first_training(benchmark, looks, n):
    """What the filters' own work is to be compared with: twenty epochs."""
    data, _ = looks[n]
    model = build("mlp", data.shape, 10)
    with one_thread():
        benchmark.pedantic(train, (model, data, Recipe(epochs=20)), rounds=2)


@pytest.mark.benchmark(group="direction of a class of 300 images with 256 features")
@pytest.mark.parametrize("way", ["svd", "power iteration"])
def test_the_first_direction(benchmark, looks, way):
    data, model = looks[3000]
    with torch.no_grad():
        features = model.features(data.x[data.y == 0]).double()
    around = features - features.mean(0)

    def power() -> torch.Tensor:
        vector = torch.ones(around.shape[1], dtype=around.dtype)
        for _ in range(100):
            vector = around.T @ (around @ vector)
            vector = vector / vector.norm()
        return vector

    def svd() -> torch.Tensor:
        return torch.linalg.svd(around, full_matrices=False).Vh[0]

    with one_thread():
        benchmark.pedantic(svd if way == "svd" else power, rounds=10, warmup_rounds=1)
