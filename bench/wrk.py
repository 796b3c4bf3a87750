"""Load by wrk on a node, and what it costs the node: what policy.py, changes.py and routes.py have in common."""
import re
import subprocess
from pathlib import Path


def cpu_ns(pid):
    """CPU time of all threads of a process that there are now."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks)


def load(node, path, seconds, script=None):
    """CPU microseconds an answered request, how many there were, and how many failed: by their status, or without an answer."""
    before = cpu_ns(node.process.pid)
    told = ["-s", script] if script else []
    ran = subprocess.run(
        ["wrk", "-t1", "-c64", f"-d{seconds}s", *told, f"http://127.0.0.1:{node.proxy}{path}"],
        capture_output=True, text=True, check=True).stdout
    failed = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", ran)))
    for found in re.findall(r"Socket errors: (.*)", ran):
        failed += sum(map(int, re.findall(r"\d+", found)))
    requests = int(re.search(r"(\d+) requests in", ran).group(1))
    return (cpu_ns(node.process.pid) - before) / 1000 / requests, requests, failed


def cost_us(node, path, seconds, script=None):
    """The first of these, where none may fail."""
    cost, requests, failed = load(node, path, seconds, script)
    if failed:
        raise SystemExit(f"{path}: {failed} of {requests} requests failed")
    return cost
