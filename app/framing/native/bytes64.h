/* 64 bytes at a time, by the widest instructions that the library is built for. Of masks, bit i is byte i. */

#ifndef WEIR_BYTES64_H
#define WEIR_BYTES64_H

#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

typedef struct {
#if defined(__AVX2__)
    __m256i parts[2];
#elif defined(__SSE2__)
    __m128i parts[4];
#else
    const uint8_t *parts;
#endif
} bytes64;

static inline bytes64 bytes64_at(const uint8_t *p)
{
#if defined(__AVX2__)
    const __m256i *at = (const __m256i *)p;
    return (bytes64){{_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)}};
#elif defined(__SSE2__)
    const __m128i *at = (const __m128i *)p;
    return (bytes64){{_mm_loadu_si128(at), _mm_loadu_si128(at + 1), _mm_loadu_si128(at + 2), _mm_loadu_si128(at + 3)}};
#else
    return (bytes64){p};
#endif
}

/* Where byte stands. */
static inline uint64_t marks(bytes64 of, uint8_t byte)
{
    uint64_t found = 0;
#if defined(__AVX2__)
    for (int i = 0; i < 2; i++) {
        const __m256i equal = _mm256_cmpeq_epi8(of.parts[i], _mm256_set1_epi8((char)byte));
        found |= (uint64_t)(uint32_t)_mm256_movemask_epi8(equal) << (32 * i);
    }
#elif defined(__SSE2__)
    for (int i = 0; i < 4; i++) {
        const __m128i equal = _mm_cmpeq_epi8(of.parts[i], _mm_set1_epi8((char)byte));
        found |= (uint64_t)(uint32_t)_mm_movemask_epi8(equal) << (16 * i);
    }
#else
    for (int i = 0; i < 64; i++)
        found |= (uint64_t)(of.parts[i] == byte) << i;
#endif
    return found;
}

/* Whether all are ASCII, and none of them is byte. */
static inline int is_ascii_without(bytes64 of, uint8_t byte)
{
#if defined(__AVX2__)
    const __m256i it = _mm256_set1_epi8((char)byte);
    const __m256i equal = _mm256_or_si256(_mm256_cmpeq_epi8(of.parts[0], it), _mm256_cmpeq_epi8(of.parts[1], it));
    return !_mm256_movemask_epi8(_mm256_or_si256(equal, _mm256_or_si256(of.parts[0], of.parts[1])));
#elif defined(__SSE2__)
    const __m128i it = _mm_set1_epi8((char)byte);
    __m128i found = _mm_setzero_si128();
    for (int i = 0; i < 4; i++)
        found = _mm_or_si128(found, _mm_or_si128(of.parts[i], _mm_cmpeq_epi8(of.parts[i], it)));
    return !_mm_movemask_epi8(found);
#else
    int found = 0;
    for (int i = 0; i < 64; i++)
        found |= of.parts[i] >= 0x80 || of.parts[i] == byte;
    return !found;
#endif
}

static inline int is_ascii(bytes64 of) { return is_ascii_without(of, 0x80); }

/* Where an odd number of bits stands, from the first one up to here. */
static inline uint64_t parity(uint64_t bits)
{
#if defined(__PCLMUL__)
    return (uint64_t)_mm_cvtsi128_si64(_mm_clmulepi64_si128(_mm_cvtsi64_si128((int64_t)bits), _mm_set1_epi8(-1), 0));
#else
    for (int shift = 1; shift < 64; shift *= 2)
        bits ^= bits << shift;
    return bits;
#endif
}

#endif
