/* Digits are found by one division where a number has few of them behind its point, and else as R. Giulietti does in "The
   Schubfach way to render doubles"; they are then set as pyarrow has them (by double-conversion, with a plain point from
   1e-6 to below 1e10). */

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "digits.h"
#include "floats.h"

enum { FIRST_POWER = -292, LAST_POWER = 324, WORDS = 40 };

/* The first 128 bits of powers of ten, rounded up. */
static unsigned __int128 tens[LAST_POWER - FIRST_POWER + 1];

/* The first 128 bits of a number whose lowest word is words[0]; more is set if there are others behind them. */
static unsigned __int128 first_bits(const uint32_t *words, int *more)
{
    int top = WORDS - 1;
    while (!words[top])
        top--;
    const int shift = __builtin_clz(words[top]);
    unsigned __int128 bits = 0;
    for (int i = top; i > top - 4; i--)
        bits = bits << 32 | (i < 0 ? 0 : words[i]);
    const uint64_t next = top < 4 ? 0 : (uint64_t)words[top - 4] << shift;
    *more = (uint32_t)next != 0;
    for (int i = 0; i < top - 4; i++)
        *more |= words[i] != 0;
    return bits << shift | next >> 32;
}

__attribute__((constructor)) static void count_tens(void)
{
    uint32_t words[WORDS] = {1};
    int more;
    for (int power = 0; power <= LAST_POWER; power++) {
        tens[power - FIRST_POWER] = first_bits(words, &more) + (unsigned)more;
        uint64_t carry = 0;
        for (int i = 0; i < WORDS; i++) {
            carry += (uint64_t)words[i] * 10;
            words[i] = (uint32_t)carry;
            carry >>= 32;
        }
    }
    memset(words, 0, sizeof words);
    words[WORDS - 1] = 1;
    for (int power = -1; power >= FIRST_POWER; power--) {
        uint64_t rest = 0;
        for (int i = WORDS - 1; i >= 0; i--) {
            rest = rest << 32 | words[i];
            words[i] = (uint32_t)(rest / 10);
            rest %= 10;
        }
        tens[power - FIRST_POWER] = first_bits(words, &more) + 1; /* they never end */
    }
}

/* The upper 64 bits of a product of 192, the lowest of them set if there are bits behind. */
static inline uint64_t rounded_to_odd(unsigned __int128 ten, uint64_t factor)
{
    const unsigned __int128 low = (unsigned __int128)(uint64_t)ten * factor;
    const unsigned __int128 high = (unsigned __int128)(uint64_t)(ten >> 64) * factor + (uint64_t)(low >> 64);
    return (uint64_t)(high >> 64) | ((uint64_t)high > 1);
}

/* The shortest digits, and of these the nearest, that are read as bits * 2^power; below is set where the next number
   below is half as far as the one above. There may be zeros behind them. Names are those of the paper. */
static uint64_t shortest(uint64_t c, int q, int below, int *exponent)
{
    const int k = (q * 1262611 - (below ? 524031 : 0)) >> 22;
    const int h = q + ((-k * 1741647) >> 19) + 1;
    const unsigned __int128 ten = tens[-k - FIRST_POWER];
    const uint64_t odd = c & 1;
    const uint64_t lower = rounded_to_odd(ten, (4 * c - 2 + (uint64_t)below) << h) + odd;
    const uint64_t upper = rounded_to_odd(ten, (4 * c + 2) << h) - odd;
    const uint64_t exact = rounded_to_odd(ten, (4 * c) << h), s = exact / 4;
    if (s >= 10) {
        const uint64_t fewer = s / 10;
        const int down = lower <= 40 * fewer, up = 40 * fewer + 40 <= upper;
        if (down != up) {
            *exponent = k + 1;
            return fewer + (uint64_t)up;
        }
    }
    *exponent = k;
    const int down = lower <= 4 * s, up = 4 * s + 4 <= upper;
    if (down != up)
        return s + (uint64_t)up;
    return s + (exact > 4 * s + 2 || (exact == 4 * s + 2 && (s & 1)));
}

static inline uint8_t *put_exponent(uint8_t *out, int exponent)
{
    *out++ = 'e';
    *out++ = exponent < 0 ? '-' : '+';
    const unsigned size = (unsigned)(exponent < 0 ? -exponent : exponent);
    if (size >= 100)
        *out++ = (uint8_t)('0' + size / 100);
    if (size >= 10)
        *out++ = (uint8_t)('0' + size / 10 % 10);
    *out++ = (uint8_t)('0' + size % 10);
    return out;
}

