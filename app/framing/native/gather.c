/* Rows of columns by their numbers, as Arrow's take gives them. Nothing here allocates, and no call keeps a pointer. */

#include <stdint.h>
#include <string.h>

#include "values.h"

#define TEXTS -1 /* for a width */

/* A column, and its values at rows; null where that is negative. A value has width bytes, 0 is a bit, and TEXTS are what
   stands between offsets. offset counts values, in values, offsets and validity (which may be NULL: nothing is null)
   alike; readable_bytes of values can be read. made_validity may be NULL where nothing can be null. Of texts, made_values
   is where they came to stand. */
typedef struct {
    const uint8_t *validity, *values;
    const int32_t *offsets, *rows;
    uint8_t *made_validity, *made_values;
    int32_t *made_offsets;
    int64_t offset, readable_bytes, nulls, nbytes;
    int32_t width, unused;
} gathered;

static inline int bit_of(const uint8_t *bits, int64_t at) { return bits[at >> 3] >> (at & 7) & 1; }

static inline int is_there(const gathered *c, int64_t i)
{
    return c->rows[i] >= 0 && (!c->validity || bit_of(c->validity, c->offset + c->rows[i]));
}

static void put_validity(gathered *c, int64_t count)
{
    int64_t valid = 0;
    memset(c->made_validity, 0, (size_t)((count + 7) / 8));
    for (int64_t i = 0; i < count; i++) {
        const int there = is_there(c, i);
        c->made_validity[i >> 3] |= (uint8_t)(there << (i & 7));
        valid += there;
    }
    c->nulls = count - valid;
}

/* width is a constant to every caller, so that a value is moved as one. */
static inline void put_values(const gathered *c, int64_t count, const size_t width)
{
    const uint8_t *const from = c->values + c->offset * (int64_t)width;
    for (int64_t i = 0; i < count; i++) {
        const int64_t row = c->rows[i];
        if (row >= 0)
            memcpy(c->made_values + (size_t)i * width, from + (size_t)row * width, width);
        else
            memset(c->made_values + (size_t)i * width, 0, width);
    }
}

static void put_bits(const gathered *c, int64_t count)
{
    memset(c->made_values, 0, (size_t)((count + 7) / 8));
    for (int64_t i = 0; i < count; i++)
        c->made_values[i >> 3] |= (uint8_t)((c->rows[i] >= 0 && bit_of(c->values, c->offset + c->rows[i])) << (i & 7));
}

static void put_texts(gathered *c, int64_t count)
{
    int64_t made = 0;
    c->made_offsets[0] = 0;
    for (int64_t i = 0; i < count; i++) {
        if (is_there(c, i)) {
            const int32_t *const at = c->offsets + c->offset + c->rows[i];
            const size_t length = (size_t)(at[1] - at[0]);
            if (length)
                put_bytes(c->made_values + made, c->values + at[0], length, (size_t)(c->readable_bytes - at[0]));
            made += (int64_t)length;
        }
        c->made_offsets[i + 1] = (int32_t)made;
    }
    c->nbytes = made;
}

/* Fills what is made of count rows, and sets nulls and nbytes. Texts of all columns stand at texts, one behind the other,
   and up to 32 bytes more are written there. */
void weir_gather(gathered *columns, int32_t columns_count, int64_t count, uint8_t *texts)
{
    for (gathered *c = columns; c < columns + columns_count; c++) {
        if (c->made_validity)
            put_validity(c, count);
        if (c->width == TEXTS) {
            c->made_values = texts;
            put_texts(c, count);
            texts += c->nbytes;
        } else if (c->width == 0)
            put_bits(c, count);
        else if (c->width == 1)
            put_values(c, count, 1);
        else if (c->width == 2)
            put_values(c, count, 2);
        else if (c->width == 4)
            put_values(c, count, 4);
        else if (c->width == 8)
            put_values(c, count, 8);
        else
            put_values(c, count, 16);
    }
}
