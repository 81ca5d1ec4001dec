/* Columns to rows of text, for CSV (RFC 4180) and lines of JSON (RFC 8259). What is not text, a number or a day has been
   made text before. Nothing here allocates, and no call keeps a pointer. */

#include <stdint.h>
#include <string.h>

#include "digits.h"
#include "floats.h"
#include "values.h"

#define PADDING_BYTES 16 /* that can be read behind what stands before values, for nulls, and at the end of rows */

enum { PLAIN, QUOTED, CSV_TEXT, JSON_TEXT }; /* as it is; in quotes as it is; in quotes, with what stands for quotes */

/* A column of Arrow: kind is STRING, INT64, INT32, FLOAT64, FLOAT32 or DATE32; offset counts values, in values, offsets and
   validity (which may be NULL: nothing is null) alike. before stands before each value, and before its quotes. */
typedef struct {
    const uint8_t *before, *validity, *values;
    const int32_t *offsets;
    int64_t offset;
    int32_t before_bytes, kind, quoting, unused;
} written;

/* What stands for a byte within a JSON text: nothing where it stands for itself. */
static const char *const json_escapes[256] = {
    "\\u0000", "\\u0001", "\\u0002", "\\u0003", "\\u0004", "\\u0005", "\\u0006", "\\u0007", "\\b",     "\\t",     "\\n",
    "\\u000b", "\\f",     "\\r",     "\\u000e", "\\u000f", "\\u0010", "\\u0011", "\\u0012", "\\u0013", "\\u0014", "\\u0015",
    "\\u0016", "\\u0017", "\\u0018", "\\u0019", "\\u001a", "\\u001b", "\\u001c", "\\u001d", "\\u001e", "\\u001f",
    ['"'] = "\\\"", ['\\'] = "\\\\",
};

static inline int is_special(uint8_t c, int quoting) { return c == '"' || (quoting == JSON_TEXT && (c == '\\' || c < 0x20)); }

#if defined(__SSE2__)
/* Bit i is set where p[i], of 16, does not stand for itself. */
static inline unsigned specials(const uint8_t *p, int quoting)
{
    if (quoting == JSON_TEXT)
        return json_specials(p);
    return (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)p), _mm_set1_epi8('"')));
}
#endif

/* Where the next byte stands that does not stand for itself; end if there is none. */
static inline const uint8_t *next_special(const uint8_t *p, const uint8_t *end, int quoting)
{
#if defined(__SSE2__)
    for (; p + 16 <= end; p += 16) {
        const unsigned found = specials(p, quoting);
        if (found)
            return p + __builtin_ctz(found);
    }
#endif
    while (p < end && !is_special(*p, quoting))
        p++;
    return p;
}

/* How much longer a text becomes by what is written for some of its bytes. */
static int64_t extra_bytes(const uint8_t *p, const uint8_t *end, int quoting)
{
    int64_t extra = 0;
    for (; (p = next_special(p, end, quoting)) < end; p++)
        extra += quoting == JSON_TEXT ? (int64_t)strlen(json_escapes[*p]) - 1 : 1;
    return extra;
}

