"""Results on a real S3 server: whole files, outages, credentials, and a whole sweep."""

import errno
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.experiment import TrialsFailedError
from cluster.planning.config import ConfigError
from cluster.storage import filesystem as storage_module
from cluster.storage import object_store
from cluster.storage.filesystem import Storage, StorageError
from tests.cluster_tests.conftest import ROOT
from tests.cluster_tests.small_experiment import LR
from tests.cluster_tests.storage.s3_server import HourLate
from tune_runs import report

BIG = 22_000_000  # bytes: three parts

WRITE_BIG = f"""
import sys
from cluster.storage.filesystem import Storage
Storage(sys.argv[1]).write("big", b"n" * {BIG})
"""

TIMES = {"started", "ended", "train_seconds", "pid", "duration_s"}


def answer(status, code):
    """The error response of an S3 server."""
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>the message</Message></Error>'.encode()
    head = f"HTTP/1.1 {status} Wrong\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


class Answers:
    """Answers the first requests itself, and counts all requests."""

    def __init__(self, times, text):
        self.times, self.text, self.count = times, text, 0

    def __call__(self, request):
        if b" HTTP/1.1\r\n" not in request:
            return None
        self.count += 1
        return self.text if self.count <= self.times else None


class TestAFile:
    @pytest.mark.parametrize("size", [0, 1, BIG])
    @pytest.mark.slow
    def test_is_read_as_it_was_written_and_replaced_whole(self, s3, size):
        storage = s3.storage / "results"
        for content in (b"before", b"x" * size):
            storage.write("a b/ü", content)
            assert storage.read("a b/ü") == content
        assert s3.objects() == {"results/a b/ü": b"x" * size}

    def test_that_is_larger_than_any_run_writes_is_refused_after_its_beginning(self, s3):
        s3.storage.write("a", b"x" * (5 * 2**20))
        assert len(s3.storage.read("a", at_most=5 * 2**20)) == 5 * 2**20
        with pytest.raises(StorageError, match="/a has more than 1,000 bytes, which no run writes; remove it"):
            s3.storage.read("a", at_most=1000)

    def test_that_is_not_there_is_none_and_can_be_removed(self, s3):
        assert s3.storage.read("a/b") is None
        assert s3.storage.names("a") == []
        s3.storage.remove("a/b")

    def test_that_is_replaced_or_removed_while_it_is_read_is_whole_or_none(self, s3):
        reader, direct = s3.storage, Storage(s3.direct)

        def then(do):
            def answer(request):
                if request.startswith(b"GET"):
                    s3.proxy.answer = lambda request: None
                    do("file")

            direct.write("file", b"old")
            s3.proxy.answer = answer
            return reader.read("file")

        assert then(lambda name: direct.write(name, b"longer")) == b"longer"
        assert then(lambda name: direct.write(name, b"x")) == b"x"
        assert then(lambda name: direct.write(name, b"new")) == b"new"
        assert then(direct.remove) is None

    def test_that_is_removed_is_gone_and_its_folder_is_empty(self, s3):
        s3.storage.write("a/b", b"1")
        s3.storage.remove("a/b")
        assert (s3.storage.read("a/b"), s3.storage.names("a")) == (None, [])

    def test_is_listed_with_the_others_in_order(self, s3):
        for name in ("b/2", "b/10", "a", "b/1/x"):
            s3.storage.write(name, b"")
        assert s3.storage.names() == ["a", "b"]
        assert s3.storage.names("b") == ["1", "10", "2"]


