"""Random changes of a bundle.

A forger has this program: what lists the other files (manifest, sums, roots) is made anew, so
that nothing but evidence is in the way; what a bundle need not have (files for other tools) is
left out where it would speak against him; and whoever drops a thing drops all that belongs to it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any

from provenance.bundle.index import dump, sums
from tests.adversary.deployment import Files, sha256
from tests.adversary.mutations import (
    LISTS,
    Mutation,
    Place,
    confused,
    inner_of,
    name_of,
    other,
    places,
    written,
)

OTHER_TOOLS = ("statement/", "tlog/", ".ots", ".root")


def remade(files: Files) -> Files:
    """Manifest and sums that fit the files, roots and run of run.json."""
    made = {name: data for name, data in files.items() if name not in LISTS}
    manifest = json.loads(files["manifest.json"])
    manifest["files"] = [
        {"path": name, "sha256": sha256(data), "size": len(data)}
        for name, data in sorted(made.items())
    ]
    try:
        run = json.loads(made["run.json"])
        manifest["run"] = run["run"]
        manifest["roots"] = {
            entry["phase"] + ("" if entry["epoch"] is None else f"-{entry['epoch']}"): entry["root"]
            for entry in run["entries"]
        }
    except (KeyError, ValueError, TypeError):
        pass  # then the forger left them
    made["manifest.json"] = dump(manifest)
    return {**made, "SHA256SUMS": sums({name: sha256(data) for name, data in made.items()})}


class BundleForger:
    """Changes of one bundle; ``donors`` are of another run and of another deployment."""

    def __init__(self, files: Files, donors: dict[str, Files]) -> None:
        self.files, self.donors = files, donors
        self.documents = {n: json.loads(d) for n, d in files.items() if n.endswith(".json")}
        run = self.documents["run.json"]
        self.fields = [("run.json", place) for place in places(run)]
        self.fields += [
            (name, place)
            for name, document in self.documents.items()
            if not name.startswith(("run.json", "manifest", "proofs/", "records/"))
            for place in places(document)
        ]
        self.drops = [name for name in dir(self) if name.startswith("_drop_")]

    def field(self, at: int, chance: Random) -> tuple[Mutation, Files]:
        """The field of this number, changed to another value."""
        name, place = self.fields[at]
        return self._edit("edit", name, place, lambda old: other(old, chance))

    def any(self, chance: Random) -> tuple[Mutation, Files] | None:
        """A random change; None where this one came to nothing."""
        ways = [self._value, self._splice, self._list, self._file, self._drop, self._twice]
        return chance.choices(ways, (30, 25, 15, 15, 10, 5))[0](chance)

    def flip(self, chance: Random) -> tuple[Mutation, Files]:
        """One bit of one file, with and without a manifest that fits."""
        name = chance.choice(sorted(self.files))
        changed = bytearray(self.files[name])
        bit = chance.randrange(8 * len(changed))
        changed[bit // 8] ^= 1 << bit % 8
        made = {**self.files, name: bytes(changed)}
        fits = name not in LISTS and chance.random() < 0.5
        place = _file_place(name) + (self._flipped(name, made[name]) if fits else "")
        return Mutation("flip", place), remade(made) if fits else made

    def _flipped(self, name: str, data: bytes) -> str:
        """The field that a bit lies in; nothing where the file is no JSON any more."""
        try:
            found = json.loads(data)
            same = [p for p in places(self.documents[name]) if inner_of(found, p) is not None]
        except (ValueError, LookupError, TypeError):
            return ""
        before = self.documents[name]
        differ = [p for p in same if inner_of(found, p) != inner_of(before, p)]
        return f": {name_of(differ[-1])}" if differ else ""

    # --- ways ---------------------------------------------------------------------------

    def _some(self, chance: Random) -> tuple[str, Place]:
        if chance.random() < 0.7:
            return chance.choice(self.fields)
        name = chance.choice(sorted(self.documents))
        return name, chance.choice(list(places(self.documents[name])))

    def _edit(
        self, how: str, name: str, place: Place, change: Callable[[Any], Any]
    ) -> tuple[Mutation, Files]:
        document = copy.deepcopy(self.documents[name])
        inner = inner_of(document, place[:-1])
        inner[place[-1]] = change(inner[place[-1]])
        return self._with(how, name, place, document)

    def _with(self, how: str, name: str, place: Place, document: Any) -> tuple[Mutation, Files]:
        made = {**self.files, name: written(name, document)}
        if made[name] == written(name, self.documents[name]):
            return Mutation(how, name), self.files
        if not name.startswith(OTHER_TOOLS):
            _without(made, *OTHER_TOOLS)
        if name.startswith("records/"):
            made["run.json"] = _with_digest(made["run.json"], name, made[name])
        where = f"{_file_place(name)}: {name_of(place)}"
        if name == "manifest.json":
            digests = {n: sha256(d) for n, d in made.items() if n != "SHA256SUMS"}
            return Mutation(how, where), {**made, "SHA256SUMS": sums(digests)}
        return Mutation(how, where), remade(made)

    def _value(self, chance: Random) -> tuple[Mutation, Files]:
        name, place = self._some(chance)
        if chance.random() < 0.5:
            return self._edit("edit", name, place, lambda old: other(old, chance))
        if chance.random() < 0.3:
            document = copy.deepcopy(self.documents[name])
            del inner_of(document, place[:-1])[place[-1]]
            return self._with("delete", name, place, document)
        return self._edit("confuse", name, place, lambda old: confused(old, chance))

    def _splice(self, chance: Random) -> tuple[Mutation, Files] | None:
        """The same field, or the same file, of another run or deployment; or of a neighbour."""
        donor = chance.choice(sorted(self.donors))
        name, place = self._some(chance)
        if chance.random() < 0.3:
            name = chance.choice(sorted(set(self.files) - set(LISTS)))
            if name not in self.donors[donor]:
                return None
            made = remade({**self.files, name: self.donors[donor][name]})
            return Mutation(f"from {donor}", _file_place(name)), made
        if chance.random() < 0.4:  # a sibling: the same field of another item of the list
            siblings = [p for n, p in self.fields if n == name and name_of(p) == name_of(place)]
            if not siblings:
                return None
            value = inner_of(self.documents[name], chance.choice(siblings))
            return self._edit("from a neighbour", name, place, lambda _: copy.deepcopy(value))
        try:
            value = inner_of(json.loads(self.donors[donor][name]), place)
        except (KeyError, IndexError, TypeError):
            return None
        return self._edit(f"from {donor}", name, place, lambda _: value)

    def _list(self, chance: Random) -> tuple[Mutation, Files] | None:
        name, place = self._some(chance)
        value = inner_of(self.documents[name], place)
        if not isinstance(value, list) or not value:
            return None
        items = copy.deepcopy(value)
        how = chance.choice(("swap", "double", "delete"))
        at, to = chance.randrange(len(items)), chance.randrange(len(items))
        if how == "swap":
            items[at], items[to] = items[to], items[at]
        elif how == "double":
            items.insert(to, items[at])
        else:
            del items[at]
        return self._edit(how, name, place, lambda _: items)

    def _twice(self, chance: Random) -> tuple[Mutation, Files] | None:
        """A key that an object has twice, the second time with another value."""
        name, place = self._some(chance)
        if not isinstance(place[-1], str):
            return None
        document = copy.deepcopy(self.documents[name])
        inner = inner_of(document, place[:-1])
        inner[f"@twice:{place[-1]}"] = other(inner[place[-1]], chance)
        return self._with("key twice", name, place, document)

    def _file(self, chance: Random) -> tuple[Mutation, Files] | None:
        names = sorted(set(self.files) - set(LISTS))
        name, second = chance.choice(names), chance.choice(names)
        how = chance.choice(("delete", "truncate", "swap", "add", "lengthen", "empty"))
        made, data = dict(self.files), self.files[name]
        if how == "delete":
            del made[name]
        elif how == "truncate":
            made[name] = data[: chance.randrange(len(data))]
        elif how == "swap":
            made[name], made[second] = made[second], made[name]
        elif how == "lengthen":
            made[name] = data + chance.choice((b"\n", b"\0", b" ", data))
        elif how == "empty":
            made[name] = b""
        else:
            head, _, tail = name.rpartition("/")
            name = f"{head}/{chance.choice(('x', '.', '0'))}{tail}".lstrip("/")
            made[name] = data
        return Mutation(f"file {how}", _file_place(name)), remade(made)

    # --- a thing with all that belongs to it ----------------------------------------------

    def _drop(self, chance: Random) -> tuple[Mutation, Files]:
        way = chance.choice(self.drops)
        made, run = dict(self.files), copy.deepcopy(self.documents["run.json"])
        getattr(self, way)(made, run, chance)
        made["run.json"] = dump(run)
        return Mutation("drop", f"the {way.removeprefix('_drop_').replace('_', ' ')}"), remade(made)

    @staticmethod
    def _drop_receipt(made: Files, run: dict[str, Any], chance: Random) -> None:
        name = run["receipts"].pop(chance.randrange(len(run["receipts"])))
        del made[f"receipts/{name}.json"]
        _without(made, *OTHER_TOOLS)

    @staticmethod
    def _drop_newest_seal(made: Files, run: dict[str, Any], chance: Random) -> None:
        entry = run["entries"].pop()
        run["inclusions"] = [i for i in run["inclusions"] if i["index"] != entry["index"]]
        for name in [n for n in run["receipts"] if n.startswith("after-")]:
            run["receipts"].remove(name)
            del made[f"receipts/{name}.json"]
        size = run["heads"].pop()
        run["consistencies"] = [c for c in run["consistencies"] if c["new_size"] != size]
        _without(made, *OTHER_TOOLS, f"heads/{size}.", "proofs/")

    @staticmethod
    def _drop_record(made: Files, run: dict[str, Any], chance: Random) -> None:
        path = run["records"].pop(chance.randrange(len(run["records"])))["path"]
        _without(made, *OTHER_TOOLS, f"records/{path}.", f"proofs/{path}.")

    @staticmethod
    def _drop_producer(made: Files, run: dict[str, Any], chance: Random) -> None:
        gone = run["producers"].pop(chance.randrange(len(run["producers"])))["producer"]
        for record in [r for r in run["records"] if r["producer"] == gone]:
            run["records"].remove(record)
            _without(made, f"records/{record['path']}.", f"proofs/{record['path']}.")
        for entry in run["entries"]:
            entry["coverage"].pop(gone, None)
        _without(made, *OTHER_TOOLS)

    @staticmethod
    def _drop_tail(made: Files, run: dict[str, Any], chance: Random) -> None:
        """The last events of a producer, down to an older statement of its own."""
        own = chance.choice(run["producers"])
        if len(own["statements"]) > 1:
            own["statements"].pop()
        for record in list(run["records"]):
            newest = own["statements"][-1]["count"]
            if record["producer"] == own["producer"] and record["seq"] >= newest:
                run["records"].remove(record)
                _without(made, f"records/{record['path']}.", f"proofs/{record['path']}.")
        _without(made, *OTHER_TOOLS)

    @staticmethod
    def _drop_identity(made: Files, run: dict[str, Any], chance: Random) -> None:
        run["identity"] = None

    @staticmethod
    def _drop_head(made: Files, run: dict[str, Any], chance: Random) -> None:
        size = run["heads"].pop(chance.randrange(len(run["heads"])))
        run["inclusions"] = [i for i in run["inclusions"] if i["size"] != size]
        run["consistencies"] = [
            c for c in run["consistencies"] if size not in (c["old_size"], c["new_size"])
        ]
        _without(made, *OTHER_TOOLS, f"heads/{size}.")

    @staticmethod
    def _drop_second_value(made: Files, run: dict[str, Any], chance: Random) -> None:
        run["equivocations"].clear()
        _without(made, "equivocations/")

    @staticmethod
    def _drop_files_for_other_tools(made: Files, run: dict[str, Any], chance: Random) -> None:
        _without(made, *OTHER_TOOLS, "proofs/")

    @staticmethod
    def _drop_content_as_withheld(made: Files, run: dict[str, Any], chance: Random) -> None:
        record = chance.choice(run["records"])
        record["withheld"] = True
        _without(made, *OTHER_TOOLS, f"records/{record['path']}.")


def _with_digest(index: bytes, name: str, data: bytes) -> bytes:
    run = json.loads(index)
    for record in run["records"]:
        if f"records/{record['path']}.json" == name:
            record["digest"] = sha256(data)
    return dump(run)


def _without(files: Files, *parts: str) -> None:
    """Files that begin so, or end so where the part is an ending."""
    for name in [n for n in files if any(n.startswith(p) or n.endswith(p) for p in parts)]:
        del files[name]


def _file_place(name: str) -> str:
    """A file by its kind: what is between its folder and its ending stands for any."""
    head, slash, tail = name.partition("/")
    return f"{head}/*.{tail.rpartition('.')[2]}" if slash else name
