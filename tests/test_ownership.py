"""One batch at a time writes into a folder, whatever was killed before; its kernels end with it."""

import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from unittest.mock import Mock

import pytest

from course import ownership
from course.workspace import COURSE_FOLDER, CourseError

BEAT, PATIENCE = ownership.BEAT, ownership.PATIENCE


def test_a_running_batch_counts_on_several_times_before_it_is_taken_for_killed():
    assert 3 * BEAT < PATIENCE <= 30


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(ownership, "PATIENCE", 60)
    monkeypatch.setattr(ownership, "WATCH_INTERVAL", 0.05)


def test_the_owner_keeps_counting_and_leaves_nothing_behind(tmp_path, monkeypatch):
    file = tmp_path / "owner.txt"
    with ownership.own(tmp_path) as (batch, beat):
        assert batch.startswith(f"process {os.getpid()} on ") and ownership.owner_of(tmp_path) == batch
        beat()
        assert file.read_text() == f"{batch}\n0"  # too soon to write again
        monkeypatch.setattr(ownership, "BEAT", 0)
        beat()
        beat()
        assert file.read_text() == f"{batch}\n2"
    assert not file.exists() and ownership.owner_of(tmp_path) is None


def test_a_full_disk_ends_the_batch_with_a_sentence(tmp_path, monkeypatch):
    full = Mock(side_effect=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    monkeypatch.setattr(ownership, "BEAT", 0)
    with pytest.raises(CourseError, match="The disk of .* is full"), ownership.own(tmp_path) as (_, beat):
        monkeypatch.setattr(ownership.Path, "write_text", full)
        beat()
    assert not (tmp_path / "owner.txt").exists()


@pytest.mark.parametrize("first", ["process 7 on another, abc\n0", ""])  # it may be writing it just now
def test_a_running_batch_is_not_disturbed(tmp_path, first):
    ended = threading.Event()

    def live():
        number = 0
        while not ended.wait(0.5):
            number += 1
            (tmp_path / "owner.txt").write_text(f"process 7 on another, abc\n{number}")

    (tmp_path / "owner.txt").write_text(first)
    thread = threading.Thread(target=live)
    thread.start()
    try:
        with pytest.raises(CourseError, match=r"Another batch \(process 7 on another\) is at work in .*: wait until"):
            ownership.own(tmp_path).__enter__()
    finally:
        ended.set()
        thread.join()
    assert ownership.owner_of(tmp_path) == "process 7 on another, abc"


@pytest.mark.parametrize("left", ["process 7 on another, abc\n41", ""])
def test_a_folder_whose_batch_was_killed_is_taken_over_after_a_while(tmp_path, monkeypatch, left):
    monkeypatch.setattr(ownership, "PATIENCE", 1)
    (tmp_path / "owner.txt").write_text(left)
    began = time.monotonic()
    with ownership.own(tmp_path) as (batch, _):
        assert time.monotonic() - began >= 1
        assert ownership.owner_of(tmp_path) == batch


def test_a_batch_that_ends_meanwhile_is_not_waited_for(tmp_path):
    (tmp_path / "owner.txt").write_text("process 7 on another, abc\n41")
    threading.Timer(0.2, (tmp_path / "owner.txt").unlink).start()
    began = time.monotonic()
    with ownership.own(tmp_path):
        assert time.monotonic() - began < 30


def test_a_batch_whose_folder_is_deleted_ends_and_says_so(tmp_path):
    (tmp_path / "runs").mkdir()
    told = "owner.txt in .*runs was deleted while the batch was running: start the batch"
    with pytest.raises(CourseError, match=told), ownership.own(tmp_path / "runs") as (_, beat):
        shutil.rmtree(tmp_path / "runs")
        beat()


def test_a_batch_that_was_taken_over_ends_and_leaves_the_file_to_the_other(tmp_path):
    told = "Another batch has taken over .* and continues its runs"
    with pytest.raises(CourseError, match=told), ownership.own(tmp_path) as (_, beat):
        (tmp_path / "owner.txt").write_text("another\n0")
        beat()
    assert (tmp_path / "owner.txt").read_text() == "another\n0"


WATCHED = """import sys, time; from course import ownership
ownership.end_with_owner(sys.argv[1], 'one'); print('on', flush=True); time.sleep(60)"""


@pytest.mark.parametrize("owner", ["another\n0", None])
def test_a_process_ends_when_its_folder_has_another_owner_or_none(tmp_path, owner):
    file = tmp_path / "owner.txt"
    file.write_text("one\n0")
    process = subprocess.Popen([sys.executable, "-c", WATCHED, tmp_path], cwd=COURSE_FOLDER, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"on\n"
    file.write_text("")  # empty, as while it is being written
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.5)
    file.write_text(owner) if owner else file.unlink()
    assert process.wait(20) == 1
    process.stdout.close()