class TestAWriterThatComesHalfWay:
    @pytest.mark.slow
    def test_because_it_is_killed_leaves_the_old_file_and_nothing_in_the_way(self, s3):
        s3.storage.write("big", b"old")
        half_way, over = threading.Event(), threading.Event()

        def hold_up(request):
            if b"partNumber=2" in request:
                half_way.set()
                over.wait(60)

        s3.proxy.answer = hold_up
        writer = subprocess.Popen([sys.executable, "-c", WRITE_BIG, s3.location], cwd=ROOT)
        assert half_way.wait(60)
        writer.send_signal(signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
        over.set()
        s3.proxy.answer = lambda request: None
        assert s3.objects() == {"big": b"old"}
        assert s3.storage.names() == ["big"]
        subprocess.run([sys.executable, "-c", WRITE_BIG, s3.location], cwd=ROOT, check=True)
        assert s3.objects() == {"big": b"n" * BIG}

    @pytest.mark.parametrize("part", [1, 2, 3])
    @pytest.mark.slow
    def test_because_a_part_fails_leaves_the_old_file(self, s3, part, monkeypatch):
        s3.storage.write("big", b"old")
        monkeypatch.setattr(Storage, "patience_s", 0.0)
        s3.proxy.answer = lambda request: (
            answer(500, "InternalError") if f"partNumber={part}".encode() in request else None
        )
        with pytest.raises(StorageError, match=r"/big cannot be written: .*INTERNAL_FAILURE during UploadPart"):
            s3.storage.write("big", b"n" * BIG)
        s3.proxy.answer = lambda request: None
        gc.collect()  # a stream without references is closed
        assert s3.objects() == {"big": b"old"}

    def test_because_of_ctrl_c_between_opening_and_writing_writes_all_of_it(self, s3, monkeypatch):
        filesystem, root = s3.storage._remote()

        class Interrupting:
            def open_output_stream(self, path):
                stream = filesystem.open_output_stream(path)
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)
                return stream

        s3.storage.write("file", b"old")
        with monkeypatch.context() as patch:
            patch.setattr(Storage, "_remote", lambda self: (Interrupting(), root))
            with pytest.raises(KeyboardInterrupt):
                s3.storage.write("file", b"new")
        deadline = time.monotonic() + 10
        while s3.objects() == {"file": b"old"} and time.monotonic() < deadline:
            time.sleep(0.05)
        assert s3.objects() == {"file": b"new"}

    def test_because_its_data_is_no_bytes_leaves_the_old_file(self, s3):
        s3.storage.write("file", b"old")
        with pytest.raises(TypeError):
            s3.storage.write("file", None)
        assert s3.objects() == {"file": b"old"}


OPERATIONS = {
    "write": (lambda storage: storage.write("file", b"new"), None, b"new"),
    "read": (lambda storage: storage.read("file"), b"old", b"old"),
    "names": (lambda storage: storage.names(), ["file"], b"old"),
    "remove": (lambda storage: storage.remove("file"), None, None),
}


