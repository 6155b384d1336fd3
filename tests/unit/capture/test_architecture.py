"""What a record says of a model's architecture."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline

from provenance.capture.architecture import architecture


def test_a_torch_module_is_its_structure_without_weights() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU())
    found = architecture(model)
    assert found["framework"] == "torch"
    assert found["class"] == "torch.nn.modules.container.Sequential"
    assert "Linear(in_features=3, out_features=2, bias=True)" in str(found["structure"])
    assert "parameters" not in found
    with torch.no_grad():
        model[0].weight.add_(1.0)
    assert architecture(model) == found


def test_an_estimator_brings_its_hyperparameters() -> None:
    found = architecture(SGDClassifier(alpha=0.5, random_state=3))
    assert found["framework"] == "sklearn"
    parameters = found["parameters"]
    assert isinstance(parameters, dict)
    assert (parameters["alpha"], parameters["random_state"]) == (0.5, 3)
    assert json.loads(json.dumps(parameters)) == parameters


def test_a_hyperparameter_without_a_json_form_is_its_type() -> None:
    class Estimator:
        def get_params(self, deep: bool = True) -> dict[str, object]:
            return {"kernel": object(), "nan": float("nan"), "base": SGDClassifier}

    parameters = architecture(Estimator())["parameters"]
    assert parameters == {
        "base": "sklearn.linear_model._stochastic_gradient.SGDClassifier",
        "kernel": "builtins.object",
        "nan": "NaN",
    }


def test_arrays_among_hyperparameters_show_no_values() -> None:
    class Estimator:
        def get_params(self, deep: bool = True) -> dict[str, object]:
            half = np.full(3, 0.5)
            series = pd.Series(half)
            return {
                "a": [half],
                "b": {"c": half},
                "d": series,
                "e": series.index,
                "f": torch.ones(2),
            }

    found = architecture(Estimator())
    assert found["parameters"] == {
        "a": ["numpy.ndarray float64[3]"],
        "b": {"c": "numpy.ndarray float64[3]"},
        "d": "Series",
        "e": "RangeIndex",
        "f": "torch.Tensor torch.float32[2]",
    }
    steps = make_pipeline(KMeans()).get_params(deep=False)["steps"]
    assert architecture(make_pipeline(KMeans()))["parameters"]["steps"] == [  # type: ignore[index, call-overload]
        [steps[0][0], "sklearn.cluster._kmeans.KMeans"]
    ]


@pytest.mark.slow
def test_what_is_no_model_has_a_structure_too() -> None:
    optimizer = torch.optim.SGD([torch.ones(1)], lr=0.1)
    assert "param_groups.0.lr: float" in str(architecture(optimizer)["structure"])


def test_get_params_that_takes_no_argument_is_left_alone() -> None:
    class Odd:
        def get_params(self) -> dict[str, object]:
            return {}

    assert "parameters" not in architecture(Odd())


def test_a_mapping_of_arrays_is_its_names() -> None:
    found = architecture({"b": np.zeros(2), "a": np.ones(2)})
    assert found["structure"] == "a, b"
    assert found["framework"] == "builtins"


def test_an_object_without_a_repr_of_its_own_shows_no_address() -> None:
    class Plain:
        pass

    found = architecture(Plain())
    assert str(found["structure"]).endswith("Plain")
    assert "0x" not in str(found["structure"])


def test_long_structures_are_cut() -> None:
    names = {f"layer{at:05}": 0 for at in range(5000)}
    assert len(str(architecture(names)["structure"])) == 16_384


class Odd:
    """An object that prints its weights."""

    def __repr__(self) -> str:
        return "0.12321"


class Loud(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]  # with torch or not
    """A module that prints its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(self.inner.weight, 0.12321)

    def extra_repr(self) -> str:
        """Shows them."""
        return str(self.inner.weight.item())

    __repr__ = extra_repr


def test_no_structure_shows_a_weight() -> None:
    secret = np.full((2, 2), 0.12321)
    pair = type("Pair", (tuple,), {"_fields": ("a", "b")})
    models: list[object] = [
        Loud(), [secret], (secret,), {"a": [secret]}, pair((secret, secret)), secret,
        torch.nn.DataParallel(Loud()), {"loud": Loud()}, Odd(),
        GaussianNB(priors=secret[0]), KMeans(init=secret), make_pipeline(KMeans(init=secret)),
    ]  # fmt: skip
    for model in models:
        text = json.dumps(architecture(model))
        assert "1232" not in text, text
    assert architecture(models[0])["class"] == architecture(models[6])["class"]
    assert str(architecture(models[6])["class"]).endswith(".Loud")
    assert architecture(models[6])["framework"] == "torch"
    assert "float64[2, 2]" in str(architecture([secret])["structure"])
