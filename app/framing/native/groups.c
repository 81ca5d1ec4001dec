/* Rows to groups, and their totals. A group's key is a number, or a text: of up to 15 bytes within its entry, or in an
   arena. Slots are open addresses with linear probing, at most three quarters of them taken. Nothing here allocates: what
   finds no room says so, and goes on from the same row once there is some. */

#include <stdint.h>
#include <string.h>

enum { NUMBER, TEXT, ROW }; /* one key of up to 8 bytes, one text, or all else: keys that are put together to a text */
enum { ROWS, VALID, SUM, MIN, MAX, FIRST, LAST, COUNTED }; /* the last: counts of other tables */
enum { SIGNED, UNSIGNED, FLOATING, CHARACTERS };
enum { NOTHING, GROUPS, KEY_BYTES, TEXT_BYTES }; /* what there is no room for; of the first total, its number more */
enum { BLOCK = 1024, LONG = 255, NONE = 254 };

typedef __int128 int128_t;

/* A column of Arrow; validity may be NULL: nothing is null. width is that of a value, of an offset where family is
   CHARACTERS. In a result, nbytes is what the texts take. */
typedef struct {
    uint8_t *validity, *values, *offsets;
    int64_t offset, nbytes;
    int32_t family, width;
} column;

/* state has one value a group, which is seen: 0 not yet, 1 yes, 2 and is null. Texts are spans of the arena. */
typedef struct {
    column in;
    uint8_t *state, *seen, *arena;
    int64_t arena_used, arena_bytes;
    int32_t kind, unused;
} total;

typedef struct {
    int64_t start;
    uint32_t length, room;
} span;

/* slots[i] is 0, or one more than the number of a group; mask is their number, a power of two, less one. An entry is two
   words for each group: of a number itself and 0; of a text the first 8 bytes, and the others below the length; or its
   hash, and below LONG where the arena has 8 bytes of length and the text. Below NONE the key is null. leads may be NULL,
   or has what tells groups apart beside their keys. */
typedef struct {
    uint64_t *entries;
    int64_t *leads;
    uint32_t *slots;
    uint8_t *arena;
    uint64_t mask, seed;
    int64_t groups, most_groups, arena_used, arena_bytes, needed_bytes;
    int32_t mode, keys, totals, block, wants, unused;
} table;

static inline uint64_t load(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, 8);
    return word;
}

static inline uint32_t load_half(const uint8_t *p)
{
    uint32_t word;
    memcpy(&word, p, 4);
    return word;
}

static inline int is_valid(const uint8_t *validity, int64_t i) { return !validity || validity[i >> 3] >> (i & 7) & 1; }

