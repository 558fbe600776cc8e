/* Runs the C scan over many shapes, each array in a heap block of its exact
 * size: for address and undefined-behaviour sanitizers, and for processors
 * without Python. Prints a checksum and fails on a status or a NaN. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scan.h"

int scan_forward(const scan_call *call);
int scan_backward(const scan_call *call);
int scan_forward_double(const scan_call *call);
int scan_backward_double(const scan_call *call);
int scan_saved_every(void);
int scan_set_level(int level);

static unsigned state = 1;

static double draw(void)
{
    state = state * 1664525u + 1013904223u;
    return (state >> 8) / 16777216.0;
}

static void *make(int64_t n, int is_double, double low, double high)
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

static double sum(const void *array, int64_t n, int is_double)
{
    double total = 0;
    for (int64_t i = 0; i < n; i++)
        total += fabs(is_double ? ((const double *)array)[i]
                                : ((const float *)array)[i]);
    return total;
}

static double run(int64_t batch, int64_t dim, int64_t length, int64_t n,
                  int64_t groups, int is_double)
{
    const int64_t rows = batch * dim, size = rows * length;
    const int64_t shared = batch * groups * n * length;
    const int64_t every = scan_saved_every();
    const int64_t saved = rows * ((length + every - 1) / every) * n;
    void *u = make(size, is_double, -1, 1);
    void *delta = make(size, is_double, -2, 2);
    void *A = make(dim * n, is_double, -4, -0.1);
    void *B = make(shared, is_double, -1, 1);
    void *C = make(shared, is_double, -1, 1);
    void *D = make(dim, is_double, -1, 1);
    void *bias = make(dim, is_double, -1, 1);
    void *dy = make(size, is_double, -1, 1);
    void *states = make(saved, is_double, 0, 0);
    void *out[8];
    const int64_t sizes[8] = {size,   size,   size, rows * n,
                              shared, shared, rows, rows};
    for (int i = 0; i < 8; i++)
        out[i] = make(sizes[i], is_double, 0, 0);
    const scan_call call = {
        .u = u, .delta = delta, .A = A, .B = B, .C = C, .D = D,
        .delta_bias = bias, .states = states, .y = out[0], .dy = dy,
        .du = out[1], .ddelta = out[2], .dA = out[3], .dB = out[4],
        .dC = out[5], .dD = out[6], .ddelta_bias = out[7],
        .u_batch = dim * length, .u_row = length,
        .delta_batch = dim * length, .delta_row = length,
        .A_row = n,
        .B_batch = groups * n * length, .B_group = n * length,
        .B_state = length,
        .C_batch = groups * n * length, .C_group = n * length,
        .C_state = length,
        .dy_batch = dim * length, .dy_row = length,
        .batch = batch, .dim = dim, .length = length, .n_states = n,
        .n_groups = groups, .use_softplus = 1, .n_threads = 3,
    };
    int status = is_double ? scan_forward_double(&call)
                           : scan_forward(&call);
    status |= is_double ? scan_backward_double(&call) : scan_backward(&call);
    double total = status == SCAN_OK ? 0 : NAN;
    for (int i = 0; i < 8; i++) {
        total += sum(out[i], sizes[i], is_double) / (double)sizes[i];
        free(out[i]);
    }
    void *arrays[] = {u, delta, A, B, C, D, bias, dy, states};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        free(arrays[i]);
    return total;
}

int main(void)
{
    const int64_t lengths[] = {1, 7, 31, 32, 33, 127, 128, 129, 300};
    const int64_t dims[] = {4, 20, 64}, states[] = {1, 2, 4, 5, 8, 16, 17};
    for (int level = 0; level < 4; level++) {
        const int is_double = level == 3;
        if (!is_double && scan_set_level(level) != level)
            continue;
        double total = 0;
        state = 1;
        for (int l = 0; l < 9; l++)
            for (int d = 0; d < 3; d++)
                for (int n = 0; n < 7; n++)
                    total += run(1 + l % 2, dims[d], lengths[l], states[n],
                                 1 << (n % 3), is_double);
        printf("%s %.6g\n", is_double ? "double" : "float", total);
        if (isnan(total))
            return 1;
    }
    return 0;
}
