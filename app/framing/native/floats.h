/* Floats as text, byte for byte as pyarrow casts them: the shortest digits that read back the same. */

#ifndef WEIR_FLOATS_H
#define WEIR_FLOATS_H

#include <stdint.h>

#define DOUBLE_BYTES 25 /* of the longest: -0.0000012345678901234567 */
#define FLOAT_BYTES 16  /* of -0.0000010000001 */
#define SPARE_BYTES 16  /* that may be written behind one of these */

uint8_t *put_double(uint8_t *out, double value);
uint8_t *put_float(uint8_t *out, float value);

#endif
