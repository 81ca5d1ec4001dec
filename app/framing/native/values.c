#include "values.h"

int32_t weir_year_starts[10001];

__attribute__((constructor)) static void count_years(void)
{
    weir_year_starts[0] = -719528;
    for (int year = 0; year < 10000; year++)
        weir_year_starts[year + 1] =
            weir_year_starts[year] + ((year % 4 == 0 && year % 100 != 0) || year % 400 == 0 ? 366 : 365);
}
