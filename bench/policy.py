#!/usr/bin/env python3
"""What a policy costs: CPU a request of a route with it, over one without, as the same node proxies them in turn.

    cargo build --release --bin gwnode && bench/policy.py [--rounds 20] [--seconds 1]

Each slice with a policy is between two without, whose mean it is compared with.

Needs wrk. Prints a table; asserts nothing. Ports 22000 to 22023; everything is in a temporary folder and ends with it.
"""
import argparse
import statistics

from cluster import alone
from wrk import cost_us

POLICIES = {
    "rate-limit, all together": {"type": "rate-limit", "limit": {"requests": 10**9, "per": "1m"}},
    "rate-limit, by address": {"type": "rate-limit", "by": "address", "limit": {"requests": 10**9, "per": "1m"}},
    "rate-limit, by address, no headers": {
        "type": "rate-limit", "by": "address", "headers": False, "limit": {"requests": 10**9, "per": "1m"}},
    "rate-limit, by address, three limits": {
        "type": "rate-limit", "by": "address",
        "limits": {name: {"requests": 10**9, "per": per} for name, per in (("s", "1s"), ("m", "1m"), ("d", "1d"))}},
    "quota, by address": {"type": "quota", "by": "address", "limit": {"requests": 10**9, "per": "month"}},
    "concurrency, by address": {"type": "concurrency", "by": "address", "limit": 10**6},
    "concurrency, adaptive": {"type": "concurrency", "adaptive": {"min": 1000, "max": 10**6}},
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=20)
    arguments.add_argument("--seconds", type=int, default=1)
    given = arguments.parse_args()
    with alone(2) as ((origin, proxy), _):
        origin.call("PUT", "/v1/routes/all?wait=all", {"respond": {"status": 200, "body": "x" * 100}})
        target = {"targets": [{"address": f"127.0.0.1:{origin.proxy}"}]}
        proxy.call("PUT", "/v1/upstreams/origin", target)
        proxy.call("PUT", "/v1/routes/none", {"upstream": "origin"})
        for at, policy in enumerate(POLICIES.values()):
            proxy.call("PUT", f"/v1/policies/p{at}", policy)
            route = {"match": [{"path": {"exact": f"/{at}"}}], "policies": [f"p{at}"], "upstream": "origin"}
            proxy.call("PUT", f"/v1/routes/r{at}?wait=all", route)
        cost_us(proxy, "/none", 2)
        over = {name: [] for name in POLICIES}
        bare = [cost_us(proxy, "/none", given.seconds)]
        for _ in range(given.rounds):
            for at, name in enumerate(POLICIES):
                cost = cost_us(proxy, f"/{at}", given.seconds)
                bare.append(cost_us(proxy, "/none", given.seconds))
                over[name].append((2 * cost / (bare[-2] + bare[-1]) - 1) * 100)
        print(f"without: {statistics.median(bare):.2f} us of CPU a request\n")
        print("| policy | over none, %: median | quartiles |\n|---|---|---|")
        for name, each in over.items():
            low, middle, high = statistics.quantiles(each, n=4)
            print(f"| {name} | {middle:.1f} | {low:.1f} to {high:.1f} |")


if __name__ == "__main__":
    main()
