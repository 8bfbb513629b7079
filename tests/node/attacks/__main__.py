"""Tries every way round the proxy at once, from wherever it is started, and says what each came to.

    python3 attacks list 4|6
    python3 attacks run NAMES TO PORT FIRST-SOURCE-PORT OWN GATEWAY OTHER IFACE

NAMES is a list with commas. TO is asked on PORT, or on 53 by what begins with `dns-`; OTHER is an
address of somebody else. The n-th attack's source port is the first one plus n. One line of JSON an
attack: name, source port, port, and `got` (the answer) or `error`.
"""

import json
import sys
import threading

import devices
import dns
import packets
import raw
import sockets
import uring
import xdp
from common import Scene

MODULES = (sockets, uring, raw, packets, xdp, devices, dns)
DNS_PORT = 53


def attacks(version):
    found = {}
    for module in MODULES:
        found.update(module.ALL)
        found.update(getattr(module, f"ONLY_{version}", {}))
    return found


def attempt(name, attack, scene, say):
    result = {"name": name, "source_port": scene.source_port, "port": scene.port}
    try:
        result["got"] = attack(scene)
    except Exception as error:  # whatever it was: the wire decides, this is for the reader
        result["error"] = f"{type(error).__name__}: {error}"
    say(result)


def run(names, to, port, first, own, gateway, other, iface):
    lock = threading.Lock()

    def say(result):
        with lock:
            print(json.dumps(result), flush=True)

    known = attacks(6 if ":" in to else 4)
    threads = []
    for number, name in enumerate(names.split(",")):
        to_port = DNS_PORT if name.startswith("dns-") else int(port)
        scene = Scene(to, to_port, int(first) + number, own, gateway, iface, other)
        threads.append(threading.Thread(target=attempt, args=(name, known[name], scene, say)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if sys.argv[1] == "list":
    print(",".join(attacks(sys.argv[2])))
else:
    run(*sys.argv[2:])
