import http.client
import signal
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cluster.reports.watch_server import PortError, ReportServer
from cluster.result_table import NoResultsError
from cluster.storage import Storage
from cluster.trial_folder import ExperimentFolder
from tests.cluster_tests.written import write_experiment, write_trial

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    return write_experiment(tmp_path / "sweep", [({"lr": 1}, [9.0, None]), ({"lr": 2}, [None, None])])


@pytest.fixture
def server(folder, monkeypatch):
    """A server that reads the folder anew for each request."""
    monkeypatch.setattr("cluster.reports.watch_server._PAUSE_S", 0)
    monkeypatch.setattr("cluster.reports.watch_server._SHARE", 0)
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
        status, headers, body = ask(server, path)
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
        monkeypatch.setattr("cluster.reports.watch_server._PAUSE_S", 1000)
        with ReportServer(folder) as server:
            before = server.latest.data()
            write_trial(folder, f"{1:016x}/0", 8.0)
            assert server.latest.data() is before


class TestServing:
    def test_an_experiment_that_is_not_there_is_an_error_at_once(self, tmp_path):
        with pytest.raises(NoResultsError):
            ReportServer(ExperimentFolder(Storage(tmp_path) / "nothing"))

    @pytest.mark.parametrize("port", [-1, 70_000])
    def test_a_port_that_cannot_be_is_an_error(self, folder, port):
        with pytest.raises(PortError, match="choose another"):
            ReportServer(folder, port)

    def test_a_port_that_is_taken_is_an_error(self, server, folder):
        with pytest.raises(PortError, match=f"port {server.server_port} of 127.0.0.1 cannot be used"):
            ReportServer(folder, server.server_port)

    def test_ends_with_ctrl_c_without_a_word(self, folder):
        program = (
            "import sys\n"
            "from cluster.reports.watch_server import serve\n"
            "from cluster.storage import Storage\n"
            "from cluster.trial_folder import ExperimentFolder\n"
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
