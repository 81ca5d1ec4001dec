/* An index of keys that are all different: open addressing with linear probing, at most half full.

   To find a key takes as long as memory does, so the slots of many are asked for before the first is looked at, and a slot
   has all that tells most keys apart. mask is the number of slots, a power of two, less one. */

#include <stdint.h>
#include <string.h>

#define TOGETHER 64

/* Empty if row is 0, which is one more than the row of a key. A number is its own word. Of a text the word is its first
   eight bytes, and the mark its length if these are all of it, or else more than 8, by its hash. */
typedef struct {
    uint64_t word;
    uint32_t mark, row;
} slot;

/* Keys of an array: numbers, or what stands between offsets in texts. validity may be NULL; offset counts its bits alone. */
typedef struct {
    const uint8_t *texts;
    const int32_t *offsets;
    const int64_t *numbers;
    const uint8_t *validity;
    int64_t offset, rows;
} keys;

/* The finalizer of SplitMix64 (G. Steele, D. Lea, C. Flood). */
static inline uint64_t mixed(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* Up to eight bytes as a number; none behind them is read. */
static inline uint64_t word_of(const uint8_t *text, int32_t length)
{
    uint64_t word = 0;
    uint32_t low, high;
    if (length >= 8) {
        memcpy(&word, text, 8);
    } else if (length >= 4) {
        memcpy(&low, text, 4);
        memcpy(&high, text + length - 4, 4);
        word = low | (uint64_t)high << 8 * (length - 4);
    } else {
        for (int32_t i = 0; i < length; i++)
            word |= (uint64_t)text[i] << 8 * i;
    }
    return word;
}

static inline uint64_t hash_of(const uint8_t *text, int32_t length)
{
    uint64_t hash = (uint64_t)length * UINT64_C(0x9e3779b97f4a7c15);
    for (; length > 8; text += 8, length -= 8)
        hash = mixed(hash ^ word_of(text, 8));
    return mixed(hash ^ word_of(text, length));
}

/* The slot of a key as it would be, and its hash. */
static inline uint64_t described(const keys *of, int64_t row, slot *found)
{
    if (of->numbers) {
        *found = (slot){(uint64_t)of->numbers[row], 0, (uint32_t)row + 1};
        return mixed(found->word);
    }
    const uint8_t *text = of->texts + of->offsets[row];
    const int32_t length = of->offsets[row + 1] - of->offsets[row];
    const uint64_t hash = hash_of(text, length);
    *found = (slot){word_of(text, length), length <= 8 ? (uint32_t)length : (uint32_t)(hash >> 32) | 16, (uint32_t)row + 1};
    return hash;
}

static inline int is_same(const keys *a, int64_t row, const keys *b, int64_t other)
{
    const int32_t length = a->offsets[row + 1] - a->offsets[row];
    return b->offsets[other + 1] - b->offsets[other] == length &&
           !memcmp(a->texts + a->offsets[row], b->texts + b->offsets[other], (size_t)length);
}

/* Where a key stands, or the empty slot where it would. */
static inline uint64_t place_of(const keys *of, const slot *key, uint64_t hash, const keys *indexed, const slot *slots,
                                uint64_t mask)
{
    uint64_t place = hash & mask;
    for (; slots[place].row; place = (place + 1) & mask)
        if (slots[place].word == key->word && slots[place].mark == key->mark &&
            (key->mark <= 8 || is_same(of, key->row - 1, indexed, slots[place].row - 1)))
            break;
    return place;
}

/* Puts all keys into empty slots. Gives -1, or the row of a key that was there before. */
int64_t weir_index(const keys *of, slot *slots, uint64_t mask)
{
    for (int64_t row = 0; row < of->rows; row++) {
        slot key;
        const uint64_t hash = described(of, row, &key);
        const uint64_t place = place_of(of, &key, hash, of, slots, mask);
        if (slots[place].row)
            return row;
        slots[place] = key;
    }
    return -1;
}

/* The rows at which keys of the index equal wanted ones, -1 where none does. Where kept is not NULL, those are left out, and
   the numbers of the others stand in kept. lengths, if not NULL, has one for each row of the index; those of what was found
   are added to length_sum. Gives for how many there is none. */
int64_t weir_find(const keys *wanted, const keys *indexed, const slot *slots, uint64_t mask, const int32_t *lengths,
                  int32_t *rows, int32_t *kept, int64_t *length_sum)
{
    slot described_keys[TOGETHER];
    uint64_t hashes[TOGETHER];
    int64_t made = 0, missing = 0, sum = 0;
    for (int64_t first = 0; first < wanted->rows; first += TOGETHER) {
        const int64_t count = wanted->rows - first < TOGETHER ? wanted->rows - first : TOGETHER;
        for (int64_t i = 0; i < count; i++) {
            hashes[i] = described(wanted, first + i, &described_keys[i]);
            __builtin_prefetch(&slots[hashes[i] & mask]);
        }
        for (int64_t i = 0; i < count; i++) {
            const int64_t row = first + i, bit = wanted->offset + row;
            int32_t found = -1;
            if (!wanted->validity || wanted->validity[bit >> 3] >> (bit & 7) & 1)
                found = (int32_t)slots[place_of(wanted, &described_keys[i], hashes[i], indexed, slots, mask)].row - 1;
            sum += lengths && found >= 0 ? lengths[found] : 0;
            missing += found < 0;
            rows[made] = found;
            if (kept)
                kept[made] = (int32_t)row;
            made += !kept || found >= 0;
        }
    }
    *length_sum += sum;
    return missing;
}
