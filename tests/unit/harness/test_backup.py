"""The files of a backup and of a restored server. tests/e2e/test_point_in_time.py restores a real one."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness import __main__ as command
from harness.errors import StackError
from harness.runtime import backup
from harness.runtime.container_programs import DatabaseContainers
from harness.runtime.postgres import Postgres
from harness.runtime.run_directory import RunDir
from services.orchestrator import admin

pytestmark = pytest.mark.unit

MOMENT = datetime(2026, 11, 29, 10, 0, tzinfo=UTC)
SERVER = Postgres(name="postgres", argv=(), env={}, ports={5432: 1}, probe=(1, ""))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A backup without data, with an archive."""
    base = tmp_path / "backup" / "base"
    base.mkdir(parents=True)
    (base / "PG_VERSION").write_text("16\n")
    (base / "postgresql.auto.conf").write_text("recovery_target_time = '2026-11-01'\n")  # of an earlier restore
    (base.parent / "wal").mkdir()
    (base.parent / "wal" / "000000010000000000000001").touch()
    (base.parent / "variables.json").write_text('{"POSTGRES_PASS": "secret"}')
    return base.parent


@pytest.mark.parametrize(
    ("parser", "words"),
    [(command._parser, ["restore", "x", "--at", "noon"]), (admin._make_parser, ["reconcile", "--since", "noon"])],
    ids=["restore", "reconcile"],
)
def test_text_that_is_not_a_time_gets_an_example(
    parser: Callable[[], ArgumentParser], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(words)
    assert "'noon' is not a time, for example 20" in capsys.readouterr().err


def test_restored_server_stops_at_the_moment(folder: Path, tmp_path: Path) -> None:
    directory = RunDir(tmp_path / "run")
    backup.restore(folder, directory, MOMENT)
    data = directory.path / "postgres" / "data"
    *_, archive, standby, target, action = (data / "postgresql.auto.conf").read_text().splitlines()
    assert (f"{folder}/wal/%f" in archive, standby) == (True, "hot_standby = off")
    assert (target, action) == (
        "recovery_target_time = '2026-11-29T10:00:00+00:00'",
        "recovery_target_action = promote",
    )
    assert ((data / "recovery.signal").exists(), data.stat().st_mode & 0o777) == (True, 0o700)
    assert directory.read_variables() == {"POSTGRES_PASS": "secret"}


def test_restore_without_a_moment_uses_the_whole_archive(folder: Path, tmp_path: Path) -> None:
    directory = RunDir(tmp_path / "run")
    backup.restore(folder, directory, None)
    settings = (directory.path / "postgres" / "data" / "postgresql.auto.conf").read_text().splitlines()
    assert any("restore_command" in line for line in settings)
    assert [line for line in settings if "target_time" in line][-1] == "recovery_target_time = ''"


def test_backup_of_a_cluster_brings_none_of_its_settings(folder: Path, tmp_path: Path) -> None:
    """They name the files and nodes of the lost cluster, and its archive."""
    (folder / "base" / "postgresql.conf").write_text("include 'postgresql.base.conf'\narchive_mode = 'on'\n")
    (folder / "base" / "postgresql.base.conf").write_text("own\n")
    directory = RunDir(tmp_path / "run")
    backup.restore(folder, directory, MOMENT)
    assert (directory.path / "postgres" / "data" / "postgresql.conf").read_text() == "own\n"


def test_restore_keeps_the_data_of_a_run_directory(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "run" / "postgres" / "data"
    data.mkdir(parents=True)
    with pytest.raises(StackError, match="exists"):
        backup.restore(folder, RunDir(tmp_path / "run"), MOMENT)
    assert list(data.iterdir()) == []


def test_restore_needs_an_empty_etcd(folder: Path, tmp_path: Path) -> None:
    """With the data of etcd, the new servers would wait for the leader of the lost ones."""
    (tmp_path / "run" / "etcd").mkdir(parents=True)
    with pytest.raises(StackError, match="etcd exists"):
        backup.restore(folder, RunDir(tmp_path / "run"), MOMENT)


def test_restore_needs_a_backup(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="has no backup"):
        backup.restore(tmp_path, RunDir(tmp_path / "run"), MOMENT)


def test_restore_to_a_moment_needs_an_archive(folder: Path, tmp_path: Path) -> None:
    (folder / "wal" / "000000010000000000000001").unlink()
    with pytest.raises(StackError, match="without --at"):
        backup.restore(folder, RunDir(tmp_path / "run"), MOMENT)
    backup.restore(folder, RunDir(tmp_path / "run"), None)


def test_backup_is_never_overwritten(folder: Path) -> None:
    with pytest.raises(StackError, match="never overwritten"):
        backup.back_up(SERVER, {}, folder)


def test_containers_are_not_backed_up(tmp_path: Path) -> None:
    other = DatabaseContainers(name="postgres", argv=(), env={}, ports={5432: 1}, probe=(1, ""))
    with pytest.raises(StackError, match="does not support containers"):
        backup.back_up(other, {}, tmp_path)
