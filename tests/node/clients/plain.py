"""Python as applications have it, blocking and with asyncio.

    python3 plain.py http://ADDRESS:PORT/PATH HOST PORT
"""

import asyncio
import socket
import sys
import urllib.error
import urllib.request

from common import run, same

url, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def blocking_http():
    with OPENER.open(url + "/open", timeout=60) as answer:
        same(answer.status, 200)
        answer.read()


def blocking_http_denied():
    try:
        OPENER.open(url + "/secret", timeout=60)
        raise AssertionError("it was let through")
    except urllib.error.HTTPError as error:
        same(error.code, 403)


def blocking_half_close():
    for _ in range(50):
        with socket.create_connection((host, port)) as sock:
            sock.sendall(b"count\n")
            sock.shutdown(socket.SHUT_WR)
            same(sock.makefile("rb").read(), b"count 0 ok\n")


async def exchange():
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"who\n")
    await writer.drain()
    text = await reader.readline()
    same(len(text.split()), 3)
    writer.write_eof()
    same(await reader.read(), b"")
    writer.close()
    await writer.wait_closed()


def with_asyncio():
    async def many():
        await asyncio.gather(*(exchange() for _ in range(100)))

    asyncio.run(asyncio.wait_for(many(), 60))


run({check.__name__: check for check in (blocking_http, blocking_http_denied, blocking_half_close, with_asyncio)})
