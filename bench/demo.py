"""What `make demo` shows: TPC-H lineitem of scale 1 through a server, sent with curl, beside its figures."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from bench.inputs import lineitem_file

QUERY = (
    "where=l_quantity<24",
    "select=l_orderkey,l_extendedprice*(1-l_discount) as revenue,l_shipmode",
    "to=parquet",
)
HERE = Path(sys.executable).parent


def main() -> int:
    print("TPC-H lineitem, scale 1: made by the first run ...", flush=True)
    source = lineitem_file(1)
    megabytes = source.stat().st_size / 1e6
    with tempfile.TemporaryDirectory(prefix="weir-demo-") as work:
        command = [HERE / "weir", "serve", "--port", "0", "--spool-dir", f"{work}/spool"]
        with open(f"{work}/server.log", "w") as log:
            server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+", server.stdout.readline())
            if found is None:
                print("the server did not start", file=sys.stderr)
                return 1
            url = found[0]
            print(f"{url}: sending {megabytes:,.0f} MB of CSV\n", flush=True)
            result = Path(work) / "out.parquet"
            command = [
                "curl",
                "-sS",
                "--fail-with-body",
                "-T",
                str(source),
                "-o",
                str(result),
                "-H",
                "Expect:",
                "-D",
                "-",
            ]
            address = f"{url}/v1/transform?{'&'.join(QUERY).replace(' ', '+')}"
            print(f"  curl -T lineitem.csv -o out.parquet '{address}'\n")
            began = time.monotonic()
            answer = subprocess.run([*command, address], capture_output=True, text=True, check=False)
            seconds = time.monotonic() - began
            if answer.returncode:
                print(answer.stdout, answer.stderr, file=sys.stderr)
                return 1
            run_id = re.search(r"weir-run-id: (\S+)", answer.stdout, re.IGNORECASE)
            assert run_id is not None
            with urllib.request.urlopen(f"{url}/v1/runs/{run_id[1]}?wait=5") as reply:
                run = json.load(reply)
            with open(f"/proc/{server.pid}/status") as status:
                peak_kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
            show(result)
            print(f"state        {run['state']}")
            print(f"rows         {run['rows_in']:,} in, {run['rows_out']:,} out")
            print(
                f"throughput   {megabytes / seconds:,.0f} MB/s, {run['rows_in'] / seconds:,.0f} rows/s ({seconds:.2f} s)"
            )
            print(f"first byte   {run['first_byte_s']:.3f} s after the start")
            admitted_mib = run["worst_case_bytes"] / 2**20
            print(f"memory       {peak_kib / 1024:,.0f} MiB at its peak, all in all; {admitted_mib:,.0f} MiB admitted")
            print(f"bottleneck   {run['bottleneck']}")
        finally:
            server.terminate()
            server.wait(30)
    return 0


def show(result: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(result)
    names = table.schema_arrow.names
    print("  ".join(f"{name:>16}" for name in names))
    for row in next(table.iter_batches(5)).to_pylist():
        print("  ".join(f"{row[name]!s:>16}" for name in names))
    print(f"... {table.metadata.num_rows:,} rows, {result.stat().st_size / 1e6:,.1f} MB of Parquet\n")


if __name__ == "__main__":
    sys.exit(main())
