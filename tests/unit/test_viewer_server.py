"""The viewer's web server: who may ask, what may be asked, and that nothing brings it down."""

import functools
import http.client
import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from evsim.errors import EvsimError, LogError
from evsim.log_file import LogFile
from evsim.viewer import server as servers
from evsim.viewer import session as sessions
from evsim.viewer import source as sources
from evsim.viewer.server import PAGE, Server
from evsim.viewer.session import Session
from oracles import viewed_logs

TILE = "tile?population=hidden&start=0&stop=1e6&low=0&high=150&columns=40&rows=20"
FOLDER = Path(servers.__file__).parent


class Client:
    """Requests to a server that runs in a thread."""

    def __init__(self, path, **options):
        self.session = Session(path, **options)
        self.server = Server(self.session)
        self.port, self.token = self.server.server_port, self.server.token
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
        self.session.close()

    def get(self, path, method="GET", headers=None, body=None, whole=False):
        """Status, headers and body; the token is put in front unless the path is whole."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path if whole else f"/{self.token}/{path}", body, headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def facts(self, path):
        status, _, body = self.get(path)
        return status, json.loads(body)

    def arrays(self, path):
        status, _, body = self.get(path)
        assert status == 200, body
        length = int.from_bytes(body[:4], "little")
        facts, at = json.loads(body[4 : 4 + length]), 4 + length
        for name, dtype, shape in facts["arrays"]:
            at += -at % 8
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            facts[name] = np.frombuffer(body[at : at + size], dtype).reshape(shape)
            at += size
        return facts

    def raw(self, data):
        """What comes back for bytes that may be no request at all."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            found = b""
            while part := connection.recv(65536):
                found += part
            return found


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return viewed_logs.clocked().save(tmp_path_factory.mktemp("log") / "log of [a] run.h5")


@pytest.fixture(scope="module")
def shared(path):
    client = Client(path)
    yield client
    client.close()


@pytest.fixture
def client(path):
    client = Client(path)
    yield client
    client.close()


class TestWhoMayAsk:
    def test_only_this_machine(self, shared):
        assert shared.server.server_address[0] == "127.0.0.1"

    def test_the_secret_is_long_and_new_each_time(self, shared, path):
        assert len(shared.token) >= 32
        with Session(path) as session, Server(session) as other:
            assert other.token != shared.token
            assert other.address == f"http://127.0.0.1:{other.server_port}/{other.token}/"

    @pytest.mark.parametrize("route", ["", "page.js", "info", TILE, "events.csv", "nothing"])
    def test_nothing_without_the_secret(self, shared, route):
        wrong = shared.token[:-1] + ("a" if shared.token[-1] != "a" else "b")
        for path in (
            f"/{route}",
            f"/{wrong}/{route}",
            f"//{route}",
            f"/{shared.token}x/{route}",
            f"/?{shared.token}/{route}",
        ):
            status, _, body = shared.get(path, whole=True)
            assert status == 403, path
            assert b"lacks its secret part" in body
            assert shared.token.encode() not in body

    def test_the_browser_gets_a_ticket_that_is_good_once(self, client, monkeypatch):
        """Its command line is there for all to read."""
        opened = queue.Queue()
        monkeypatch.setattr("webbrowser.open", opened.put)
        client.server.open_browser()
        route = "/" + opened.get(timeout=10).split("/", 3)[3]
        assert client.token not in route
        assert client.get(route, "POST", whole=True)[0] == 403
        assert client.get(route, headers={"Host": "example.org"}, whole=True)[0] == 403
        status, headers, _ = client.get(route, whole=True)
        assert (status, headers["Location"]) == (303, f"/{client.token}/")
        assert client.get(route, whole=True)[0] == 403

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE", "BREW"])
    def test_only_get(self, shared, method):
        status, headers, _ = shared.get("info", method)
        assert (status, headers["Allow"]) == (405, "GET")
        assert shared.get("/info", method, whole=True)[0] == 403

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]", "localhost:9999"])
    def test_names_of_this_machine(self, shared, host):
        assert shared.get("info", headers={"Host": host})[0] == 200

    @pytest.mark.parametrize(
        "host",
        [
            "example.org",
            "127.0.0.1.example.org",
            "localhost.",
            "",
            "127.0.0.1:x",
            "evil@127.0.0.1",
            "0.0.0.0",
        ],
    )
    def test_other_names_are_refused(self, shared, host):
        """A foreign page whose name was pointed here (DNS rebinding) sends that name."""
        assert shared.get("info", headers={"Host": host})[0] == 403

    def test_a_request_needs_one_name(self, shared):
        request = f"GET /{shared.token}/info HTTP/1.1\r\n"
        assert b" 403 " in shared.raw((request + "\r\n").encode()).splitlines()[0]
        twice = "Host: localhost\r\nHost: example.org\r\n\r\n"
        assert b" 403 " in shared.raw((request + twice).encode()).splitlines()[0]

    def test_headers_keep_other_sites_out(self, shared):
        for route in ("", "page.js", "info", TILE):
            headers = shared.get(route)[1]
            policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
            assert policy["default-src"] == "'none'"
            assert {policy[name] for name in ("script-src", "style-src", "connect-src", "img-src")} == {
                "'self'"
            }
            assert policy["frame-ancestors"] == "'none'"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert "Access-Control-Allow-Origin" not in headers


