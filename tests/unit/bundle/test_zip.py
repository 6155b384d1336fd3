"""Zips of bundles: what tools write is read, what hides something is refused.

Over 400 lines: case by case, one file: `provenance/bundle/zip.py`.
"""

from __future__ import annotations

import io
import random
import shutil
import stat
import struct
import subprocess
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenance.bundle import sources, zip
from provenance.bundle.reader import read_bundle
from provenance.bundle.writer import bundle_files as files_of
from provenance.bundle.writer import write_bundle, write_files
from provenance.bundle.zip import ZipSource, write_zip
from provenance.errors import (
    ChecksumError,
    FormatError,
    InputError,
    IntegrityError,
    ProvenanceError,
    TooLargeError,
    TrailingBytesError,
    TruncatedError,
)
from provenance.verify.report import VerificationReport
from provenance.verify.verifier import verify
from tests.support.verify_world import SIGNER, finished, flip_metric

RECORD = "records/training/epoch/2/metrics/0.json"
FILES = files_of(finished(2).evidence())
SMALL = {"manifest.json": b"{}" * 40, "records/a.json": b"", "records/b.json": b"bytes"}


def check(place: Path) -> VerificationReport:
    return verify(read_bundle(place), None, verifier_key=SIGNER.verifier, now=0.0)


def source(data: bytes, tmp_path: Path) -> ZipSource:
    place = tmp_path / "b.zip"
    place.write_bytes(data)
    return ZipSource(place)


def packed(files: dict[str, bytes] | None = None, **options: object) -> bytes:
    """A zip as Python's own library writes it; ``options`` are set on every entry."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (files or SMALL).items():
            header = zipfile.ZipInfo(name)
            header.compress_type = zipfile.ZIP_DEFLATED
            for key, value in options.items():
                setattr(header, key, value)
            archive.writestr(header, data)
    return buffer.getvalue()


# --- writing -----------------------------------------------------------------------------


def test_a_zip_verifies_as_the_folder_does(tmp_path: Path) -> None:
    place = write_files(FILES, tmp_path / "deep" / "b.zip")
    assert check(place).outcome == "consistent"
    folder = write_files(FILES, tmp_path / "b")
    one, two = read_bundle(place), read_bundle(folder)
    assert (one.records, one.attachments) == (two.records, two.attachments)
    assert one.source.where == str(place)
    assert [path.name for path in place.parent.iterdir()] == ["b.zip"]


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    one = write_files(FILES, tmp_path / "one.zip").read_bytes()
    two = write_files(dict(reversed(FILES.items())), tmp_path / "two.ZIP").read_bytes()
    assert one == two
    with zipfile.ZipFile(io.BytesIO(one)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(FILES)
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {name: archive.read(name) for name in archive.namelist()} == FILES


def test_only_a_bundle_is_replaced(tmp_path: Path) -> None:
    place = write_files(FILES, tmp_path / "b.zip")
    write_files(FILES, place)
    for name, content in (
        ("thesis.zip", packed({"thesis.tex": b"precious"})),
        ("beside.zip", packed(FILES | {"thesis.tex": b"precious"})),
        ("text.zip", b"precious"),
        ("cut.zip", place.read_bytes()[:-5]),
    ):
        other = tmp_path / name
        other.write_bytes(content)
        with pytest.raises(InputError, match="is no bundle; nothing was overwritten"):
            write_files(FILES, other)
        assert other.read_bytes() == content
    link = tmp_path / "link.zip"
    link.symlink_to(place)
    with pytest.raises(InputError, match="nothing was overwritten"):
        write_files(FILES, link)
    dangling = tmp_path / "dangling.zip"
    dangling.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="nothing was overwritten"):
        write_files(FILES, dangling)


def test_a_zip_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_zip(SMALL, tmp_path / "file" / "b.zip")
    monkeypatch.setattr(zip, "MAX_ARCHIVE_BYTES", 10)
    with pytest.raises(InputError, match="write a folder instead"):
        write_zip(SMALL, tmp_path / "b.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_named_like_a_zip_stays_a_folder(tmp_path: Path) -> None:
    (tmp_path / "b.zip").mkdir()
    write_files(FILES, tmp_path / "b.zip")
    assert (tmp_path / "b.zip" / "manifest.json").is_file()
    assert check(tmp_path / "b.zip").outcome == "consistent"


def test_what_is_written_is_never_taken_for_a_bomb(tmp_path: Path) -> None:
    files = SMALL | {"records/zeros.json": b"0" * 5_000_000, "records/x.json": b"ab" * 40_000}
    write_zip(files, tmp_path / "b.zip")
    with ZipSource(tmp_path / "b.zip") as archive:
        assert {name: archive.read(name, 10**7) for name in archive.names()} == files


# --- what tools write --------------------------------------------------------------------


class Unseekable(io.RawIOBase):
    """A pipe: whoever writes a zip to it puts the sizes behind the data."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # narrower on purpose
        self.data += data
        return len(data)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_with_data_descriptors_is_read(method: int, tmp_path: Path) -> None:
    pipe = Unseekable()
    with zipfile.ZipFile(pipe, "w", method) as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
    (tmp_path / "b.zip").write_bytes(bytes(pipe.data))
    assert check(tmp_path / "b.zip").outcome == "consistent"


