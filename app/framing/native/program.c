/* Conditions on rows and what is computed of those that are left: a machine whose registers are columns of up to CHUNK rows.
   Nothing here allocates, and no call keeps a pointer. */

#define _GNU_SOURCE /* memmem */
#include <stdint.h>
#include <string.h>

#include "values.h"

enum { CHUNK = 1024, REGISTERS = 24 };

/* What an instruction does, as machine.py numbers it. */
enum {
    LOAD_BOOL,
    LOAD_INT8,
    LOAD_INT16,
    LOAD_INT32,
    LOAD_WORD, /* an int64, a time, a double */
    LOAD_VALID,
    BOOL_TO_INT,
    INT_TO_DOUBLE,
    ADD,
    SUBTRACT,
    MULTIPLY,
    DIVIDE,
    ADD_CHECKED,
    SUBTRACT_CHECKED,
    MULTIPLY_CHECKED,
    CHECK_INT32,
    EQUAL,
    NOT_EQUAL,
    LESS,
    LESS_EQUAL,
    INT_EQUAL,
    INT_NOT_EQUAL,
    INT_LESS,
    INT_LESS_EQUAL,
    COMPARE_TEXT,
    COMPARE_DECIMAL,
    STARTS_WITH,
    ENDS_WITH,
    CONTAINS,
    AND,
    OR,
    NOT,
    IS_VALID,
    FILTER,
    PUT_BOOL,
    PUT_INT32,
    PUT_WORD,
    PUT_COLUMN,
};

/* A column of Arrow, as it comes; offset counts values, in values, offsets and validity (which may be NULL: nothing is null)
   alike. */
typedef struct {
    const uint8_t *validity, *values;
    const int32_t *offsets;
    int64_t offset;
} column;

/* Room for a column: for all rows, all texts, and 32 bytes more of these; it comes as places within the whole room. kind is STRING (any bytes behind offsets), BOOL,
   or 0 where values have width bytes. validity means nothing unless there are nulls; nbytes is what texts take. */
typedef struct {
    uint8_t *validity, *values;
    int32_t *offsets;
    int64_t nulls, nbytes;
    int32_t kind, width;
} output;

/* left and right are registers; -1 stands for the constant low. place is a column, or an output; the
   column that is put there as it is stands in low. A text to look for has its address in low and its length in high; a decimal
   is both. accepts has a bit for each result of a comparison that is true: 1 less, 2 equal, 4 greater. */
typedef struct {
    int32_t operation, out, left, right, place, accepts;
    int64_t low, high;
} instruction;

/* valid is NULL where nothing is null. A bool that is null is 0; any other value that is null is anything. */
typedef struct {
    const void *values;
    const uint8_t *valid;
} slot;

typedef struct {
    uint64_t low, high;
} wide;

typedef struct {
    int16_t start, rows;
} run;

/* Of a chunk the rows at these places, or all where at is NULL. Where most are left, they are runs too. */
typedef struct {
    int64_t start;
    int32_t rows, runs;
    const int16_t *at;
} selection;

typedef struct {
    const instruction *code;
    const column *columns;
    output *outputs;
    int64_t rows, made; /* of the input; of the outputs so far */
    int32_t count, is_whole; /* all rows so far were kept: columns need not be copied, unless some row is not */
    selection chosen;
    slot slots[REGISTERS];
    uint64_t values[REGISTERS][CHUNK];
    uint8_t valid[REGISTERS][CHUNK], bytes[CHUNK];
    int16_t at[CHUNK];
    run runs[CHUNK];
} machine;

/* Bits to bytes that are 0 or 1. */
static void unpack(uint8_t *out, const uint8_t *bits, int64_t from, int32_t rows)
{
    int32_t i = 0;
    const int shift = from & 7;
    for (const uint8_t *p = bits + (from >> 3); i + 8 <= rows; i += 8, p++) {
        const uint8_t eight_bits = (uint8_t)((shift ? p[0] | p[1] << 8 : p[0]) >> shift);
        const uint64_t apart = (eight_bits * EACH(1) & UINT64_C(0x8040201008040201)) + EACH(0x7f);
        const uint64_t word = apart >> 7 & EACH(1);
        memcpy(out + i, &word, 8);
    }
    for (; i < rows; i++)
        out[i] = bits[(from + i) >> 3] >> ((from + i) & 7) & 1;
}

