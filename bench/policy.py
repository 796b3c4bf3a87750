#!/usr/bin/env python3
"""What a policy costs: CPU a request of a route with it, over one without, as the same node proxies them in turn.

    cargo build --release --bin gwnode && bench/policy.py [--rounds 9] [--seconds 4]

Needs wrk. Prints a table; asserts nothing. Ports 22000 to 22023; everything is in a temporary folder and ends with it.
"""
import argparse
import re
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

from cluster import Node

POLICIES = {
    "rate-limit, all together": {"type": "rate-limit", "limit": {"requests": 10**9, "per": "1m"}},
    "rate-limit, by address": {"type": "rate-limit", "by": "address", "limit": {"requests": 10**9, "per": "1m"}},
    "rate-limit, by address, no headers": {
        "type": "rate-limit", "by": "address", "headers": False, "limit": {"requests": 10**9, "per": "1m"}},
    "rate-limit, by address, three limits": {
        "type": "rate-limit", "by": "address",
        "limits": {name: {"requests": 10**9, "per": per} for name, per in (("s", "1s"), ("m", "1m"), ("d", "1d"))}},
}


def cpu_ns(pid):
    """CPU time of all threads of a process that there are now."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks)


def cost_us(node, path, seconds):
    """CPU microseconds a request, proxied under wrk."""
    before = cpu_ns(node.process.pid)
    ran = subprocess.run(["wrk", "-t1", "-c32", f"-d{seconds}s", f"http://127.0.0.1:{node.proxy}{path}"],
                         capture_output=True, text=True, check=True).stdout
    bad = re.search(r"Non-2xx.*", ran)
    if bad:
        raise SystemExit(f"{path}: {bad.group()}")
    return (cpu_ns(node.process.pid) - before) / 1000 / int(re.search(r"(\d+) requests in", ran).group(1))


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--seconds", type=int, default=4)
    given = arguments.parse_args()
    folder = tempfile.mkdtemp()
    nodes = []
    try:
        nodes = [Node(folder, 0), Node(folder, 1)]
        origin, proxy = nodes
        for node in nodes:
            node.call("POST", "/v1/cluster/init", {})
        origin.call("PUT", "/v1/routes/all?wait=all", {"respond": {"status": 200, "body": "x" * 100}})
        target = {"targets": [{"address": f"127.0.0.1:{origin.proxy}"}]}
        proxy.call("PUT", "/v1/upstreams/origin", target)
        proxy.call("PUT", "/v1/routes/none", {"upstream": "origin"})
        for at, policy in enumerate(POLICIES.values()):
            proxy.call("PUT", f"/v1/policies/p{at}", policy)
            route = {"match": [{"path": {"exact": f"/{at}"}}], "policies": [f"p{at}"], "upstream": "origin"}
            proxy.call("PUT", f"/v1/routes/r{at}?wait=all", route)
        cost_us(proxy, "/none", 2)
        costs = {name: [] for name in POLICIES}
        bare = []
        for _ in range(given.rounds):
            bare.append(cost_us(proxy, "/none", given.seconds))
            for at, name in enumerate(POLICIES):
                costs[name].append(cost_us(proxy, f"/{at}", given.seconds))
        print("| policy | CPU us a request | over none, % | rounds |\n|---|---|---|---|")
        print(f"| none | {statistics.median(bare):.2f} | | |")
        for name, each in costs.items():
            over = [(cost / none - 1) * 100 for cost, none in zip(each, bare)]
            told = ", ".join(f"{one:.1f}" for one in over)
            print(f"| {name} | {statistics.median(each):.2f} | {statistics.median(over):.1f} | {told} |")
    finally:
        for node in nodes:
            node.process.kill()
            node.process.wait()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
