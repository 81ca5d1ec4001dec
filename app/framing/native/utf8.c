#include "utf8.h"

#include <string.h>

#include "bytes64.h"

#if defined(__AVX2__)

/* What can be wrong with two bytes that follow each other: it is, where half a byte of each allows for it (J. Keiser and
   D. Lemire, "Validating UTF-8 in less than one instruction per byte"). */
enum {
    SHORT = 1,        /* a first byte, and then none that goes on */
    LONG = 2,         /* ASCII, and then a byte that goes on */
    OVERLONG_3 = 4,
    LARGE = 8,        /* beyond 10FFFF: the second byte is above 8F, */
    SURROGATE = 16,
    OVERLONG_2 = 32,
    LARGE_OR_4 = 64,  /* or the first is above F4; or it is F0, and the character has a shorter form */
    TWO = 128,        /* two bytes go on, which is right for a third and a fourth byte */
    ANY = SHORT | LONG | TWO,
};

/* The half bytes index a table of sixteen. */
static inline __m256i looked_up(__m256i halves, const uint8_t *table)
{
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table)), halves);
}

static inline __m256i upper_halves(__m256i bytes)
{
    return _mm256_and_si256(_mm256_srli_epi16(bytes, 4), _mm256_set1_epi8(0x0f));
}

/* What is not zero is wrong in 32 bytes, which follow those before. */
static inline __m256i errors(__m256i before, __m256i here)
{
    static const uint8_t first_upper[16] = {
        LONG, LONG, LONG, LONG, LONG, LONG, LONG, LONG, TWO, TWO, TWO, TWO,
        SHORT | OVERLONG_2, SHORT, SHORT | OVERLONG_3 | SURROGATE, SHORT | LARGE | LARGE_OR_4,
    };
    enum { BEYOND = ANY | LARGE | LARGE_OR_4 };
    static const uint8_t first_lower[16] = {
        ANY | OVERLONG_3 | OVERLONG_2 | LARGE_OR_4, ANY | OVERLONG_2, ANY, ANY, ANY | LARGE, BEYOND, BEYOND, BEYOND,
        BEYOND, BEYOND, BEYOND, BEYOND, BEYOND, BEYOND | SURROGATE, BEYOND, BEYOND,
    };
    enum { GOES_ON = LONG | OVERLONG_2 | TWO };
    static const uint8_t second_upper[16] = {
        SHORT, SHORT, SHORT, SHORT, SHORT, SHORT, SHORT, SHORT, GOES_ON | OVERLONG_3 | LARGE_OR_4,
        GOES_ON | OVERLONG_3 | LARGE, GOES_ON | SURROGATE | LARGE, GOES_ON | SURROGATE | LARGE, SHORT, SHORT, SHORT, SHORT,
    };
    const __m256i middle = _mm256_permute2x128_si256(before, here, 0x21);
    const __m256i one_back = _mm256_alignr_epi8(here, middle, 15), two_back = _mm256_alignr_epi8(here, middle, 14);
    const __m256i three_back = _mm256_alignr_epi8(here, middle, 13);
    const __m256i pairs = _mm256_and_si256(
        _mm256_and_si256(looked_up(upper_halves(one_back), first_upper),
                         looked_up(_mm256_and_si256(one_back, _mm256_set1_epi8(0x0f)), first_lower)),
        looked_up(upper_halves(here), second_upper));
    /* A third or a fourth byte has to be there where TWO was found, and nowhere else. */
    const __m256i third = _mm256_subs_epu8(two_back, _mm256_set1_epi8(0xe0 - 0x80));
    const __m256i fourth = _mm256_subs_epu8(three_back, _mm256_set1_epi8(0xf0 - 0x80));
    const __m256i expected = _mm256_and_si256(_mm256_or_si256(third, fourth), _mm256_set1_epi8((char)TWO));
    return _mm256_xor_si256(expected, pairs);
}

int is_utf8(const uint8_t *data, int64_t nbytes)
{
    __m256i wrong = _mm256_setzero_si256(), before = wrong;
    int was_ascii = 1;
    uint8_t last[64] = {0};
    /* To the end and beyond: a character that is not whole is followed by a zero. */
    for (int64_t at = 0; at <= nbytes; at += 64) {
        if (at + 64 > nbytes)
            memcpy(last, data + at, (size_t)(nbytes - at));
        const bytes64 here = bytes64_at(at + 64 > nbytes ? last : data + at);
        const int ascii = is_ascii(here);
        if (!ascii || !was_ascii) {
            wrong = _mm256_or_si256(wrong, errors(before, here.parts[0]));
            wrong = _mm256_or_si256(wrong, errors(here.parts[0], here.parts[1]));
        }
        before = here.parts[1];
        was_ascii = ascii;
    }
    return _mm256_testz_si256(wrong, wrong);
}

#else

int is_utf8(const uint8_t *data, int64_t nbytes)
{
    int64_t i = 0;
    while (i < nbytes) {
        uint64_t word;
        if (i + 64 <= nbytes && is_ascii(bytes64_at(data + i))) {
            i += 64;
            continue;
        }
        if (i + 8 <= nbytes && (memcpy(&word, data + i, 8), !(word & UINT64_C(0x8080808080808080)))) {
            i += 8;
            continue;
        }
        uint8_t c = data[i];
        if (c < 0x80) {
            i++;
            continue;
        }
        int more = c >= 0xc2 && c <= 0xdf ? 1 : c >= 0xe0 && c <= 0xef ? 2 : c >= 0xf0 && c <= 0xf4 ? 3 : 0;
        if (!more || i + more >= nbytes)
            return 0;
        uint8_t low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80, high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
        if (data[i + 1] < low || data[i + 1] > high)
            return 0;
        for (int k = 2; k <= more; k++)
            if ((data[i + k] & 0xc0) != 0x80)
                return 0;
        i += more + 1;
    }
    return 1;
}

#endif
