/* CSV text to columns, for the plain cases: whatever is not certain is left to pyarrow, which is the judge.

   Two passes. weir_csv_split finds where the fields of wanted columns stand; weir_csv_column makes one of them an Arrow
   array. Both give -1 where the text has something that they do not know: a row of another width, a stray quote or
   carriage return, a value that is not written plainly. What they do make is bit for bit what pyarrow makes.
   Nothing here allocates, and no call keeps a pointer. */

#include <stdint.h>
#include <string.h>
#include "bytes64.h"
#include "utf8.h"
#include "values.h"

#define QUOTED 0x80000000u  /* in a start: the field stood in quotes */
#define ESCAPED 0x80000000u /* in an end: there is a doubled quote in it */
#define PLACE 0x7fffffffu
#define ROWS_AT_ONCE 256 /* of which all columns are made: the text is in the processor's caches then; a multiple of 8 */

/* Walks over the places of marked bytes. */
typedef struct {
    const uint8_t *data;
    size_t size, base;
    uint64_t bits;
    uint8_t delimiter;
    uint8_t quote;
} walker;

static inline void load(walker *w)
{
    uint8_t last[64] = {0};
    const size_t left = w->size - w->base;
    if (left < 64)
        memcpy(last, w->data + w->base, left);
    const bytes64 here = bytes64_at(left < 64 ? last : w->data + w->base);
    w->bits = marks(here, w->delimiter) | marks(here, '\n') | marks(here, w->quote) | marks(here, '\r');
    if (left < 64)
        w->bits &= (UINT64_C(1) << left) - 1;
}

/* The place of the next mark at or behind the walker; size if there is none. It is passed. */
static inline size_t next_mark(walker *w)
{
    while (!w->bits) {
        w->base += 64;
        if (w->base >= w->size)
            return w->size;
        load(w);
    }
    size_t place = w->base + (size_t)__builtin_ctzll(w->bits);
    w->bits &= w->bits - 1;
    return place;
}

/* How long the texts of a column are in all: those that end at out, out + columns and so on, before stop. */
static inline int64_t total_bytes(const uint32_t *out, const uint32_t *stop, int32_t columns)
{
    int64_t total = 0;
    for (; out < stop; out += columns)
        total += (int64_t)*out - (int64_t)(uint32_t)(out[-1] + 1);
    return total;
}

/* Finds the fields of a block in which every quote opens or closes a field, or is one of two that stand for one
   (RFC 4180), and no line is blank: 64 bytes at a time (as G. Langdale and D. Lemire do in "Parsing gigabytes of JSON per
   second").

   ends[0] is the place before the first field, and behind it stands where each field ends, row by row; there is room for
   most_ends of them and 72 more. seen gets bits: 1 if there are quotes, 2 if there are carriage returns, 4 if there are
   doubled quotes. bytes[slot] is how long the texts of a column are in all, with their quotes; slots[column] is -1 where
   nobody asks. Gives the number of rows. */
