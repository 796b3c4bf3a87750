#!/usr/bin/env python3
"""Measures a cluster of three nodes on loopback: changes until installed everywhere, large configs, boot, memory.

    cargo build --release --bin gwnode && bench/cluster.py [--objects 100000]

Prints a table; asserts nothing. Ports 22000 to 22012; everything is in a temporary folder and ends with it.
"""
import argparse
import concurrent.futures
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NODE = os.environ.get("PHALANX_GWNODE") or os.path.join(ROOT, "target/release/gwnode")


class Unix(http.client.HTTPConnection):
    """HTTP over a node's own socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=120)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.path)


class Node:
    def __init__(self, folder, number):
        self.data = os.path.join(folder, f"node{number}")
        self.proxy, self.number = 22000 + number, number
        self.start()

    def start(self):
        log = open(self.data + ".log", "ab")
        ports = [f"127.0.0.1:{base + self.number}" for base in (22000, 22004, 22008)]
        flags = [x for pair in zip(("--proxy", "--peer", "--admin"), ports) for x in pair]
        self.process = subprocess.Popen(
            [NODE, "run", "--data", self.data, "--promote-after", "500ms", "--log", "warn", *flags],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(lambda: self.call("GET", "/healthz"))

    def call(self, method, path, body=None, connection=None):
        connection = connection or Unix(self.data + "/admin.sock")
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        answer = response.read()
        if response.status >= 300:
            raise RuntimeError(f"{method} {path}: {response.status} {answer[:300]}")
        return json.loads(answer) if answer else None

    def rss_mb(self, field="VmRSS"):
        with open(f"/proc/{self.process.pid}/status") as status:
            line = next(line for line in status if line.startswith(field))
        return int(line.split()[1]) / 1000

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait()


@contextlib.contextmanager
def alone(count):
    """So many nodes, each in a cluster of its own, and the folder that they are in, which ends with them."""
    folder, nodes = tempfile.mkdtemp(), []
    try:
        for number in range(count):
            nodes.append(Node(folder, number))
            nodes[-1].call("POST", "/v1/cluster/init", {})
        yield nodes, folder
    finally:
        for node in nodes:
            node.process.kill()
            node.process.wait()
        shutil.rmtree(folder)


def until(condition, seconds=60):
    limit = time.monotonic() + seconds
    while True:
        try:
            value = condition()
            if value:
                return value
        except (OSError, RuntimeError, http.client.HTTPException):
            pass
        if time.monotonic() > limit:
            raise SystemExit("it does not come about")
        time.sleep(0.002)


def proxied(node, path):
    connection = http.client.HTTPConnection("127.0.0.1", node.proxy, timeout=5)
    connection.request("GET", path)
    return connection.getresponse().status == 200


def show(what, value):
    print(f"{what:<68} {value}", flush=True)


def routes(count, prefix):
    return {f"{prefix}{n}": {"hosts": [f"h{n % 1000}.example"], "match": [{"path": {"prefix": f"/{prefix}/{n}"}}],
                             "upstream": "u"} for n in range(count)}


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--objects", type=int, default=100_000)
    arguments.add_argument("--changes", type=int, default=1_000)
    arguments.add_argument("--failovers", type=int, default=10)
    arguments.add_argument("--revocations", type=int, default=200)
    given = arguments.parse_args()
    folder = tempfile.mkdtemp(prefix="phalanx-bench-")
    nodes = []
    try:
        nodes = [Node(folder, number) for number in (1, 2, 3)]
        formed = nodes[0].call("POST", "/v1/cluster/init", {})
        for node in nodes[1:]:
            node.call("POST", "/v1/cluster/join", {"address": formed["join_address"], "token": formed["join_token"]})
        until(lambda: nodes[0].call("GET", "/v1/cluster")["tolerates"] == 1)
        base = {"version": 1, "upstreams": {"u": {"targets": [{"address": "127.0.0.1:1"}]}}, "consumers": {"c": {}},
                "policies": {"keys": {"type": "api-key"}},
                "routes": {"keyed": {"match": [{"path": {"exact": "/keyed"}}], "policies": ["keys"], "respond": {"status": 200}},
                           "ok": {"match": [{"path": {"exact": "/ok"}}], "respond": {"status": 200}}}}
        nodes[0].call("POST", "/v1/apply?wait=all", {"document": json.dumps(base)})
        singles(nodes, given.changes, "empty config")
        revocations(nodes, given.revocations)
        failovers(nodes, given.failovers)
        document = {"version": 1, "routes": routes(10_000, "apply")}
        begun = time.monotonic()
        nodes[1].call("POST", "/v1/apply?wait=all&timeout=60s", {"document": json.dumps(document)})
        show("10,000 routes in one apply, until installed on all", f"{time.monotonic() - begun:.2f} s")
        for begin in range(0, given.objects - 10_000, 10_000):
            document = {"version": 1, "routes": routes(10_000, f"r{begin}-")}
            nodes[0].call("POST", "/v1/apply?wait=all&timeout=60s", {"document": json.dumps(document)})
        issue(nodes, given.objects)
        singles(nodes, given.changes // 5, f"{given.objects:,} routes and keys")
        for node in nodes:
            show(f"memory of node {node.number} (RSS, peak)", f"{node.rss_mb():.0f} MB, {node.rss_mb('VmHWM'):.0f} MB")
        for node in nodes:
            node.end(signal.SIGKILL)
        begun = time.monotonic()
        nodes[0].process = None
        nodes[0].start()
        until(lambda: proxied(nodes[0], "/ok"))
        show("all killed, one started: until the first proxied request", f"{time.monotonic() - begun:.2f} s")
        show("its memory (RSS, peak)", f"{nodes[0].rss_mb():.0f} MB, {nodes[0].rss_mb('VmHWM'):.0f} MB")
    finally:
        for node in nodes:
            if node.process and node.process.poll() is None:
                node.process.kill()
                node.process.wait()
        shutil.rmtree(folder)


def singles(nodes, count, what):
    follower = Unix(nodes[2].data + "/admin.sock")
    times = []
    for n in range(count):
        spec = {"match": [{"path": {"prefix": f"/single/{n}"}}], "upstream": "u"}
        begun = time.monotonic()
        nodes[2].call("PUT", f"/v1/routes/single-{n}?wait=all", spec, follower)
        times.append((time.monotonic() - begun) * 1_000)
    times.sort()
    p99 = times[int(len(times) * 0.99) - 1]
    show(f"{count} single changes, asked until installed on all ({what})",
         f"p50 {statistics.median(times):.1f} ms, p99 {p99:.1f} ms")


def revocations(nodes, count):
    """Revokes keys without waiting for nodes, and times from the answer until every node refuses each."""
    admin = Unix(nodes[2].data + "/admin.sock")
    clients = [http.client.HTTPConnection("127.0.0.1", node.proxy, timeout=5) for node in nodes]

    def status(client, key):
        client.request("GET", "/keyed", headers={"x-api-key": key})
        answer = client.getresponse()
        answer.read()
        return answer.status

    times = []
    for _ in range(count):
        issued = nodes[2].call("POST", "/v1/keys?wait=all", {"consumer": "c"}, admin)
        if any(status(client, issued["key"]) != 200 for client in clients):
            raise SystemExit("a key is not good that was issued")
        nodes[2].call("DELETE", f"/v1/keys/{issued['id']}", None, admin)
        begun = time.monotonic()
        for client in clients:
            while status(client, issued["key"]) != 401:
                pass
        times.append((time.monotonic() - begun) * 1_000)
    times.sort()
    show(f"{count} keys revoked, from the answer until all nodes refuse each",
         f"p50 {statistics.median(times):.1f} ms, p99 {times[int(len(times) * 0.99) - 1]:.1f} ms, worst {times[-1]:.1f} ms")


def failovers(nodes, count):
    """Kills the leader, and times until the next one has committed a write through another node."""
    times = []
    for n in range(count):
        status = nodes[0].call("GET", "/v1/cluster")
        names = {member["id"]: member["address"] for member in status["members"]}
        leader = next(node for node in nodes if names[status["leader"]].endswith(str(22004 + node.number)))
        other = next(node for node in nodes if node is not leader)
        spec = {"match": [{"path": {"exact": f"/failover/{n}"}}], "upstream": "u"}
        begun = time.monotonic()
        leader.end(signal.SIGKILL)
        until(lambda: other.call("PUT", f"/v1/routes/failover-{n}", spec))
        times.append(time.monotonic() - begun)
        leader.start()
        until(lambda: all(member["health"] == "healthy" for member in other.call("GET", "/v1/cluster")["members"]))
    show(f"{count} times the leader killed, until a write is made through another node",
         f"median {statistics.median(times):.2f} s, worst {max(times):.2f} s")


def issue(nodes, count):
    def some(begin):
        connection = Unix(nodes[0].data + "/admin.sock")
        for _ in range(begin, count, 32):
            nodes[0].call("POST", "/v1/keys", {"consumer": "c"}, connection)

    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        list(pool.map(some, range(32)))
    show(f"{count:,} keys issued one by one, 32 at a time", f"{count / (time.monotonic() - begun):.0f}/s")


if __name__ == "__main__":
    main()