/* Bytes that are 0 or 1 to bits, behind those bits that there are. */
static void pack(uint8_t *bits, int64_t at, const uint8_t *bytes, int32_t rows)
{
    int32_t i = 0;
    for (; i < rows && (at + i) & 7; i++)
        bits[(at + i) >> 3] |= (uint8_t)(bytes[i] << ((at + i) & 7));
    for (; i + 8 <= rows; i += 8) {
        uint64_t word;
        memcpy(&word, bytes + i, 8);
        bits[(at + i) >> 3] = (uint8_t)(word * UINT64_C(0x0102040810204080) >> 56);
    }
    if (i < rows)
        bits[(at + i) >> 3] = 0;
    for (; i < rows; i++)
        bits[(at + i) >> 3] |= (uint8_t)(bytes[i] << ((at + i) & 7));
}

static int32_t sum(const uint8_t *bytes, int32_t rows)
{
    int32_t total = 0;
    for (int32_t i = 0; i < rows; i++)
        total += bytes[i];
    return total;
}

#define GATHER(type)                                                                                                         \
    for (int32_t i = 0; i < s->rows; i++)                                                                                    \
    ((type *)out)[i] = ((const type *)values)[s->at[i]]

/* The values of those rows. */
static void take(const machine *m, void *restrict out, const void *restrict all, int32_t width, const selection *s)
{
    const uint8_t *const values = (const uint8_t *)all + s->start * width;
    if (!s->at) {
        memcpy(out, values, (size_t)(s->rows * width));
    } else if (s->runs) {
        uint8_t *p = out;
        for (const run *r = m->runs; r < m->runs + s->runs; p += r->rows * width, r++)
            memcpy(p, values + r->start * width, (size_t)(r->rows * width));
    } else if (width == 8) {
        GATHER(uint64_t);
    } else if (width == 4) {
        GATHER(uint32_t);
    } else if (width == 2) {
        GATHER(uint16_t);
    } else if (width == 1) {
        GATHER(uint8_t);
    } else {
        GATHER(wide);
    }
}

static void take_bits(machine *m, uint8_t *out, const uint8_t *bits, int64_t offset, const selection *s)
{
    if (!s->at) {
        unpack(out, bits, offset + s->start, s->rows);
        return;
    }
    const int64_t left = m->rows - s->start;
    unpack(m->bytes, bits, offset + s->start, left < CHUNK ? (int32_t)left : CHUNK);
    for (int32_t i = 0; i < s->rows; i++)
        out[i] = m->bytes[s->at[i]];
}

/* Which of those rows have a value: out; or NULL where all have. */
static const uint8_t *valid_rows(machine *m, uint8_t *out, const column *c, const selection *s)
{
    if (!c->validity)
        return NULL;
    take_bits(m, out, c->validity, c->offset, s);
    return sum(out, s->rows) == s->rows ? NULL : out;
}

static inline int32_t row_of(const selection *s, int32_t i) { return s->at ? s->at[i] : i; }

/* Of a bool, or what a test makes: nothing is true that is null. */
static inline void mask(uint8_t *values, const uint8_t *valid, int32_t rows)
{
    if (valid)
        for (int32_t i = 0; i < rows; i++)
            values[i] &= valid[i];
}

#define WIDEN(type)                                                                                                          \
    do {                                                                                                                     \
        const type *narrow = (const type *)c->values + c->offset + s->start;                                                 \
        for (int32_t i = 0; i < s->rows; i++)                                                                                \
            out[i] = narrow[row_of(s, i)];                                                                                   \
    } while (0)

