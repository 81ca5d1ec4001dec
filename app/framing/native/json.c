/* Lines of JSON objects to columns, for the plain cases: whatever is not certain is left to pyarrow, which is the judge.

   weir_json_rows walks over the lines once: it writes values of a fixed size to their columns and notes where texts stand;
   weir_json_texts then makes a column of these. Strictly the grammar of RFC 8259, one object on a line; the columns are
   known beforehand. -1 for anything else: another key, a key twice, a value of another type, a text with half a surrogate
   pair. What they do make is bit for bit what pyarrow makes. Nothing here allocates, and no call keeps a pointer. */

#include <stdint.h>
#include <string.h>
#include "utf8.h"
#include "values.h"

#define ESCAPED 0x80000000u /* in an end: there is a backslash in the text */

/* A field of the rows, or of the objects within a field, whose fields stand from first_child on.

   key is the name in quotes, key_bytes of it, behind which 16 bytes can be read. Where validity is NULL nobody asks for
   the values: they are judged only. spans is for texts: a start and an end for each row;
   values and offsets are for weir_json_texts then. For first and second see
   weir_csv_columns. rows is the number of rows that were given a value so far, or a null. opener is the field that came
   first in the last of its objects, and follower the one that came behind it. */
typedef struct {
    const uint8_t *key;
    uint8_t *values, *validity;
    uint32_t *spans;
    int32_t *offsets;
    int64_t first, nulls, nbytes, rows;
    int32_t second, kind, key_bytes, first_child, children, opener, follower, unused;
} node;

typedef struct {
    const uint8_t *data, *safe; /* from safe on fewer than 16 bytes can be read */
    node *nodes;
    int64_t row;
} reader;

static inline const uint8_t *skip_blanks(const uint8_t *p)
{
    while (*p == ' ' || *p == '\t')
        p++;
    return p;
}

static inline int hex_of(const uint8_t *p, uint32_t *code)
{
    *code = 0;
    for (int i = 0; i < 4; i++) {
        const uint8_t c = p[i], lower = c | 0x20;
        if (is_digit(c))
            *code = *code << 4 | (uint32_t)(c - '0');
        else if (lower >= 'a' && lower <= 'f')
            *code = *code << 4 | (uint32_t)(lower - 'a' + 10);
        else
            return 0; /* a newline too: nothing behind it was read */
    }
    return 1;
}

/* The quote that ends the text at p; NULL if the text is not as RFC 8259 has it. */
static inline const uint8_t *text_end(const reader *r, const uint8_t *p, uint32_t *escaped)
{
    *escaped = 0;
    for (;;) {
#if defined(__SSE2__)
        if (p < r->safe) {
            const unsigned found = json_specials(p);
            if (!found) {
                p += 16;
                continue;
            }
            p += __builtin_ctz(found);
        }
#endif
        const uint8_t c = *p;
        if (c == '"')
            return p;
        if (c < 0x20)
            return NULL;
        if (c != '\\') {
            p++;
            continue;
        }
        *escaped = ESCAPED;
        uint32_t code, low;
        switch (p[1]) {
        case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
            p += 2;
            break;
        case 'u':
            if (!hex_of(p + 2, &code) || (code >= 0xdc00 && code < 0xe000))
                return NULL;
            p += 6;
            if (code >= 0xd800 && code < 0xe000) {
                if (p[0] != '\\' || p[1] != 'u' || !hex_of(p + 2, &low) || low < 0xdc00 || low >= 0xe000)
                    return NULL;
                p += 6;
            }
            break;
        default:
            return NULL;
        }
    }
}

/* How long what stands at p is: to a comma, a closing brace or a blank. */
static inline size_t token_bytes(const reader *r, const uint8_t *p)
{
    const uint8_t *start = p;
#if defined(__SSE2__)
    if (p < r->safe) {
        const __m128i chunk = _mm_loadu_si128((const __m128i *)p), blanks = _mm_set1_epi8(' ');
        const __m128i ends =
            _mm_or_si128(_mm_cmpeq_epi8(chunk, _mm_set1_epi8(',')), _mm_cmpeq_epi8(chunk, _mm_set1_epi8('}')));
        const unsigned found =
            (unsigned)_mm_movemask_epi8(_mm_or_si128(ends, _mm_cmpeq_epi8(_mm_min_epu8(chunk, blanks), chunk)));
        if (found)
            return (size_t)__builtin_ctz(found);
        p += 16;
    }
#endif
    while (*p > ' ' && *p != ',' && *p != '}')
        p++;
    return (size_t)(p - start);
}

