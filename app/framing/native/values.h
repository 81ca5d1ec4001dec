/* Values as they are written in CSV and JSON, read as pyarrow reads them; 0 where that is not certain. */

#ifndef WEIR_VALUES_H
#define WEIR_VALUES_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bytes64.h"

#if defined(__SSE2__)
/* Bit i is set where p[i], of 16, cannot stand for itself within a JSON text: quotes, backslashes, control characters. */
static inline unsigned json_specials(const uint8_t *p)
{
    const __m128i chunk = _mm_loadu_si128((const __m128i *)p);
    const __m128i marks = _mm_or_si128(_mm_cmpeq_epi8(chunk, _mm_set1_epi8('"')), _mm_cmpeq_epi8(chunk, _mm_set1_epi8('\\')));
    const __m128i controls = _mm_cmpeq_epi8(_mm_min_epu8(chunk, _mm_set1_epi8(0x1f)), chunk);
    return (unsigned)_mm_movemask_epi8(_mm_or_si128(marks, controls));
}
#endif

enum { INT64 = 1, FLOAT64, DATE32, STRING, BOOL, TIMESTAMP, DECIMAL, INT32, STRUCT, FLOAT32 };

/* Copies a text of length bytes, readable of which and behind which can be read; up to 32 bytes more are written. */
static inline void put_bytes(uint8_t *out, const uint8_t *text, size_t length, size_t readable)
{
    if (readable < length + 32) {
        memcpy(out, text, length);
        return;
    }
    memcpy(out, text, 32); /* most are as short as that, and no branch has to guess */
    for (size_t i = 32; i < length; i += 16)
        memcpy(out + i, text + i, 16);
}

static inline int is_digit(uint8_t c) { return (uint8_t)(c - '0') < 10; }

static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))

/* Eight digits in a word, the first one lowest, as a number (J. Lukas and D. Lemire, "Quickly parsing eight digits"). */
static inline uint64_t eight(uint64_t word)
{
    word = (word & EACH(0x0f)) * 2561 >> 8;
    word = (word & UINT64_C(0x00ff00ff00ff00ff)) * 6553601 >> 16;
    return (word & UINT64_C(0x0000ffff0000ffff)) * UINT64_C(42949672960001) >> 32;
}

static inline int all_digits(uint64_t word)
{
    return (word & EACH(0xf0)) == EACH(0x30) && ((word + EACH(0x06)) & EACH(0xf0)) == EACH(0x30);
}

/* Up to 16 digits in a double word, the first one lowest. */
static inline int sixteen(unsigned __int128 word, size_t length, uint64_t *value)
{
    const unsigned __int128 zeros = (unsigned __int128)EACH(0x30) << 64 | EACH(0x30);
    if (length < 16) {
        const unsigned shift = 8 * (unsigned)(16 - length);
        word = (word << shift) | (length ? zeros >> (128 - shift) : zeros);
    }
    const uint64_t high = (uint64_t)word, low = (uint64_t)(word >> 64);
    if (!all_digits(high) || !all_digits(low))
        return 0;
    *value = eight(high) * 100000000 + eight(low);
    return 1;
}

/* Up to 8 digits in a word, of which there is at least one. */
static inline int up_to_eight(uint64_t word, size_t length, uint64_t *value)
{
    const unsigned bits = 8 * (unsigned)length;
    word = (word << (64 - bits)) | (EACH(0x30) >> 1 >> (bits - 1));
    *value = eight(word);
    return all_digits(word);
}

#if defined(__SSE4_1__)
/* Up to 16 digits, perhaps with a point before, behind or among them; length bytes, at least one, of 16 that can be read.
   The digits are moved to the end of a register, over the point, and put together in pairs (as D. Lemire and W. Mula do).
   point is its place, or length. */
static inline int plain_number(const uint8_t *text, size_t length, size_t *point, uint64_t *value)
{
    const __m128i bytes = _mm_loadu_si128((const __m128i *)text), digits = _mm_sub_epi8(bytes, _mm_set1_epi8('0'));
    const unsigned there = (1u << length) - 1;
    const unsigned are_digits = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(digits, _mm_set1_epi8(9)), digits));
    const unsigned others = ~are_digits & there;
    const unsigned points = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('.'))) & there;
    const size_t place = (size_t)__builtin_ctz(points | 1u << length), count = length - (points != 0);
    if (others != points || (points & (points - 1)) || !count)
        return 0;
    const __m128i order = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m128i from = _mm_add_epi8(order, _mm_set1_epi8((char)((int)count - 16)));
    const __m128i behind = _mm_cmpgt_epi8(from, _mm_set1_epi8((char)((int)place - 1)));
    const __m128i aligned = _mm_shuffle_epi8(digits, _mm_sub_epi8(from, behind)); /* 0 where from is negative */
    const __m128i pairs = _mm_maddubs_epi16(aligned, _mm_set1_epi16(1 << 8 | 10));
    const __m128i fours = _mm_madd_epi16(pairs, _mm_set1_epi32(1 << 16 | 100));
    const __m128i eights = _mm_madd_epi16(_mm_packus_epi32(fours, fours), _mm_set1_epi32(1 << 16 | 10000));
    *value = (uint64_t)(uint32_t)_mm_cvtsi128_si32(eights) * 100000000 + (uint32_t)_mm_extract_epi32(eights, 1);
    *point = place;
    return 1;
}
#endif