@pytest.mark.skipif(not shutil.which("zip"), reason="needs zip (Info-ZIP)")
@pytest.mark.parametrize("words", ["-r b.zip evidence", "-rD b.zip evidence", "-r -0 b.zip ."])
def test_what_zip_packs_is_read(words: str, tmp_path: Path) -> None:
    inside = "evidence" if "evidence" in words else "."
    write_files(FILES, tmp_path / "evidence")
    cwd = tmp_path if inside == "evidence" else tmp_path / "evidence"
    subprocess.run(["zip", "-q", *words.split()], cwd=cwd, check=True)
    assert check(cwd / "b.zip").outcome == "consistent"


@pytest.mark.skipif(not shutil.which("unzip"), reason="needs unzip (Info-ZIP)")
def test_unzip_unpacks_what_is_written(tmp_path: Path) -> None:
    place = write_files(FILES, tmp_path / "b.zip")
    subprocess.run(["unzip", "-q", str(place), "-d", str(tmp_path / "out")], check=True)
    assert check(tmp_path / "out").outcome == "consistent"
    mode = (tmp_path / "out" / "run.json").stat().st_mode
    assert stat.S_IMODE(mode) == 0o644
    (tmp_path / "out" / "run.json").chmod(0o600)


@pytest.mark.slow
def test_more_entries_than_16_bits_count(tmp_path: Path) -> None:
    for count in (65_535, 65_536):
        files = {f"records/{at}.json": b"" for at in range(count - 1)} | {"manifest.json": b"{}"}
        with source(packed(files), tmp_path) as archive:
            assert len(archive.names()) == count


# --- tampering ---------------------------------------------------------------------------


def test_a_changed_record_is_named(tmp_path: Path) -> None:
    files = FILES | {RECORD: flip_metric(FILES[RECORD])}
    (tmp_path / "b.zip").write_bytes(packed(files))
    (finding,) = check(tmp_path / "b.zip").findings
    assert (finding.check, finding.file) == (1, RECORD)