static const char pairs[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748"
                            "49505152535455565758596061626364656667686970717273747576777879808182838485868788899091929394959697"
                            "9899";

/* YYYY-MM-DD (H. Hinnant, "chrono-compatible low-level date algorithms"); days are those of the years 0 to 9999. */
static inline uint8_t *put_day(uint8_t *out, int32_t days)
{
    const uint32_t from_march_0 = (uint32_t)(days + 719468), era = from_march_0 / 146097, of_era = from_march_0 % 146097;
    const uint32_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    const uint32_t of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    const uint32_t month_from_march = (5 * of_year + 2) / 153, day = of_year - (153 * month_from_march + 2) / 5 + 1;
    const uint32_t month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
    const uint32_t year = year_of_era + era * 400 + (month <= 2);
    memcpy(out, pairs + 2 * (year / 100), 2);
    memcpy(out + 2, pairs + 2 * (year % 100), 2);
    out[4] = out[7] = '-';
    memcpy(out + 5, pairs + 2 * month, 2);
    memcpy(out + 8, pairs + 2 * day, 2);
    return out + 10;
}

/* Copies bytes that are few, behind which PADDING_BYTES can be read; so many more are written. */
static inline uint8_t *put_few(uint8_t *out, const uint8_t *bytes, int32_t length)
{
    memcpy(out, bytes, PADDING_BYTES);
    if (length > PADDING_BYTES)
        memcpy(out, bytes, (size_t)length);
    return out + length;
}

static inline uint8_t *put_special(uint8_t *out, uint8_t c, int quoting)
{
    const char *const escape = quoting == JSON_TEXT ? json_escapes[c] : "\"\"";
    const size_t length = strlen(escape);
    memcpy(out, escape, length);
    return out + length;
}

/* A text, of which and behind which readable bytes can be read; up to 16 bytes more are written. */
static inline uint8_t *put_text(uint8_t *out, const uint8_t *text, size_t length, size_t readable, int quoting)
{
    if (quoting <= QUOTED) {
        memcpy(out, text, length);
        return out + length;
    }
    const uint8_t *const end = text + length, *const readable_end = text + readable;
    while (text < end) {
#if defined(__SSE2__)
        if (readable_end - text >= 16) {
            const unsigned found = specials(text, quoting);
            const int64_t plain = found ? __builtin_ctz(found) : 16;
            memcpy(out, text, 16);
            if (plain >= end - text)
                return out + (end - text);
            out += plain;
            text += plain;
            if (!found)
                continue;
        }
#endif
        if (is_special(*text, quoting))
            out = put_special(out, *text, quoting);
        else
            *out++ = *text;
        text++;
    }
    return out;
}

static inline int is_null(const written *c, int64_t row)
{
    return c->validity && !(c->validity[(c->offset + row) >> 3] >> ((c->offset + row) & 7) & 1);
}

/* The most bytes of a value. */
static inline int64_t longest(int32_t kind)
{
    switch (kind) {
    case FLOAT64:
        return DOUBLE_BYTES;
    case FLOAT32:
        return FLOAT_BYTES;
    case INT64:
        return 20;
    default:
        return 11;
    }
}

/* The most bytes that the rows become, of which each ends with end_bytes more, and some to spare; -1 where a day is of
   another year than 0 to 9999. */
int64_t weir_rows_bytes(const written *columns, int32_t count, int64_t rows, int32_t null_bytes, int32_t end_bytes)
{
    int64_t total = end_bytes * rows + SPARE_BYTES;
    for (const written *c = columns; c < columns + count; c++) {
        total += (c->before_bytes + (c->quoting ? 2 : 0) + null_bytes) * rows;
        if (c->kind == STRING) {
            const int32_t start = c->offsets[c->offset], end = c->offsets[c->offset + rows];
            total += end - start;
            if (c->quoting > QUOTED)
                total += extra_bytes(c->values + start, c->values + end, c->quoting);
        } else {
            total += longest(c->kind) * rows;
        }
        if (c->kind == DATE32)
            for (int64_t row = 0; row < rows; row++) {
                const int32_t days = ((const int32_t *)c->values)[c->offset + row];
                if ((days < -719468 + 60 || days > 2932896) && !is_null(c, row))
                    return -1;
            }
    }
    return total;
}

/* Writes the rows; gives how many bytes that took. */
int64_t weir_rows_write(const written *columns, int32_t count, int64_t rows, const uint8_t *null, int32_t null_bytes,
                        const uint8_t *end, int32_t end_bytes, uint8_t *out)
{
    uint8_t *const began = out;
    for (int64_t row = 0; row < rows; row++) {
        for (const written *c = columns; c < columns + count; c++) {
            const int64_t at = c->offset + row;
            out = put_few(out, c->before, c->before_bytes);
            if (is_null(c, row)) {
                out = put_few(out, null, null_bytes);
                continue;
            }
            if (c->quoting)
                *out++ = '"';
            if (c->kind == STRING) {
                const int32_t start = c->offsets[at], last = c->offsets[c->offset + rows];
                const size_t length = (size_t)(c->offsets[at + 1] - start);
                out = put_text(out, c->values + start, length, (size_t)(last - start), c->quoting);
            } else if (c->kind == INT64)
                out = put_int(out, ((const int64_t *)c->values)[at]);
            else if (c->kind == INT32)
                out = put_int(out, ((const int32_t *)c->values)[at]);
            else if (c->kind == FLOAT64)
                out = put_double(out, ((const double *)c->values)[at]);
            else if (c->kind == FLOAT32)
                out = put_float(out, ((const float *)c->values)[at]);
            else
                out = put_day(out, ((const int32_t *)c->values)[at]);
            if (c->quoting)
                *out++ = '"';
        }
        out = put_few(out, end, end_bytes);
    }
    return out - began;
}
