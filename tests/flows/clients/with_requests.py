import sys

import requests

url, source, sink = sys.argv[1:]
with open(source, "rb") as body, requests.post(url, data=body, stream=True, timeout=300) as reply:
    reply.raise_for_status()
    with open(sink, "wb") as out:
        out.writelines(reply.iter_content(1 << 20))
