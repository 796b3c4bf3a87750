#!/usr/bin/env python3
"""What the number of routes costs a request: CPU with few, with 10,000 and with 100,000, requests spread over all of them at random.

    release/build FOLDER && PHALANX_GWNODE=FOLDER/gwnode bench/routes.py [--rounds 10] [--seconds 3]

Each number has a node of its own, with ten prefixes for each host, and the nodes are loaded in turn.

Needs wrk. Prints a table; asserts nothing. Ports 22000 to 22023; everything is in a temporary folder and ends with it.
"""
import argparse
import json
import os
import statistics

from cluster import alone
from wrk import cost_us

COUNTS = (10, 10_000, 100_000)
PATHS = 10
# How many routes are put in at once.
APPLIED = 10_000

# Requests are made before the load begins, since what makes them has a core to share with.
LUA = """
local many = {}
math.randomseed(7)
for at = 1, 20000 do
  local host, path = math.random(%d), math.random(%d)
  many[at] = "GET /p" .. path .. "/x HTTP/1.1\\r\\nHost: h" .. host .. ".test\\r\\n\\r\\n"
end
request = function() return many[math.random(#many)] end
"""


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=10)
    arguments.add_argument("--seconds", type=int, default=3)
    given = arguments.parse_args()
    with alone(1 + len(COUNTS)) as ((origin, *proxies), folder):
        origin.call("PUT", "/v1/routes/all?wait=all", {"respond": {"status": 200, "body": "x" * 1024}})
        scripts = []
        for node, count in zip(proxies, COUNTS):
            hosts = max(1, count // PATHS)
            routes = {f"r{host}-{path}": {"hosts": [f"h{host}.test"], "match": [{"path": {"prefix": f"/p{path}"}}], "upstream": "origin"}
                      for host in range(1, hosts + 1) for path in range(1, PATHS + 1)}
            upstreams = {"origin": {"targets": [{"address": f"127.0.0.1:{origin.proxy}"}]}}
            names = list(routes)
            for begin in range(0, len(names), APPLIED):
                some = {name: routes[name] for name in names[begin:begin + APPLIED]}
                document = json.dumps({"version": 1, "upstreams": upstreams, "routes": some})
                node.call("POST", "/v1/apply?wait=all&timeout=60s", {"document": document})
            scripts.append(os.path.join(folder, f"{count}.lua"))
            with open(scripts[-1], "w") as script:
                script.write(LUA % (hosts, PATHS))
            cost_us(node, "/", 1, script=scripts[-1])
        costs = [[] for _ in COUNTS]
        for turn in range(given.rounds):
            for at in [(turn + step) % len(COUNTS) for step in range(len(COUNTS))]:
                costs[at].append(cost_us(proxies[at], "/", given.seconds, script=scripts[at]))
        print("| routes | us a request | over the fewest, % |\n|---|---|---|")
        for count, each in zip(COUNTS, costs):
            over = statistics.median(cost / least - 1 for cost, least in zip(each, costs[0]))
            print(f"| {count} | {statistics.median(each):.2f} | {over * 100:.1f} |")


if __name__ == "__main__":
    main()