int64_t weir_csv_split_regular(const uint8_t *data, int64_t nbytes, int32_t delimiter, int32_t quote, int32_t columns,
                               const int32_t *slots, int64_t most_ends, uint32_t *ends, int32_t *seen, int64_t *bytes)
{
    if (nbytes < 0 || nbytes >= PLACE || (nbytes >= 3 && !memcmp(data, "\xef\xbb\xbf", 3)))
        return -1;
    const size_t size = (size_t)nbytes;
    const uint8_t comma = (uint8_t)delimiter, mark = quote ? (uint8_t)quote : comma;
    uint8_t last[64];
    int64_t count = 0, newlines = 0;
    uint64_t inside = 0;             /* all bits set while a quote is open */
    uint64_t before = 1, closed = 0; /* of the byte before: a field may open behind it; it closed a quote */
    uint64_t returned = 0;           /* it was a carriage return outside of quotes */
    uint64_t quotes_seen = 0, returns_seen = 0, doubled_seen = 0;
    int ascii = 1;
    ends[0] = UINT32_MAX;
    uint32_t *out = ends + 1;
    for (size_t base = 0; base < size; base += 64) {
        const uint8_t *chunk = data + base;
        uint64_t real = UINT64_MAX;
        if (base + 64 > size) {
            memset(last, '\n', sizeof last);
            memcpy(last, chunk, size - base);
            chunk = last;
            real = (UINT64_C(1) << (size - base)) - 1;
        }
        const bytes64 here = bytes64_at(chunk);
        const uint64_t commas = marks(here, comma), lines = marks(here, '\n'), quotes = quote ? marks(here, mark) : 0;
        uint64_t returns = 0, outside = ~inside;
        if (!is_ascii_without(here, '\r')) {
            returns = marks(here, '\r');
            ascii &= is_ascii(here);
        }
        if (quotes | inside | closed) {
            const uint64_t open = parity(quotes) ^ inside, opening = quotes & open, closing = quotes & ~open;
            /* What follows a closing quote; what follows the last byte is seen with the next ones. */
            const uint64_t behind = closing << 1 | closed;
            if ((opening & ~((commas | lines) << 1 | before | behind)) || (behind & ~(commas | lines | returns | opening)))
                return -1;
            closed = closing >> 63;
            inside = open >> 63 ? UINT64_MAX : 0;
            outside = ~open;
            quotes_seen |= quotes;
            doubled_seen |= behind & opening;
        }
        before = (commas | lines) >> 63;
        if (returns | returned) {
            const uint64_t found_returns = returns & outside;
            if ((found_returns << 1 | returned) & ~lines)
                return -1;
            returned = found_returns >> 63;
            returns_seen |= found_returns;
        }
        uint64_t bits = (commas | lines) & outside & real;
        const int found = __builtin_popcountll(bits);
        newlines += __builtin_popcountll(lines & outside & real);
        if (count + found > most_ends)
            return -1;
        /* Eight at a time, whether there are as many or not: what is too much is written over. */
        for (int done = 0; done < found; done += 8)
            for (int i = 0; i < 8; i++) {
                out[count + done + i] = (uint32_t)base + (uint32_t)__builtin_ctzll(bits | UINT64_C(1) << 63);
                bits &= bits - 1;
            }
        count += found;
    }
    const int open_end = size && (count == 0 || out[count - 1] != size - 1 || data[size - 1] != '\n');
    if (inside || (size && data[size - 1] == '\r') || (!ascii && !is_utf8(data, nbytes)))
        return -1;
    if (open_end) {
        if (count == most_ends)
            return -1;
        out[count++] = (uint32_t)size;
    }
    const int64_t rows = count / columns;
    if (count % columns || newlines + open_end != rows)
        return -1;
    for (int32_t column = 0; column < columns; column++)
        if (slots[column] >= 0)
            bytes[slots[column]] = 0;
    /* Some rows at a time, so that they are read once. */
    for (const uint32_t *row = out, *next, *stop = out + count; row < stop; row = next) {
        next = stop - row > ROWS_AT_ONCE * columns ? row + ROWS_AT_ONCE * columns : stop;
        /* A newline at the end of each row, and as many as there are rows: everything else is a delimiter. */
        for (const uint32_t *end = row + columns - 1; end < next; end += columns)
            if (*end < size && data[*end] != '\n')
                return -1;
        for (int32_t column = 0; column < columns; column++)
            if (slots[column] >= 0)
                bytes[slots[column]] += total_bytes(row + column, next, columns);
    }
    *seen = (quotes_seen != 0) | (returns_seen != 0) << 1 | (doubled_seen != 0) << 2;
    return rows;
}

/* Finds the fields of a block of whole records.

   slots[column] is where a column's spans go, or -1: spans[2 * (slot * most_rows + row)] is the start of a field, and
   behind it the end, both with their flag. bytes[slot] is how long its texts are in all. quote 0 means that there is
   none. Gives the number of rows. */