static void load(machine *m, const instruction *in)
{
    const column *const c = m->columns + in->place;
    const selection *const s = &m->chosen;
    slot *const made = m->slots + in->out;
    int64_t *const out = (int64_t *)m->values[in->out];
    made->values = out;
    made->valid = valid_rows(m, m->valid[in->out], c, s);
    if (in->operation == LOAD_VALID) {
        if (made->valid)
            memcpy(out, made->valid, (size_t)s->rows);
        else
            memset(out, 1, (size_t)s->rows);
        made->valid = NULL;
    } else if (in->operation == LOAD_BOOL) {
        take_bits(m, (uint8_t *)out, c->values, c->offset, s);
        mask((uint8_t *)out, made->valid, s->rows);
    } else if (in->operation == LOAD_INT8) {
        WIDEN(int8_t);
    } else if (in->operation == LOAD_INT16) {
        WIDEN(int16_t);
    } else if (in->operation == LOAD_INT32) {
        WIDEN(int32_t);
    } else if (s->at) {
        take(m, out, c->values + 8 * c->offset, 8, s);
    } else {
        made->values = c->values + 8 * (c->offset + s->start); /* where it is */
    }
}

/* A test of the texts of a column, or of its decimals. */
static int is_accepted(const instruction *in, const column *c, int64_t row)
{
    const uint8_t *const wanted = (const uint8_t *)in->low;
    if (in->operation == COMPARE_DECIMAL) {
        __int128 value;
        memcpy(&value, c->values + 16 * row, 16);
        const __int128 other = (__int128)((unsigned __int128)in->high << 64 | (uint64_t)in->low);
        return in->accepts >> (value < other ? 0 : value > other ? 2 : 1) & 1;
    }
    const int64_t length = c->offsets[row + 1] - c->offsets[row];
    const uint8_t *const text = c->values + c->offsets[row];
    if (in->operation == COMPARE_TEXT) {
        if (length != in->high && (in->accepts == 2 || in->accepts == 5))
            return in->accepts == 5;
        const int order = memcmp(text, wanted, (size_t)(length < in->high ? length : in->high));
        const int64_t sign = order ? order : length - in->high;
        return in->accepts >> (sign < 0 ? 0 : sign > 0 ? 2 : 1) & 1;
    }
    if (length < in->high || !in->high)
        return !in->high;
    if (in->operation == CONTAINS)
        return memmem(text, (size_t)length, wanted, (size_t)in->high) != NULL;
    return !memcmp(in->operation == STARTS_WITH ? text : text + length - in->high, wanted, (size_t)in->high);
}

static void test_column(machine *m, const instruction *in)
{
    const column *const c = m->columns + in->place;
    const selection *const s = &m->chosen;
    slot *const made = m->slots + in->out;
    uint8_t *const out = (uint8_t *)m->values[in->out];
    for (int32_t i = 0; i < s->rows; i++)
        out[i] = (uint8_t)is_accepted(in, c, c->offset + s->start + row_of(s, i));
    made->values = out;
    made->valid = valid_rows(m, m->valid[in->out], c, s);
    mask(out, made->valid, s->rows);
}

/* Where two values are: where both are; and of those with one alone. */
static const uint8_t *both_valid(machine *m, const instruction *in)
{
    const uint8_t *const a = in->left < 0 ? NULL : m->slots[in->left].valid;
    const uint8_t *const b = in->right < 0 ? NULL : m->slots[in->right].valid;
    uint8_t *const out = m->valid[in->out];
    if (!a && !b)
        return NULL;
    memcpy(out, a ? a : b, (size_t)m->chosen.rows);
    if (a)
        mask(out, b, m->chosen.rows);
    return out;
}

/* out[i] = made of a and b, which are of the type, for all rows; one of them may be the constant. */
#define PAIRS(type, made)                                                                                                    \
    do {                                                                                                                     \
        const type *const x = in->left < 0 ? NULL : m->slots[in->left].values;                                               \
        const type *const y = in->right < 0 ? NULL : m->slots[in->right].values;                                             \
        type constant;                                                                                                       \
        memcpy(&constant, &in->low, sizeof constant);                                                                        \
        if (!x) {                                                                                                            \
            for (int32_t i = 0; i < rows; i++) {                                                                             \
                const type a = constant, b = y[i];                                                                           \
                made;                                                                                                        \
            }                                                                                                                \
        } else if (!y) {                                                                                                     \
            for (int32_t i = 0; i < rows; i++) {                                                                             \
                const type a = x[i], b = constant;                                                                           \
                made;                                                                                                        \
            }                                                                                                                \
        } else {                                                                                                             \
            for (int32_t i = 0; i < rows; i++) {                                                                             \
                const type a = x[i], b = y[i];                                                                               \
                made;                                                                                                        \
            }                                                                                                                \
        }                                                                                                                    \
    } while (0)