static inline int int_of(const uint8_t *text, size_t length, size_t readable, int64_t *value)
{
    const int negative = length && text[0] == '-';
    text += negative;
    length -= (size_t)negative;
    if (!length || length > 18)
        return 0;
    uint64_t number = 0;
#if defined(__SSE4_1__)
    if (length <= 16 && readable >= 17) {
        size_t point;
        if (!plain_number(text, length, &point, &number) || point < length)
            return 0;
        *value = negative ? -(int64_t)number : (int64_t)number;
        return 1;
    }
#endif
    if (length <= 8 && readable >= 9) {
        uint64_t word;
        memcpy(&word, text, 8);
        if (!up_to_eight(word, length, &number))
            return 0;
    } else if (length <= 16 && readable >= 17) {
        unsigned __int128 word;
        memcpy(&word, text, 16);
        if (!sixteen(word, length, &number))
            return 0;
    } else {
        for (size_t i = 0; i < length; i++) {
            if (!is_digit(text[i]))
                return 0;
            number = number * 10 + (uint64_t)(text[i] - '0');
        }
    }
    *value = negative ? -(int64_t)number : (int64_t)number;
    return 1;
}

/* The plainest of numbers, up to 16 bytes with one point in it; what is not is left to float_of. */
static inline int short_float_of(const uint8_t *text, size_t length, size_t readable, double *value)
{
    const int negative = length && text[0] == '-';
    text += negative;
    length -= (size_t)negative;
#if defined(__SSE4_1__)
    uint64_t found;
    size_t place;
    if (length == 0 || length > 16 || readable < 17 || !plain_number(text, length, &place, &found) ||
        found > (UINT64_C(1) << 53))
        return 0;
    const double quotient = (double)(int64_t)found / powers[place < length ? length - 1 - place : 0];
    *value = negative ? -quotient : quotient;
    return 1;
#else
    if (length < 2 || length > 16 || readable < 17)
        return 0;
    if (length <= 8) {
        uint64_t word, digits;
        memcpy(&word, text, 8);
        const uint64_t other = word ^ EACH('.'), points = (other - EACH(0x01)) & ~other & EACH(0x80);
        const size_t point = points ? (size_t)__builtin_ctzll(points) / 8 : 8;
        if (point >= length)
            return 0;
        const uint64_t before = (UINT64_C(1) << (8 * point)) - 1;
        if (!up_to_eight((word & before) | ((word >> 8) & ~before), length - 1, &digits))
            return 0;
        const double number = (double)(int64_t)digits / powers[length - 1 - point];
        *value = negative ? -number : number;
        return 1;
    }
    unsigned __int128 word;
    memcpy(&word, text, 16);
    const uint64_t first = (uint64_t)word ^ EACH('.'), second = (uint64_t)(word >> 64) ^ EACH('.');
    const uint64_t in_first = (first - EACH(0x01)) & ~first & EACH(0x80);
    const uint64_t in_second = (second - EACH(0x01)) & ~second & EACH(0x80);
    if (!(in_first | in_second))
        return 0;
    const size_t point = in_first ? (size_t)__builtin_ctzll(in_first) / 8 : 8 + (size_t)__builtin_ctzll(in_second) / 8;
    if (point >= length)
        return 0;
    const unsigned __int128 before = ((unsigned __int128)1 << (8 * point)) - 1;
    uint64_t digits;
    if (!sixteen((word & before) | ((word >> 8) & ~before), length - 1, &digits) || digits > (UINT64_C(1) << 53))
        return 0;
    const double number = (double)(int64_t)digits / powers[length - 1 - point];
    *value = negative ? -number : number;
    return 1;
#endif
}

/* As fast_float would: exactly rounded. Either the digits and the power of ten are exact doubles, and then so is what
   one division rounds; or the C library, which rounds exactly too, has to read it. */
