# SPDX-License-Identifier: Apache-2.0
"""Reading and writing tar: what tarfile writes is read, what we write tarfile reads, the rest is refused."""

from __future__ import annotations

import contextlib
import io
import tarfile
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from northstar.oci import tarreader, tarwriter
from northstar.oci.blob import ImageError, Stream

NAMES = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=300
).filter(lambda name: name.strip("/") and not name.endswith("/"))
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
KINDS = {
    tarreader.FILE: tarfile.REGTYPE,
    tarreader.HARD_LINK: tarfile.LNKTYPE,
    tarreader.SYMLINK: tarfile.SYMTYPE,
    tarreader.CHARACTER: tarfile.CHRTYPE,
    tarreader.BLOCK_DEVICE: tarfile.BLKTYPE,
    tarreader.DIRECTORY: tarfile.DIRTYPE,
    tarreader.FIFO: tarfile.FIFOTYPE,
}


def stream(data: bytes, size: int = 1000) -> Stream:
    return Stream(data[i : i + size] for i in range(0, len(data), size))


def read(data: bytes) -> list[tuple[tarreader.Member, bytes]]:
    source = stream(data)
    return [(member, source.read(member.size)) for member in tarreader.members(source, "x")]


@given(
    st.sampled_from(sorted(FORMATS)),
    NAMES,
    NAMES,
    st.sampled_from(sorted(KINDS)),
    st.binary(max_size=1500),
    st.integers(0, 0o7777),
    st.integers(0, tarreader.MAX_ID),
    st.integers(0, tarreader.MAX_ID),
    st.integers(-1000, 1 << 40),
)
def test_reads_what_tarfile_writes(
    form: str, name: str, target: str, kind: str, data: bytes, mode: int, uid: int, gid: int, mtime: int
) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.uid, member.gid, member.mtime = KINDS[kind], mode, uid, gid, mtime
    if kind in (tarreader.HARD_LINK, tarreader.SYMLINK):
        member.linkname = target
    if kind in (tarreader.CHARACTER, tarreader.BLOCK_DEVICE):
        member.devmajor, member.devminor = 7, 300
    member.size = len(data) if kind == tarreader.FILE else 0
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=FORMATS[form]) as archive:
        try:
            archive.addfile(member, io.BytesIO(data))
        except ValueError:
            return  # does not fit in this format
    ((found, content),) = read(out.getvalue())
    assert found.name.rstrip("/") == name.rstrip("/")
    assert (found.kind, found.mode, found.uid, found.gid) == (kind, mode, uid, gid)
    assert found.mtime == max(0, mtime)
    assert content == (data if kind == tarreader.FILE else b"")
    assert found.target == member.linkname
    assert found.device == (member.devmajor, member.devminor)


@given(
    NAMES,
    NAMES,
    st.binary(max_size=600),
    st.integers(0, tarreader.MAX_ID),
    st.dictionaries(st.text("abc.", min_size=1), st.binary(max_size=90)),
)
def test_tarfile_reads_what_we_write(
    name: str, target: str, data: bytes, uid: int, xattrs: dict[str, bytes]
) -> None:
    common = {"mode": 0o4755, "uid": uid, "gid": 7, "mtime": 1}
    text = tarwriter.header(name, tarwriter.FILE, size=len(data), xattrs=xattrs, **common)  # type: ignore[arg-type]
    text += data + tarwriter.padding(len(data))
    text += tarwriter.header(name, tarwriter.SYMLINK, target=target, **common)  # type: ignore[arg-type]
    with tarfile.open(fileobj=io.BytesIO(text + tarwriter.END)) as archive:
        first, second = archive.getmembers()
        content = archive.extractfile(first)
        assert content is not None and content.read() == data
    assert (first.name, first.uid, first.gid, first.mode) == (name, uid, 7, 0o4755)
    assert (second.name, second.linkname) == (name, target)
    assert read(text + tarwriter.END)[0][0].xattrs == xattrs


@given(st.data())
def test_damaged_archive_is_refused_or_read(data: st.DataObject) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a" * 150)
        member.size = 700
        archive.addfile(member, io.BytesIO(bytes(700)))
        archive.addfile(tarfile.TarInfo("b"))
    content = bytearray(out.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ImageError):
        read(bytes(content[: data.draw(st.integers(0, len(content)))]))


def test_archive_that_is_cut_off() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo("a")
        member.size = 700
        archive.addfile(member, io.BytesIO(bytes(700)))
    for size in (100, 511, 513, 1000, 512 + 699):
        with pytest.raises(ImageError, match="cut off"):
            read(out.getvalue()[:size])
    assert len(read(out.getvalue()[: 512 + 700])) == 1  # some writers leave out the padding


def pax(body: bytes) -> bytes:
    header = tarfile.TarInfo("pax")
    header.type, header.size = b"x", len(body)
    return header.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512) + tarfile.TarInfo("a").tobuf()


@pytest.mark.parametrize(
    "body",
    [
        b"1" * 900_000,
        b"5 a=\n" * 1000 + b"x",
        b"9999999 path=x\n",
        b"12 a\n",
        b"0 =\n",
        b"-5 a=b\n",
        b"6 a=bc",
    ],
    ids=["digits", "rest", "long", "no-equals", "zero", "negative", "no-newline"],
)
def test_damaged_extended_header_is_refused_at_once(body: bytes) -> None:
    began = time.process_time()
    with pytest.raises(ImageError, match="extended header is damaged"):
        read(pax(body))
    assert time.process_time() - began < 1


def test_large_extended_header_is_not_read() -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = b"x", 10 << 30
    with pytest.raises(ImageError, match="an extended header has 10737418240 bytes"):
        read(
            header.tobuf(tarfile.USTAR_FORMAT) if header.size < 8 << 30 else header.tobuf(tarfile.GNU_FORMAT)
        )


@pytest.mark.parametrize(
    "record", [b"GNU.sparse.major=1", b"size=-1", b"uid=x", b"mtime=--5", b"size=99999999999999999999"]
)
def test_record_that_is_refused(record: bytes) -> None:
    body = b" " + record + b"\n"
    body = str(len(body) + 2).encode() + body
    with pytest.raises(ImageError):
        read(pax(body))