@pytest.mark.parametrize("operation", OPERATIONS)
class TestAnOperation:
    @pytest.mark.slow
    def test_waits_for_a_server_that_refuses_connections_and_says_so(self, s3, operation, monkeypatch, capsys):
        monkeypatch.setattr(storage_module, "_UNREPORTED_S", 0.2)
        use, returned, left = OPERATIONS[operation]
        s3.storage.write("file", b"old")
        back = s3.proxy.off_for(3)
        assert use(s3.storage) == returned
        back.join()
        assert s3.objects().get("file") == left
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        assert said[0].startswith(f"s3://{s3.bucket} cannot be reached (")
        assert said[0].endswith("): trying again for up to 60 s")

    @pytest.mark.slow
    @pytest.mark.parametrize("wrong", [(500, "InternalError"), (503, "SlowDown"), (503, "ServiceUnavailable")])
    def test_is_made_again_where_the_server_asks_to(self, s3, operation, wrong):
        use, returned, left = OPERATIONS[operation]
        s3.storage.write("file", b"old")
        s3.proxy.answer = Answers(2, answer(*wrong))
        assert use(s3.storage) == returned
        assert s3.proxy.answer.count > 2
        assert s3.objects().get("file") == left

    def test_that_is_forbidden_is_an_error_at_once(self, s3, operation):
        s3.storage.write("file", b"old")
        s3.proxy.answer = Answers(9, answer(403, "AccessDenied"))
        with pytest.raises(StorageError, match=rf"^s3://{s3.bucket}/(file)? cannot be .*ACCESS_DENIED"):
            OPERATIONS[operation][0](s3.storage)
        assert s3.proxy.answer.count == 1
        assert s3.objects() == {"file": b"old"}

    @pytest.mark.slow
    def test_says_how_long_it_was_tried_where_the_server_stays_away(self, s3, operation, monkeypatch):
        monkeypatch.setattr(Storage, "patience_s", 1.2)
        s3.proxy.off()
        with pytest.raises(StorageError, match=r"cannot be \w+, tried for \d s: .*NETWORK_CONNECTION"):
            OPERATIONS[operation][0](s3.storage)
        s3.proxy.on()

    @pytest.mark.slow
    def test_does_not_wait_for_ever_for_a_server_that_does_not_answer(self, s3, operation, monkeypatch):
        monkeypatch.setattr(Storage, "patience_s", 0.0)
        monkeypatch.setattr(object_store, "_S3_ANSWER_S", 1.0)
        s3.proxy.silent = True
        with pytest.raises(StorageError, match="Timeout was reached"):
            OPERATIONS[operation][0](s3.storage)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_machine_whose_clock_is_an_hour_late_uses_a_storage_too(s3, operation):
    use, returned, left = OPERATIONS[operation]
    # The server sends its time in an error, which must fit into the buffer for the file.
    padding = b" " * 1000
    s3.storage.write("file", b"old" + padding)
    s3.proxy.answer = late = HourLate()
    result = use(s3.storage)
    assert (result.removesuffix(padding) if operation == "read" else result) == returned
    assert late.refused
    found = s3.objects().get("file")
    assert (found if found is None else found.removesuffix(padding)) == left


def test_a_bucket_that_is_not_there_is_an_error_at_once(s3):
    storage = Storage(s3.location.replace(s3.bucket, "another-bucket")) / "x"
    with pytest.raises(StorageError, match=r"^s3://another-bucket/x/a cannot be written: .*NO_SUCH_BUCKET"):
        storage.write("a", b"")
    assert (storage.read("a"), storage.names()) == (None, [])


class FailingFilesystem:
    """Replaces functions of the system and makes the first calls fail."""

    def __init__(self, monkeypatch, code, times):
        self.code, self.times, self.calls = code, times, 0
        for name in ("fsync", "listdir", "fdopen", "unlink"):
            monkeypatch.setattr(os, name, self.failing(getattr(os, name)))

    def failing(self, real):
        def call(*arguments, **options):
            self.calls += 1
            if self.calls <= self.times:
                raise OSError(self.code, os.strerror(self.code))
            return real(*arguments, **options)

        return call


@pytest.mark.parametrize("operation", OPERATIONS)
class TestASharedFolder:
    @pytest.mark.slow
    @pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN])
    def test_is_waited_for_while_its_server_is_away(self, tmp_path, monkeypatch, operation, code):
        use, returned, left = OPERATIONS[operation]
        (tmp_path / "file").write_bytes(b"old")
        with monkeypatch.context() as patch:
            disk = FailingFilesystem(patch, code, times=3)
            assert use(Storage(tmp_path)) == returned
            assert disk.calls > 3
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == ({} if left is None else {"file": left})

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG, errno.EDQUOT])
    def test_that_fails_for_good_is_an_error_at_once(self, tmp_path, monkeypatch, operation, code):
        (tmp_path / "file").write_bytes(b"old")
        with monkeypatch.context() as patch:
            disk = FailingFilesystem(patch, code, times=1)
            with pytest.raises(StorageError, match=rf"cannot be \w+: {os.strerror(code)}"):
                OPERATIONS[operation][0](Storage(tmp_path))
            assert disk.calls <= 2  # a write removes its partial file
        assert (tmp_path / "file").read_bytes() == b"old"