class TestPage:
    def test_every_file_of_the_page_is_served_and_there_is_no_other(self, shared):
        found = {name for name, _ in PAGE.values()}
        assert found == {p.name for p in FOLDER.iterdir() if p.suffix in (".html", ".js", ".css", ".svg")}
        for route, (name, kind) in PAGE.items():
            status, headers, body = shared.get(route)
            assert (status, headers["Content-Type"]) == (200, kind)
            assert body == (FOLDER / name).read_bytes()

    def test_without_the_last_slash(self, shared):
        status, headers, _ = shared.get(f"/{shared.token}", whole=True)
        assert (status, headers["Location"]) == (303, f"/{shared.token}/")

    @pytest.mark.parametrize(
        "route",
        [
            *("../server.py", "server.py", "..%2fserver.py", "/etc/passwd", "%2e%2e/%2e%2e/etc/passwd"),
            *("page.js/", "./page.js", "__init__.py", "page.js%00", "\\..\\server.py", "log of [a] run.h5"),
            "x" * 60_000,
        ],
    )
    def test_no_path_leads_to_a_file(self, shared, route):
        status, _, body = shared.get(route.replace(" ", "%20"))
        assert status == 404
        assert b"nothing under this address" in body

    def test_nothing_comes_from_elsewhere(self):
        """The page works offline: no address of another machine is in it."""
        for name, _ in PAGE.values():
            text = (FOLDER / name).read_text()
            addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", text))
            assert addresses <= {"http://www.w3.org/2000/svg"}
            assert "innerHTML" not in text
            assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", text)

    def test_imports_are_files_of_the_page(self):
        for name, _ in PAGE.values():
            for other in re.findall(r"from \"\./([\w.]+)\"", (FOLDER / name).read_text()):
                assert other in PAGE
        preloaded = re.findall(r'modulepreload" href="([\w.]+)"', (FOLDER / "page.html").read_text())
        assert {*preloaded, "page.js"} == set(servers.SCRIPTS)


