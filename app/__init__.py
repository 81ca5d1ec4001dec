"""Weir: files larger than memory flow through pipelines, and memory is a number that the operator sets.

The way of a page
-----------------
``web/transform`` answers ``POST /v1/transform``. It reads the URL into a ``Plan`` (``plan``), turns that into stages
(``build``), joins body, stages and response into a ``Flow`` (``pipeline``), and lets the ``Runner`` (``runs``) carry it::

    web/protocol -> sources/request -> framing -> stages -> framing -> sinks/response -> web/protocol
    pages           channel            worker threads, in order        channel, overflow   the same pages
                    `------------------ one task group, one Flow -----------------`

With ``sink=`` the last of these is ``sinks/multipart``, and a run without a client (``Prefer: respond-async``,
``POST /v1/runs``) is carried by ``orders/desk``, from a kept body or from ``sources/stored``. What is read from its end
(Parquet) comes by ``sources/random_access`` in place of the first two: from the spool, or from where it is kept.

Before its first byte is read, a run is admitted by the ``Budget`` (``core/budget``) with the most bytes it can ever hold
(``core/segment``). It waits its turn, or is refused; once in, it never has to ask again. It ends committed or aborted.

Rooms, and whom each may import
-------------------------------
========== ======================================================= ====================================================
room       what lives there                                        may import
========== ======================================================= ====================================================
core       page, budget, channel, segment, interfaces, errors      the standard library
framing    bytes to pages and back, sans-IO, one format a file     core
stages     one transform a file, plain functions                   core, framing
stores     objects (S3, directory, memory), the disk spool, kept   core
sources    request, file, stored, spooled: where pages come from   core, framing, stores
sinks      response, overflow, multipart, file: where they go      core, framing, stores
pipeline   the engine                                              core
plan       a user's words become stages; all name look-ups         core, framing, stages
runs       record, book, ledger, database, runner                  core, pipeline, stores
orders     runs that need no client; what all runs are made with   all above
metrics    the table of metrics, the collector                     core
observer   what is counted and logged at a run's end               metrics, runs
web        routes, negotiation, responses, errors; ``protocol``    all above but metrics and observer
settings   the environment, read once                              core
allocator  the C allocator's options                               nothing
main       composition root                                        all
user_steps the steps that are installed beside Weir                all
server     one process that serves                                 all
workers    several of them on one port, watched and replaced       all
run_once   one pipeline over a file or an object, without a server all
cli        the command                                             all
========== ======================================================= ====================================================

Decisions, and what was not chosen
----------------------------------
* Bytes are paid for at the door, not page by page: leases on a shared pool deadlock behind admissions.
* Channels per edge, not one queue per run: back-pressure then has a place, and a name in the metrics.
* Plain ``feed``/``flush`` stages on shared threads, not coroutines: stages compute, they do not wait. SQL alone pulls its
  input on a thread of its own, because the engine below it wants to.
* One streaming DuckDB query per run, not one per page (2.5 ms a page) and not whole tables (unbounded).
* ORDER BY over a whole input is not DuckDB's but an external sort of ours (``stages/sort``): what DuckDB needs for it in
  memory grows with the rows, and it found out in the middle of the answer. Its keys of bytes are DuckDB's.
* Nor is ``distinct`` (``stages/distinct``), for the same reason; and a row is given as soon as it comes, where DuckDB's
  come at the end. What has no room is parted by hash, which is a third of what it takes to sort it.
* pyarrow parses with a schema fixed by the first page, not DuckDB: it reports what does not fit; the other rounds it.
  What is written plainly in CSV or NDJSON is parsed by a small library of ours in C (``framing/native``), at three to eight
  times the speed and bit for bit the same; pyarrow stays the judge of everything else, and does it all where there is no
  compiler.
* A page is cut into records by the worker that takes it on, when it is its turn (``core/segment``): on the loop it held up
  all that the loop does for others, and by a hop of its own it waited twice as long as the cut takes.
* Conditions and select lists of plain types are formulas (``stages/sql_formula``), computed where a page is parsed: by one
  call into that library for a page (``stages/sql_kernel``), by pyarrow's kernels where it does not know something: each of
  these gives the GIL up, and waits ten times as long to have it back as it computes. DuckDB says what formulas mean, in the
  tests too, and does all else.
* A query that groups is taken apart (``stages/sql_levels``): keys and arguments on the workers, totals by C in one table, in
  the order of the input, and DuckDB over the totals. So sums of floats are always the same; what has no room among the
  totals goes to disk in sorted runs (``stages/groups_merge``). Rarer aggregates are DuckDB's alone, on one thread.
* Windows are ours, and not DuckDB's: it would give them at the end. Their groups stay in one table of the library in C
  (``stages/groups``), to which rows are added in their order, so that nothing depends on where pages were cut; pyarrow's
  ``group_by`` would make all groups anew with each page, at a fifth of the speed.
* A Parquet row group is encoded a few columns at a time on all threads, and its footer is put together from theirs:
  several row groups at a time would need several times the memory.
* A user's step that may hang or eat memory has a process of its own: a thread can be neither ended nor bounded.
* Types of all rows (``infer=full``) take a first pass over a file that can be read again, and widen by one table of types
  (``framing/widening``): to guess from more of the start would only be wrong later.
* Of a Parquet file only those columns and row groups are read that the steps can use, which their text tells
  (``stages/needs``): pushing steps down into a reader would make a second engine of it. Where in doubt, all is read.
* A plain Parquet file on disk is read by a query that needs all rows itself (``framing/parquet_scan``): to DuckDB it costs
  a third of its record batches. It reads all rows of it, in order, on one thread, and nothing is pushed down: so sums of
  floats stay the same, and NaN, which a file's bounds leave out, stays the largest number.
* What is far away is fetched in ranges that are known beforehand, not read ahead by guessing: a footer tells them all.
* Workers share the database of runs and nothing else: one stream is no faster by a second process, so what they share
  need not be fast. Their metrics are summed by asking over UNIX sockets (``web/siblings``).
* Runs are written down behind the loop's back, all that wait in one transaction; only what is promised (202, a kept
  result, a receipt) waits for it. A process that is gone is known by its lock, or by its silence; whoever finds it takes
  its runs over, under the same condition in the same table, be that SQLite or PostgreSQL.
* A write to a store is in the ledger before it begins, so that no upload outlives its run, and until the transaction that
  writes the run's record, so that a run whose object is whole has succeeded. An object's metadata name its writer, so that
  a lost answer is settled by looking. Retries are of one call, never of a stream.
* Parts are the pages themselves: an HTTP client reads them one by one from a body that copies nothing.
* A failure after the first byte leaves the answer incomplete. A trailer or a last line could be overlooked.
* Our own protocol class under uvicorn, not another server: heads are llhttp's, the application is plain ASGI, and stock
  uvicorn still serves it. Bodies are framed by our own code alone, so no two readers can differ about their end.
* Half-duplex clients overflow to disk after 200 ms without progress, not at once: duplex clients would pay for the disk.
"""