/* Gives 0 where a number is too large. */
static int compute(machine *m, const instruction *in)
{
    const int32_t rows = m->chosen.rows;
    const uint8_t *const valid = both_valid(m, in);
    double *const restrict out = (double *)m->values[in->out];
    int64_t *const restrict whole = (int64_t *)m->values[in->out];
    uint8_t *const restrict truth = (uint8_t *)m->values[in->out];
    int too_large = 0;
    m->slots[in->out] = (slot){out, valid};
    switch (in->operation) {
    case ADD:
        PAIRS(double, out[i] = a + b);
        return 1;
    case SUBTRACT:
        PAIRS(double, out[i] = a - b);
        return 1;
    case MULTIPLY:
        PAIRS(double, out[i] = a * b);
        return 1;
    case DIVIDE:
        PAIRS(double, out[i] = a / b);
        return 1;
    case ADD_CHECKED:
        PAIRS(int64_t, too_large |= __builtin_add_overflow(a, b, whole + i) & (valid ? valid[i] : 1));
        return !too_large;
    case SUBTRACT_CHECKED:
        PAIRS(int64_t, too_large |= __builtin_sub_overflow(a, b, whole + i) & (valid ? valid[i] : 1));
        return !too_large;
    case MULTIPLY_CHECKED:
        PAIRS(int64_t, too_large |= __builtin_mul_overflow(a, b, whole + i) & (valid ? valid[i] : 1));
        return !too_large;
    case EQUAL:
        PAIRS(double, truth[i] = a == b);
        break;
    case NOT_EQUAL:
        PAIRS(double, truth[i] = a != b);
        break;
    case LESS:
        PAIRS(double, truth[i] = a < b);
        break;
    case LESS_EQUAL:
        PAIRS(double, truth[i] = a <= b);
        break;
    case INT_EQUAL:
        PAIRS(int64_t, truth[i] = a == b);
        break;
    case INT_NOT_EQUAL:
        PAIRS(int64_t, truth[i] = a != b);
        break;
    case INT_LESS:
        PAIRS(int64_t, truth[i] = a < b);
        break;
    default:
        PAIRS(int64_t, truth[i] = a <= b);
    }
    mask(truth, valid, rows);
    return 1;
}

/* Kleene's: what is false is false whatever the other is, and so is what is true. */
static void join(machine *m, const instruction *in)
{
    const slot a = m->slots[in->left], b = m->slots[in->right];
    const uint8_t *const x = a.values, *const y = b.values;
    const int32_t rows = m->chosen.rows, is_or = in->operation == OR;
    uint8_t *const restrict out = (uint8_t *)m->values[in->out], *const restrict valid = m->valid[in->out];
    for (int32_t i = 0; i < rows; i++)
        out[i] = is_or ? x[i] | y[i] : x[i] & y[i];
    m->slots[in->out] = (slot){out, a.valid || b.valid ? valid : NULL};
    if (a.valid || b.valid)
        for (int32_t i = 0; i < rows; i++) {
            const uint8_t v = a.valid ? a.valid[i] : 1, w = b.valid ? b.valid[i] : 1;
            valid[i] = (v & w) | (is_or ? x[i] | y[i] : (v & (x[i] ^ 1)) | (w & (y[i] ^ 1)));
        }
}