static inline int float_of(const uint8_t *text, size_t length, double *value)
{
    size_t i = 0, digits = 0, significant = 0, fraction = 0;
    int negative = length && text[0] == '-', point = 0;
    uint64_t mantissa = 0;
    for (i = (size_t)negative; i < length; i++) {
        uint8_t c = text[i];
        if (is_digit(c)) {
            digits++;
            fraction += (size_t)point;
            if (significant || c != '0') {
                if (++significant <= 19)
                    mantissa = mantissa * 10 + (uint64_t)(c - '0');
            }
        } else if (c == '.' && !point) {
            point = 1;
        } else {
            break;
        }
    }
    if (!digits)
        return 0;
    if (i == length && significant <= 19 && mantissa <= (UINT64_C(1) << 53) && fraction <= 22) {
        double number = (double)mantissa / powers[fraction];
        *value = negative ? -number : number;
        return 1;
    }
    if (i < length) {
        if (text[i] != 'e' && text[i] != 'E')
            return 0;
        i++;
        if (i < length && (text[i] == '-' || text[i] == '+'))
            i++;
        if (i == length || length - i > 5)
            return 0;
        for (; i < length; i++)
            if (!is_digit(text[i]))
                return 0;
    }
    char copy[64];
    if (length >= sizeof copy)
        return 0;
    memcpy(copy, text, length);
    copy[length] = 0;
    char *end;
    double number = strtod(copy, &end);
    if (end != copy + length || isinf(number))
        return 0;
    *value = number;
    return 1;
}

static inline int two(const uint8_t *text) { return (text[0] - '0') * 10 + (text[1] - '0'); }

extern int32_t weir_year_starts[10001]; /* days from 1970-01-01 to the first of January of each year */

/* Days since 1970-01-01 of YYYY-MM-DD. */
static inline int days_of(const uint8_t *text, int64_t *days)
{
    static const uint16_t before[2][13] = {{0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365},
                                           {0, 31, 60, 91, 121, 152, 182, 213, 244, 274, 305, 335, 366}};
    uint64_t word;
    memcpy(&word, text, 8);
    /* YYYY-MM- with digits in place of its dashes; the day stands behind. */
    const uint64_t dashes = UINT64_C(0xff0000ff00000000), digits = (word & ~dashes) | (EACH(0x30) & dashes);
    if ((word & dashes) != (EACH('-') & dashes) || !all_digits(digits) || !is_digit(text[8]) || !is_digit(text[9]))
        return 0;
    const int year = two(text) * 100 + two(text + 2), month = two(text + 5), day = two(text + 8);
    const int leap = weir_year_starts[year + 1] - weir_year_starts[year] - 365;
    if (month < 1 || month > 12 || day < 1 || day > before[leap][month] - before[leap][month - 1])
        return 0;
    *days = weir_year_starts[year] + before[leap][month - 1] + day - 1;
    return 1;
}

/* Units of YYYY-MM-DD[ T]HH:MM:SS[.fraction][Z]; per_second units are a second, zone tells whether the Z must be there. */
static inline int timestamp_of(const uint8_t *text, size_t length, int64_t per_second, int zone, int64_t *value)
{
    int64_t days, fraction = 0, scale = per_second;
    if (zone) {
        if (!length || text[length - 1] != 'Z')
            return 0;
        length--;
    }
    if (length < 19 || !days_of(text, &days) || (text[10] != ' ' && text[10] != 'T') || text[13] != ':' || text[16] != ':')
        return 0;
    static const uint8_t at[] = {11, 12, 14, 15, 17, 18};
    for (int i = 0; i < 6; i++)
        if (!is_digit(text[at[i]]))
            return 0;
    int hour = two(text + 11), minute = two(text + 14), second = two(text + 17);
    if (hour > 23 || minute > 59 || second > 59)
        return 0;
    if (length > 19) {
        if (text[19] != '.' || length == 20)
            return 0;
        for (size_t i = 20; i < length; i++) {
            if (!is_digit(text[i]) || scale == 1)
                return 0;
            scale /= 10;
            fraction += (text[i] - '0') * scale;
        }
    }
    int64_t seconds = days * 86400 + hour * 3600 + minute * 60 + second, units;
    if (__builtin_mul_overflow(seconds, per_second, &units) || __builtin_add_overflow(units, fraction, value))
        return 0;
    return 1;
}

/* A decimal of precision digits, scale of them behind the point, as 128 bits in two's complement, the low half first. */
static inline int decimal_of(const uint8_t *text, size_t length, int precision, int scale, uint8_t *value)
{
    size_t i = 0;
    int negative = length && text[0] == '-', point = 0, digits = 0, whole = 0, fraction = 0;
    unsigned __int128 total = 0;
    for (i = (size_t)negative; i < length; i++) {
        if (text[i] == '.' && !point) {
            point = 1;
            continue;
        }
        if (!is_digit(text[i]))
            return 0;
        digits++;
        if (point)
            fraction++;
        else if (whole || text[i] != '0')
            whole++;
        if (whole + fraction > 38)
            return 0;
        total = total * 10 + (unsigned)(text[i] - '0');
    }
    if (!digits || (point && !fraction) || fraction > scale || whole > precision - scale)
        return 0;
    for (; fraction < scale; fraction++)
        total *= 10;
    __int128 number = negative ? -(__int128)total : (__int128)total;
    memcpy(value, &number, 16);
    return 1;
}

#endif
