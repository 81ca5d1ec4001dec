"""What an SQL step may call and cast to: an allow-list, so that whatever DuckDB learns next is not offered by itself.

Left out on purpose: everything that reads files, settings, the environment or the catalog; whatever makes rows
(``unnest``, ``range``) or a value of any length from a number (``repeat``, ``lpad``, ``printf``, ``list_resize``); whatever
takes the square of a value's length in time or memory (``levenshtein``, ``list_select``); what gives another result each
time (``random``, ``uuid``); functions that evaluate SQL or a lambda on its own result (``list_reduce``).
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Operators whose result is a number, a time or a boolean.
_OPERATORS = _words("+ - * / // % ** ^ & | << >> ~ @ ~~ !~~ ~~* !~~* ~~~ ^@ && @> <@")

_NUMBERS = _words(
    """abs add subtract multiply divide mod fdiv pow power sqrt cbrt exp ln log log2 log10 sign signbit ceil ceiling floor
    round round_even roundbankers trunc even pi degrees radians sin cos tan cot asin acos atan atan2 sinh cosh tanh asinh
    acosh atanh gcd greatest_common_divisor lcm least_common_multiple factorial gamma lgamma isnan isinf isfinite xor
    bit_count nextafter"""
)

# Dates and times; an interval literal is made of trunc and the to_ functions.
_TIMES = _words(
    """now today current_date current_localtime current_localtimestamp get_current_time get_current_timestamp
    transaction_timestamp age ago date_add date_diff datediff date_part datepart date_sub datesub date_trunc datetrunc
    time_bucket last_day days_in_month dayname monthname make_date make_time make_timestamp make_timestamp_ms
    make_timestamp_ns make_timestamptz timezone timezone_hour timezone_minute normalized_interval
    era millennium century decade year quarter month week day hour minute second millisecond microsecond nanosecond
    dayofmonth dayofweek dayofyear isodow isoyear weekday weekofyear yearweek julian epoch epoch_ms epoch_us epoch_ns
    to_timestamp to_millennia to_centuries to_decades to_years to_quarters to_months to_weeks to_days to_hours to_minutes
    to_seconds to_milliseconds to_microseconds strptime try_strptime strftime"""
)

# Questions about a text, and short texts made from numbers.
_TEXT_FACTS = _words(
    """len length length_grapheme char_length character_length strlen octet_length bit_length ascii ord unicode chr
    contains starts_with ends_with prefix suffix strpos instr position hamming mismatches jaccard like_escape
    not_like_escape ilike_escape not_ilike_escape regexp_matches regexp_full_match format_bytes formatReadableSize
    formatReadableDecimalSize parse_formatted_bytes typeof uuid_extract_version uuid_extract_timestamp"""
)

HASHES = _words("hash md5 md5_number_lower md5_number_upper sha1 sha256")

# Questions about lists, structs, maps and JSON.
_NESTED_FACTS = _words(
    """array_length cardinality list_contains list_has array_contains array_has list_has_all array_has_all list_has_any
    array_has_any list_position list_indexof array_position array_indexof list_unique array_unique map_contains
    map_contains_entry map_contains_value struct_contains struct_has struct_position struct_indexof list_sum list_avg
    list_count list_product list_bool_and list_bool_or list_bit_and list_bit_or list_bit_xor list_median list_stddev_pop
    list_stddev_samp list_var_pop list_var_samp list_approx_count_distinct list_entropy list_kurtosis list_skewness
    list_cosine_similarity list_cosine_distance list_distance list_dot_product list_inner_product
    array_cosine_similarity array_cosine_distance array_distance array_dot_product array_inner_product
    json_array_length json_contains json_exists json_type json_valid"""
)

FIXED: frozenset[str] = _OPERATORS | _NUMBERS | _TIMES | _TEXT_FACTS | HASHES | _NESTED_FACTS
"""Functions whose result is short, however long their arguments are."""

# Texts that are no longer than their arguments together.
_TEXTS = _words(
    """|| concat concat_ws lower lcase upper ucase trim ltrim rtrim left right left_grapheme right_grapheme substr
    substring substring_grapheme overlay reverse replace translate strip_accents nfc_normalize split_part regexp_extract
    regexp_replace encode decode unhex from_hex unbin from_binary from_base64 url_decode parse_dirname parse_dirpath
    parse_filename array_to_string"""
)

# Values chosen among the arguments.
_CHOICES = _words("if nullif greatest least")

# Lists, structs and maps.
_NESTED = _words(
    """list_value list_pack list_extract list_element array_extract element_at list_slice array_slice list_concat list_cat
    array_concat array_cat list_append array_append array_push_back list_prepend array_prepend array_push_front
    array_pop_back array_pop_front list_distinct array_distinct list_sort array_sort list_reverse_sort
    array_reverse_sort list_reverse array_reverse list_intersect array_intersect list_where array_where list_zip
    array_zip flatten list_min list_max list_first list_last list_any_value list_mode list_filter array_filter filter
    list_transform array_transform list_apply array_apply apply row struct_pack struct_extract struct_extract_at
    struct_insert struct_update struct_concat struct_keys struct_values map map_from_entries map_concat map_keys
    map_values map_entries map_extract map_extract_value array_value"""
)

_JSON = _words(
    """->> json_extract json_extract_path json_extract_string json_extract_path_text json_value json_keys json_structure
    json_merge_patch json"""
)

FACTORS: dict[str, float] = {
    **dict.fromkeys(_TEXTS | _CHOICES | _NESTED | _JSON, 1.0),
    # Two characters a byte, eight, three; four bytes a character; four characters for three bytes.
    **dict.fromkeys(("hex", "to_hex", "regexp_escape"), 2.0),
    **dict.fromkeys(("bin", "to_binary"), 8.0),
    "url_encode": 3.0,
    "translate": 4.0,
    **dict.fromkeys(("base64", "to_base64"), 1.4),
    # A character can become an entry of its own, of 16 bytes.
    **dict.fromkeys(("string_split", "str_split", "split", "string_to_array", "parse_path"), 17.0),
    **dict.fromkeys(("string_split_regex", "str_split_regex", "regexp_split_to_array", "regexp_extract_all"), 17.0),
    # Quotes and escapes.
    **dict.fromkeys(("to_json", "json_quote", "json_array", "json_object", "row_to_json", "array_to_json"), 2.0),
}
"""Functions whose result grows with their arguments: bytes out per byte of all arguments, at most or nearly so."""

ALLOWED: frozenset[str] = FIXED | frozenset(FACTORS)

PICKS: frozenset[str] = _JSON - {"json_merge_patch"} | _words(
    """trim ltrim rtrim left right left_grapheme right_grapheme substr substring substring_grapheme split_part
    regexp_extract string_split str_split split string_to_array string_split_regex str_split_regex regexp_split_to_array
    regexp_extract_all list_extract list_element array_extract element_at list_slice array_slice list_where array_where
    struct_extract struct_extract_at map_extract map_extract_value replace regexp_replace translate nullif"""
)
"""Functions whose result is made of their first argument; the others say how."""

LITERAL_ARGUMENTS: dict[str, int] = {
    "replace": 2,
    "regexp_replace": 2,
    "concat_ws": 0,
    "array_to_string": 1,
    "strftime": 1,
    "->>": 1,
    **dict.fromkeys(("json_extract", "json_extract_path", "json_extract_string", "json_extract_path_text"), 1),
    **dict.fromkeys(("json_value", "json_keys"), 1),
}
"""Arguments, counted from 0, that must be written out: they stand many times in the result."""

LAMBDAS = _words("list_filter array_filter filter list_transform array_transform list_apply array_apply apply")
"""Functions that take a lambda as their second argument."""

REPEATS: dict[str, int] = dict.fromkeys(("nullif", "split_part", "array_to_string", "array_pop_back"), 2)
"""Macros, with how often their text repeats an argument: nested, they double with every level."""

VALUE_NAMES = _words("user current_user session_user current_role current_catalog current_schema current_database")
"""Names that DuckDB takes for functions when no column bears them."""

_PICKING_AGGREGATES = _words(
    """any_value arbitrary first last min max min_by max_by arg_min arg_max argmin argmax arg_min_null arg_max_null"""
)

AGGREGATES: frozenset[str] = _PICKING_AGGREGATES | _words(
    """count count_star count_if countif sum avg mean fsum sumkahan kahan_sum favg product geomean geometric_mean bit_and
    bit_or bit_xor bool_and bool_or corr covar_pop covar_samp stddev stddev_pop stddev_samp var_pop var_samp variance sem
    skewness kurtosis kurtosis_pop regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy
    regr_syy weighted_avg wavg approx_count_distinct approx_quantile"""
)
"""Aggregates whose state is a few bytes a group, or one value."""

HOLDING_AGGREGATES = _words(
    """approx_top_k array_agg bitstring_agg entropy group_concat histogram histogram_exact json_group_array
    json_group_object json_group_structure list listagg lttb mad median mode quantile quantile_cont quantile_disc
    reservoir_quantile string_agg sum_no_overflow"""
)
"""Aggregates that are not offered: they hold all values of a group, outside of any limit of memory."""

_PICKING_WINDOWS = _words("lag lead first_value last_value nth_value")

WINDOWS: frozenset[str] = _PICKING_WINDOWS | _words(
    "row_number rank dense_rank rank_dense percent_rank cume_dist ntile"
)
"""Window functions beside the aggregates."""

WHOLE_PICKS: frozenset[str] = _PICKING_AGGREGATES | _PICKING_WINDOWS
"""Of both, those whose result is one of their values."""

FIXED_TYPES = _words(
    """bool boolean logical tinyint int1 smallint int2 int16 short integer int int4 int32 signed bigint int8 int64 long
    utinyint uint8 usmallint uint16 uinteger uint32 ubigint uint64 hugeint int128 uhugeint uint128 float float4 real
    double float8 decimal numeric dec date time time_ns timestamp timestamp_s timestamp_ms timestamp_us timestamp_ns
    datetime timestamptz timestamptz_ns interval uuid guid enum oid"""
) | {"timestamp with time zone"}
"""Types of a few bytes that a value may be cast to, in lower case."""

TYPES = FIXED_TYPES | _words(
    """varchar char bpchar nvarchar text string blob bytea binary varbinary json list array struct row map"""
)
"""All types that a value may be cast to, in lower case."""
