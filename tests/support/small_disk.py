"""A file system in memory with a small size, which a test can fill. Only root can mount it."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path


@cache
def find_obstacle() -> str:
    """Return the reason why this machine cannot mount a small disk, or an empty text."""
    if os.geteuid() != 0:
        return "only root can mount a small file system"
    with tempfile.TemporaryDirectory(prefix="ticketremaster-disk-") as folder:
        tried = _mount(Path(folder), 1)
        if tried.returncode:
            return tried.stderr.strip()
        _unmount(Path(folder))
    return ""


@contextmanager
def small_disk(path: Path, mebibytes: int) -> Iterator[Path]:
    """Mount an empty disk at `path` during the block."""
    path.mkdir(parents=True, exist_ok=True)
    _mount(path, mebibytes).check_returncode()
    try:
        yield path
    finally:
        _unmount(path)


@contextmanager
def filled(path: Path, free_bytes: int = 0) -> Iterator[None]:
    """Leave only `free_bytes` on the disk during the block."""
    filler = path / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
    try:
        with _until_full():
            while (free := _count_free(path) - free_bytes) > 0:
                os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, free)
        yield
    finally:
        os.close(descriptor)
        filler.unlink()


def _count_free(path: Path) -> int:
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


@contextmanager
def _until_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def _mount(path: Path, mebibytes: int) -> subprocess.CompletedProcess[str]:
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0755", "tmpfs", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _unmount(path: Path) -> None:
    """Unmount a disk. A process that still has a file open does not prevent it."""
    subprocess.run(["umount", "--lazy", str(path)], capture_output=True, check=True)