int64_t weir_csv_split(const uint8_t *data, int64_t nbytes, int32_t delimiter, int32_t quote, int32_t columns,
                       const int32_t *slots, int64_t most_rows, uint32_t *spans, int64_t *bytes)
{
    size_t size = (size_t)nbytes;
    if (!is_utf8(data, nbytes) || nbytes < 0 || size >= PLACE || (size >= 3 && !memcmp(data, "\xef\xbb\xbf", 3)))
        return -1;
    walker w = {data, size, 0, 0, (uint8_t)delimiter, quote ? (uint8_t)quote : (uint8_t)'\n'};
    if (size)
        load(&w);
    int64_t row = 0;
    int32_t column = 0;
    size_t start = 0;
    while (start < size || column) {
        uint32_t flag = 0, escaped = 0;
        size_t from = start, to, place = next_mark(&w);
        if (quote && place == start && place < size && data[place] == quote) {
            /* A quoted field: to the quote that no other follows. */
            flag = QUOTED;
            from = start + 1;
            size_t doubled = 0;
            for (;;) {
                place = next_mark(&w);
                if (place >= size)
                    return -1;
                if (data[place] != quote)
                    continue;
                if (place + 1 < size && data[place + 1] == quote) {
                    next_mark(&w);
                    doubled++;
                    continue;
                }
                break;
            }
            to = place;
            escaped = doubled ? ESCAPED : 0;
            place = next_mark(&w);
            if (place != to + 1 || (place < size && data[place] == quote))
                return -1;
            if (slots[column] >= 0)
                bytes[slots[column]] += (int64_t)(to - from - doubled);
        } else {
            while (quote && place < size && data[place] == quote) /* a quote within a field stands for itself */
                place = next_mark(&w);
            to = place;
            if (slots[column] >= 0)
                bytes[slots[column]] += (int64_t)(to - from);
        }
        int ends_row = place >= size || data[place] != delimiter;
        if (place < size && data[place] == '\r') {
            if (place + 1 >= size || data[place + 1] != '\n')
                return -1;
            place = next_mark(&w);
        }
        if (ends_row && column == 0 && columns > 1 && from == to && !flag) {
            start = place + 1; /* a blank line is no record */
            continue;
        }
        if (row >= most_rows || (ends_row != 0) != (column + 1 == columns))
            return -1;
        if (slots[column] >= 0) {
            uint32_t *span = spans + 2 * ((int64_t)slots[column] * most_rows + row);
            span[0] = (uint32_t)from | flag;
            span[1] = (uint32_t)to | escaped;
        }
        start = place + 1;
        if (ends_row) {
            row++;
            column = 0;
        } else {
            column++;
        }
    }
    return row;
}

/* Where records end, if every other quote of data opens a field and every other one closes it (or quote is 0: then every
   line is a record). Data starts with a record.

   ends has room for most of them, and 8 more; each is the place behind a newline. inner gets the number of newlines within
   quotes. Gives the number of records, or -1. */
int64_t weir_csv_record_ends(const uint8_t *data, int64_t nbytes, int32_t delimiter, int32_t quote, int64_t most,
                             uint32_t *ends, int64_t *inner)
{
    if (nbytes < 0 || nbytes >= PLACE)
        return -1;
    const size_t size = (size_t)nbytes;
    uint64_t inside = 0, before = 1, closed = 0; /* as in weir_csv_split_regular */
    int64_t count = 0, within = 0;
    uint8_t last[64];
    for (size_t base = 0; base < size; base += 64) {
        const uint8_t *chunk = data + base;
        uint64_t real = UINT64_MAX;
        if (base + 64 > size) {
            memset(last, '\n', sizeof last);
            memcpy(last, chunk, size - base);
            chunk = last;
            real = (UINT64_C(1) << (size - base)) - 1;
        }
        const bytes64 here = bytes64_at(chunk);
        const uint64_t lines = marks(here, '\n'), quotes = quote ? marks(here, (uint8_t)quote) : 0;
        uint64_t bits = lines & real;
        if (quote) {
            const uint64_t fields = lines | marks(here, (uint8_t)delimiter);
            if (quotes | inside | closed) {
                const uint64_t open = parity(quotes) ^ inside, opening = quotes & open, closing = quotes & ~open;
                const uint64_t follows = fields | marks(here, '\r') | opening;
                if (opening & ~((fields | closing) << 1 | before | closed) || (closing << 1 | closed) & ~follows)
                    return -1;
                closed = closing >> 63;
                inside = open >> 63 ? UINT64_MAX : 0;
                within += __builtin_popcountll(bits & open);
                bits &= ~open;
            }
            before = fields >> 63;
        }
        if (count + 64 > most && count + __builtin_popcountll(bits) > most)
            return -1;
        for (; bits; bits &= bits - 1)
            ends[count++] = (uint32_t)(base + 1 + (size_t)__builtin_ctzll(bits));
    }
    *inner = within;
    return count;
}

