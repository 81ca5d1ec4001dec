/* Whole numbers as text. */

#ifndef WEIR_DIGITS_H
#define WEIR_DIGITS_H

#include <stdint.h>
#include <string.h>

#include "values.h"

/* Eight digits of a number below 10^8, as they are and not as text: the first one lowest. */
static inline uint64_t digits_of(uint32_t number)
{
    uint64_t word = number / 10000 | (uint64_t)(number % 10000) << 32;
    uint64_t part = (word * 10486 >> 20) & UINT64_C(0x0000007f0000007f);
    word = part | (word - 100 * part) << 16;
    part = (word * 103 >> 10) & UINT64_C(0x000f000f000f000f);
    return part | (word - 10 * part) << 8;
}

/* All eight of them. */
static inline uint8_t *put_eight(uint8_t *out, uint32_t number)
{
    const uint64_t text = digits_of(number) + EACH('0');
    memcpy(out, &text, 8);
    return out + 8;
}

/* As many as a number below 10^8 has; eight bytes are written. */
static inline uint8_t *put_short(uint8_t *out, uint32_t number)
{
    const uint64_t digits = digits_of(number);
    const int zeros = digits ? __builtin_ctzll(digits) / 8 : 7;
    const uint64_t text = (digits + EACH('0')) >> (8 * zeros);
    memcpy(out, &text, 8);
    return out + 8 - zeros;
}

/* Eight bytes more than it takes may be written. */
static inline uint8_t *put_int(uint8_t *out, int64_t value)
{
    const uint64_t size = value < 0 ? 0 - (uint64_t)value : (uint64_t)value, upper = size / 100000000;
    const uint32_t lower = (uint32_t)(size % 100000000);
    if (value < 0)
        *out++ = '-';
    if (!upper)
        return put_short(out, lower);
    if (upper < 100000000)
        return put_eight(put_short(out, (uint32_t)upper), lower);
    out = put_short(out, (uint32_t)(upper / 100000000));
    return put_eight(put_eight(out, (uint32_t)(upper % 100000000)), lower);
}

#endif
