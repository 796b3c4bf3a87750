#!/usr/bin/env python3
"""A node under steady load while its targets die and come back: failed requests, and memory from beginning to end.

    cargo build --release --bin gwnode && bench/flapping.py [--minutes 60] [--load 0.8]

First what it can carry is measured, then it is loaded with that part of it. Of three targets one is killed with SIGKILL every few seconds, in
turn, and started again, so that there always are two to try again on; requests are GETs and are tried again once, as is usual.

Needs h2load (nghttp2-client). Prints a line a minute and a table; asserts nothing. Ports 22000 to 22023; everything is in a temporary folder and
ends with it.
"""
import argparse
import re
import statistics
import subprocess
import threading
from pathlib import Path

from cluster import alone

CLIENTS = 32
DOWN_S, UP_S = 1.0, 4.0


def load(node, seconds, rate=None):
    """Requests under h2load of HTTP/1.1, and those that failed: no answer, or a status that is not 2xx."""
    limit = [f"--rps={rate / CLIENTS}"] if rate else []
    ran = subprocess.run(["h2load", "--h1", "-t1", f"-c{CLIENTS}", f"-D{seconds}", *limit, f"http://127.0.0.1:{node.proxy}/"],
                         capture_output=True, text=True, check=True).stdout
    counts = re.search(r"requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", ran)
    statuses = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", ran)
    bad = sum(int(statuses.group(group)) for group in (2, 3, 4)) + int(counts.group(6))
    return int(statuses.group(1)), bad


def memory_kib(node):
    rollup = Path(f"/proc/{node.process.pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+)", rollup, re.M).group(1))


class Flapping:
    """Kills the targets in turn and starts them again."""

    def __init__(self, targets):
        self.targets, self.deaths, self.end = targets, 0, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.end.set()
        self.thread.join()

    def run(self):
        while not self.end.wait(UP_S):
            target = self.targets[self.deaths % len(self.targets)]
            self.deaths += 1
            target.process.kill()
            target.process.wait()
            self.end.wait(DOWN_S)
            target.start()


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--minutes", type=int, default=60)
    arguments.add_argument("--load", type=float, default=0.8, help="part of what the node can carry")
    given = arguments.parse_args()
    with alone(4) as ((proxy, *targets), _):
        for target in targets:
            target.call("PUT", "/v1/routes/all?wait=all", {"respond": {"status": 200, "body": "x" * 1024}})
        addresses = [{"address": f"127.0.0.1:{target.proxy}"} for target in targets]
        proxy.call("PUT", "/v1/upstreams/origin", {"targets": addresses})
        proxy.call("PUT", "/v1/routes/all?wait=all", {"upstream": "origin"})
        load(proxy, 2)
        capacity = load(proxy, 10)[0] / 10
        rate = capacity * given.load
        print(f"it can carry {capacity:.0f} requests a second; {rate:.0f} from now on", flush=True)
        good = failed = 0
        memory = []
        with Flapping(targets) as flapping:
            for minute in range(given.minutes):
                minute_good, minute_failed = load(proxy, 60, rate)
                good, failed = good + minute_good, failed + minute_failed
                memory.append(memory_kib(proxy))
                print(f"minute {minute + 1}: {minute_good} good, {minute_failed} failed, {memory[-1]} KiB", flush=True)
        # The first minutes fill what has a bound of its own: pools, buffers, the allocator's pages.
        tenth = max(1, len(memory) // 10)
        first, last = statistics.median(memory[tenth:2 * tenth] or memory), statistics.median(memory[-tenth:])
        print(f"\n| minutes | requests a second | good | failed | targets killed | KiB then | KiB at the end | % more |\n"
              f"|---|---|---|---|---|---|---|---|\n"
              f"| {given.minutes} | {good / given.minutes / 60:.0f} | {good} | {failed} | {flapping.deaths} "
              f"| {first:.0f} | {last:.0f} | {(last / first - 1) * 100:.1f} |")


if __name__ == "__main__":
    main()