class TestCredentials:
    SECRET = "SECRETwJalrXUtnFEMI"

    @pytest.mark.parametrize(
        "location",
        [
            "s3://AKIAX:{}@bucket/x?region=eu-west-1",
            "s3://{}@bucket/x",
            "s3://AKIAX:with/{}@bucket/x",
            "s3://bucket/x?access_key=AKIAX&secret_key={}",
            "s3://bucket/x?Session_Token={}",
            "s3://bucket/x?region=eu-west-1&endpoint_override=http://user:{}@host:9000",
            "abfss://container@account.dfs.core.windows.net/x?sas={}",
            "hdfs://user:{}@host/x",
        ],
    )
    def test_in_a_uri_are_an_error_that_does_not_tell_them(self, small_experiment, location):
        location = location.format(self.SECRET)
        with pytest.raises(StorageError, match=r"with credentials\. Leave them out, .* in the environment") as caught:
            Storage(location)
        assert self.SECRET not in str(caught.value)
        with pytest.raises(ConfigError, match=r"experiment_config\.storage_path: .* with credentials") as caught:
            small_experiment.experiment({"experiment_config.storage_path": location})
        assert self.SECRET not in str(caught.value)

    def test_in_the_endpoint_of_the_environment_are_an_error_that_does_not_tell_them(self, s3, monkeypatch):
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{self.SECRET}@127.0.0.1:9000")
        with pytest.raises(StorageError, match="its endpoint has credentials in it") as caught:
            Storage(f"s3://{s3.bucket}/x").read("a")
        assert self.SECRET not in str(caught.value)

    def test_that_are_not_in_the_uri_are_no_reason_to_refuse_it(self):
        for location in (
            "gs://anonymous@bucket/x",
            "abfss://container@account.dfs.core.windows.net/x",
            "hdfs://u@h:8020/x",
            "hdfs://[::1]:8020/x",
        ):
            assert Storage(location).location == location

    @pytest.mark.slow
    def test_are_in_no_file_no_output_and_no_error(self, s3, small_experiment, capfd):
        remote = replace(small_experiment, storage_path=f"{s3.location}".replace("?", "/results?"))
        table = remote.run()
        texts = [str(table.trials), str(table.summary)]
        gone = replace(small_experiment, storage_path=s3.location.replace(s3.bucket, "another-bucket"))
        with pytest.raises(StorageError, match="NO_SUCH_BUCKET") as caught:
            gone.run()
        texts.append(str(caught.value))

        def refuse(request):
            return answer(403, "InvalidAccessKeyId") if b"/trials/" in request and b"PUT" in request else None

        s3.proxy.answer = refuse
        with pytest.raises(TrialsFailedError) as failed:
            remote.run(options={LR: [0.5]})
        texts += [str(failed.value), str(failed.value.table.trials)]
        s3.proxy.answer = lambda request: None
        report.main(["list", "--storage-path", str(remote.storage_path)])
        output = capfd.readouterr()
        texts += [output.out, output.err, *map(str, s3.objects().values())]
        assert any("INVALID_ACCESS_KEY_ID" in text for text in texts)
        assert "experiment.json" in " ".join(s3.objects())
        for secret in (s3.access_key, s3.secret_key):
            assert not [text for text in texts if secret in text]


class TestAUri:
    def test_may_leave_the_endpoint_to_the_environment(self, s3, monkeypatch):
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
        (Storage(f"s3://{s3.bucket}") / "x").write("file", b"1")
        assert s3.objects() == {"x/file": b"1"}

    def test_without_a_region_asks_nobody_for_it_where_it_has_an_endpoint(self, s3, monkeypatch):
        def refuse(bucket):
            raise AssertionError("the region was looked up")

        monkeypatch.setattr(object_store.pyarrow.fs, "resolve_s3_region", refuse)
        assert s3.storage._remote()[0].region == "us-east-1"
        monkeypatch.setenv("AWS_REGION", "eu-north-1")
        assert Storage(f"{s3.location}&scheme=http")._remote()[0].region == "eu-north-1"
        assert Storage("s3://no-such-bucket-of-ours")._remote()[0].region == "eu-north-1"
        monkeypatch.delenv("AWS_REGION")
        with pytest.raises(AssertionError, match="was looked up"):
            Storage("s3://no-such-bucket-of-ours/x")._remote()

    def test_with_an_option_that_is_not_known_says_which_there_are(self):
        with pytest.raises(
            StorageError, match=r"^s3://bucket/x is not a place .*no option regoin, only region, scheme"
        ):
            Storage("s3://bucket/x?regoin=eu-west-1").read("a")


