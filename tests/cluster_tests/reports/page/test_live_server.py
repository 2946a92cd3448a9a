import http.client
import signal
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import pytest

from cluster.reports.page import live_server as watch_server
from cluster.reports.page.data import PageData
from cluster.reports.page.live_server import ReportServer
from cluster.reports.page.pictures import draw
from cluster.results.results import NoResultsError
from cluster.storage.filesystem import Storage
from cluster.storage.folders import ExperimentFolder
from data_pipeline.user_error import UserError
from tests.cluster_tests.experiment_files import write_experiment, write_records, write_trial
from tests.support import ROOT


@pytest.fixture
def folder(tmp_path):
    return write_experiment(tmp_path / "sweep", [({"lr": 1}, [9.0, None]), ({"lr": 2}, [None, None])])


@pytest.fixture
def server(folder, monkeypatch):
    """A server that reads the folder again for each request."""
    for pause in ("_PAUSE_S", "_PICTURES_PAUSE_S", "_SHARE"):
        monkeypatch.setattr(watch_server, pause, 0)
    with ReportServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server, path, method="GET", **headers):
    """Sends a request with the path as it is; returns status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, answer.headers, body


def ask_for_drawn(server):
    """Requests the sections until they have pictures, or until there are none to draw."""
    for _ in range(400):
        answer = ask(server, f"/{server.token}/content")
        if "The pictures are being drawn" not in answer[2]:
            return answer
        time.sleep(0.05)
    pytest.fail("no pictures were drawn")


class TestTheServer:
    def test_serves_the_page_at_its_address(self, server):
        status, headers, body = ask(server, urlsplit(server.address).path)
        assert status == 200
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert "<h1>sweep</h1>" in body
        assert "data-live" in body

    def test_listens_on_this_machine_only(self, server):
        assert server.server_address[0] == "127.0.0.1"
        assert urlsplit(server.address).hostname == "127.0.0.1"

    def test_has_another_token_each_time(self, server, folder):
        with ReportServer(folder) as other:
            assert other.token != server.token
        assert len(server.token) >= 32

    @pytest.mark.parametrize("path", ["/", "/favicon.ico", "/content", "/wrong/", "/wrong/content", "//", "/%00/", "*"])
    def test_refuses_who_lacks_the_token(self, server, path):
        status, _, body = ask(server, path)
        assert status == 403
        assert server.token not in body
        assert "sweep" not in body

    @pytest.mark.parametrize(
        "path", ["", "/x", "/content/", "/content/x", "/experiment.json", "/../../etc/passwd", "/%2e%2e/x", "//content"]
    )
    def test_has_nothing_else(self, server, path):
        assert ask(server, f"/{server.token}{path}")[0] == 404

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1.evil.example", ""])
    def test_refuses_a_name_that_was_made_to_lead_here(self, server, host):
        assert ask(server, f"/{server.token}/", Host=host)[0] == 403

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
    def test_is_only_read(self, server, method):
        assert ask(server, f"/{server.token}/", method)[0] == 501

    @pytest.mark.parametrize("path", ["/", "/content", "/x"])
    def test_is_kept_by_nobody(self, server, path):
        _, headers, _ = ask(server, f"/{server.token}{path}")
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Content-Type-Options"] == "nosniff"

    def test_sends_the_sections_again_only_when_something_has_changed(self, server, folder):
        path = f"/{server.token}/content"
        status, headers, body = ask_for_drawn(server)
        assert (status, body.count("<section")) == (200, 5)
        assert ask(server, path, If_None_Match=headers["ETag"])[::2] == (304, "")
        write_trial(folder, f"{1:016x}/0", 8.0)
        status, _, body = ask(server, path, If_None_Match=headers["ETag"])
        assert status == 200
        assert "8.00" in body

    def test_says_what_is_wrong_when_the_experiment_is_gone(self, server, folder):
        folder.storage.remove("experiment.json")
        status, headers, body = ask(server, f"/{server.token}/content")
        assert status == 503
        assert headers["Content-Type"] == "text/plain; charset=utf-8"
        assert "holds no experiment" in body

    def test_reads_a_folder_that_takes_long_the_more_rarely(self, folder, monkeypatch):
        monkeypatch.setattr("cluster.reports.page.live_server._PAUSE_S", 1000)
        with ReportServer(folder) as server:
            before = server.latest.data()
            write_trial(folder, f"{1:016x}/0", 8.0)
            assert server.latest.data() is before


class TestThePictures:
    """Pictures of finished trials are drawn in parallel; until new ones are ready, the last ones are served."""

    @pytest.fixture
    def folder(self, folder):
        write_records(folder, f"{0:016x}/0", [12.0, 9.0])
        return folder

    @pytest.fixture
    def drawn(self, monkeypatch):
        """The drawn pictures, in order; nothing until `may_go_on` is set."""

        def recorded(data, folder, **how):
            drawn.append(data)
            assert drawn.may_go_on.wait(20)
            return draw(data, folder, **how)

        class Drawn(list):
            may_go_on = threading.Event()

        drawn = Drawn()
        monkeypatch.setattr(watch_server, "draw", recorded)
        yield drawn
        drawn.may_go_on.set()

    def pictures(self, body):
        return [part.partition('"')[0] for part in body.split('<img src="')[1:]]

    def test_no_answer_waits_for_them(self, drawn, server, folder):
        path = f"/{server.token}/content"
        for page in (f"/{server.token}/", path):
            body = ask(server, page)[2]
            assert "The pictures are being drawn" in body
            assert "9.00" in body
        write_trial(folder, f"{1:016x}/0", 8.0)
        assert "8.00" in ask(server, path)[2]
        drawn.may_go_on.set()
        body = ask_for_drawn(server)[2]
        assert len(self.pictures(body)) >= 2
        assert "As of " in body

    @pytest.mark.slow
    def test_the_last_ones_are_served_until_there_are_others(self, drawn, server, folder):
        drawn.may_go_on.set()
        first = ask_for_drawn(server)[2]
        drawn.may_go_on.clear()
        write_records(folder, f"{1:016x}/0", [10.0, 8.0])
        write_trial(folder, f"{1:016x}/0", 8.0)
        second = ask(server, f"/{server.token}/content")[2]
        assert "8.00" in second
        assert self.pictures(second) == self.pictures(first)
        drawn.may_go_on.set()
        for _ in range(400):
            third = ask(server, f"/{server.token}/content")[2]
            if self.pictures(third) != self.pictures(first):
                return
            time.sleep(0.05)
        pytest.fail("no others were drawn")

    def test_are_drawn_once_for_the_same_results(self, drawn, server, folder):
        drawn.may_go_on.set()
        body = ask_for_drawn(server)[2]
        write_records(folder, f"{1:016x}/0", [12.0])  # of a trial that has not finished
        for _ in range(3):
            again = ask(server, f"/{server.token}/content")[2]
        assert again != body
        assert self.pictures(again) == self.pictures(body)
        assert len(drawn) == 1

    def test_are_drawn_no_sooner_than_a_while_after_the_last_ones(self, drawn, server, folder, monkeypatch):
        monkeypatch.setattr(watch_server, "_PICTURES_PAUSE_S", 1000)
        drawn.may_go_on.set()
        ask_for_drawn(server)
        write_trial(folder, f"{1:016x}/0", 8.0)
        assert "8.00" in ask(server, f"/{server.token}/content")[2]
        assert len(drawn) == 1

    def test_that_cannot_be_drawn_leave_the_rest_of_the_page(self, server, monkeypatch):
        def broken(data, folder, **how):
            raise MemoryError("no room\nfor <b>")

        monkeypatch.setattr(watch_server, "draw", broken)
        status, _, body = ask_for_drawn(server)
        assert status == 200
        assert "The pictures could not be drawn: no room<" in body
        assert "9.00" in body

    def test_are_not_drawn_any_more_once_the_server_is_closed(self, drawn, folder):
        with ReportServer(folder) as server:
            data = server.latest.data()
            server.pictures.pictures(data)
            threading.Timer(0.1, drawn.may_go_on.set).start()
        write_trial(folder, f"{1:016x}/0", 8.0)
        server.pictures.pictures(PageData.read(folder))
        assert len(drawn) == 1
        assert not [thread for thread in threading.enumerate() if thread.name.endswith("(_draw)")]


class TestServing:
    def test_an_experiment_that_is_not_there_is_an_error_at_once(self, tmp_path):
        with pytest.raises(NoResultsError):
            ReportServer(ExperimentFolder(Storage(tmp_path) / "nothing"))

    @pytest.mark.parametrize("port", [-1, 70_000])
    def test_a_port_that_cannot_be_is_an_error(self, folder, port):
        with pytest.raises(UserError, match="choose another"):
            ReportServer(folder, port)

    def test_a_port_that_is_taken_is_an_error(self, server, folder):
        with pytest.raises(UserError, match=f"port {server.server_port} of 127.0.0.1 cannot be used"):
            ReportServer(folder, server.server_port)

    def test_ends_with_ctrl_c_without_a_word(self, folder):
        program = (
            "import sys\n"
            "from cluster.reports.page.live_server import serve\n"
            "from cluster.storage.filesystem import Storage\n"
            "from cluster.storage.folders import ExperimentFolder\n"
            "serve(ExperimentFolder(Storage(sys.argv[1])), announce=lambda address: print(address, flush=True))\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(folder.storage.local)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        address = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert address.startswith("http://127.0.0.1:")
        assert (process.returncode, out, err) == (0, "", "")
