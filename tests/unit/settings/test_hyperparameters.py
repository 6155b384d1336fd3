"""What a record carries of a training's configuration, type by type."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import io
import ipaddress
import json
import pathlib
import random
import re
import sys
import types
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import attrs
import click
import numpy as np
import pydantic
import pytest

from provenance.errors import InputError
from provenance.formats.record import normalise
from provenance.settings.hyperparameters import (
    MAX_COST,
    MAX_NOTES,
    hyperparameters,
)
from provenance.settings.redaction import REDACTED, is_secret
from tests.support.frameworks import framework

torch = framework("torch")
flags = framework("absl.flags", "keras")
omegaconf = framework("omegaconf", "integrations")


class Scheduler(enum.StrEnum):
    LINEAR = "linear"


class Old(str, enum.Enum):  # noqa: UP042  what printed as Old.COSINE
    COSINE = "cosine"


class Size(enum.IntEnum):
    BIG = 3


@dataclasses.dataclass
class Inner:
    lr: float = 0.1
    betas: tuple[float, ...] = (0.9, 0.99)


@attrs.define
class Attrs:
    lr: float = 0.1


class Model(pydantic.BaseModel):
    lr: float = 0.1
    inner: Inner = Inner()
    key: pydantic.SecretStr = pydantic.SecretStr("hidden")


FLAGS = flags.FlagValues()
flags.DEFINE_float("lr", 0.1, "", flag_values=FLAGS)
FLAGS(["train.py"])
CONTEXT = click.Context(click.Command("train"))
CONTEXT.params = {"lr": 0.1}


class Point(NamedTuple):
    x: int
    y: int


class Pretrained:
    """As Transformers' configurations are."""

    def to_dict(self) -> dict[str, Any]:
        return {"hidden": 8}


class OwnConfig(Pretrained): ...


def loss(*values: object, **named: object) -> object:
    return values, named


MASKED = np.ma.masked_array([1.0, 2.0], [True, False])
RECORDED: list[tuple[object, object]] = [
    (None, None), (True, True), (3, 3), (0.5, 0.5), ("größe ✓", "größe ✓"),
    (float("inf"), "Infinity"), (float("nan"), "NaN"), (2**63 + 5, str(2**63 + 5)),
    (Scheduler.LINEAR, "linear"), (Old.COSINE, "cosine"), (Size.BIG, 3),
    (pathlib.PurePosixPath("/x/y"), "/x/y"),
    (torch.device("cuda", 1), "cuda:1"), (torch.bfloat16, "torch.bfloat16"),
    (torch.Size([2, 3]), [2, 3]), (torch.tensor(1.5), 1.5), (torch.ones(2), [1.0, 1.0]),
    (np.float32(0.5), 0.5), (np.longdouble(0.5), 0.5), (np.int64(3), 3), (np.bool_(True), True),
    (np.array([5.0]), [5.0]), (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
    (MASKED, [None, 2.0]), (MASKED[:1].mean(), None), (np.dtype("float32"), "float32"),
    (np.datetime64("2020-01-02"), "2020-01-02"), (np.float32, "numpy.float32"),
    (torch.nn.ReLU, "torch.nn.modules.activation.ReLU"), (len, "builtins.len"),
    (torch.nn.functional.cross_entropy, "torch.nn.functional.cross_entropy"),
    (loss, f"{__name__}.loss"), (int | None, "int | None"),
    ("ssh://git@example.org/a?b=1&tokens=2", "ssh://git@example.org/a?b=1&tokens=2"),
    (functools.partial(loss, 2, x=3),
     {"partial": f"{__name__}.loss", "args": [2], "keywords": {"x": 3}}),
    (datetime.datetime(2020, 1, 2, 3, 4), "2020-01-02T03:04:00"),
    (datetime.date(2020, 1, 2), "2020-01-02"),
    (datetime.timedelta(days=1, seconds=2.5), "P1DT2.5S"),
    (datetime.timedelta(seconds=-10), "-P0DT10S"),
    (b"ab", "6162"), (range(0, 6, 2), {"start": 0, "stop": 6, "step": 2}), (1 + 2j, "(1+2j)"),
    (decimal.Decimal("1.10"), "1.10"), (fractions.Fraction(1, 3), "1/3"),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (ipaddress.ip_address("10.0.0.1"), "10.0.0.1"), (re.compile("a+"), "a+"), (json, "json"),
    ({2, 1}, [1, 2]), (frozenset({"b", "a"}), ["a", "b"]), ((1, 2), [1, 2]),
    (collections.deque([1]), [1]), ({"a": 1}.keys(), ["a"]),
    (Inner(), {"lr": 0.1, "betas": [0.9, 0.99]}), (Attrs(), {"lr": 0.1}),
    (pydantic.AnyUrl("https://example.org/x"), "https://example.org/x"),
    (Point(1, 2), {"x": 1, "y": 2}), (OwnConfig(), {"hidden": 8}),
    (argparse.Namespace(lr=1), {"lr": 1}), (types.SimpleNamespace(a=1), {"a": 1}),
    (omegaconf.OmegaConf.create({"a": 1, "b": "${a}", "c": [1]}), {"a": 1, "b": 1, "c": [1]}),
    (omegaconf.OmegaConf.create({"a": "???", "b": "${a}"}), {"a": "???", "b": "${a}"}),
    ({0: 1, (1, 2): 3, None: 4, Size.BIG: 5}, {"0": 1, "[1, 2]": 3, "null": 4, "3": 5}),
]  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), RECORDED, ids=lambda value: type(value).__name__)
def test_a_value_has_its_plain_form_and_no_note(value: object, expected: object) -> None:
    assert hyperparameters({"k": value}) == ({"k": expected}, {})


