/* An index of keys that are all different: open addressing with linear probing, at most half full.

   slots[i] is 0, or one more than the row of a key. mask is the number of slots, a power of two, less one. */

#include <stdint.h>
#include <string.h>

/* The finalizer of SplitMix64 (G. Steele, D. Lea, C. Flood). */
static inline uint64_t mixed(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static uint64_t hash_of(const uint8_t *text, int32_t length)
{
    uint64_t hash = (uint64_t)length * UINT64_C(0x9e3779b97f4a7c15), word;
    for (; length >= 8; text += 8, length -= 8) {
        memcpy(&word, text, 8);
        hash = mixed(hash ^ word);
    }
    word = 0;
    memcpy(&word, text, (size_t)length);
    return mixed(hash ^ word);
}

/* Puts rows keys into empty slots. Gives -1, or the row of a key that was there before. */
int64_t weir_index_numbers(const int64_t *keys, int64_t rows, uint32_t *slots, uint64_t mask)
{
    for (int64_t row = 0; row < rows; row++) {
        uint64_t place = mixed((uint64_t)keys[row]) & mask;
        for (; slots[place]; place = (place + 1) & mask)
            if (keys[slots[place] - 1] == keys[row])
                return row;
        slots[place] = (uint32_t)row + 1;
    }
    return -1;
}

/* The rows at which keys of the index equal wanted ones, -1 where none does. */
void weir_find_numbers(const int64_t *wanted, int64_t rows, const int64_t *keys, const uint32_t *slots, uint64_t mask,
                       int32_t *found)
{
    for (int64_t row = 0; row < rows; row++) {
        uint64_t place = mixed((uint64_t)wanted[row]) & mask;
        while (slots[place] && keys[slots[place] - 1] != wanted[row])
            place = (place + 1) & mask;
        found[row] = (int32_t)slots[place] - 1;
    }
}

static inline int equal(const int32_t *offsets, const uint8_t *texts, uint32_t row, const uint8_t *text, int32_t length)
{
    return offsets[row + 1] - offsets[row] == length && !memcmp(texts + offsets[row], text, (size_t)length);
}

/* As weir_index_numbers; a text is what stands between two offsets. */
int64_t weir_index_texts(const int32_t *offsets, const uint8_t *texts, int64_t rows, uint32_t *slots, uint64_t mask)
{
    for (int64_t row = 0; row < rows; row++) {
        const uint8_t *text = texts + offsets[row];
        const int32_t length = offsets[row + 1] - offsets[row];
        uint64_t place = hash_of(text, length) & mask;
        for (; slots[place]; place = (place + 1) & mask)
            if (equal(offsets, texts, slots[place] - 1, text, length))
                return row;
        slots[place] = (uint32_t)row + 1;
    }
    return -1;
}

/* As weir_find_numbers. */
void weir_find_texts(const int32_t *wanted_offsets, const uint8_t *wanted, int64_t rows, const int32_t *offsets,
                     const uint8_t *texts, const uint32_t *slots, uint64_t mask, int32_t *found)
{
    for (int64_t row = 0; row < rows; row++) {
        const uint8_t *text = wanted + wanted_offsets[row];
        const int32_t length = wanted_offsets[row + 1] - wanted_offsets[row];
        uint64_t place = hash_of(text, length) & mask;
        while (slots[place] && !equal(offsets, texts, slots[place] - 1, text, length))
            place = (place + 1) & mask;
        found[row] = (int32_t)slots[place] - 1;
    }
}
