"""What a file is by its first bytes, for messages on files that are not what their names say.

The marks are those of `file` (https://www.darwinsys.com/file/) and of each format's own specification.
"""

_UNPACK = "unpack it first"
_NOT_DATA = "name the file that you meant"
_MARKS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", _UNPACK),
    (b"BZh", "compressed with bzip2", _UNPACK),
    (b"\xfd7zXZ\x00", "compressed with xz", _UNPACK),
    (b"\x04\x22\x4d\x18", "compressed with lz4", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document (.xls, .doc)", "export its table as CSV (UTF-8)"),
    (b"%PDF-", "a PDF document", _NOT_DATA),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture", _NOT_DATA),
    (b"\xff\xd8\xff", "a JPEG picture", _NOT_DATA),
    (b"GIF8", "a GIF picture", _NOT_DATA),
    (b"GGUF", "a GGUF model", _NOT_DATA),
    (b"PAR1", "a Parquet file", "give it the suffix .parquet"),
    (b"ARROW1", "an Arrow file", "write it as Parquet or JSONL"),
    (b"ORC", "an ORC file", "write it as Parquet or JSONL"),
    (b"SQLite format 3\x00", "an SQLite data base", "export its table as CSV (UTF-8)"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "write it as Parquet or JSONL"),
    (b"\x93NUMPY", "a NumPy file", "write it as Parquet or JSONL"),
    (b"\x7fELF", "a program", _NOT_DATA),
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the file itself", "fetch it:  git lfs pull"),
    (b"\xff\xfe\x00\x00", "UTF-32 text", "save it as UTF-8"),
    (b"\x00\x00\xfe\xff", "UTF-32 text", "save it as UTF-8"),
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8"),
)
_TAR = b"ustar"


def recognised(head: bytes) -> tuple[str, str]:
    """What a file with these first bytes is, and what to do about it; ("", "") for text and for unknown bytes.

    head: at least 512 bytes, or the whole file.
    """
    if head.startswith(b"PK\x03\x04"):
        return _zip(head)
    if head[257:262] == _TAR:
        return "a tar archive", _UNPACK
    # The header of a safetensors file: its length in 8 bytes, then JSON.
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 2**32 and b"\0" in head[:8]:
        return "a safetensors file", _NOT_DATA
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a Python pickle", "write it as Parquet or JSONL"
    return next(((what, fix) for mark, what, fix in _MARKS if head.startswith(mark)), ("", ""))


def _zip(head: bytes) -> tuple[str, str]:
    """An Office document names one of its parts early on."""
    if b"xl/" in head:
        return "an Excel workbook", "make a recipe of it with slimtune new, or export its sheet as CSV (UTF-8)"
    if b"[Content_Types].xml" in head or b"mimetype" in head[:64]:
        return "an Office document (such as .xlsx or .docx)", "export its table as CSV (UTF-8)"
    return "a zip archive", _UNPACK
