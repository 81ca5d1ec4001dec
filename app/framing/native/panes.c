/* Times to the panes that they are in: the stretches that all windows have in common. */

#include <stdint.h>

/* Windows begin at multiples of slide; panes is how many of them a pane is in at most. The watermark is late behind the
   latest time, if there was one. least is where the first window begins that rows were counted for. */
typedef struct {
    int64_t every, slide, pane, late, panes, latest, least;
    int32_t has_latest, unused;
} windows;

/* A time may be near the end of what there are; what is before or behind that wraps around. */
static inline int64_t plus(int64_t a, int64_t b) { return (int64_t)((uint64_t)a + (uint64_t)b); }

static inline int64_t minus(int64_t a, int64_t b) { return (int64_t)((uint64_t)a - (uint64_t)b); }

static inline int64_t quotient(int64_t a, int64_t b) { return a / b - (a % b < 0); }

static inline int64_t floored(int64_t a, int64_t step) { return (int64_t)((uint64_t)quotient(a, step) * (uint64_t)step); }

/* The first window that ends behind a time. */
static inline int64_t first_window(const windows *w, int64_t time)
{
    return plus(floored(minus(time, w->every), w->slide), w->slide);
}

/* The lead of each row: the number of its pane, times panes, and how many of the windows that have the pane in them were
   closed before the row came; INT64_MIN where all were. Gives how many those are, or -1 where a lead outgrows 64 bits. */
int64_t weir_panes(windows *w, const int64_t *times, int64_t rows, int64_t *leads)
{
    int64_t start = 0, first = 0, lead = 0, late = 0;
    int known = 0;
    for (int64_t i = 0; i < rows; i++) {
        const int64_t time = times[i];
        if (!known || (uint64_t)time - (uint64_t)start >= (uint64_t)w->pane) {
            const int64_t number = quotient(time, w->pane);
            if (__builtin_mul_overflow(number, w->panes, &lead) || __builtin_add_overflow(lead, w->panes, &first))
                return -1;
            start = floored(time, w->pane), first = first_window(w, time), known = 1;
        }
        leads[i] = lead;
        int64_t counted = first;
        if (w->has_latest && minus(w->latest, w->late) >= plus(first, w->every)) {
            counted = first_window(w, minus(w->latest, w->late));
            if (counted > floored(time, w->slide)) {
                leads[i] = INT64_MIN;
                late++;
                continue;
            }
            leads[i] += (counted - first) / w->slide;
        }
        if (counted < w->least)
            w->least = counted;
        if (!w->has_latest || time > w->latest)
            w->latest = time, w->has_latest = 1;
    }
    return late;
}