/* number * 10^exponent, of a number above 0 and below 10^17. */
static inline uint8_t *put_decimal(uint8_t *out, uint64_t number, int exponent)
{
    uint64_t words[] = {0, 0, digits_of((uint32_t)(number % 100000000))};
    int first = 2, last = 2;
    if (number >= 100000000) {
        const uint64_t upper = number / 100000000;
        words[1] = digits_of((uint32_t)(upper % 100000000));
        words[0] = upper / 100000000 << 56;
        first = words[0] ? 0 : 1;
        while (!words[last])
            last--;
    }
    uint8_t text[48]; /* the words, and zeros behind them */
    memset(text, '0', sizeof text);
    const uint8_t *const digits = text + 8 * first + __builtin_ctzll(words[first]) / 8;
    const int length = (int)(text + 8 * last + 8 - digits) - __builtin_clzll(words[last]) / 8;
    for (int i = 0; i < 3; i++) {
        words[i] += EACH('0');
        memcpy(text + 8 * i, words + i, 8);
    }
    const int point = (int)(text + 24 - digits) + exponent;
    if (point < -5 || point > 10) {
        *out++ = digits[0];
        if (length > 1) {
            *out++ = '.';
            memcpy(out, digits + 1, 16);
            out += length - 1;
        }
        return put_exponent(out, point - 1);
    }
    if (point <= 0) {
        memcpy(out, "0.000000", 8);
        out += 2 - point;
        memcpy(out, digits, 17);
        return out + length;
    }
    memcpy(out, digits, 16);
    if (length <= point)
        return out + point;
    out[point] = '.';
    memcpy(out + point + 1, digits + point, 16);
    return out + length + 1;
}

/* whole + fraction / 10^8, of which neither has more than eight digits. */
static inline uint8_t *put_fixed(uint8_t *out, uint32_t whole, uint32_t fraction)
{
    out = put_short(out, whole);
    if (!fraction)
        return out;
    *out = '.';
    return put_eight(out + 1, fraction) - __builtin_clzll(digits_of(fraction)) / 8;
}

/* What has no digits. */
static inline uint8_t *put_word(uint8_t *out, const char *word, size_t length)
{
    memcpy(out, word, length);
    return out + length;
}

uint8_t *put_double(uint8_t *out, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, 8);
    if (bits >> 63)
        *out++ = '-';
    value = fabs(value);
    /* No two numbers of up to 15 digits are read as the same double: if one is, it is the shortest. */
    if (value < 1e7 && value >= 1e-6) {
        const int64_t number = (int64_t)(value * 1e8 + 0.5);
        if ((double)number / 1e8 == value)
            return put_fixed(out, (uint32_t)(number / 100000000), (uint32_t)(number % 100000000));
    }
    const uint64_t fraction = bits & ((UINT64_C(1) << 52) - 1);
    const int power = (int)(bits >> 52 & 0x7ff);
    if (power == 0x7ff)
        return fraction ? put_word(out - (bits >> 63), "nan", 3) : put_word(out, "inf", 3);
    if (!power && !fraction)
        return put_word(out, "0", 1);
    int exponent;
    const uint64_t number = power ? shortest(fraction | UINT64_C(1) << 52, power - 1075, !fraction && power > 1, &exponent)
                                  : shortest(fraction, -1074, 0, &exponent);
    return put_decimal(out, number, exponent);
}

uint8_t *put_float(uint8_t *out, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (bits >> 31)
        *out++ = '-';
    value = fabsf(value);
    /* As above; of floats it is six digits. */
    if (value < 1e3f && value >= 1e-3f) {
        const int32_t number = (int32_t)(value * 1e3f + 0.5f);
        if ((float)number / 1e3f == value)
            return put_fixed(out, (uint32_t)number / 1000, (uint32_t)number % 1000 * 100000);
    }
    const uint32_t fraction = bits & ((UINT32_C(1) << 23) - 1);
    const int power = (int)(bits >> 23 & 0xff);
    if (power == 0xff)
        return fraction ? put_word(out - (bits >> 31), "nan", 3) : put_word(out, "inf", 3);
    if (!power && !fraction)
        return put_word(out, "0", 1);
    int exponent;
    const uint64_t number = power ? shortest(fraction | UINT32_C(1) << 23, power - 150, !fraction && power > 1, &exponent)
                                  : shortest(fraction, -149, 0, &exponent);
    return put_decimal(out, number, exponent);
}
