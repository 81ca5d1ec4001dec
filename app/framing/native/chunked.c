/* The chunked transfer coding (RFC 9112, section 7.1), as far as it is written plainly: data, and behind it the line end and
   a size of the next chunk. Whatever else stands there, or is not whole yet, is for the caller to judge. */

#include <stdint.h>
#include <string.h>

/* left is what the chunk that has begun still has to bring, end is where the payload ends; chunks counts those begun. */
typedef struct {
    int64_t left, end, chunks;
} chunked;

enum { MOST_DIGITS = 15 };

static inline int hex_digit(uint8_t c)
{
    const uint8_t lower = c | 0x20;
    return c >= '0' && c <= '9' ? c - '0' : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* The bytes of a line end and a plain line with a size behind it, 0 where there is nothing of the kind before stop. */
static inline int64_t plain_head(const uint8_t *p, const uint8_t *stop, int64_t *size)
{
    const uint8_t *const start = p;
    if (stop - p < 2 || p[0] != '\r' || p[1] != '\n')
        return 0;
    p += 2;
    const uint8_t *const digits = p;
    int digit;
    for (*size = 0; p < stop && p - digits < MOST_DIGITS && (digit = hex_digit(*p)) >= 0; p++)
        *size = *size << 4 | digit;
    if (p == digits || stop - p < 2 || p[0] != '\r' || p[1] != '\n')
        return 0;
    return p + 2 - start;
}

/* Moves the payload of what was received into page[position:stop] to page[end:]. The first byte is data, or stands right
   behind the data of a chunk. Gives where it stopped: at stop, or where no plain head of a chunk with data stands. */
int64_t weir_unchunk(uint8_t *page, int64_t position, int64_t stop, chunked *of)
{
    while (position < stop) {
        if (of->left) {
            const int64_t nbytes = of->left < stop - position ? of->left : stop - position;
            if (position != of->end)
                memmove(page + of->end, page + position, (size_t)nbytes);
            of->end += nbytes;
            of->left -= nbytes;
            position += nbytes;
            continue;
        }
        int64_t size;
        const int64_t head = plain_head(page + position, page + stop, &size);
        if (!head || !size)
            break;
        of->left = size;
        of->chunks++;
        position += head;
    }
    return position;
}
