#include <stdint.h>

/* Whether this processor has what libweir-v3.so is built for (see hatch_build.py). */
int32_t weir_has_avx2(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
           __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("popcnt");
#else
    return 0;
#endif
}
