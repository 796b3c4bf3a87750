#!/usr/bin/env python3
"""What changes of the config cost those who are served meanwhile: CPU a request with one every 100 ms, over none.

    cargo build --release --bin gwnode && bench/changes.py [--routes 1000] [--rounds 10] [--seconds 3]

The same node proxies slices with changes and without in turn; each with is between two without, whose mean it is compared with. What is
changed is what serves: the route's headers, its upstream's targets, and a route beside it. All that the node does for a
change counts: agreeing on it, writing it down, compiling and installing it.

Needs wrk. Prints a table; asserts nothing. Ports 22000 to 22023; everything is in a temporary folder and ends with it.
"""
import argparse
import statistics
import threading
import time

from cluster import Unix, alone
from wrk import load

EVERY_S = 0.1


class Changes:
    """Changes that keep coming, each once the last one is installed."""

    def __init__(self, node, target):
        self.node, self.target, self.made, self.late = node, target, 0, 0
        self.end = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.end.set()
        self.thread.join()

    def run(self):
        connection, due = Unix(self.node.data + "/admin.sock"), time.monotonic()
        targets = [{"address": self.target}]
        while not self.end.wait(max(0, due - time.monotonic())):
            self.made += 1
            path, spec = [
                ("routes/all", {"upstream": "origin", "request": {"headers": {"set": {"x-change": str(self.made)}}}}),
                ("upstreams/origin", {"targets": targets + [{"address": f"127.0.0.1:{1 + self.made % 2}", "weight": 0}]}),
                ("routes/beside", {"match": [{"path": {"prefix": f"/beside/{self.made}"}}], "upstream": "origin"}),
            ][self.made % 3]
            self.node.call("PUT", f"/v1/{path}?wait=all", spec, connection)
            due += EVERY_S
            self.late += due < time.monotonic()


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--routes", type=int, default=1000, help="other routes that there are")
    arguments.add_argument("--rounds", type=int, default=10)
    arguments.add_argument("--seconds", type=int, default=3)
    given = arguments.parse_args()
    with alone(2) as ((origin, proxy), _):
        origin.call("PUT", "/v1/routes/all?wait=all", {"respond": {"status": 200, "body": "x" * 1024}})
        target = f"127.0.0.1:{origin.proxy}"
        proxy.call("PUT", "/v1/upstreams/origin", {"targets": [{"address": target}]})
        proxy.call("PUT", "/v1/routes/all", {"upstream": "origin"})
        for at in range(given.routes):
            route = {"match": [{"path": {"prefix": f"/api/{at}"}}], "upstream": "origin"}
            proxy.call("PUT", f"/v1/routes/r{at}", route)
        load(proxy, "/", 2)
        over, made, late, asked, failed = [], 0, 0, 0, 0
        bare = [load(proxy, "/", given.seconds)[0]]
        for _ in range(given.rounds):
            changes = Changes(proxy, target)
            with changes:
                cost, requests, bad = load(proxy, "/", given.seconds)
            bare.append(load(proxy, "/", given.seconds)[0])
            over.append((2 * cost / (bare[-2] + bare[-1]) - 1) * 100)
            made, late, asked, failed = made + changes.made, late + changes.late, asked + requests, failed + bad
        low, middle, high = statistics.quantiles(over, n=4)
        print(f"| routes | without, us a request | with, % over that | quartiles | changes | late | requests | failed |\n"
              f"|---|---|---|---|---|---|---|---|\n"
              f"| {given.routes} | {statistics.median(bare):.2f} | {middle:.1f} | {low:.1f} to {high:.1f} "
              f"| {made} | {late} | {asked} | {failed} |")


if __name__ == "__main__":
    main()
