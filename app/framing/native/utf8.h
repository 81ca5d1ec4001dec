#ifndef WEIR_UTF8_H
#define WEIR_UTF8_H

#include <stdint.h>

/* Whether data is UTF-8 (RFC 3629). */
int is_utf8(const uint8_t *data, int64_t nbytes);

#endif
