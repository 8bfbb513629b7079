"""How the clients here tell what they saw: a line a check, `ok NAME` or `FAILED NAME: why`."""

import traceback


def run(checks):
    for name, check in checks.items():
        try:
            check()
            print("ok", name, flush=True)
        except Exception:  # each check is told by itself
            why = traceback.format_exc().strip().replace("\n", " | ")
            print(f"FAILED {name}: {why}", flush=True)


def same(found, expected, what="value"):
    if found != expected:
        raise AssertionError(f"{what}: {found!r} is not {expected!r}")