/* How many of the next eight bytes are digits, from the first one on. */
static inline size_t digits_in(uint64_t word)
{
    word ^= EACH(0x30); /* a digit is less than ten now */
    const uint64_t marks = (((word & EACH(0x7f)) + EACH(0x76)) | word) & EACH(0x80);
    return marks ? (size_t)__builtin_ctzll(marks) / 8 : 8;
}

/* A number of up to seven digits, with up to seven more behind a point: what most are. Gives its length, 0 if it is not
   such a one; what follows it was not looked at, but for a digit or an exponent. fraction gets the digits behind the point. */
static inline size_t short_number_of(const uint8_t *p, int64_t *mantissa, size_t *fraction)
{
    static const uint32_t tens[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000};
    const size_t sign = *p == '-';
    uint64_t word, whole, part;
    memcpy(&word, p + sign, 8);
    const size_t digits = digits_in(word);
    if (digits == 0 || digits == 8 || (p[sign] == '0' && digits > 1))
        return 0;
    whole = eight((word << (64 - 8 * digits)) | (EACH(0x30) >> 1 >> (8 * digits - 1)));
    size_t length = sign + digits;
    *fraction = 0;
    if (p[length] == '.') {
        memcpy(&word, p + length + 1, 8);
        const size_t more = digits_in(word);
        if (more == 0 || more == 8)
            return 0;
        part = eight((word << (64 - 8 * more)) | (EACH(0x30) >> 1 >> (8 * more - 1)));
        whole = whole * tens[more] + part;
        length += 1 + more;
        *fraction = more;
    }
    if ((p[length] | 0x20) == 'e')
        return 0;
    *mantissa = sign ? -(int64_t)whole : (int64_t)whole;
    return length;
}

/* Whether a number begins as RFC 8259 has it: no point and no needless zero first, and none last. */
static inline int has_json_edges(const uint8_t *text, size_t length)
{
    const size_t sign = text[0] == '-';
    if (length <= sign || !is_digit(text[sign]) || !is_digit(text[length - 1]))
        return 0;
    return text[sign] != '0' || length == sign + 1 || !is_digit(text[sign + 1]);
}

/* Whether a number has an exponent right behind its point, which C accepts and JSON does not. */
static inline int has_bare_point(const uint8_t *text, size_t length)
{
    const uint8_t *point = memchr(text, '.', length);
    return point && !is_digit(point[1]);
}

static inline void set_null(node *n, int64_t row)
{
    n->validity[row >> 3] &= (uint8_t)~(1u << (row & 7));
    n->nulls++;
}

/* No value in this row, nor in what stands within. */
static void leave_out(const reader *r, node *n)
{
    const int64_t row = r->row;
    n->rows = row + 1;
    for (int32_t i = 0; i < n->children; i++)
        leave_out(r, r->nodes + n->first_child + i);
    if (!n->validity)
        return;
    set_null(n, row);
    switch (n->kind) {
    case INT64: case FLOAT64: case TIMESTAMP:
        ((int64_t *)n->values)[row] = 0;
        break;
    case INT32: case DATE32:
        ((int32_t *)n->values)[row] = 0;
        break;
    case DECIMAL:
        memset(n->values + 16 * row, 0, 16);
        break;
    case STRING:
        n->spans[2 * row] = n->spans[2 * row + 1] = 0;
        break;
    }
}

static const uint8_t *object_end(const reader *r, const uint8_t *p, node *self);