class TestAnswers:
    def test_info(self, shared):
        status, facts = shared.facts("info")
        assert status == 200
        assert facts["file"] == "log of [a] run.h5"
        assert (facts["dt"], facts["n_lanes"], facts["start"], facts["stop"]) == (0.5, 3, 0.0, 200.0)
        assert (facts["complete"], facts["note"], facts["lane_stops"]) == (True, None, None)
        hidden, answer = facts["populations"]
        assert hidden["colours"] == ["value", "gradient"]
        assert (hidden["sends"], hidden["states"], answer["sends"], answer["states"]) == (
            True,
            False,
            False,
            True,
        )

    def test_tile(self, shared):
        table = shared.session.file["hidden"].table()
        marks = shared.arrays(TILE)
        np.testing.assert_array_equal(marks["node"], table.node)
        cells = shared.arrays(TILE + "&marks=0&colour=gradient&lane=1")
        assert cells["kind"] == "cells"
        assert cells["counts"].sum() == (table.lane == 1).sum()
        assert cells["means"].shape == cells["counts"].shape

    def test_nearest(self, shared):
        table = shared.session.file["hidden"].table()
        rng = np.random.default_rng(0)
        for k in rng.integers(0, len(table), 20):
            time, node = table.time[k] + 0.25 + 0.01, table.node[k] + 0.5
            query = f"nearest?population=hidden&time={time}&node={node}&reach=3&nodes=4&low=0&high=150"
            event = shared.facts(query)[1]["event"]
            assert (event["time"], event["lane"], event["unit"]) == (
                table.time[k],
                table.lane[k],
                table.unit[k],
            )
            assert event["value"] == pytest.approx(table.value[k])
            assert event["gradient"] == pytest.approx(table.gradient[k])
        empty = "nearest?population=hidden&time=-50&node=3&reach=1&nodes=1&low=0&high=150"
        assert shared.facts(empty) == (200, {"event": None})

    def test_state(self, shared):
        found = shared.arrays("state?population=answer&lane=2&unit=1,0&start=10&stop=60&points=1000")
        times, name, states = shared.session.file["answer"].state(10.0, 60.0)
        assert found["state"] == name
        np.testing.assert_array_equal(found["times"], times)
        np.testing.assert_array_equal(found["low"], states[:, 2, [1, 0]].T)

    def test_statistics_and_table(self, shared):
        box = "?population=hidden&start=20&stop=80&low=10&high=90"
        _, facts = shared.facts("statistics" + box)
        status, headers, body = shared.get("events.csv" + box)
        assert status == 200
        assert headers["Content-Disposition"] == 'attachment; filename="log_of__a__run-hidden.csv"'
        assert body.count(b"\n") == facts["events"] + 1

    def test_a_connection_serves_many_requests(self, shared):
        connection = http.client.HTTPConnection("127.0.0.1", shared.port, timeout=20)
        for _ in range(5):
            connection.request("GET", f"/{shared.token}/info")
            response = connection.getresponse()
            response.read()
            assert not response.will_close
        connection.close()

    def test_population_and_files_without_events(self, path, tmp_path):
        with Session(path, "hidden") as session:
            assert session.first == "hidden"
        with pytest.raises(
            EvsimError, match="no events of a population 'answer'; those with events are hidden"
        ):
            Session(path, "answer")
        with pytest.raises(LogError):
            Session(tmp_path / "missing.h5")


BOX = "population=hidden&start=0&stop=9&low=0&high=9"
BAD = [
    "tile",
    "tile?",
    TILE + "&extra=1",
    TILE + "&rows=2",
    TILE.replace("hidden", "nobody"),
    TILE.replace("hidden", "answer"),
    TILE.replace("start=0", "start=nan"),
    TILE.replace("stop=1e6", "stop=inf"),
    TILE.replace("start=0", "start=1e5"),
    TILE.replace("low=0", "low=150"),
    TILE.replace("low=0", "low=0.5"),
    TILE.replace("rows=20", "rows="),
    TILE.replace("rows=20", "rows=0x10"),
    TILE.replace("rows=20", "rows=" + "9" * 5000),
    TILE + "&colour=red",
    TILE + "&colour=time_gradient",
    TILE + "&refine=2",
    TILE + "&lane=0.1",
    TILE + "&" + "&".join(f"x{k}=1" for k in range(1000)),
    "tile?%00=%ff",
    "info?x=1",
    "state?population=hidden&lane=0&unit=0&start=0&stop=9&points=9",
    "state?population=answer&lane=0&unit=5&start=0&stop=9&points=9",
    "state?population=answer&lane=0&unit=1,,x&start=0&stop=9&points=9",
    f"statistics?{BOX}&lane=2",
    f"events.csv?{BOX}&columns=5",
    "nearest?population=hidden&time=nan&node=0&reach=1&nodes=1&low=0&high=1",
]
HUGE = [
    TILE.replace("columns=40", "columns=1e18"),
    TILE.replace("rows=20", "rows=-7"),
    TILE.replace("start=0", "start=-1e308"),
    TILE.replace("high=150", "high=1e300"),
    TILE.replace("stop=1e6", "stop=1e-320"),
    TILE + "&lane=99999999999",
    TILE + "&marks=1e99",
    "state?population=answer&lane=1e9&unit=0&start=-1e9&stop=1e9&points=1e9",
    "nearest?population=hidden&time=1e300&node=1e300&reach=1e300&nodes=1e300&low=0&high=1e9",
]