/* The multiplication of wyhash (Wang Yi). What is multiplied is secret, so that nobody can make many keys collide. */
static inline uint64_t folded(uint64_t a, uint64_t b)
{
    const unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t other(uint64_t seed) { return (seed << 32 | seed >> 32) * UINT64_C(0x9e3779b97f4a7c15) | 1; }

static inline uint64_t hash_of_words(uint64_t a, uint64_t b, int64_t lead, uint64_t seed)
{
    return folded(a ^ seed, b ^ other(seed)) + (uint64_t)lead * UINT64_C(0x9e3779b97f4a7c15);
}

static uint64_t hash_of_long(const uint8_t *text, int64_t length, uint64_t seed)
{
    uint64_t hash = seed ^ (uint64_t)length;
    for (int64_t i = 0; i + 16 < length; i += 16)
        hash = folded(load(text + i) ^ hash, load(text + i + 8) ^ other(seed));
    return folded(load(text + length - 16) ^ hash, load(text + length - 8) ^ other(seed));
}

/* The words of a text of up to 15 bytes, of which none behind it is read. */
static inline void short_words(const uint8_t *text, int64_t length, uint64_t *a, uint64_t *b)
{
    *b = 0;
    if (length >= 8) {
        *a = load(text);
        *b = load(text + length - 8) >> 8 * (15 - length) >> 8;
    } else if (length >= 4) {
        *a = load_half(text) | (uint64_t)load_half(text + length - 4) << 8 * (length - 4);
    } else if (length) {
        *a = text[0] | (uint64_t)text[length >> 1] << 8 * (length >> 1) | (uint64_t)text[length - 1] << 8 * (length - 1);
    } else {
        *a = 0;
    }
    *b |= (uint64_t)length << 56;
}

static inline int64_t lead_of(const table *t, int64_t group) { return t->leads ? t->leads[group] : 0; }

/* Where a long text is looked for. */
static inline uint64_t long_place(uint64_t hash, int64_t lead) { return hash_of_words(0, 0, lead, hash); }

/* Puts all groups into slots, of which there are more than before. */
void weir_groups_index(table *t)
{
    memset(t->slots, 0, 4 * (t->mask + 1));
    for (int64_t group = 0; group < t->groups; group++) {
        const uint64_t a = t->entries[2 * group], b = t->entries[2 * group + 1];
        const int64_t lead = lead_of(t, group);
        uint64_t place = b >> 56 == LONG ? long_place(a, lead) : hash_of_words(a, b, lead, t->seed);
        for (place &= t->mask; t->slots[place]; place = (place + 1) & t->mask)
            ;
        t->slots[place] = (uint32_t)group + 1;
    }
}

/* The number of a new group; -1 where there is no room. */
static inline int32_t new_group(table *t, uint64_t place, uint64_t a, uint64_t b, int64_t lead)
{
    if (t->groups == t->most_groups) {
        t->wants = GROUPS;
        return -1;
    }
    const int32_t group = (int32_t)t->groups++;
    t->slots[place] = (uint32_t)group + 1;
    t->entries[2 * group] = a, t->entries[2 * group + 1] = b;
    if (t->leads)
        t->leads[group] = lead;
    return group;
}

static inline int32_t group_of_words(table *t, uint64_t a, uint64_t b, int64_t lead)
{
    uint64_t place = hash_of_words(a, b, lead, t->seed) & t->mask;
    for (uint32_t slot; (slot = t->slots[place]); place = (place + 1) & t->mask) {
        const uint64_t *entry = t->entries + 2 * (uint64_t)(slot - 1);
        if (entry[0] == a && entry[1] == b && lead_of(t, slot - 1) == lead)
            return (int32_t)slot - 1;
    }
    return new_group(t, place, a, b, lead);
}

static inline int has_room(table *t, int64_t nbytes)
{
    if (t->arena_bytes - t->arena_used >= nbytes)
        return 1;
    t->wants = KEY_BYTES;
    t->needed_bytes = nbytes;
    return 0;
}

/* A text of 16 bytes and more, which may stand where the arena would have it. */
static int32_t group_of_long(table *t, const uint8_t *text, int64_t length, int64_t lead)
{
    const uint64_t hash = hash_of_long(text, length, t->seed);
    uint64_t place = long_place(hash, lead) & t->mask;
    for (uint32_t slot; (slot = t->slots[place]); place = (place + 1) & t->mask) {
        const uint64_t *entry = t->entries + 2 * (uint64_t)(slot - 1);
        if (entry[0] != hash || entry[1] >> 56 != LONG || lead_of(t, slot - 1) != lead)
            continue;
        const uint8_t *there = t->arena + (entry[1] << 8 >> 8);
        if (load(there) == (uint64_t)length && !memcmp(there + 8, text, (size_t)length))
            return (int32_t)slot - 1;
    }
    if (!has_room(t, length + 8))
        return -1;
    const int32_t group = new_group(t, place, hash, (uint64_t)LONG << 56 | (uint64_t)t->arena_used, lead);
    if (group < 0)
        return -1;
    memcpy(t->arena + t->arena_used, &length, 8);
    if (t->mode == TEXT)
        memcpy(t->arena + t->arena_used + 8, text, (size_t)length);
    t->arena_used += length + 8;
    return group;
}

static inline int64_t text_at(const column *c, int64_t i, const uint8_t **text)
{
    int64_t start, end;
    if (c->width == 4) {
        int32_t ends[2];
        memcpy(ends, c->offsets + 4 * i, 8);
        start = ends[0], end = ends[1];
    } else {
        memcpy(&start, c->offsets + 8 * i, 8);
        memcpy(&end, c->offsets + 8 * i + 8, 8);
    }
    *text = c->values + start;
    return end - start;
}

/* Where all rows are until one is elsewhere: those that follow one another are often of the same group. */
typedef struct {
    uint64_t a, b;
    int64_t lead;
    int32_t group;
} recent;

static inline int32_t group_after(table *t, recent *last, uint64_t a, uint64_t b, int64_t lead)
{
    if (last->group < 0 || a != last->a || b != last->b || lead != last->lead)
        *last = (recent){a, b, lead, group_of_words(t, a, b, lead)};
    return last->group;
}

/* Each assign gives the numbers of the groups of rows, and how many there was room for. */
#define ASSIGN_NUMBERS(type)                                                                                           \
    for (int64_t i = 0; i < rows; i++) {                                                                               \
        type value;                                                                                                    \
        memcpy(&value, c->values + (c->offset + row + i) * (int64_t)sizeof value, sizeof value);                       \
        const int valid = is_valid(c->validity, c->offset + row + i);                                                  \
        const uint64_t a = valid ? value : 0, b = valid ? 0 : (uint64_t)NONE << 56;                                    \
        if ((numbers[i] = group_after(t, &last, a, b, leads ? leads[row + i] : 0)) < 0)                                \
            return i;                                                                                                  \
    }                                                                                                                  \
    return rows;

static int64_t assign_numbers(table *t, const column *c, const int64_t *leads, int64_t row, int64_t rows, int32_t *numbers)
{
    recent last = {0, 0, 0, -1};
    switch (c->width) {
    case 1:
        ASSIGN_NUMBERS(uint8_t)
    case 2:
        ASSIGN_NUMBERS(uint16_t)
    case 4:
        ASSIGN_NUMBERS(uint32_t)
    default:
        ASSIGN_NUMBERS(uint64_t)
    }
}

static int64_t assign_texts(table *t, const column *c, const int64_t *leads, int64_t row, int64_t rows, int32_t *numbers)
{
    recent last = {0, 0, 0, -1};
    for (int64_t i = 0; i < rows; i++) {
        const int64_t lead = leads ? leads[row + i] : 0;
        const uint8_t *text = NULL;
        const int valid = is_valid(c->validity, c->offset + row + i);
        const int64_t length = valid ? text_at(c, c->offset + row + i, &text) : 0;
        uint64_t a = 0, b = (uint64_t)NONE << 56;
        if (length > 15) {
            numbers[i] = group_of_long(t, text, length, lead);
        } else {
            if (valid)
                short_words(text, length, &a, &b);
            numbers[i] = group_after(t, &last, a, b, lead);
        }
        if (numbers[i] < 0)
            return i;
    }
    return rows;
}

/* Before each key: 0 if it is null, otherwise 1; of a text one more than its length, or 255 and the length in 8 bytes. */
static int64_t assign_rows(table *t, const column *keys, const int64_t *leads, int64_t row, int64_t rows, int32_t *numbers)
{
    for (int64_t i = 0; i < rows; i++) {
        const int64_t lead = leads ? leads[row + i] : 0;
        int64_t most_bytes = 8;
        const uint8_t *text;
        for (const column *c = keys; c < keys + t->keys; c++)
            most_bytes += c->family == CHARACTERS ? 9 + text_at(c, c->offset + row + i, &text) : 1 + c->width;
        if (!has_room(t, most_bytes))
            return i;
        uint8_t *const start = t->arena + t->arena_used + 8, *p = start;
        for (const column *c = keys; c < keys + t->keys; c++) {
            const int64_t at = c->offset + row + i;
            if (!is_valid(c->validity, at)) {
                *p++ = 0;
                continue;
            }
            if (c->family != CHARACTERS) {
                *p++ = 1;
                memcpy(p, c->values + at * c->width, (size_t)c->width);
                p += c->width;
                continue;
            }
            const int64_t length = text_at(c, at, &text);
            *p++ = (uint8_t)(length < 254 ? length + 1 : 255);
            if (length >= 254) {
                memcpy(p, &length, 8);
                p += 8;
            }
            memcpy(p, text, (size_t)length);
            p += length;
        }
        if (p - start > 15) {
            numbers[i] = group_of_long(t, start, p - start, lead);
        } else {
            uint64_t a, b;
            short_words(start, p - start, &a, &b);
            numbers[i] = group_of_words(t, a, b, lead);
        }
        if (numbers[i] < 0)
            return i;
    }
    return rows;
}

static int64_t assign(table *t, const column *keys, const int64_t *leads, int64_t row, int64_t rows, int32_t *numbers)
{
    if (t->mode == NUMBER)
        return assign_numbers(t, keys, leads, row, rows, numbers);
    if (t->mode == TEXT)
        return assign_texts(t, keys, leads, row, rows, numbers);
    if (t->keys)
        return assign_rows(t, keys, leads, row, rows, numbers);
    recent last = {0, 0, 0, -1};
    for (int64_t i = 0; i < rows; i++)
        if ((numbers[i] = group_after(t, &last, 0, 0, leads ? leads[row + i] : 0)) < 0)
            return i;
    return rows;
}

/* A NaN is greater than any other number. */
#define LESS(a, b) ((a) < (b))
#define LESS_FLOAT(a, b) ((a) < (b) || ((b) != (b) && (a) == (a)))
#define NOT_MORE(a, b) (!LESS_FLOAT(b, a)) /* of 0.0 and -0.0 the later one is taken, as in DuckDB */

/* What is done with each value that is not null. */
#define EACH(type, what)                                                                                               \
    {                                                                                                                  \
        const uint8_t *values = in->values + first * (int64_t)sizeof(type);                                            \
        type value;                                                                                                    \
        if (in->validity)                                                                                              \
            for (int64_t i = 0; i < rows; i++) {                                                                       \
                if (!is_valid(in->validity, first + i))                                                                \
                    continue;                                                                                          \
                memcpy(&value, values + i * (int64_t)sizeof value, sizeof value);                                      \
                const int32_t g = numbers[i];                                                                          \
                what;                                                                                                  \
                seen[g] = 1;                                                                                           \
            }                                                                                                          \
        else                                                                                                           \
            for (int64_t i = 0; i < rows; i++) {                                                                       \
                memcpy(&value, values + i * (int64_t)sizeof value, sizeof value);                                      \
                const int32_t g = numbers[i];                                                                          \
                what;                                                                                                  \
                seen[g] = 1;                                                                                           \
            }                                                                                                          \
        return 0;                                                                                                      \
    }
#define TAKE_IF(type, better) EACH(type, if (!seen[g] || (better)) ((type *)state)[g] = value)
#define EXTREME(type, less)                                                                                            \
    if (of->kind == MIN)                                                                                               \
        TAKE_IF(type, less(value, ((type *)state)[g]))                                                                 \
    else                                                                                                               \
        TAKE_IF(type, less(((type *)state)[g], value))
#define SUM_WHOLE(type) EACH(type, ((int128_t *)state)[g] += value)

static int64_t sum(const total *of, int64_t first, int64_t rows, const int32_t *numbers)
{
    const column *in = &of->in;
    uint8_t *state = of->state, *seen = of->seen;
    switch (in->family << 8 | in->width) {
    case SIGNED << 8 | 1:
        SUM_WHOLE(int8_t)
    case SIGNED << 8 | 2:
        SUM_WHOLE(int16_t)
    case SIGNED << 8 | 4:
        SUM_WHOLE(int32_t)
    case SIGNED << 8 | 8:
        SUM_WHOLE(int64_t)
    case SIGNED << 8 | 16:
        EACH(int128_t, if (__builtin_add_overflow(((int128_t *)state)[g], value, (int128_t *)state + g)) return -1)
    case UNSIGNED << 8 | 1:
        SUM_WHOLE(uint8_t)
    case UNSIGNED << 8 | 2:
        SUM_WHOLE(uint16_t)
    case UNSIGNED << 8 | 4:
        SUM_WHOLE(uint32_t)
    case UNSIGNED << 8 | 8:
        SUM_WHOLE(uint64_t)
    case FLOATING << 8 | 4:
        EACH(float, ((double *)state)[g] += value)
    default:
        EACH(double, ((double *)state)[g] += value)
    }
}

static int64_t extreme(const total *of, int64_t first, int64_t rows, const int32_t *numbers)
{
    const column *in = &of->in;
    uint8_t *state = of->state, *seen = of->seen;
    switch (in->family << 8 | in->width) {
    case SIGNED << 8 | 1:
        EXTREME(int8_t, LESS)
    case SIGNED << 8 | 2:
        EXTREME(int16_t, LESS)
    case SIGNED << 8 | 4:
        EXTREME(int32_t, LESS)
    case SIGNED << 8 | 8:
        EXTREME(int64_t, LESS)
    case SIGNED << 8 | 16:
        EXTREME(int128_t, LESS)
    case UNSIGNED << 8 | 1:
        EXTREME(uint8_t, LESS)
    case UNSIGNED << 8 | 2:
        EXTREME(uint16_t, LESS)
    case UNSIGNED << 8 | 4:
        EXTREME(uint32_t, LESS)
    case UNSIGNED << 8 | 8:
        EXTREME(uint64_t, LESS)
    case FLOATING << 8 | 4:
        EXTREME(float, NOT_MORE)
    default:
        EXTREME(double, NOT_MORE)
    }
}

static void edge(const total *of, int64_t first, int64_t rows, const int32_t *numbers)
{
    const size_t width = (size_t)of->in.width;
    for (int64_t i = 0; i < rows; i++) {
        const int32_t g = numbers[i];
        if (of->kind == FIRST && of->seen[g])
            continue;
        of->seen[g] = is_valid(of->in.validity, first + i) ? 1 : 2;
        memcpy(of->state + (size_t)g * width, of->in.values + (size_t)(first + i) * width, width);
    }
}

static int compared(const uint8_t *a, int64_t a_length, const uint8_t *b, int64_t b_length)
{
    const int order = memcmp(a, b, (size_t)(a_length < b_length ? a_length : b_length));
    return order ? order : (a_length > b_length) - (a_length < b_length);
}

/* What texts may take of the arena at most: a span's room is a power of two. */
static int64_t text_room(const total *of, int64_t first, int64_t rows)
{
    const uint8_t *start, *end;
    text_at(&of->in, first, &start);
    const int64_t length = text_at(&of->in, first + rows - 1, &end);
    return 2 * (end + length - start) + 16 * rows;
}

static void text_total(total *of, int64_t first, int64_t rows, const int32_t *numbers)
{
    for (int64_t i = 0; i < rows; i++) {
        const int32_t g = numbers[i];
        span *at = (span *)of->state + g;
        if (of->kind == FIRST && of->seen[g])
            continue;
        if (!is_valid(of->in.validity, first + i)) {
            if (of->kind >= FIRST)
                of->seen[g] = 2;
            continue;
        }
        const uint8_t *text;
        const int64_t length = text_at(&of->in, first + i, &text);
        if (of->kind < FIRST && of->seen[g]) {
            const int order = compared(text, length, of->arena + at->start, at->length);
            if (of->kind == MIN ? order >= 0 : order <= 0)
                continue;
        }
        if (length > at->room) {
            uint32_t room = 16;
            while (room < length)
                room *= 2;
            at->start = of->arena_used, at->room = room;
            of->arena_used += room;
        }
        memcpy(of->arena + at->start, text, (size_t)length);
        at->length = (uint32_t)length;
        of->seen[g] = 1;
    }
}

static int64_t accumulate(total *of, int64_t row, int64_t rows, const int32_t *numbers)
{
    int64_t *counts = (int64_t *)of->state;
    const int64_t first = of->in.offset + row;
    if (of->kind == ROWS || (of->kind == VALID && !of->in.validity))
        for (int64_t i = 0; i < rows; i++)
            counts[numbers[i]]++;
    else if (of->kind == VALID)
        for (int64_t i = 0; i < rows; i++)
            counts[numbers[i]] += is_valid(of->in.validity, first + i);
    else if (of->kind == COUNTED)
        for (int64_t i = 0; i < rows; i++)
            counts[numbers[i]] += (int64_t)load(of->in.values + 8 * (first + i));
    else if (of->kind == SUM)
        return sum(of, first, rows, numbers);
    else if (of->in.family == CHARACTERS)
        text_total(of, first, rows, numbers);
    else if (of->kind >= FIRST)
        edge(of, first, rows, numbers);
    else
        return extreme(of, first, rows, numbers);
    return 0;
}

/* Adds rows from row on to the groups; state and seen of groups that are not there yet are 0. Gives the row that it came
   to, and in wants why not further; -1 where a sum outgrew 128 bits. */
int64_t weir_groups_add(table *t, const column *keys, const int64_t *leads, total *totals, int64_t row, int64_t rows)
{
    int32_t numbers[BLOCK];
    t->wants = t->most_groups ? NOTHING : GROUPS;
    while (row < rows && t->most_groups) {
        int64_t count = rows - row < t->block ? rows - row : t->block;
        for (int32_t i = 0; i < t->totals; i++) {
            const total *of = totals + i;
            if (of->kind < MIN || of->kind > LAST || of->in.family != CHARACTERS)
                continue;
            t->needed_bytes = text_room(of, of->in.offset + row, count);
            if (of->arena_bytes - of->arena_used < t->needed_bytes) {
                t->wants = TEXT_BYTES + i;
                return row;
            }
        }
        const int64_t found = assign(t, keys, leads, row, count, numbers);
        for (int32_t i = 0; i < t->totals; i++)
            if (accumulate(totals + i, row, found, numbers))
                return -1;
        row += found;
        if (found < count)
            return row;
    }
    return row;
}

static inline void put_bit(uint8_t *bits, int64_t i, int bit)
{
    bits[i >> 3] = (uint8_t)((bits[i >> 3] & ~(1 << (i & 7))) | bit << (i & 7));
}

static inline int64_t entry_text(const table *t, int64_t group, const uint8_t **text)
{
    const uint64_t *entry = t->entries + 2 * group;
    if (entry[1] >> 56 != LONG) {
        *text = (const uint8_t *)entry;
        return (int64_t)(entry[1] >> 56);
    }
    const uint8_t *there = t->arena + (entry[1] << 8 >> 8);
    *text = there + 8;
    return (int64_t)load(there);
}

/* Adds a text, or a null, to a column of texts; without values only what it takes. */
static inline void put_text(column *out, int64_t group, const uint8_t *text, int64_t length)
{
    if (out->values) {
        if (length)
            memcpy(out->values + out->nbytes, text, (size_t)length);
        const int64_t end = out->nbytes + length;
        memcpy(out->offsets + (group + 1) * out->width, &end, (size_t)out->width);
    }
    out->nbytes += length;
}

/* The keys of all groups. Texts are measured first, where values are NULL; then nbytes is 0 again, and so is the first
   offset. */
void weir_groups_keys(const table *t, column *keys)
{
    for (int64_t group = 0; group < t->groups; group++) {
        const uint8_t *p, *text = (const uint8_t *)"";
        if (t->mode != ROW) {
            const int valid = t->entries[2 * group + 1] >> 56 != NONE;
            if (keys->validity)
                put_bit(keys->validity, group, valid);
            if (t->mode == TEXT) {
                const int64_t length = valid ? entry_text(t, group, &text) : 0;
                put_text(keys, group, text, length);
            } else {
                memcpy(keys->values + group * keys->width, t->entries + 2 * group, (size_t)keys->width);
            }
            continue;
        }
        entry_text(t, group, &p);
        for (column *c = keys; c < keys + t->keys; c++) {
            const int mark = *p++;
            if (c->validity)
                put_bit(c->validity, group, mark != 0);
            if (c->family != CHARACTERS) {
                if (c->values && mark)
                    memcpy(c->values + group * c->width, p, (size_t)c->width);
                else if (c->values)
                    memset(c->values + group * c->width, 0, (size_t)c->width);
                p += mark ? c->width : 0;
                continue;
            }
            const int64_t length = mark == 255 ? (int64_t)load(p) : mark ? mark - 1 : 0;
            p += mark == 255 ? 8 : 0;
            put_text(c, group, p, length);
            p += length;
        }
    }
}

/* A total of all groups, as weir_groups_keys. -1 where a sum of whole numbers outgrew what it is given in: 8 bytes, or 38
   digits in 16, unless it is partial. */
int32_t weir_groups_total(const table *t, const total *of, column *out, int32_t partial)
{
    int128_t most = INT64_MAX, least = INT64_MIN;
    if (out->width == 16) {
        most = (int128_t)UINT64_C(10000000000000000000) * (int128_t)UINT64_C(10000000000000000000) - 1;
        least = -most;
    }
    for (int64_t group = 0; group < t->groups; group++) {
        const int valid = of->kind <= VALID || of->seen[group] == 1;
        if (out->validity)
            put_bit(out->validity, group, valid);
        if (out->family == CHARACTERS) {
            const span *at = (const span *)of->state + group;
            put_text(out, group, of->arena + at->start, valid ? at->length : 0);
        } else if (of->kind == SUM && of->in.family != FLOATING) {
            const int128_t value = ((const int128_t *)of->state)[group];
            if (!partial && (value > most || value < least))
                return -1;
            memcpy(out->values + group * out->width, &value, (size_t)out->width);
        }
    }
    if (out->family != CHARACTERS && !(of->kind == SUM && of->in.family != FLOATING))
        memcpy(out->values, of->state, (size_t)t->groups * (size_t)out->width);
    return 0;
}