/* Reads the value at p; gives what stands behind it. */
static inline const uint8_t *value_end(const reader *r, const uint8_t *p, node *n)
{
    const int64_t row = r->row;
    if (p[0] == 'n') {
        if (p[1] != 'u' || p[2] != 'l' || p[3] != 'l')
            return NULL;
        leave_out(r, n);
        return p + 4;
    }
    n->rows = row + 1;
    switch (n->kind) {
    case STRUCT:
        return *p == '{' ? object_end(r, p + 1, n) : NULL;
    case BOOL:
        if (p[0] == 't' && p[1] == 'r' && p[2] == 'u' && p[3] == 'e') {
            if (n->validity)
                n->values[row >> 3] |= (uint8_t)(1u << (row & 7));
            return p + 4;
        }
        return p[0] == 'f' && p[1] == 'a' && p[2] == 'l' && p[3] == 's' && p[4] == 'e' ? p + 5 : NULL;
    case STRING: case DATE32: case TIMESTAMP: {
        if (*p != '"')
            return NULL;
        int64_t day;
        if (n->kind == DATE32 && p < r->safe && p[11] == '"' && days_of(p + 1, &day)) {
            if (n->validity)
                ((int32_t *)n->values)[row] = (int32_t)day;
            return p + 12;
        }
        uint32_t escaped = 0;
        const uint8_t *text = p + 1, *end = text_end(r, text, &escaped);
        if (!end)
            return NULL;
        const size_t length = (size_t)(end - text);
        int64_t made = 0;
        if (n->kind == STRING) {
            if (n->validity) {
                n->spans[2 * row] = (uint32_t)(text - r->data);
                n->spans[2 * row + 1] = (uint32_t)(end - r->data) | escaped;
                n->nbytes += (int64_t)length;
            }
        } else if (n->kind == DATE32) {
            if (escaped || length != 10 || !days_of(text, &made))
                return NULL;
            if (n->validity)
                ((int32_t *)n->values)[row] = (int32_t)made;
        } else {
            if (escaped || !timestamp_of(text, length, n->first, n->second, &made))
                return NULL;
            if (n->validity)
                ((int64_t *)n->values)[row] = made;
        }
        return end + 1;
    }
    default:
        break;
    }
    if (p < r->safe && n->kind != DECIMAL) {
        int64_t mantissa;
        size_t fraction;
        const size_t length = short_number_of(p, &mantissa, &fraction);
        if (length && n->kind == FLOAT64) {
            /* Both are exact, so what one division rounds is right; a zero keeps its sign. */
            const double made = (double)mantissa / powers[fraction];
            if (n->validity)
                ((double *)n->values)[row] = mantissa ? made : *p == '-' ? -0.0 : 0.0;
            return p + length;
        }
        if (length && !fraction) {
            if (n->validity && n->kind == INT64)
                ((int64_t *)n->values)[row] = mantissa;
            else if (n->validity)
                ((int32_t *)n->values)[row] = (int32_t)mantissa;
            return p + length;
        }
    }
    const size_t length = token_bytes(r, p), readable = p < r->safe ? 17 : 0;
    if (!has_json_edges(p, length))
        return NULL;
    switch (n->kind) {
    case INT64: case INT32: {
        int64_t made;
        if (!int_of(p, length, readable, &made))
            return NULL;
        if (n->kind == INT32) {
            if (made < INT32_MIN || made > INT32_MAX)
                return NULL;
            if (n->validity)
                ((int32_t *)n->values)[row] = (int32_t)made;
        } else if (n->validity) {
            ((int64_t *)n->values)[row] = made;
        }
        break;
    }
    case FLOAT64: {
        double made;
        if (!short_float_of(p, length, readable, &made) &&
            (has_bare_point(p, length) || !float_of(p, length, &made)))
            return NULL;
        if (n->validity)
            ((double *)n->values)[row] = made;
        break;
    }
    case DECIMAL: {
        uint8_t made[16];
        if (!decimal_of(p, length, (int)n->first, n->second, made))
            return NULL;
        if (n->validity)
            memcpy(n->values + 16 * row, made, 16);
        break;
    }
    default:
        return NULL;
    }
    return p + length;
}

static inline int is_key(const reader *r, const uint8_t *p, const node *n)
{
#if defined(__SSE2__)
    if (n->key_bytes <= 16 && p < r->safe) {
        const __m128i same = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)p),
                                            _mm_loadu_si128((const __m128i *)n->key));
        return !(~(unsigned)_mm_movemask_epi8(same) & ((1u << n->key_bytes) - 1));
    }
#endif
    for (int32_t i = 0; i < n->key_bytes; i++) /* it ends where the line does */
        if (p[i] != n->key[i])
            return 0;
    return 1;
}

/* Reads what stands behind an opening brace; gives what stands behind the closing one. */
static const uint8_t *object_end(const reader *r, const uint8_t *p, node *self)
{
    node *const children = r->nodes + self->first_child;
    const int32_t count = self->children;
    int32_t found = 0, *follower = &self->opener;
    p = skip_blanks(p);
    if (*p == '}') {
        p++;
    } else {
        for (;;) {
            /* The key that stood here before, and if it is not, any. */
            int32_t i = *follower;
            if (!is_key(r, p, children + i)) {
                const int32_t start = i;
                do {
                    if (++i == count)
                        i = 0;
                    if (i == start)
                        return NULL;
                } while (!is_key(r, p, children + i));
                *follower = i;
            }
            node *const child = children + i;
            if (child->rows > r->row) /* a second time */
                return NULL;
            p += child->key_bytes;
            if (*p != ':')
                p = skip_blanks(p);
            if (*p++ != ':')
                return NULL;
            if (*p <= ' ')
                p = skip_blanks(p);
            p = value_end(r, p, child);
            if (!p)
                return NULL;
            found++;
            if (*p <= ' ')
                p = skip_blanks(p);
            if (*p == '}') {
                p++;
                break;
            }
            if (*p++ != ',')
                return NULL;
            if (*p <= ' ')
                p = skip_blanks(p);
            follower = &child->follower;
        }
    }
    if (found < count)
        for (int32_t i = 0; i < count; i++)
            if (children[i].rows <= r->row)
                leave_out(r, children + i);
    return p;
}