static int bool_of(const uint8_t *text, size_t length, int *value)
{
    static const char *const words[] = {"0", "1", "false", "true", "False", "True", "FALSE", "TRUE"};
    for (int i = 0; i < 8; i++)
        if (strlen(words[i]) == length && !memcmp(words[i], text, length)) {
            *value = i & 1;
            return 1;
        }
    return 0;
}

/* Fields of one column. Those of weir_csv_split have their flags and a stride of 2; those of weir_csv_split_regular
   start behind the end of the one before, and quotes and carriage returns (if there are any, and this is the last column)
   are still with them; doubled tells whether any quote in them is. */
typedef struct {
    const uint8_t *data, *data_end;
    const uint32_t *starts, *ends;
    int64_t stride;
    int32_t quote, returns, doubled;
} fields;

typedef struct {
    const uint8_t *text;
    size_t length, readable;
    int quoted, escaped;
} field;

/* What is known of the fields of a column before they are looked at. */
enum { IRREGULAR, REGULAR, BARE }; /* the last: in none of them stands a quote or a carriage return */

static inline field field_at(const fields *f, int64_t row, int kind)
{
    const uint32_t start = f->starts[row * f->stride], end = f->ends[row * f->stride];
    field found = {f->data + (start & PLACE), (end & PLACE) - (start & PLACE), 0, 0, 0};
    if (kind != IRREGULAR) {
        found.text = f->data + (uint32_t)(start + 1);
        found.length = end - (uint32_t)(start + 1);
    } else {
        found.quoted = (start & QUOTED) != 0;
        found.escaped = (end & ESCAPED) != 0;
    }
    if (kind == REGULAR) {
        if (f->returns && found.length && found.text[found.length - 1] == '\r')
            found.length--;
        if (f->quote && found.length && found.text[0] == f->quote) {
            found.text++;
            found.length -= 2;
            found.quoted = 1;
            found.escaped = f->doubled && memchr(found.text, f->quote, found.length) != NULL;
        }
    }
    found.readable = (size_t)(f->data_end - found.text);
    return found;
}

/* What a column is, where its fields stand, and where its values go.

   values has room for the rows, of a STRING for 32 bytes more than its texts take; offsets (of a STRING) for one more than
   the rows. first and second are what the kind needs: units a second and whether there is a zone, or precision and
   scale. */
typedef struct {
    const uint32_t *starts, *ends;
    uint8_t *values;
    int32_t *offsets;
    uint8_t *validity;
    int64_t first, nulls;
    int32_t second, kind, returns, unused;
} column;

static inline void set_null(column *c, int64_t row)
{
    c->validity[row >> 3] &= (uint8_t)~(1u << (row & 7));
    c->nulls++;
}

/* A loop over values of a fixed size; an empty field that did not stand in quotes is null. */
#define EACH_VALUE(TYPE, READ)                                                                                         \
    for (int64_t row = from; row < to; row++) {                                                                        \
        const field here = field_at(&f, row, kind);                                                                 \
        TYPE made = 0;                                                                                                 \
        if (here.length == 0 && !here.quoted)                                                                          \
            set_null(c, row);                                                                                          \
        else if (here.length == 0 || here.escaped || !(READ))                                                          \
            return 0;                                                                                                  \
        ((TYPE *)c->values)[row] = made;                                                                               \
    }                                                                                                                  \
    return 1

static inline int narrow(const field *here, int32_t *made)
{
    int64_t number;
    if (!int_of(here->text, here->length, here->readable, &number) || number < INT32_MIN || number > INT32_MAX)
        return 0;
    *made = (int32_t)number;
    return 1;
}

static inline int date(const field *here, int32_t *made)
{
    int64_t days;
    if (here->length != 10 || !days_of(here->text, &days))
        return 0;
    *made = (int32_t)days;
    return 1;
}

