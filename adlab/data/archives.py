"""Archives, unpacked whole or not at all."""

from __future__ import annotations

import errno
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PureWindowsPath
from tempfile import TemporaryDirectory

DAMAGED = (  # RuntimeError: a zip with a password
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile),
    *(lzma.LZMAError, zlib.error, EOFError, RuntimeError, UnicodeError),
)
UNWRITABLE = (  # a name too long, or of a file and a folder at once
    *(errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ENOENT),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EACCES),  # the last: Windows
)


def unpack(archive: str | os.PathLike, destination: str | os.PathLike) -> list[Path]:
    """Unpack an archive (tar, tar.gz, tar.xz, zip) into a folder: all of it, or
    nothing.

    It may hold files and folders only, and none outside itself. All is written to a
    temporary folder beside the destination first, and moved once it is complete. What
    macOS adds, `__MACOSX`, is left out.

    Args:
        archive: the file.
        destination: the folder that shall hold what is in it; made if missing, but not
            its parents.

    Returns:
        The paths of the files and folders at the top of the archive.

    Raises:
        FileNotFoundError: no such archive, or no folder to make the destination in.
        ValueError: a damaged or truncated archive; absolute paths, paths with "..",
            links or devices in it, names that cannot be written here; something of the
            same name in the destination. The message names it.
    """
    archive, destination = (
        check_path("archive", archive),
        check_path("destination", destination),
    )
    if not archive.is_file():
        raise FileNotFoundError(f"archive: expected a file, found none at {archive}")
    if not destination.parent.is_dir():
        raise FileNotFoundError(
            f"destination: expected a folder at {destination.parent}, found none"
        )
    with TemporaryDirectory(prefix=".unpacking-", dir=destination.parent) as scratch:
        with archive.open("rb") as file:
            is_zip = file.read(4) in (b"PK\3\4", b"PK\5\6")
        try:
            (_extract_zip if is_zip else _extract_tar)(archive, scratch)
        except DAMAGED as error:
            raise ValueError(
                f"{archive}: damaged or truncated, nothing is unpacked: {error}"
            ) from error
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            raise ValueError(
                f"{archive}: nothing is unpacked, as a name in it cannot be written "
                f"here: {error.strerror}"
            ) from error
        return _move(Path(scratch), destination)


def check_path(name: str, path: object) -> Path:
    """Refuse what is no path; a "~" in it is the user's folder."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{name}: expected a path, got {type(path).__name__} {path!r}")
    return Path(path).expanduser()


def _extract_zip(archive: Path, folder: str) -> None:
    with zipfile.ZipFile(archive) as file:
        members = [i for i in file.infolist() if not i.filename.startswith("__MACOSX")]
        for info in members:
            info.filename = info.filename.replace("\\", "/")  # packed by Windows
            is_link = stat.S_ISLNK(info.external_attr >> 16)
            is_folder = info.filename.endswith("/")
            _check_member(archive, info.filename, not is_link, is_folder)
        file.extractall(folder, members)


def _extract_tar(archive: Path, folder: str) -> None:
    with tarfile.open(archive) as file:
        for info in file:
            is_plain = info.isfile() or info.isdir()
            _check_member(archive, info.name, is_plain, info.isdir())
        if file.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("unexpected end of data")  # it ends with zeros
        while file.fileobj.read(2**20):  # the check sum of the whole comes last
            pass
        file.extractall(folder, filter="data")


def _check_member(archive: Path, name: str, is_plain: bool, is_folder: bool) -> None:
    # which takes / and \\ for separators, and knows drives
    path = PureWindowsPath(name)
    if path.anchor or ".." in path.parts:
        raise ValueError(
            f"{archive}: nothing is unpacked, as {name!r} in it would leave its folder"
        )
    if not path.parts and not is_folder:
        raise ValueError(
            f"{archive}: nothing is unpacked, as {name!r} in it is no name of a file"
        )
    if not is_plain:
        raise ValueError(
            f"{archive}: expected files and folders only, but {name!r} is a link or a device"
        )


def _move(scratch: Path, destination: Path) -> list[Path]:
    """Move all that is in one folder to another, unless something is in the way."""
    entries = sorted(scratch.iterdir())
    for entry in entries:
        if (destination / entry.name).exists():
            raise ValueError(
                f"destination: {destination / entry.name} is in the way, nothing is unpacked"
            )
    destination.mkdir(exist_ok=True)
    return [entry.rename(destination / entry.name) for entry in entries]
