"""Proofs about hidden numbers, from section 13 of docs/FORMAT.md; own arithmetic, no library's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import cache
from hashlib import sha256, sha512
from hmac import digest as hmac
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from files import seal_label
from formats import canonical, need, parse, unhex

P = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
Point = tuple[int, int] | None
"""Affine; None is the point at infinity."""
G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)
Jacobian = tuple[int, int, int]
Terms = Sequence[tuple[int, Point]]
NUMBER = {"run", "seal", "root", "path", "record", "metric", "scale", "point"}
STATEMENT = {"number", "at_least", "at_most", "equals"}


def double(p: Jacobian) -> Jacobian:
    x, y, z = p
    s, m = 4 * x * y * y % P, 3 * x * x % P
    x3 = (m * m - 2 * s) % P
    return x3, (m * (s - x3) - 8 * y**4) % P, 2 * y * z % P


def plus(p: Jacobian, q: tuple[int, int]) -> Jacobian:
    x, y, z = p
    if not z:
        return (*q, 1)
    h, r = (q[0] * z * z - x) % P, (q[1] * z**3 - y) % P
    if not h:
        return double(p) if not r else (0, 1, 0)
    x3 = (r * r - h**3 - 2 * x * h * h) % P
    return x3, (r * (x * h * h - x3) - y * h**3) % P, z * h % P


def total(terms: Terms) -> Point:
    """The sum of points times their scalars, bit by bit of all at once."""
    known = [(scalar % N, point) for scalar, point in terms if point is not None]
    found: Jacobian = (0, 1, 0)
    for bit in range(255, -1, -1):
        found = double(found)
        for scalar, point in known:
            if scalar >> bit & 1:
                found = plus(found, point)
    x, y, z = found
    if not z:
        return None
    inverse = pow(z, -1, P)
    return x * inverse**2 % P, y * inverse**3 % P


def decode(data: bytes) -> Point:
    x = int.from_bytes(data[1:], "big")
    need(len(data) == 33 and data[0] in (2, 3) and x < P, "no point")
    square = (pow(x, 3, P) + 7) % P
    y = pow(square, (P + 1) // 4, P)
    need(y * y % P == square, "a point that is not on the curve")
    return x, y if y % 2 == data[0] % 2 else P - y


def encode(point: Point) -> bytes:
    need(point is not None, "the point at infinity")
    assert point is not None
    return bytes([2 + point[1] % 2]) + point[0].to_bytes(32, "big")


@cache
def generator(name: str) -> Point:
    for counter in range(256):
        text = b"ml-provenance/generator/v1\0" + name.encode() + b"\0" + counter.to_bytes(4, "big")
        try:
            return decode(b"\2" + sha256(text).digest())
        except ValueError:
            continue
    raise ValueError("no generator")


def blinding(key: bytes, producer: bytes, seq: int, value: int, name: str) -> int:
    text = producer + seq.to_bytes(8, "big") + value.to_bytes(8, "big", signed=True) + name.encode()
    return int.from_bytes(hmac(key, text, "sha512"), "big") % (N - 1) + 1


class Transcript:
    def __init__(self, statement: bytes) -> None:
        self.state = sha256(b"ml-provenance/transcript/v1\0" + statement).digest()

    def append(self, label: str, data: bytes) -> None:
        name = label.encode()
        text = bytes([len(name)]) + name + len(data).to_bytes(4, "big") + data
        self.state = sha256(self.state + text).digest()

    def challenge(self, label: str) -> int:
        self.append(label, b"")
        found = int.from_bytes(sha512(self.state).digest(), "big") % N
        need(found, "a challenge that is zero")
        return found


class Proof:
    """Its fields, front to back."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, size: int) -> bytes:
        need(len(self.data) >= size, "the proof is too short")
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def point(self, transcript: Transcript, label: str) -> Point:
        data = self.take(33)
        transcript.append(label, data)
        return decode(data)

    def scalar(self, data: bytes | None = None) -> int:
        found = int.from_bytes(self.take(32) if data is None else data, "big")
        need(found < N, "a scalar that is too large")
        return found

    def end(self) -> None:
        need(not self.data, "bytes behind the proof")


