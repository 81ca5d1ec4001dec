"""What is asked of a table called ``input``. It imports nothing: the peers read it too, and their memory is measured."""

_FILTER = ("l_quantity < 24", "l_orderkey, l_extendedprice * (1 - l_discount) AS revenue, l_shipmode")
_PIPELINE = ("kind = 'purchase' AND amount >= 5", "count(*) AS n, sum(amount) AS revenue")
_WINDOW = "count(*) AS n, sum(value) AS total"

_Q1 = """
SELECT l_returnflag, l_linestatus, sum(l_quantity) AS sum_qty, sum(l_extendedprice) AS sum_base_price,
    sum(l_extendedprice * (1 - l_discount)) AS sum_disc_price,
    sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)) AS sum_charge,
    avg(l_quantity) AS avg_qty, avg(l_extendedprice) AS avg_price, avg(l_discount) AS avg_disc, count(*) AS count_order
FROM input WHERE l_shipdate <= DATE '1998-09-02'
GROUP BY l_returnflag, l_linestatus ORDER BY l_returnflag, l_linestatus"""
_Q6 = """
SELECT sum(l_extendedprice * l_discount) AS revenue FROM input
WHERE l_shipdate >= DATE '1994-01-01' AND l_shipdate < DATE '1995-01-01'
    AND l_discount BETWEEN 0.05 AND 0.07 AND l_quantity < 24"""

# The six windows of a row are those of its ten seconds: a total for each ten seconds first, then six of these.
_SLIDING = f"""
WITH panes AS (
    SELECT time_bucket(INTERVAL 10 SECOND, ts) AS pane, key, {_WINDOW} FROM input GROUP BY pane, key
), windows AS (
    SELECT pane - back * INTERVAL 10 SECOND AS window_start, key, sum(n)::BIGINT AS n, sum(total) AS total
    FROM panes, range(6) AS six(back) GROUP BY window_start, key
)
SELECT window_start, window_start + INTERVAL 60 SECOND AS window_end, key, n, total FROM windows"""
_SLIDING_ROW_BY_ROW = f"""
WITH windows AS (
    SELECT time_bucket(INTERVAL 10 SECOND, ts) - back * INTERVAL 10 SECOND AS window_start, key, {_WINDOW}
    FROM input, range(6) AS six(back) GROUP BY window_start, key
)
SELECT window_start, window_start + INTERVAL 60 SECOND AS window_end, key, n, total FROM windows"""

SQL = {
    "convert": "SELECT * FROM input",
    "filter": f"SELECT {_FILTER[1]} FROM input WHERE {_FILTER[0]}",
    "q1": _Q1,
    "q6": _Q6,
    "pipeline": f"SELECT country, {_PIPELINE[1]} FROM input JOIN customers USING (customer)"
    f" WHERE {_PIPELINE[0]} GROUP BY country",
    "tumbling": f"""
WITH windows AS (
    SELECT time_bucket(INTERVAL 10 SECOND, ts) AS window_start, key, {_WINDOW} FROM input GROUP BY window_start, key
)
SELECT window_start, window_start + INTERVAL 10 SECOND AS window_end, key, n, total FROM windows""",
    "sliding": _SLIDING,
}

# What must come out is found by another way where the fast one is not plain.
TRUTH = {**SQL, "sliding": _SLIDING_ROW_BY_ROW}

# The steps of the same as Weir's users write them.
STEPS = {
    "convert": {},
    "filter": {"where": _FILTER[0], "select": _FILTER[1]},
    "q1": {"sql": " ".join(_Q1.split())},
    "q6": {"sql": " ".join(_Q6.split())},
    "pipeline": {
        "where": _PIPELINE[0],
        "enrich": "customers on customer add country missing drop",
        "aggregate": f"{_PIPELINE[1]} by country",
    },
    "tumbling": {"window": f"{_WINDOW} every 10s on ts by key"},
    "sliding": {"window": f"{_WINDOW} every 60s on ts slide 10s by key"},
}