@pytest.mark.slow
def test_no_flipped_bit_of_any_file_in_a_zip_goes_unnoticed(tmp_path: Path) -> None:
    place = tmp_path / "b.zip"
    chance = random.Random(11)
    for name in sorted(FILES):
        flipped = bytearray(FILES[name])
        bit = chance.randrange(8 * len(flipped))
        flipped[bit // 8] ^= 1 << bit % 8
        place.write_bytes(packed(FILES | {name: bytes(flipped)}))
        try:
            report = check(place)
        except ProvenanceError as error:
            assert name in str(error), f"bit {bit} of {name}: {error}"
        else:
            assert report.outcome == "failed", f"bit {bit} of {name}"
            named = {finding.file for finding in report.findings}
            assert named & {name, "SHA256SUMS"}, f"bit {bit} of {name}"


@pytest.mark.slow
def test_a_flipped_bit_of_the_zip_itself_changes_no_file(tmp_path: Path) -> None:
    """It is refused, or means nothing: attributes, or bits that pad a deflated stream."""
    good = packed(SMALL)
    with source(good, tmp_path) as archive:
        expected = {name: archive.read(name, 1000) for name in archive.names()}
    assert expected == SMALL
    refused = 0
    tried = range(0, 8 * len(good), 3)
    for bit in tried:
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            with source(bytes(flipped), tmp_path) as archive:
                found = {name: archive.read(name, 1000) for name in archive.names()}
        except ProvenanceError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert found == SMALL, f"bit {bit}"
    assert refused > 0.85 * len(tried)


@given(st.data())
@settings(max_examples=60)
def test_a_zip_that_is_cut_off_is_one_line(tmp_path_factory: pytest.TempPathFactory, data) -> None:  # type: ignore[no-untyped-def]  # drawn by Hypothesis
    good = packed(SMALL)
    length = data.draw(st.integers(0, len(good) - 1))
    folder = tmp_path_factory.getbasetemp() / "cut"
    folder.mkdir(exist_ok=True)
    with pytest.raises((FormatError, InputError)) as caught:
        source(good[:length], folder)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, TruncatedError if length >= 4 else InputError)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_zip_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    for content in (data, b"PK\3\4" + data, packed()[:-22] + data, data + packed()[-22:]):
        with pytest.raises((FormatError, InputError, IntegrityError)):
            source(content, folder)


# --- hostile zips ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../outside.json",
        "records/../../outside.json",
        "/etc/passwd",
        "records\\..\\x.json",
        "C:/x.json",
        "records//x.json",
        "records/./x.json",
        ".hidden",
        "records/x\n.json",
        "records/ü.json",
        "/".join("abcdefghijklmn"),
        "",
        "x" * 300,
    ],
)
def test_names_that_lead_out_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="not a name that a bundle has"):
        source(packed(SMALL | {name: b"x"}), tmp_path)


def test_a_nul_in_a_name_is_refused(tmp_path: Path) -> None:
    data = packed(SMALL | {"records/Z.json": b"x"}).replace(b"records/Z.json", b"records/\0.json")
    with pytest.raises(IntegrityError, match="not a name that a bundle has"):
        source(data, tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names",
    [
        ["records/b.json", "records/b.json"],
        ["records/b.json", "records/B.json"],
        ["records/b.json", "RECORDS/B.JSON"],
        ["records", "records/b.json"],
        ["records/b.json", "records"],
        ["records/b.json/", "records/b.json"],
        ["records/b.json", "records/b.json/"],
    ],
)
def test_names_that_mean_one_file_are_refused(names: list[str], tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("manifest.json", "{}")
        for name in names:
            archive.writestr(name, "" if name.endswith("/") else "x")
    with pytest.raises(IntegrityError, match="twice|lies in a file"):
        source(buffer.getvalue(), tmp_path)


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        (stat.S_IFLNK | 0o777, "is a link; a bundle has none"),
        (stat.S_IFIFO | 0o644, "neither a file nor a folder"),
        (stat.S_IFCHR | 0o644, "neither a file nor a folder"),
        (stat.S_IFDIR | 0o755, "neither a file nor a folder"),
    ],
)
def test_links_and_special_files_are_refused(mode: int, told: str, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=told):
        source(packed(create_system=3, external_attr=mode << 16), tmp_path)


@pytest.mark.parametrize("attributes", [0x08, 0x10])
def test_attributes_that_contradict_the_name_are_refused(attributes: int, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="neither a file|a file and a folder"):
        source(packed(create_system=0, external_attr=attributes), tmp_path)


def test_a_folder_with_content_is_refused(tmp_path: Path) -> None:
    data = packed(SMALL | {"recordsX": b"hello"}).replace(b"recordsX", b"heads.d/")
    with pytest.raises(IntegrityError, match="a folder with content"):
        source(data, tmp_path)


def edited(data: bytes, central: int, local: int, change: Callable[[int], int]) -> bytes:
    """A 16-bit word of the first entry changed in the directory and in front of the entry."""
    out = bytearray(data)
    for at in (data.index(b"PK\1\2") + central, local):
        (value,) = struct.unpack_from("<H", out, at)
        struct.pack_into("<H", out, at, change(value))
    return bytes(out)