/* Texts, one behind the other. */
static inline void texts(fields f, column *c, int64_t from, int64_t to, int kind)
{
    uint8_t *out = c->values + c->offsets[from];
    for (int64_t row = from; row < to; row++) {
        const field here = field_at(&f, row, kind);
        if (here.escaped) {
            for (size_t i = 0; i < here.length; i++) {
                *out++ = here.text[i];
                i += here.text[i] == f.quote;
            }
        } else {
            if (here.length == 0 && !here.quoted)
                set_null(c, row);
            put_bytes(out, here.text, here.length, here.readable);
            out += here.length;
        }
        c->offsets[row + 1] = (int32_t)(out - c->values);
    }
}

/* Makes the rows from one to another of one column: 0 where a value is not plain. */
static inline __attribute__((always_inline)) int make_rows(fields f, column *c, int64_t from, int64_t to, int kind)
{
    switch (c->kind) {
    case STRING:
        texts(f, c, from, to, kind);
        return 1;
    case INT64:
        EACH_VALUE(int64_t, int_of(here.text, here.length, here.readable, &made));
    case INT32:
        EACH_VALUE(int32_t, narrow(&here, &made));
    case FLOAT64:
        EACH_VALUE(double, short_float_of(here.text, here.length, here.readable, &made) ||
                               float_of(here.text, here.length, &made));
    case DATE32:
        EACH_VALUE(int32_t, date(&here, &made));
    case TIMESTAMP:
        EACH_VALUE(int64_t, timestamp_of(here.text, here.length, c->first, c->second, &made));
    case DECIMAL:
        EACH_VALUE(__int128, decimal_of(here.text, here.length, (int)c->first, c->second, (uint8_t *)&made));
    case BOOL:
        for (int64_t row = from; row < to; row++) {
            const field here = field_at(&f, row, kind);
            int truth = 0;
            if (here.length == 0 && !here.quoted)
                set_null(c, row);
            else if (here.escaped || !bool_of(here.text, here.length, &truth))
                return 0;
            if (truth)
                c->values[row >> 3] |= (uint8_t)(1u << (row & 7));
        }
        return 1;
    }
    return 0;
}

static int make_bare(fields f, column *c, int64_t from, int64_t to) { return make_rows(f, c, from, to, BARE); }

static int make_regular(fields f, column *c, int64_t from, int64_t to) { return make_rows(f, c, from, to, REGULAR); }

static int make_irregular(fields f, column *c, int64_t from, int64_t to) { return make_rows(f, c, from, to, IRREGULAR); }

/* Whatever stands in quotes, or before a carriage return, is no number for who does not look for them: so that is tried
   first. */
static int make(fields f, column *c, int64_t from, int64_t to)
{
    const int is_bare = !f.quote && !f.returns;
    if (is_bare || c->kind != STRING) {
        const int64_t nulls = c->nulls;
        if (make_bare(f, c, from, to))
            return 1;
        if (is_bare)
            return 0;
        c->nulls = nulls;
        memset(c->validity + from / 8, 0xff, (size_t)(to - from + 7) / 8);
        if (c->kind == BOOL)
            memset(c->values + from / 8, 0, (size_t)(to - from + 7) / 8);
    }
    return make_regular(f, c, from, to);
}

/* Makes columns of what was found; each gets its number of nulls. step is 1 for what weir_csv_split_regular found; quote is
   0 where no field stands in any. Gives 0, or -1. */
int32_t weir_csv_columns(const uint8_t *data, int64_t nbytes, int64_t stride, int32_t step, int32_t quote, int32_t doubled,
                         int64_t rows, int32_t count, column *columns)
{
    for (column *c = columns; c < columns + count; c++) {
        c->nulls = 0;
        memset(c->validity, 0xff, (size_t)(rows + 7) / 8);
        if (c->kind == BOOL)
            memset(c->values, 0, (size_t)(rows + 7) / 8);
        if (c->kind == STRING)
            c->offsets[0] = 0;
    }
    for (int64_t from = 0; from < rows; from += ROWS_AT_ONCE) {
        const int64_t to = rows - from > ROWS_AT_ONCE ? from + ROWS_AT_ONCE : rows;
        for (column *c = columns; c < columns + count; c++) {
            const fields f = {data, data + nbytes, c->starts, c->ends, stride, quote, c->returns, doubled};
            const int made = step ? make(f, c, from, to) : make_irregular(f, c, from, to);
            if (!made)
                return -1;
        }
    }
    return 0;
}
