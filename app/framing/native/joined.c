/* One text behind another. */

#include <stdint.h>
#include <string.h>

/* Both, to out. */
void weir_join(uint8_t *out, const uint8_t *first, int64_t first_bytes, const uint8_t *second, int64_t second_bytes)
{
    memcpy(out, first, (size_t)first_bytes);
    memcpy(out + first_bytes, second, (size_t)second_bytes);
}