class TestHostileQuestions:
    @pytest.mark.parametrize("query", BAD, ids=range(len(BAD)))
    def test_nonsense_is_refused_in_words(self, shared, query):
        status, facts = shared.facts(query)
        assert status == 400
        assert len(facts["error"]) < 300

    @pytest.mark.parametrize("query", HUGE, ids=range(len(HUGE)))
    def test_numbers_out_of_range_are_put_into_it(self, shared, query):
        status, _, body = shared.get(query)
        assert status == 200, body
        assert len(body) < 10**7

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\r\n\r\n",
            b"GET\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET " + b"a" * 70_000,
            b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 200 + b"\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost",
            b"\xff" * 100 + b"\r\n\r\n",
        ],
        ids=range(9),
    )
    def test_bytes_that_are_no_request(self, shared, data, capfd):
        found = shared.raw(data)
        assert b" 200 " not in found[:20]
        assert shared.facts("info")[0] == 200
        assert capfd.readouterr().err == ""

    def test_a_body_is_not_taken_for_the_next_request(self, shared):
        inner = f"GET /{shared.token}/info HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for method in ("GET", "POST"):
            head = f"{method} /{shared.token}/info HTTP/1.1\r\nHost: localhost\r\n"
            head += f"Content-Length: {len(inner)}\r\n\r\n"
            assert shared.raw((head + inner).encode()).count(b"HTTP/1.1 ") == 1