@pytest.mark.parametrize("bit", [0, 6, 13])
def test_encrypted_entries_are_refused(bit: int, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"manifest\.json: is encrypted"):
        source(edited(packed(), 8, 6, lambda flags: flags | 1 << bit), tmp_path)


def test_unknown_flags_and_methods_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"manifest\.json: flags 0x0020"):
        source(edited(packed(), 8, 6, lambda flags: flags | 1 << 5), tmp_path)
    with pytest.raises(FormatError, match=r"manifest\.json: packed by method 12"):
        source(edited(packed(), 10, 8, lambda _: 12), tmp_path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("manifest.json", "{}")
    with pytest.raises(FormatError, match="packed by method 14|flags"):
        source(buffer.getvalue(), tmp_path)


def test_bombs_are_refused_before_they_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TooLargeError, match=r"records/z\.json: unpacks to more than 200 times"):
        source(packed(SMALL | {"records/z.json": bytes(8_000_000)}), tmp_path)
    with pytest.raises(TooLargeError, match=r"ledger\.vkey: more than 4096 bytes"):
        source(packed(SMALL | {"ledger.vkey": random.Random(1).randbytes(5000)}), tmp_path)
    noise = random.Random(1).randbytes(10_000)
    many = {f"records/{at}.json": noise + bytes(1_900_000) for at in range(14)}
    with pytest.raises(TooLargeError, match=r"b\.zip: unpacks to more than 2\d{7} bytes"):
        source(packed(SMALL | many), tmp_path)
    monkeypatch.setattr(sources, "MAX_TOTAL_BYTES", 50)
    with pytest.raises(TooLargeError, match="unpacks to more than 50 bytes"):
        source(packed(), tmp_path)
    monkeypatch.setattr(sources, "MAX_FILES", 2)
    with pytest.raises(TooLargeError, match="more than 2 files"):
        source(packed(), tmp_path)
    monkeypatch.setattr(zip, "MAX_ARCHIVE_BYTES", 20)
    with pytest.raises(TooLargeError, match="more than 4 GiB"):
        source(packed(), tmp_path)


@pytest.mark.slow
def test_what_lists_the_files_is_as_long_as_they_explain(tmp_path: Path) -> None:
    """A few kilobytes of zip may not become gigabytes of lists: nothing of it is parsed."""
    noise = random.Random(1).randbytes(20_000).hex().encode()
    lists = b"[" + b"[]," * 700_000 + b'"' + noise + b'"]'
    with pytest.raises(TooLargeError, match=r"manifest\.json: more than 263344 bytes"):
        source(packed(SMALL | {"manifest.json": lists}), tmp_path)
    many = {f"records/{at}.json": b"" for at in range(1000)}
    long = packed(SMALL | many | {"manifest.json": lists[-600_000:]})
    assert len(source(long, tmp_path).names()) == 1003
    place = write_files(FILES, tmp_path / "b")
    (place / "run.json").write_bytes(b'{"version": 1, "x": ' + lists + b"}")
    tracemalloc.start()
    with pytest.raises(
        FormatError, match=r"run\.json is not JSON: more than \d+ objects and lists"
    ):
        read_bundle(place)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * len(lists)


@pytest.mark.slow
def test_many_small_files_are_never_taken_for_a_bomb(tmp_path: Path) -> None:
    records = {f"records/{at}.json": b"0," * 2048 for at in range(3000)}
    more = {f"records/long/{at}.json": b"0," * 30_000 for at in range(400)}
    write_zip(SMALL | records | more, tmp_path / "b.zip")
    with ZipSource(tmp_path / "b.zip") as archive:
        assert len(archive.names()) == 3403


