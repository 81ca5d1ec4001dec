import sys

import httpx

url, source, sink = sys.argv[1:]
with open(source, "rb") as body, httpx.stream("POST", url, content=body, timeout=300) as reply:
    reply.raise_for_status()
    with open(sink, "wb") as out:
        out.writelines(reply.iter_bytes())