/* Of one register. Gives 0 where a number is too large. */
static int convert(machine *m, const instruction *in)
{
    const slot a = m->slots[in->left];
    const int32_t rows = m->chosen.rows;
    const uint8_t *const bytes = a.values;
    const int64_t *const numbers = a.values;
    uint8_t *const restrict truth = (uint8_t *)m->values[in->out];
    int64_t *const restrict whole = (int64_t *)m->values[in->out];
    double *const restrict out = (double *)m->values[in->out];
    int too_large = 0;
    m->slots[in->out] = (slot){out, in->operation == IS_VALID ? NULL : both_valid(m, in)};
    switch (in->operation) {
    case IS_VALID:
        memset(truth, 1, (size_t)rows);
        mask(truth, a.valid, rows);
        return 1;
    case NOT:
        for (int32_t i = 0; i < rows; i++)
            truth[i] = bytes[i] ^ 1;
        mask(truth, a.valid, rows);
        return 1;
    case BOOL_TO_INT:
        for (int32_t i = 0; i < rows; i++)
            whole[i] = bytes[i];
        return 1;
    case CHECK_INT32:
        for (int32_t i = 0; i < rows; i++) {
            whole[i] = numbers[i];
            too_large |= (numbers[i] != (int32_t)numbers[i]) & (a.valid ? a.valid[i] : 1);
        }
        return !too_large;
    default:
        for (int32_t i = 0; i < rows; i++)
            out[i] = (double)numbers[i];
        return 1;
    }
}

/* Puts down which of so many rows have a value, all where valid is NULL. */
static void put_valid(output *o, int64_t made, const uint8_t *valid, int32_t rows)
{
    static const uint8_t ones[CHUNK] = {[0 ... CHUNK - 1] = 1};
    if (!valid && !o->nulls)
        return;
    if (!o->nulls) {
        memset(o->validity, 0xff, (size_t)(made >> 3));
        if (made & 7)
            o->validity[made >> 3] = (uint8_t)((1 << (made & 7)) - 1);
    }
    pack(o->validity, made, valid ? valid : ones, rows);
    if (valid)
        o->nulls += rows - sum(valid, rows);
}

static void put_register(machine *m, const instruction *in)
{
    output *const o = m->outputs + in->place;
    const slot a = m->slots[in->left];
    const int32_t rows = m->chosen.rows;
    put_valid(o, m->made, a.valid, rows);
    if (in->operation == PUT_BOOL) {
        pack(o->values, m->made, a.values, rows);
    } else if (in->operation == PUT_INT32) {
        int32_t *const out = (int32_t *)o->values + m->made;
        for (int32_t i = 0; i < rows; i++)
            out[i] = (int32_t)((const int64_t *)a.values)[i];
        if (a.valid)
            for (int32_t i = 0; i < rows; i++)
                out[i] &= -(int32_t)a.valid[i];
    } else {
        int64_t *const out = (int64_t *)o->values + m->made;
        memcpy(out, a.values, 8 * (size_t)rows);
        if (a.valid)
            for (int32_t i = 0; i < rows; i++)
                out[i] &= -(int64_t)a.valid[i];
    }
}

/* Texts that follow one another, none of them null. */
static void put_run(output *o, int64_t made, const column *c, int64_t row, int32_t rows)
{
    const int32_t *const from = c->offsets + row;
    int32_t *const to = o->offsets + made + 1;
    const int32_t moved = (int32_t)o->nbytes - from[0], length = from[rows] - from[0];
    for (int32_t i = 0; i < rows; i++)
        to[i] = from[i + 1] + moved;
    if (length)
        memcpy(o->values + o->nbytes, c->values + from[0], (size_t)length);
    o->nbytes += length;
}

static void put_texts(const machine *m, output *o, int64_t made, const column *c, const uint8_t *valid, const selection *s)
{
    const int64_t first = c->offset + s->start;
    if (!valid && !s->at) {
        put_run(o, made, c, first, s->rows);
    } else if (!valid && s->runs) {
        for (const run *r = m->runs; r < m->runs + s->runs; made += r->rows, r++)
            put_run(o, made, c, first + r->start, r->rows);
    } else {
        const int32_t *const from = c->offsets + first, end = c->offsets[c->offset + m->rows];
        for (int32_t i = 0; i < s->rows; i++) {
            const int32_t row = row_of(s, i), start = from[row];
            const int32_t length = valid && !valid[i] ? 0 : from[row + 1] - start;
            if (length)
                put_bytes(o->values + o->nbytes, c->values + start, (size_t)length, (size_t)(end - start));
            o->nbytes += length;
            o->offsets[made + 1 + i] = (int32_t)o->nbytes;
        }
    }
}

