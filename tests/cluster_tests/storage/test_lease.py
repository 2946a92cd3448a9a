"""The lease that prevents two runs of one experiment on an object store: real processes on a real S3 server."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest

from cluster.executors.signals import Preempted, Signals
from cluster.storage import lock
from cluster.storage.filesystem import Storage, StorageError
from cluster.storage.lease import AlreadyRunningError, LeaseLostError, is_leased, lease
from cluster.storage.lock import experiment_lock, is_locked
from tests.cluster_tests.conftest import ROOT
from tests.cluster_tests.storage.s3_server import HourLate
from tune_runs import report

BEAT_S, EXPIRY_S = 0.2, 4.0
# A run gives up after two thirds of this time, which must be enough on a busy machine.

RUN = """
import sys, time
from cluster.storage.lease import AlreadyRunningError, lease
from cluster.storage.filesystem import Storage
storage = Storage(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
try:
    with lease(storage, beat_s=float(sys.argv[2]), expiry_s=float(sys.argv[3])):
        print("holds", flush=True)
        sys.stdin.readline()
    print("ended", flush=True)
except AlreadyRunningError as error:
    print(f"refused: {error}", flush=True)
"""


class Run:
    """A process that takes the lease on request and holds it until it must end."""

    def __init__(self, storage_location, expiry_s=EXPIRY_S):
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, storage_location, str(BEAT_S), str(expiry_s)],
            **dict.fromkeys(["stdin", "stdout", "stderr"], subprocess.PIPE),
            cwd=ROOT,
            text=True,
        )
        assert self.says() == "ready"

    def go_on(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def says(self):
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        return line.rstrip("\n")

    def ends(self):
        """Waits for its end; returns its exit status and its stderr."""
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


@pytest.fixture
def run(s3):
    """Starts a `Run` on the bucket."""
    runs = []

    def start(**options):
        runs.append(Run(s3.location, **options))
        return runs[-1]

    yield start
    for each in runs:
        each.process.kill()
        each.process.communicate()


@pytest.fixture
def owner(run):
    """A `Run` that holds the lease."""
    owner = run()
    owner.go_on()
    assert owner.says() == "holds"
    return owner


OTHER = b'{"state": "holding"}'

quick = partial(lease, beat_s=BEAT_S, expiry_s=EXPIRY_S)


def hold_and_wait(storage, what_happens):
    """Takes the lease, and waits up to a minute for the consequences."""
    with quick(storage):
        what_happens()
        time.sleep(60)


def leases(s3):
    return [json.loads(content) for name, content in s3.objects().items() if name.startswith("lease/")]


class TestTwoRuns:
    @pytest.mark.parametrize("contenders", [2, pytest.param(6, marks=[pytest.mark.slow, pytest.mark.serial])])
    def test_that_begin_at_once_are_kept_apart(self, run, contenders):
        runs = [run() for _ in range(contenders)]
        for each in runs:
            each.go_on()
        said = [each.says() for each in runs]
        assert sorted(text.partition(":")[0] for text in said) == ["holds"] + ["refused"] * (contenders - 1)
        holder = runs[said.index("holds")]
        for text in said:
            assert text == "holds" or f" is in use: process {holder.process.pid} on " in text
        holder.go_on()
        assert holder.says() == "ended"
        for each in runs:
            assert each.ends()[0] == 0

    @pytest.mark.slow
    def test_in_threads_never_hold_it_at_once_and_each_has_its_turn(self, s3):
        holding, at_once, turns = [], [], []

        def work(number):
            while number not in turns:
                try:
                    with quick(s3.storage):
                        holding.append(number)
                        at_once.append(len(holding))
                        turns.append(number)
                        time.sleep(0.05)
                        holding.remove(number)
                except AlreadyRunningError:
                    pass

        threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert at_once == [1, 1, 1, 1]
        assert leases(s3) == []

    def test_are_told_of_one_another(self, s3, owner):
        assert is_leased(s3.storage)
        with pytest.raises(AlreadyRunningError) as caught, quick(s3.storage):
            pass
        assert re.fullmatch(
            rf"s3://{s3.bucket} is in use: process {owner.process.pid} on \S+ has been running this experiment since "
            r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\. Wait for it or end it, or give this run another name\.",
            str(caught.value),
        )
        assert len(leases(s3)) == 1  # the refused run leaves nothing

    @pytest.mark.slow
    def test_follow_one_another_without_a_wait_where_the_first_is_seen_to_end(self, s3, owner, capsys):
        timer = threading.Timer(0.1, owner.go_on)
        timer.start()
        # Long enough to notice a wait for it.
        with lease(s3.storage, beat_s=BEAT_S * 50, expiry_s=EXPIRY_S * 50):
            assert owner.ends()[0] == 0
        timer.join()


class TestALeaseIsGivenBack:
    def test_at_the_end_of_its_block(self, s3, owner):
        owner.go_on()
        assert owner.says() == "ended"
        assert not is_leased(s3.storage)
        assert leases(s3) == []

    def test_by_ctrl_c(self, s3, owner):
        owner.process.send_signal(signal.SIGINT)
        status, errors = owner.ends()
        assert status == -signal.SIGINT
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert leases(s3) == []

    def test_by_an_error_in_its_block(self, s3):
        with pytest.raises(KeyError):
            hold_and_wait(s3.storage, {}.popitem)
        assert leases(s3) == []

    def test_by_ctrl_c_at_its_beginning(self, tmp_path, monkeypatch):
        start, storage = threading.Thread.start, Storage(tmp_path)

        def start_and_interrupt(thread):
            start(thread)
            signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr("threading.Thread.start", start_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            hold_and_wait(storage, lambda: None)
        monkeypatch.undo()
        time.sleep(2 * BEAT_S)
        assert not is_leased(storage)

    def test_by_sigterm_while_it_waits(self, tmp_path):
        storage, signals = Storage(tmp_path), Signals()
        storage.write("lease/killed.json", OTHER)

        def pause(seconds):
            signal.raise_signal(signal.SIGTERM)
            signals.pause(seconds)

        with signals.sigterm_noted(), pytest.raises(Preempted), quick(storage, pause=pause):
            pass
        assert storage.names("lease") == ["killed.json"]

    def test_by_ctrl_c_at_its_end(self, tmp_path, monkeypatch):
        storage = Storage(tmp_path)
        monkeypatch.setattr("threading.Thread.join", lambda *_, **__: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt), quick(storage):
            pass
        assert not is_leased(storage)

    @pytest.mark.slow
    def test_by_ctrl_c_while_it_waits(self, s3, run, owner):
        owner.process.send_signal(signal.SIGKILL)
        owner.ends()
        waiting = run(expiry_s=60)
        waiting.go_on()
        assert "waiting up to 60 s" in waiting.process.stderr.readline()
        waiting.process.send_signal(signal.SIGINT)
        assert waiting.ends()[0] == -signal.SIGINT
        assert [each["pid"] for each in leases(s3)] == [owner.process.pid]


@pytest.mark.serial  # a heartbeat is late on a busy machine
class TestAKilledOwner:
    def test_is_waited_for_and_then_followed(self, s3, owner, capsys):
        owner.process.kill()
        owner.ends()
        assert is_leased(s3.storage)
        with quick(s3.storage):
            assert [each["pid"] for each in leases(s3)] == [os.getpid()]
        (said,) = capsys.readouterr().err.splitlines()
        assert re.fullmatch(
            rf"s3://{s3.bucket}: an earlier run on \S+, process {owner.process.pid}, may still be alive: waiting "
            "up to 4 s for a heartbeat",
            said,
        )

    def test_is_followed_by_one_of_many(self, run, owner):
        owner.process.kill()
        runs = [run() for _ in range(4)]
        for each in runs:
            each.go_on()
        said = [each.says() for each in runs]
        assert sorted(text.partition(":")[0] for text in said) == ["holds"] + ["refused"] * 3

    def test_that_only_wanted_it_is_followed_too(self, s3):
        for name in ("0", "z"):  # before and after every token
            s3.storage.write(f"lease/{name}.json", b'{"state": "wanting", "pid": 1, "host": "gone"}')
        with lease(s3.storage, beat_s=BEAT_S, expiry_s=1.0):
            assert len(leases(s3)) == 1

    def test_may_leave_anything_in_its_file(self, s3):
        for name, content in [("a", b"no json"), ("b", b"[1]"), ("c", b"")]:
            s3.storage.write(f"lease/{name}.json", content)
        with lease(s3.storage, beat_s=BEAT_S, expiry_s=1.0):
            assert len(leases(s3)) == 1


@pytest.mark.serial
class TestARunThatIsNotSeenAnyMore:
    def test_because_it_was_suspended_ends_when_it_goes_on(self, s3, owner):
        owner.process.send_signal(signal.SIGSTOP)
        with quick(s3.storage) as check:
            owner.process.send_signal(signal.SIGCONT)
            status, errors = owner.ends()
            assert status == 1
            assert "cluster.storage.lease.LeaseLostError: " in errors
            assert "Another run may have begun, so this one ends and writes nothing more" in errors
            time.sleep(2 * BEAT_S)
            check()
            assert [each["pid"] for each in leases(s3)] == [os.getpid()]

    def test_because_the_storage_is_away_for_long_ends_in_time(self, s3):
        with pytest.raises(LeaseLostError, match=r"could not renew its lease for [23] s"):
            hold_and_wait(s3.storage, s3.proxy.off)
        s3.proxy.on()

    def test_for_a_moment_goes_on(self, s3):
        with quick(s3.storage) as check:
            s3.proxy.off()
            time.sleep(3 * BEAT_S)
            s3.proxy.on()
            time.sleep(EXPIRY_S)
            check()

    def test_because_another_took_its_lease_away_ends(self, s3):
        def take_away():
            while True:  # a pending heartbeat restores it
                for name in s3.storage.names("lease"):
                    s3.storage.remove(f"lease/{name}")

        with pytest.raises(LeaseLostError, match="its lease was taken away"):
            hold_and_wait(s3.storage, take_away)

    def test_in_spite_of_which_another_holds_it_too_ends(self, s3):
        with pytest.raises(LeaseLostError, match="another run holds the lease as well"):
            hold_and_wait(s3.storage, partial(s3.storage.write, "lease/0.json", OTHER))

    def test_ends_also_where_ctrl_c_is_ignored(self, s3):
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with pytest.raises(LeaseLostError):
                hold_and_wait(s3.storage, partial(s3.storage.write, "lease/0.json", OTHER))
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGINT, before)

    def test_finds_out_by_asking_where_it_is_not_the_main_thread(self, s3):
        found = []

        def ask_again_and_again():
            with quick(s3.storage) as check:
                s3.storage.write("lease/0.json", OTHER)
                while True:
                    check()
                    time.sleep(BEAT_S)

        def work():
            with pytest.raises(LeaseLostError) as caught:
                ask_again_and_again()
            found.append(caught.value)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert len(found) == 1


def test_a_storage_that_cannot_be_written_is_an_error(s3):
    gone = Storage(s3.location.replace(s3.bucket, "another-bucket"))
    with pytest.raises(StorageError, match="NO_SUCH_BUCKET"), quick(gone):
        pass


@pytest.mark.slow
def test_a_machine_whose_clock_is_an_hour_late_is_told_apart_too(s3, owner):
    s3.proxy.answer = late = HourLate()
    with pytest.raises(AlreadyRunningError, match=f"process {owner.process.pid} on"), quick(s3.storage):
        pass
    owner.go_on()
    assert owner.ends()[0] == 0
    with quick(s3.storage) as check:
        time.sleep(2 * BEAT_S)
        check()
    assert late.refused
    assert leases(s3) == []


@pytest.mark.parametrize("scheme", ["mock", "fsspec+memory"])
def test_other_filesystems_have_leases_too(scheme):
    storage = Storage(f"{scheme}://leases/{scheme}") / "x"
    assert not is_locked(storage)
    with experiment_lock(storage):
        assert is_locked(storage)
    assert not is_locked(storage)


class TestAnExperiment:
    @pytest.fixture
    def remote(self, small_experiment, s3, monkeypatch):
        monkeypatch.setattr(lock, "lease", quick)
        return replace(small_experiment, storage_path=s3.location)

    @pytest.mark.slow
    def test_that_runs_elsewhere_is_refused_and_reported_as_running(self, remote, s3, capsys):
        remote.run()
        with quick(s3.storage / "small_experiment"):
            with pytest.raises(AlreadyRunningError, match=f"/small_experiment is in use: process {os.getpid()} on"):
                remote.run()
            capsys.readouterr()
            report.main(["list", "--storage-path", s3.location])
            assert "small_experiment  running" in capsys.readouterr().out
            report.main(["show", "small_experiment", "--storage-path", s3.location])
            assert "State: complete (running now)\n" in capsys.readouterr().out
        report.main(["list", "--storage-path", s3.location])
        assert "small_experiment  complete" in capsys.readouterr().out

    @pytest.mark.slow
    def test_that_lost_its_lease_ends_and_writes_nothing_more(self, remote, s3):
        taken = []
        direct = Storage(s3.direct) / "small_experiment"
        assert direct.names() == []  # already open while the other one works

        @contextmanager
        def away_in_the_middle():
            def take_away(request):
                if b"PUT" in request and b"/weights.pt" in request and not taken:
                    direct.write("lease/0.json", OTHER)
                    taken.append(s3.objects())
                    time.sleep(5 * BEAT_S)

            s3.proxy.answer = take_away
            yield
            s3.proxy.answer = lambda request: None

        with (
            away_in_the_middle(),
            pytest.raises(LeaseLostError, match=rf"^s3://{s3.bucket}/small_experiment: another run holds"),
        ):
            remote.run()
        added = s3.objects().keys() - taken[0].keys()
        assert [name.rpartition("/")[2] for name in added] == ["weights.pt"]  # what it was at
        direct.remove("lease/0.json")
        assert {row["status"] for row in remote.run().trials} == {"finished"}