def numbers(table):
    rows = [{name: value for name, value in row.items() if name not in TIMES} for row in table.trials]
    summary = [{name: value for name, value in row.items() if "seconds" not in name} for row in table.summary]
    return rows, summary


OPTIONS = {LR: [1e-3, 3e-2]}
REPEATED = {"experiment_config.n_repetitions": 2, "experiment_config.checkpoint_interval_s": 0.0}


class TestASweep:
    @pytest.mark.slow
    def test_ends_with_the_same_numbers_as_in_a_folder_goes_on_and_is_reported(self, small_experiment, s3, capsys):
        remote = replace(small_experiment, storage_path=s3.location)
        here, there = small_experiment.run(REPEATED, OPTIONS), remote.run(REPEATED, OPTIONS)
        assert numbers(there) == numbers(here)
        files = {
            path.relative_to(small_experiment.storage_path).as_posix(): path.read_bytes()
            for path in Path(small_experiment.storage_path).rglob("*")
            if path.is_file() and path.name != ".lock"
        }
        objects = s3.objects()
        of_a_run = re.compile(r"(?<=/runs/)[0-9a-f]+")  # each run has an id
        assert {of_a_run.sub("ID", name) for name in objects} == {of_a_run.sub("ID", name) for name in files}
        for name in files:
            if name.endswith((".npz", ".pt")):
                assert objects[name] == files[name], name

        before = {name: content for name, content in objects.items() if "/trials/" in name}
        more = {LR: [1e-3, 3e-2, 1e-2]}
        assert numbers(remote.run(REPEATED, more)) == numbers(small_experiment.run(REPEATED, more))
        after = s3.objects()
        assert {name: after[name] for name in before} == before
        assert len({name for name in after if name.endswith("trial.json")}) == 6

        capsys.readouterr()
        assert report.main(["list", "--storage-path", s3.location]) == 0
        assert re.search(r"^small_experiment +complete +6/6 ", capsys.readouterr().out, re.MULTILINE)
        assert report.main(["show", "small_experiment", "--storage-path", s3.location]) == 0
        assert "State: complete\n" in capsys.readouterr().out

    @pytest.mark.ray
    @pytest.mark.serial
    def test_with_ray_ends_with_the_same_numbers_also_where_the_server_was_away(self, small_experiment, s3):
        away = []

        def fail_once(request):
            if b"PUT" in request and b"/weights.pt" in request and not away:
                away.append(s3.proxy.off_for(3))

        s3.proxy.answer = fail_once
        there = replace(small_experiment, storage_path=s3.location).experiment(REPEATED, OPTIONS).run("ray")
        assert len(away) == 1
        assert numbers(there) == numbers(small_experiment.run(REPEATED, OPTIONS))

    @pytest.mark.parametrize("seconds", [3, pytest.param(20, marks=pytest.mark.slow)])
    def test_goes_on_after_the_server_was_away_in_its_middle(self, small_experiment, s3, capsys, seconds):
        back = []

        def fail_once(request):
            if b"PUT" in request and b"/checkpoint.pt" in request and not back:
                back.append(s3.proxy.off_for(seconds))

        s3.proxy.answer = fail_once
        there = replace(small_experiment, storage_path=s3.location).run(REPEATED, OPTIONS)
        assert len(back) == 1
        assert "): trying again for up to 60 s" in capsys.readouterr().err
        assert numbers(there) == numbers(small_experiment.run(REPEATED, OPTIONS))
