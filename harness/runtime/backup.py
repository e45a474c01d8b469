"""A base backup of the native PostgreSQL server or of the cluster's leader, and its restore to one point in time.

A backup folder holds `base/` (pg_basebackup) and the variables of the stack, because the data opens only with its
secrets. `wal/` is the archive of a stack that ran with `WAL_ARCHIVE=FOLDER/wal`. Both kinds of stack start from it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import datetime
from pathlib import Path

from harness.errors import StackError
from harness.runtime.patroni import Patroni
from harness.runtime.postgres import RECOVERY, Postgres, give_to_server
from harness.runtime.program import Program
from harness.runtime.run_directory import RunDir

BASE, WAL, VARIABLES = "base", "wal", "variables.json"


def back_up(server: Program, variables: dict[str, str], folder: Path) -> None:
    """Copy a running server and its variables to `folder`. Raises StackError, also if a backup is there already."""
    if not isinstance(server, Postgres) or type(server) not in (Postgres, Patroni):
        raise StackError(
            "`backup` does not support containers. docs/how-to/restore-a-backup.md describes their backup."
        )
    base = folder / BASE
    if base.exists():
        raise StackError(f"{base} exists. Choose another folder, because a backup is never overwritten.")
    folder.mkdir(parents=True, exist_ok=True)  # its parts are private, and the server must reach the archive
    program = str(server.binaries / "pg_basebackup")
    command = [program, "-D", str(base), "-d", server.admin_dsn("postgres"), "--checkpoint=fast"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(f"pg_basebackup failed:\n{done.stderr.strip()}")
    RunDir(folder).write_file(VARIABLES, json.dumps(variables))
    print(f"{folder}: a backup of all databases and their secrets")
    if not _has_archive(folder):
        print(
            f"It has no archive, so `restore` takes no --at. Start with `up --env WAL_ARCHIVE={folder / WAL}` for that."
        )


def restore(folder: Path, directory: RunDir, at: datetime | None) -> None:
    """Put the server of a backup into an empty run directory. Its next start recovers to the moment `at`.

    Without `at` it recovers to the end of the archive. The leader of a cluster starts from a copy. Raises StackError,
    also if there is no archive for `at`.
    """
    data = directory.path / "postgres" / "data"
    if not (folder / BASE / "PG_VERSION").exists():
        raise StackError(f"{folder} has no backup. `python -m harness backup {folder}` makes one of a running stack.")
    if at is not None and not _has_archive(folder):
        raise StackError(f"{folder / WAL} has no archive, so only the backup itself can be restored, without --at.")
    with directory.lock():
        for old in (data.parent, directory.path / "etcd"):  # etcd would expect the nodes of the lost cluster
            if old.exists():
                raise StackError(
                    f"{old} exists. Move it away, or delete everything with `python -m harness down --volumes`."
                )
        shutil.copytree(folder / BASE, data)
        shutil.copy(folder / VARIABLES, directory.path / VARIABLES)
        own = data / "postgresql.base.conf"
        if own.exists():  # the other file is Patroni's, and names the lost cluster's files and nodes
            own.replace(data / "postgresql.conf")
        with (data / "postgresql.auto.conf").open("a") as settings:
            settings.write(_recovery_settings((folder / WAL).resolve(), at))
        (data / RECOVERY).touch()
        data.chmod(0o700)
        give_to_server(data.parent)


def _has_archive(folder: Path) -> bool:
    return (folder / WAL).is_dir() and any((folder / WAL).iterdir())


def _recovery_settings(archive: Path, at: datetime | None) -> str:
    """Return the settings of the recovery. The server accepts no connection before its end (`hot_standby`).

    They replace those of an earlier restore, which a backup of that server contains.
    """
    lines = [
        f'restore_command = \'cp "{archive}/%f" "%p"\'',
        "hot_standby = off",
        f"recovery_target_time = '{at.isoformat() if at else ''}'",
        "recovery_target_action = promote",
    ]
    return "".join(f"{line}\n" for line in lines)