NOTED: list[tuple[object, object, str]] = [
    (object(), "builtins.object", "by its type alone"),
    (torch.nn.ReLU(), "torch.nn.modules.activation.ReLU", "by its type alone"),
    (Pretrained(), f"{__name__}.Pretrained", "by its type alone"),
    (iter([1]), "builtins.list_iterator", "by its type alone"),
    (io.StringIO(), "_io.StringIO", "by its type alone"),
    (lambda x: x, f"{__name__}.<lambda>", "a lambda"),
    (bytes(65), "sha256:", "65 bytes: their SHA-256"),
    ("y" * 200_000, "y" * 256 + "... sha256:", "a text of 200000 characters"),
    (10**5000, "sha256:", "a whole number of 16610 bits"),
    (np.zeros((200, 200)), {"type": "numpy.ndarray", "dtype": "float64", "shape": [200, 200]},
     "a large array"),
    (torch.ones(2, device="meta"), "torch.Tensor", "by its type alone"),
    (pydantic.SecretStr("hidden"), REDACTED, "its type is a secret's"),
    ("https://me:hunter2@example.org/x", f"https://{REDACTED}@example.org/x", "in a URL"),
    ("redis://:a@hunter2@h/1", f"redis://{REDACTED}@h/1", "in a URL"),
    ("https://ghp_hunter2hunter2hunter2@github.com", f"https://{REDACTED}@github.com", "in a URL"),
    ("https://h/a?part=1&access_token=hunter2", f"https://h/a?part=1&access_token={REDACTED}",
     "a parameter"),
    ("https://h/a?sv=1&sig=hunter2&X-Amz-Signature=hunter2",
     f"https://h/a?sv=1&sig={REDACTED}&X-Amz-Signature={REDACTED}", "a parameter"),
    ("train.py --lr=0.1 --api-key=hunter2", f"train.py --lr=0.1 --api-key={REDACTED}",
     "a parameter"),
    ("host=h password=hunter2 port=1", f"host=h password={REDACTED} port=1", "a parameter"),
    ("Authorization: bearer hunter2", f"Authorization: bearer {REDACTED}", "a parameter"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("value", "expected", "note"), NOTED, ids=lambda v: type(v).__name__)
def test_what_has_no_plain_form_is_noted(value: object, expected: object, note: str) -> None:
    values, notes = hyperparameters({"a": [{"k": value}]})
    found: Any = values["a"]
    shown = found[0]["k"]
    assert shown == expected or (isinstance(expected, str) and shown.startswith(expected))
    assert note in notes["a[0].k"]


@pytest.mark.parametrize(
    "config",
    [
        argparse.Namespace(lr=0.1), Inner(), Attrs(), {"lr": 0.1}, types.SimpleNamespace(lr=0.1),
        omegaconf.OmegaConf.create({"lr": 0.1}), Model(), FLAGS, CONTEXT,
    ],
    ids=lambda config: type(config).__name__,
)  # fmt: skip
def test_a_configuration_may_be_any_object_with_named_fields(config: object) -> None:
    assert hyperparameters(config).values["lr"] == 0.1


@pytest.mark.parametrize("config", [3, "text", [1], object(), Inner])
def test_what_is_no_configuration_is_refused(config: object) -> None:
    with pytest.raises(InputError, match="^config: found a .*, expected a mapping"):
        hyperparameters(config)


SECRETS = [
    "password", "db_password", "API_KEY", "apiKey", "openaiApiKey", "hf_token", "token",
    "hub_token", "aws_secret_access_key", "client-secret", "passphrase", "credentials", "wandb.key_"
    "secret", "accessToken", "Authorization", "basic_auth", "Cookie", "OPENAI_KEY",
]  # fmt: skip
PUBLIC = [
    "max_tokens", "pad_token", "eos_token", "num_tokens", "tokenizer", "special_tokens", "key",
    "key_dim", "passes", "bypass", "sort_key", "token_dropout", "author", "mask_token", "n_tokens",
]  # fmt: skip


def test_secrets_are_redacted_by_name() -> None:
    assert [name for name in SECRETS if not is_secret(name)] == []
    assert [name for name in PUBLIC if is_secret(name)] == []
    given = {"password": "hunter2", "nested": {"api_key": b"x", "secrets": {"a": ["b"], "n": 5}},
             "pin_secret": 1234, "token": None, "use_token": True, "tokens": 5}  # fmt: skip
    values, notes = hyperparameters(given)
    assert values == {
        "password": REDACTED, "nested": {"api_key": REDACTED, "secrets": {"a": [REDACTED], "n": 5}},
        "pin_secret": REDACTED, "token": None, "use_token": True, "tokens": 5,
    }  # fmt: skip
    argv = ["train.py", "--lr", "1", "--api-key", "hunter2", "--pad-token", "<pad>", "token", "x"]
    told, redacted = hyperparameters({"argv": argv})
    assert told == {"argv": [*argv[:4], REDACTED, *argv[5:]]}
    assert set(redacted) == {"argv[4]"}
    command = "train.py --lr 3 --api-key hunter2 --pad-token <pad> -password 'hunter2 x' --tokens 5"
    told, redacted = hyperparameters({"command": command})
    shown = (
        f"train.py --lr 3 --api-key {REDACTED} --pad-token <pad> -password {REDACTED} --tokens 5"
    )
    assert (told, set(redacted)) == ({"command": shown}, {"command"})
    assert set(notes) == {"password", "nested.api_key", "nested.secrets.a[0]", "pin_secret"}
    assert "hunter2" not in json.dumps([values, notes])


@pytest.mark.slow
def test_what_holds_itself_or_is_deep_or_huge_ends() -> None:
    ring: dict[str, Any] = {"a": 1}
    ring["ring"] = ring
    assert hyperparameters(ring) == (
        {"a": 1, "ring": "builtins.dict"}, {"ring": "holds itself; recorded by its type alone"},
    )  # fmt: skip
    deep: Any = 1
    for _ in range(1000):
        deep = [deep]
    normalise(hyperparameters({"deep": deep}).values)
    doubled: Any = ["x" * 100]
    for _ in range(20):
        doubled = [doubled, doubled]
    values, notes = hyperparameters({"doubled": doubled, "objects": [object()] * 10_000})
    assert len(json.dumps(values)) < 2 * MAX_COST
    assert 1 < len(notes) <= MAX_NOTES + 1


class Hostile:
    """Raises whatever it is asked."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    __iter__ = __len__ = __str__ = __repr__ = __hash__ = None  # type: ignore[assignment]  # not even these


class HostileDict(dict[str, int]):
    def items(self) -> Any:
        raise RuntimeError("no")


def test_no_value_ends_a_training() -> None:
    values, notes = hyperparameters({"a": Hostile(), "b": HostileDict(a=1), "c": 1})
    assert values == {"a": f"{__name__}.Hostile", "b": f"{__name__}.HostileDict", "c": 1}
    assert set(notes) == {"a", "b"}
    with pytest.raises(InputError, match="found a HostileDict, expected .* that can be read"):
        hyperparameters(HostileDict(a=1))


# --- property: nested values of all these types ------------------------------------------

MAKERS: list[Callable[[random.Random, int], object]] = [
    *((lambda _, __, value=value: value) for value, _ in RECORDED),
    *((lambda _, __, value=value: value) for value, _, _ in NOTED),
    lambda chance, _: chance.randbytes(chance.randrange(200)),
    lambda chance, _: chance.uniform(-1e300, 1e300),
    lambda chance, _: chance.getrandbits(chance.choice([8, 64, 20_000])),
    lambda chance, _: "".join(map(chr, (chance.randrange(0xE000) for _ in range(5)))),
    lambda chance, depth: [nested(chance, depth + 1) for _ in range(chance.randrange(4))],
    lambda chance, depth: tuple(nested(chance, depth + 1) for _ in range(chance.randrange(4))),
    lambda chance, depth: {
        chance.choice(["a", 1, None, 2.5, Size.BIG, (1, "x"), b"k", Inner, "password", object()]):
            nested(chance, depth + 1)
        for _ in range(chance.randrange(4))
    },
    lambda chance, depth: argparse.Namespace(a=nested(chance, depth + 1)),
    lambda chance, depth: functools.partial(loss, nested(chance, depth + 1)),
    lambda chance, depth: dataclasses.make_dataclass("Made", ["v"])(nested(chance, depth + 1)),
    lambda chance, depth: slice(nested(chance, depth + 1)),
    lambda chance, depth: np.array([nested(chance, depth + 1), 1], dtype=object),
]  # fmt: skip


def nested(chance: random.Random, depth: int = 0) -> object:
    return chance.choice(MAKERS)(chance, depth) if depth < 6 else None


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(300))
def test_any_nesting_of_any_of_them_is_recorded_without_an_address(seed: int) -> None:
    config = {"k": nested(random.Random(seed)), "l": nested(random.Random(-seed - 1))}
    values, notes = hyperparameters(config)
    assert normalise(values) == values, "it has the form that a record needs"
    text = json.dumps([values, notes], allow_nan=False)
    assert "0x" not in text
    assert "hunter2" not in text


def test_packages_that_are_not_imported_are_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("omegaconf", "numpy", "argparse"):
        monkeypatch.delitem(sys.modules, name)
    assert hyperparameters({"a": np.float32(1), "b": {1}}) == ({"a": 1.0, "b": [1]}, {})