static void put_column(machine *m, const instruction *in, int64_t made, const selection *s)
{
    const column *const c = m->columns + in->low;
    output *const o = m->outputs + in->place;
    uint8_t kept[CHUNK], bits[CHUNK];
    const uint8_t *const valid = valid_rows(m, kept, c, s);
    put_valid(o, made, valid, s->rows);
    if (o->kind == STRING) {
        put_texts(m, o, made, c, valid, s);
    } else if (o->kind == BOOL) {
        take_bits(m, bits, c->values, c->offset, s);
        mask(bits, valid, s->rows);
        pack(o->values, made, bits, s->rows);
    } else {
        uint8_t *const out = o->values + made * o->width;
        take(m, out, c->values + c->offset * o->width, o->width, s);
        if (valid)
            for (int32_t i = 0; i < s->rows; i++)
                if (!valid[i])
                    memset(out + i * o->width, 0, (size_t)o->width);
    }
}

/* Columns of the rows before this chunk, all of which were kept. */
static void catch_up(machine *m)
{
    m->is_whole = 0;
    for (const instruction *in = m->code; in < m->code + m->count; in++)
        for (int64_t row = 0; in->operation == PUT_COLUMN && row < m->chosen.start; row += CHUNK) {
            const selection all = {row, CHUNK, 0, NULL};
            put_column(m, in, row, &all);
        }
}

/* Leaves those rows for which a register is true. */
static void filter(machine *m, const instruction *in, int32_t chunk_rows)
{
    selection *const s = &m->chosen;
    const uint8_t *const kept = m->slots[in->left].values;
    int32_t rows = 0;
    if (sum(kept, s->rows) == s->rows)
        return;
    for (int32_t i = 0; i < s->rows; i++) {
        m->at[rows] = (int16_t)row_of(s, i);
        rows += kept[i];
    }
    s->rows = rows, s->runs = 0, s->at = m->at;
    if (rows > chunk_rows - chunk_rows / 8)
        for (int32_t i = 0, start = 0; i < rows; i++)
            if (i + 1 == rows || m->at[i + 1] != m->at[i] + 1) {
                m->runs[s->runs++] = (run){m->at[start], (int16_t)(i + 1 - start)};
                start = i + 1;
            }
    if (m->is_whole)
        catch_up(m);
}

/* Gives 0 where a number is too large. */
static int run_chunk(machine *m, int32_t chunk_rows)
{
    for (const instruction *in = m->code; in < m->code + m->count && m->chosen.rows; in++) {
        const int32_t operation = in->operation;
        if (operation <= LOAD_VALID) {
            load(m, in);
        } else if (operation >= COMPARE_TEXT && operation <= CONTAINS) {
            test_column(m, in);
        } else if (operation == AND || operation == OR) {
            join(m, in);
        } else if (operation == FILTER) {
            filter(m, in, chunk_rows);
        } else if (operation == PUT_COLUMN) {
            if (!m->is_whole)
                put_column(m, in, m->made, &m->chosen);
        } else if (operation >= PUT_BOOL) {
            put_register(m, in);
        } else if (operation <= INT_TO_DOUBLE || operation >= NOT || operation == CHECK_INT32) {
            if (!convert(m, in))
                return 0;
        } else if (!compute(m, in)) {
            return 0;
        }
    }
    return 1;
}

/* Gives how many rows are left, or -1 where a number is too large. Where all are left, no column is put as it is. */
int64_t weir_program(const instruction *code, int32_t count, const column *columns, int64_t rows, uint8_t *room,
                     output *outputs, int32_t output_count)
{
    machine m;
    m.code = code, m.count = count, m.columns = columns, m.outputs = outputs, m.rows = rows;
    m.made = 0, m.is_whole = 1;
    for (output *o = outputs; o < outputs + output_count; o++) {
        o->validity = room + (intptr_t)o->validity, o->values = room + (intptr_t)o->values;
        o->offsets = (int32_t *)(room + (intptr_t)o->offsets);
        if (o->kind == STRING)
            o->offsets[0] = 0;
    }
    for (int64_t row = 0; row < rows; row += CHUNK) {
        const int32_t chunk_rows = rows - row < CHUNK ? (int32_t)(rows - row) : CHUNK;
        m.chosen = (selection){row, chunk_rows, 0, NULL};
        if (!run_chunk(&m, chunk_rows))
            return -1;
        m.made += m.chosen.rows;
    }
    return m.made;
}