def test_a_size_that_lies_is_found_while_unpacking(tmp_path: Path) -> None:
    """The directory and the entry both say less, or more, than there is."""
    good = packed({"manifest.json": b"{}" * 40})
    central = good.index(b"PK\1\2")
    for size in (79, 81, 5, 300):
        data = bytearray(good)
        struct.pack_into("<L", data, central + 24, size)
        struct.pack_into("<L", data, 22, size)
        with (
            source(bytes(data), tmp_path) as archive,
            pytest.raises(FormatError, match=r"manifest\.json: "),
        ):
            archive.read("manifest.json", 1000)
    with source(good, tmp_path) as archive, pytest.raises(TooLargeError):
        archive.read("manifest.json", 79)


def test_a_wrong_crc_and_a_broken_stream_are_named(tmp_path: Path) -> None:
    good = packed()
    central = good.index(b"PK\1\2")
    data = bytearray(good)
    for at in (central + 16, 14):
        data[at] ^= 1
    with source(bytes(data), tmp_path) as archive, pytest.raises(ChecksumError, match="CRC-32"):
        archive.read("manifest.json", 1000)
    data = bytearray(good)
    data[30 + len("manifest.json")] = 0xFF
    with (
        source(bytes(data), tmp_path) as archive,
        pytest.raises(FormatError, match=r"manifest\.json: does not unpack"),
    ):
        archive.read("manifest.json", 1000)


def test_bytes_hidden_behind_a_stream_are_found(tmp_path: Path) -> None:
    body = zlib.compressobj(9, zlib.DEFLATED, -15)
    stream = body.compress(b"{}") + body.flush() + b"hidden"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", "{}")
    good = buffer.getvalue()
    head = 30 + len("manifest.json")
    central = good.index(b"PK\1\2")
    data = bytearray(good[:head] + stream + good[central:])
    central = data.index(b"PK\1\2")
    struct.pack_into("<L", data, 18, len(stream))
    struct.pack_into("<L", data, central + 20, len(stream))
    struct.pack_into("<L", data, len(data) - 6, central)
    with (
        source(bytes(data), tmp_path) as archive,
        pytest.raises(FormatError, match="does not unpack to its end"),
    ):
        archive.read("manifest.json", 1000)


def test_entries_must_fill_the_file(tmp_path: Path) -> None:
    good = packed()
    with pytest.raises(TrailingBytesError, match="bytes behind the end"):
        source(good + b"junk", tmp_path)
    with pytest.raises(FormatError, match="its directory does not end where it should"):
        source(b"#!/bin/sh\n" + good, tmp_path)
    central = good.index(b"PK\1\2")
    gap = bytearray(good[:central] + b"hidden" + good[central:])
    struct.pack_into("<L", gap, len(gap) - 6, central + 6)
    with pytest.raises(FormatError, match="bytes lie between them"):
        source(bytes(gap), tmp_path)
    shifted = bytearray(b"hidden" + good)
    struct.pack_into("<L", shifted, len(shifted) - 6, central + 6)
    at = central + 6
    while at >= 0:
        (offset,) = struct.unpack_from("<L", shifted, at + 42)
        struct.pack_into("<L", shifted, at + 42, offset + 6)
        at = shifted.find(b"PK\1\2", at + 1)
    with pytest.raises(FormatError, match="bytes lie in front of its first entry"):
        source(bytes(shifted), tmp_path)
    comment = bytearray(good + b"hi")
    struct.pack_into("<H", comment, len(good) - 2, 2)
    with pytest.raises(TrailingBytesError):
        source(bytes(comment), tmp_path)


def test_entries_that_share_bytes_are_refused(tmp_path: Path) -> None:
    """David Fifield's bomb: many names for one body."""
    good = packed(SMALL)
    central = good.index(b"PK\1\2")
    second = good.index(b"PK\1\2", central + 1)
    data = bytearray(good)
    struct.pack_into("<L", data, second + 42, 0)
    with pytest.raises(FormatError, match="entries overlap|contradicts itself"):
        source(bytes(data), tmp_path)


def test_an_entry_whose_two_headers_differ_is_refused(tmp_path: Path) -> None:
    good = packed()
    for at in (6, 8, 10, 12, 14, 18, 22, 30):
        data = bytearray(good)
        data[at] ^= 0x02
        with pytest.raises(FormatError, match="contradicts itself"):
            source(bytes(data), tmp_path)


