/* Runs the C kernel over many shapes, each array in a heap block of its exact
 * size: for address and undefined-behaviour sanitizers, and for processors
 * without Python.
 *
 *     driver [CASES]
 *
 * A fixed grid of shapes, whose checksum it prints, then CASES random calls:
 * with gaps between rows, rows that several channels share, absent arguments,
 * and numbers that are not finite. Fails on a status, or on a result that is
 * not finite where all inputs are. */
#include "driver.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

int native_set_level(int level);
int64_t native_probe_exp(int64_t n_repeats, int64_t n_threads);

static unsigned state = 1;

double draw(void)
{
    state = state * 1664525u + 1013904223u;
    return (state >> 8) / 16777216.0;
}

int64_t draw_up_to(int64_t most)
{
    return 1 + (int64_t)((double)most * draw());
}

void *make(int64_t n, int is_double, double low, double high)
{
    void *array = malloc((size_t)n * (is_double ? 8 : 4));
    for (int64_t i = 0; i < n; i++) {
        double x = low + (high - low) * draw();
        if (is_double)
            ((double *)array)[i] = x;
        else
            ((float *)array)[i] = (float)x;
    }
    return array;
}

void spoil(void *array, int64_t n, int is_double)
{
    const double values[] = {INFINITY, -INFINITY, NAN, 1e38, -1e38, 1e-40};
    for (int64_t i = 0; i < n; i++) {
        if (draw() > 0.02)
            continue;
        double x = values[(int)(6 * draw())];
        if (is_double)
            ((double *)array)[i] = x;
        else
            ((float *)array)[i] = (float)x;
    }
}

double sum(const void *array, int64_t n, int is_double)
{
    double total = 0;
    for (int64_t i = 0; i < n; i++)
        total += fabs(is_double ? ((const double *)array)[i]
                                : ((const float *)array)[i]);
    return total;
}

int64_t rows_size(int64_t rows, int64_t length, int64_t stride)
{
    return (rows - 1) * stride + length;
}

int main(int argc, char **argv)
{
    const long cases = argc > 1 ? atol(argv[1]) : 0;
    for (int level = 0; level < 4; level++) {
        const int is_double = level == 3;
        if (!is_double && native_set_level(level) != level)
            continue;
        state = 1;
        printf("%s %.6g\n", is_double ? "double" : "float",
               run_scan_grid(is_double) + run_maps_grid(is_double));
        for (long i = 0; i < cases; i++) {
            run_scan_random(is_double);
            run_maps_random(is_double);
        }
        if (!is_double && native_probe_exp(2, 3) < 1)
            return 1;
    }
    return 0;
}