class TestTroubles:
    def test_many_at_once(self, client):
        queries = [
            TILE,
            TILE + "&marks=0&colour=value",
            "info",
            f"statistics?{BOX}",
            f"events.csv?{BOX}",
            "tile?x",
        ] * 10
        with ThreadPoolExecutor(12) as pool:
            found = list(pool.map(lambda query: client.get(query)[0], queries))
        assert set(found) == {200, 400}
        assert found.count(400) == 10

    def test_too_many_connections_are_turned_away(self, client, monkeypatch):
        held = [socket.create_connection(("127.0.0.1", client.port)) for _ in range(servers.MOST_CONNECTIONS)]
        try:
            assert client.raw(f"GET /{client.token}/info HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()) == b""
        except OSError:  # closed before it was asked, or while
            pass
        finally:
            for connection in held:
                connection.close()
        for _ in range(100):
            try:
                assert client.facts("info")[0] == 200
                break
            except (ConnectionError, http.client.HTTPException):
                threading.Event().wait(0.05)

    def test_a_dropped_request_stops_counting(self, client, monkeypatch):
        monkeypatch.setattr(sources, "PIECE", 10)
        began, stopped = threading.Event(), threading.Event()
        check = servers.Handler._check

        def noted(self):
            began.set()
            threading.Event().wait(0.01)
            try:
                check(self)
            except sources.Cancelled:
                stopped.set()
                raise

        monkeypatch.setattr(servers.Handler, "_check", noted)
        connection = socket.create_connection(("127.0.0.1", client.port))
        query = "statistics?population=hidden&start=0&stop=1e9&low=0&high=150"
        connection.sendall(f"GET /{client.token}/{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert began.wait(10)
        connection.close()
        assert stopped.wait(10)
        monkeypatch.undo()
        assert client.facts("info")[0] == 200

    def test_mistakes_are_shown_and_survived(self, client, monkeypatch):
        monkeypatch.setattr(sessions, "tile", lambda *_: 1 / 0)
        status, facts = client.facts(TILE)
        assert (status, facts["error"]) == (500, "a mistake of evsim: ZeroDivisionError: division by zero")
        monkeypatch.undo()
        assert client.get(TILE)[0] == 200

    def test_files_that_go_or_are_replaced(self, path, tmp_path):
        copy = shutil.copy(path, tmp_path / "log.h5")
        client = Client(copy)
        try:
            os.remove(copy)
            assert "deleted or moved" in client.facts("info")[1]["note"]
            assert client.get(TILE)[0] == 200  # what is open stays readable
            shutil.copy(path, copy)
            assert "another file has taken its place" in client.facts("info")[1]["note"]
        finally:
            client.close()

    def test_damage_is_shown_in_words(self, tmp_path):
        path = viewed_logs.clocked(n_events=100_000, n_steps=4000).save(tmp_path / "log.h5")
        data = bytearray(path.read_bytes())
        with LogFile(path) as file:
            data[data.index(file["hidden"].nodes(slice(60_000, 60_100)).tobytes())] ^= 1
        path.write_bytes(data)
        client = Client(path)
        try:
            status, facts = client.facts(TILE + "&marks=0")
            assert status == 422
            assert "checksum" in facts["error"]
            assert client.facts("info")[0] == 200
        finally:
            client.close()

    def test_a_file_that_another_process_writes(self, tmp_path):
        with viewed_logs.writing(tmp_path / "log.h5", n_windows=3) as process:
            client = Client(tmp_path / "log.h5")
            try:
                stops = []
                for k in range(3):
                    facts = client.facts("info")[1]
                    stops.append(facts["stop"])
                    assert not facts["complete"]
                    assert facts["quiet_s"] < 10
                    tile = client.arrays(TILE)
                    assert len(tile["time"]) == client.session.file["hidden"].n_events
                    if k < 2:
                        viewed_logs.write_on(process)
                assert stops == [200.0, 400.0, 600.0]
                process.communicate(timeout=20)
                assert client.facts("info")[1]["complete"]
            finally:
                client.close()

    def test_a_taken_port(self, client, path):
        with Session(path) as session, pytest.raises(EvsimError, match=r"port \d+: .*; leave --port away"):
            Server(session, client.port)


class TestCommand:
    @contextmanager
    def start(self, *words):
        """A process of the command, which is not left behind."""
        command = [sys.executable, "-m", "evsim", "view", *map(str, words)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        # what runs in the background of a shell ignores Ctrl-C, and so would its children
        listen = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        with subprocess.Popen(command, preexec_fn=listen, **pipes) as process:
            try:
                yield process
            finally:
                process.kill()

    def test_serves_until_interrupted(self, path):
        with self.start(path, "--no-browser", "--population", "hidden") as process:
            address = process.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32,}/", address)
            _, _, host, token, _ = address.split("/")
            connection = http.client.HTTPConnection(host, timeout=20)
            connection.request("GET", f"/{token}/info")
            assert connection.getresponse().status == 200
            process.send_signal(signal.SIGINT)  # with a connection open
            out, err = process.communicate(timeout=20)
            connection.close()
        assert (process.returncode, out) == (0, "")
        assert err == "Ctrl-C stops\n\n"

    def test_errors_are_one_line(self, tmp_path):
        with self.start(tmp_path / "none.h5") as process:
            out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (2, "")
        assert re.fullmatch(r"evsim: [^\n]+\n", err)