def test_a_second_name_and_other_disks_and_comments_are_refused(tmp_path: Path) -> None:
    name = b"records/other.json"
    extra = struct.pack("<HHBL", 0x7075, 5 + len(name), 1, 0) + name
    with pytest.raises(IntegrityError, match="has a second name"):
        source(packed(extra=extra), tmp_path)
    with pytest.raises(FormatError, match="an extra field that is cut off"):
        source(packed(extra=b"\1\2\3"), tmp_path)
    with pytest.raises(FormatError, match="extra field"):
        source(packed(extra=b"\1\2\3\0"), tmp_path)
    with pytest.raises(FormatError, match="has a comment"):
        source(packed(comment=b"look"), tmp_path)
    data = bytearray(packed())
    struct.pack_into("<H", data, len(data) - 18, 1)
    with pytest.raises(FormatError, match="parts on other disks"):
        source(bytes(data), tmp_path)


@pytest.mark.slow
def test_zip64_sizes_and_broken_zip64_ends_are_refused(tmp_path: Path) -> None:
    data = bytearray(packed())
    struct.pack_into("<L", data, data.index(b"PK\1\2") + 24, 0xFFFFFFFF)
    with pytest.raises(FormatError, match="zip64 sizes"):
        source(bytes(data), tmp_path)
    files = {f"records/{at}.json": b"" for at in range(65_540)} | {"manifest.json": b"{}"}
    good = packed(files)
    end64, locator = good.rindex(b"PK\6\6"), good.rindex(b"PK\6\7")
    for at, told in ((end64 + 4, "does not decode"), (locator + 8, "should be")):
        broken = bytearray(good)
        broken[at] ^= 1
        with pytest.raises(FormatError, match=f"zip64 end .*{told}"):
            source(bytes(broken), tmp_path)
    with pytest.raises(FormatError, match="zip64 end"):
        source(b"PK\3\4" + good[locator:], tmp_path)


def test_a_directory_that_does_not_decode_is_refused(tmp_path: Path) -> None:
    good = packed()
    central = good.index(b"PK\1\2")
    end = len(good) - 22
    fewer = bytearray(good)
    struct.pack_into("<HH", fewer, end + 8, 2, 2)
    more = bytearray(good)
    struct.pack_into("<HH", more, end + 8, 4, 4)
    longer = bytearray(good)
    struct.pack_into("<H", longer, central + 28, 60_000)
    last = bytearray(good)
    struct.pack_into("<H", last, good.rindex(b"PK\1\2") + 32, 7)
    for data, expected in (
        (fewer, "has 3 entries, its end says 2"),
        (more, "has 3 entries, its end says 4"),
        (longer, "has 1 entries, its end says 3"),
        (last, "its directory is cut off"),
    ):
        with pytest.raises(FormatError, match=expected):
            source(bytes(data), tmp_path)


def test_what_is_no_bundle_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no manifest\.json in it"):
        source(packed({"a/x": b"", "b/manifest.json": b"{}"}), tmp_path)
    with pytest.raises(InputError, match=r"there is no manifest\.json in it"):
        source(b"PK\5\6" + bytes(18), tmp_path)
    with pytest.raises(InputError, match="neither a folder nor a zip file"):
        source(b"hello", tmp_path)
    with pytest.raises(InputError, match="not a bundle"):
        read_bundle(tmp_path / "nowhere.zip")
    with pytest.raises(InputError, match="cannot be read"):
        ZipSource(tmp_path / "nowhere.zip")
    with pytest.raises(InputError, match="cannot be read|neither a folder"):
        ZipSource(tmp_path)


@pytest.mark.slow
def test_a_bundle_in_one_folder_is_named_without_it(tmp_path: Path) -> None:
    files = {f"evidence/{name}": data for name, data in FILES.items()}
    place = tmp_path / "b.zip"
    place.write_bytes(packed(files))
    assert check(place).outcome == "consistent"
    files[f"evidence/{RECORD}"] = b"{}"
    place.write_bytes(packed(files))
    (finding,) = check(place).findings
    assert finding.file == RECORD
    write_bundle(finished(2).evidence(), place)
    assert check(place).outcome == "consistent"
