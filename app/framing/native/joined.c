/* Texts one behind the other. */

#include <stdint.h>
#include <string.h>

typedef struct {
    const uint8_t *text;
    int64_t nbytes;
} piece;

/* All of them, to out. */
void weir_join(uint8_t *out, const piece *pieces, int64_t count)
{
    for (const piece *one = pieces; one < pieces + count; one++) {
        memcpy(out, one->text, (size_t)one->nbytes);
        out += one->nbytes;
    }
}