def check_bounds(points: Sequence[Point], proof: bytes, transcript: Transcript) -> None:
    read, size, base = Proof(proof), 64 * len(points), generator("blinding")
    for each in points:
        transcript.append("V", encode(each))
    big_a, big_s = read.point(transcript, "A"), read.point(transcript, "S")
    y, z = transcript.challenge("y"), transcript.challenge("z")
    t1, t2 = read.point(transcript, "T1"), read.point(transcript, "T2")
    x, scalars = transcript.challenge("x"), read.take(96)
    transcript.append("t", scalars)
    tau, mu, t = (read.scalar(scalars[at : at + 32]) for at in (0, 32, 64))
    w, rounds = transcript.challenge("w"), []
    for _ in range(size.bit_length() - 1):
        pair = read.point(transcript, "L"), read.point(transcript, "R")
        rounds.append((transcript.challenge("u"), *pair))
    a, b = read.scalar(), read.scalar()
    read.end()

    ys = [pow(y, i, N) for i in range(size)]
    ps = [pow(z, 2 + i // 64, N) * 2 ** (i % 64) for i in range(size)]
    delta = (z - z * z) * sum(ys) - z * sum(ps)
    terms: list[tuple[int, Point]] = [(t - delta, G), (tau, base), (-x, t1), (-x * x, t2)]
    terms += [(-pow(z, 2 + at, N), each) for at, each in enumerate(points)]
    need(total(terms) is None, "the first equation of a range proof")

    terms = [(1, big_a), (x, big_s), (-mu, base), (w * (t - a * b), generator("inner"))]
    for i in range(size):
        s = 1
        for digit, (u, _, _) in zip(f"{i:0{len(rounds)}b}", rounds, strict=True):
            s = s * (u if digit == "1" else pow(u, -1, N)) % N
        terms.append((-z - a * s, generator(f"left/{i}")))
        own = z + pow(ys[i], -1, N) * (ps[i] - b * pow(s, -1, N))
        terms.append((own, generator(f"right/{i}")))
    for u, left, right in rounds:
        terms += [(u * u, left), (pow(u, -2, N), right)]
    need(total(terms) is None, "the second equation of a range proof")


def check_equality(points: Sequence[Point], proof: bytes, transcript: Transcript) -> None:
    read = Proof(proof)
    need(points[0] != points[1], "an equality of one commitment")
    for each in points:
        transcript.append("V", encode(each))
    r, s = read.point(transcript, "R"), read.scalar()
    read.end()
    c = transcript.challenge("c")
    terms = [(s, generator("blinding")), (-1, r), (-c, points[0]), (c, points[1])]
    need(total(terms) is None, "the equation of an equality")


def check_file(data: bytes) -> list[dict[str, Any]]:
    """The numbers that a proof file is about, once it holds."""
    told = parse(data)
    need(len(data) <= 64 << 10 and canonical(told) == data, "not in canonical form")
    need(set(told) == {"proof", "statement", "v"} and canonical(told["v"]) == b"1", "keys, version")
    statement, proof = told["statement"], told["proof"]
    need(set(statement) == STATEMENT and re.fullmatch("(?:[0-9a-f]{2})+", proof), "other keys")
    low, high = (bound(statement[key]) for key in ("at_least", "at_most"))
    numbers = [each for each in (statement["number"], statement["equals"]) if each is not None]
    points = [number(each) for each in numbers]
    transcript = Transcript(canonical(statement))
    if len(numbers) == 2:
        need(low is high is None and numbers[0]["scale"] == numbers[1]["scale"], "no statement")
        check_equality(points, bytes.fromhex(proof), transcript)
        return numbers
    need((low, high) != (None, None), "no statement")
    need(low is None or high is None or low <= high, "bounds that exclude one another")
    (point,), shifted = points, []
    if low is not None:
        shifted.append(total([(1, point), (-low, G)]))
    if high is not None:
        shifted.append(total([(-1, point), (high, G)]))
    check_bounds(shifted, bytes.fromhex(proof), transcript)
    return numbers


def bound(text: Any) -> int | None:
    if text is None:
        return None
    need(re.fullmatch("0|-?[1-9][0-9]*", text) and -(2**63) <= int(text) < 2**63, "no bound")
    return int(text)


def number(told: dict[str, Any]) -> Point:
    need(set(told) == NUMBER and type(told["scale"]) is int and 0 <= told["scale"] <= 12, "number")
    need(1 <= len(told["metric"]) <= 200 and told["metric"].isprintable(), "the number's name")
    need(told["path"].startswith(("training/", "data/")), "the number's path")
    unhex(told["root"], 32), unhex(told["record"], 32)
    return decode(unhex(told["point"], 33))


def shown(numbers: Any, name: str) -> Iterator[Any]:
    """What stands under a name, nested ones with dots."""
    for key, inner in numbers.items() if isinstance(numbers, dict) else ():
        if key == name:
            yield inner
        if name.startswith(f"{key}."):
            yield from shown(inner, name[len(key) + 1 :])
    for inner in numbers if isinstance(numbers, list) else ():
        yield from shown(inner, name)


def units(value: Any, scale: int) -> int:
    if isinstance(value, str) and re.fullmatch("-?[1-9][0-9]{15,30}", value):
        value = int(value)  # beyond 2^53
    need(type(value) in (int, float), "shows what is no number beside a commitment")
    exact = Context(prec=400, rounding=ROUND_HALF_EVEN)
    found = int(Decimal(repr(value)).scaleb(scale, exact).quantize(Decimal(1), context=exact))
    need(-(2**63) <= found < 2**63, "shows a number that no commitment is to")
    return found


def is_under(seal: dict[str, Any], path: str) -> bool:
    """Whether a record that the newest root has at this path is under a seal's root (5.1)."""
    top, *below = path.split("/")
    if top == "data" or seal["phase"] == "after":
        return True
    of_epoch = below[0] == "epoch" and seal["phase"] == "checkpoint"
    return of_epoch and int(below[1]) <= seal["epoch"]


def check_proof(data: bytes, run: dict[str, Any], bodies: dict[str, Any]) -> str | None:
    """Against a bundle: its ``run.json`` and the records that are not withheld; what is open."""
    own = [each for each in check_file(data) if each["run"] == run["run"]]
    need(own, "is of another run")
    values: set[int] = set()
    seals = {(seal_label(entry), entry["root"]): entry for entry in run["entries"]}
    for told in own:
        need((told["seal"], told["root"]) in seals, "is of another seal")
        need(is_under(seals[told["seal"], told["root"]], told["path"]), "a seal without the record")
        records = {record["path"]: record for record in run["records"]}
        record = records[told["path"]]
        need(record["digest"] == told["record"], "is of another record")
        if record["withheld"]:
            return "the record is withheld"
        body = bodies[told["path"]]
        stated = body["commitments"][told["metric"]]
        need(stated == {"point": told["point"], "scale": told["scale"]}, "another commitment")
        parts = [body.get(part) for part in ("metrics", "privacy", "results")]
        if told["path"].startswith("data/"):
            split = told["path"].split("/")[1]
            parts = [{f"data.{split}.count": body["count"]}] if "count" in body else []
        values |= {units(value, told["scale"]) for value in shown(parts, told["metric"])}
    statement = parse(data)["statement"]
    low, high = (bound(statement[key]) for key in ("at_least", "at_most"))
    fits = all((low is None or low <= v) and (high is None or v <= high) for v in values)
    need(fits and (statement["equals"] is None or len(values) < 2), "the record shows another")
    return None


def examples(look: Any) -> None:
    """Those of the document."""
    keys, told = look.json("keys"), look.json("commitment")
    for name, point in look.json("generators").items():
        need(encode(generator(name)).hex() == point, f"the generator {name}")
    info = b"ml-provenance/blinding/v1"
    key = HKDF(SHA256(), 32, None, info).derive(bytes.fromhex(keys["run_key_seed"]))
    need(key.hex() == told["blinding_key"], "the key of blindings")
    producer, value = bytes.fromhex(keys["producer"]), told["value"]
    factor = blinding(key, producer, 5, value, "loss")
    need(factor == int(told["blinding"], 16), "the blinding")
    point = total([(value, G), (factor, generator("blinding"))])
    need(encode(point).hex() == told["point"], "the commitment")
    for name in ("proof-at-least", "proof-equals"):
        numbers = check_file(look.exact(name))
        need(numbers[0]["point"] == told["point"], name)