/* The rows of whole lines, the last of which is ended too. nodes[0] is the row itself; the rows, nulls and nbytes of all
   count nodes are 0, and they have room for most_rows. Gives the number of rows. */
int64_t weir_json_rows(const uint8_t *data, int64_t nbytes, node *nodes, int32_t count, int64_t most_rows)
{
    if (nbytes < 1 || nbytes >= ESCAPED || data[nbytes - 1] != '\n' || !is_utf8(data, nbytes))
        return -1;
    for (int32_t i = 0; i < count; i++) {
        if (nodes[i].validity)
            memset(nodes[i].validity, 0xff, (size_t)(most_rows + 7) / 8);
        if (nodes[i].validity && nodes[i].kind == BOOL)
            memset(nodes[i].values, 0, (size_t)(most_rows + 7) / 8);
    }
    const uint8_t *p = data, *const end = data + nbytes;
    /* Numbers are read 17 bytes at a time, from a sign on: or eight, and eight behind a point. */
    reader r = {data, nbytes >= 17 ? end - 17 : data, nodes, 0};
    while (p < end) {
        p = skip_blanks(p);
        if (*p == '{') {
            if (r.row >= most_rows || !(p = object_end(&r, p + 1, nodes)))
                return -1;
            p = skip_blanks(p);
            r.row++;
        }
        if (*p == '\r')
            p++;
        if (*p++ != '\n')
            return -1;
    }
    return r.row;
}

static inline uint8_t *put_code(uint8_t *out, uint32_t code)
{
    if (code < 0x80) {
        *out++ = (uint8_t)code;
    } else if (code < 0x800) {
        *out++ = (uint8_t)(0xc0 | code >> 6);
        *out++ = (uint8_t)(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
        *out++ = (uint8_t)(0xe0 | code >> 12);
        *out++ = (uint8_t)(0x80 | (code >> 6 & 0x3f));
        *out++ = (uint8_t)(0x80 | (code & 0x3f));
    } else {
        *out++ = (uint8_t)(0xf0 | code >> 18);
        *out++ = (uint8_t)(0x80 | (code >> 12 & 0x3f));
        *out++ = (uint8_t)(0x80 | (code >> 6 & 0x3f));
        *out++ = (uint8_t)(0x80 | (code & 0x3f));
    }
    return out;
}

/* A text with its escapes undone, which text_end has looked at. */
static uint8_t *put_plain(uint8_t *out, const uint8_t *p, const uint8_t *end)
{
    while (p < end) {
        if (*p != '\\') {
            *out++ = *p++;
            continue;
        }
        uint32_t code, low;
        switch (p[1]) {
        case 'u':
            hex_of(p + 2, &code);
            p += 6;
            if (code >= 0xd800 && code < 0xe000) {
                hex_of(p + 2, &low);
                p += 6;
                code = 0x10000 + ((code - 0xd800) << 10 | (low - 0xdc00));
            }
            out = put_code(out, code);
            continue;
        case 'b': *out++ = '\b'; break;
        case 'f': *out++ = '\f'; break;
        case 'n': *out++ = '\n'; break;
        case 'r': *out++ = '\r'; break;
        case 't': *out++ = '\t'; break;
        default: *out++ = p[1];
        }
        p += 2;
    }
    return out;
}

/* The texts of spans, one behind the other. Values has room for 32 bytes more than they take. */
static void put_texts(const uint8_t *data, const uint8_t *data_end, const uint32_t *spans, int64_t rows, uint8_t *values,
                      int32_t *offsets)
{
    uint8_t *out = values;
    for (int64_t row = 0; row < rows; row++) {
        const uint8_t *text = data + spans[2 * row], *end = data + (spans[2 * row + 1] & ~ESCAPED);
        offsets[row] = (int32_t)(out - values);
        if (spans[2 * row + 1] & ESCAPED) {
            out = put_plain(out, text, end);
        } else {
            put_bytes(out, text, (size_t)(end - text), (size_t)(data_end - text));
            out += end - text;
        }
    }
    offsets[rows] = (int32_t)(out - values);
}

/* Makes the texts of all nodes that have spans: now there is room in values for nbytes and 32 more, and in offsets for one
   more than the rows. */
void weir_json_texts(const uint8_t *data, int64_t nbytes, const node *nodes, int32_t count, int64_t rows)
{
    for (const node *n = nodes; n < nodes + count; n++)
        if (n->spans)
            put_texts(data, data + nbytes, n->spans, rows, n->values, n->offsets);
}
