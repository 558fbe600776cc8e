/* Runs the C scan over many shapes, each array in a heap block of its exact
 * size: for address and undefined-behaviour sanitizers, and for processors
 * without Python.
 *
 *     scan_driver [CASES]
 *
 * A fixed grid of shapes, whose checksum it prints, then CASES random calls:
 * with gaps between rows, rows that several channels share, absent arguments,
 * and numbers that are not finite. Fails on a status, or on a result that is
 * not finite where all inputs are. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scan.h"

int scan_forward(const scan_call *call);
int scan_backward(const scan_call *call);
int scan_forward_double(const scan_call *call);
int scan_backward_double(const scan_call *call);
int scan_paths(const path_call *call);
int scan_paths_double(const path_call *call);
int scan_paths_backward(const path_call *call);
int scan_paths_backward_double(const path_call *call);
int gated_norm(const gate_call *call);
int gated_norm_double(const gate_call *call);
int gated_norm_backward(const gate_call *call);
int gated_norm_backward_double(const gate_call *call);
int gated_norm_task_rows(void);
int scan_saved_every(void);
int scan_set_level(int level);
int64_t scan_probe_exp(int64_t n_repeats, int64_t n_threads);

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

typedef struct {
    int64_t batch, dim, length, n, groups;
    int64_t n_threads;
    int64_t gap;        /* numbers between two rows */
    int is_double, use_softplus;
    int has_skip, has_bias, has_states;
    int shares_rows;    /* stride 0 between channels, and between states */
    int is_extreme;     /* some inputs are huge, infinite or NaN */
} scan_case;

/* Rows of `length` numbers; no gap follows the last one. */
static int64_t rows_size(int64_t rows, int64_t length, int64_t stride)
{
    return (rows - 1) * stride + length;
}

static void spoil(void *array, int64_t n, int is_double)
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

static double run(scan_case c)
{
    const int is_double = c.is_double;
    const int64_t batch = c.batch, dim = c.dim, length = c.length, n = c.n;
    const int64_t rows = batch * dim, size = rows * length;
    const int64_t shared = batch * c.groups * n * length;
    const int64_t every = scan_saved_every();
    const int64_t saved = rows * ((length + every - 1) / every) * n;
    const int64_t row = c.shares_rows ? 0 : length + c.gap;
    /* Shared rows: one per sequence. */
    const int64_t per_batch = c.shares_rows ? length + c.gap : dim * row;
    const int64_t in_rows = c.shares_rows ? batch : rows;
    const int64_t in_size = rows_size(in_rows, length, length + c.gap);
    const int64_t B_group = c.shares_rows ? length + c.gap : n * row;
    const int64_t B_rows = batch * c.groups * (c.shares_rows ? 1 : n);
    const int64_t B_size = rows_size(B_rows, length, length + c.gap);
    void *inputs[] = {
        make(in_size, is_double, -1, 1),     /* u */
        make(in_size, is_double, -2, 2),     /* delta */
        make(dim * n, is_double, -4, -0.1),  /* A */
        make(B_size, is_double, -1, 1),      /* B */
        make(B_size, is_double, -1, 1),      /* C */
        make(dim, is_double, -1, 1),         /* D */
        make(dim, is_double, -1, 1),         /* delta_bias */
        make(in_size, is_double, -1, 1),     /* dy */
    };
    const int64_t in_sizes[] = {in_size, in_size, dim * n, B_size,
                                B_size,  dim,     dim,     in_size};
    if (c.is_extreme)
        for (int i = 0; i < 8; i++)
            spoil(inputs[i], in_sizes[i], is_double);
    void *states = make(saved, is_double, 0, 0);
    void *out[8];
    const int64_t sizes[8] = {size,   size,   size, rows * n,
                              shared, shared, rows, rows};
    for (int i = 0; i < 8; i++)
        out[i] = make(sizes[i], is_double, 0, 0);
    scan_call call = {
        .u = inputs[0], .delta = inputs[1], .A = inputs[2], .B = inputs[3],
        .C = inputs[4], .D = c.has_skip ? inputs[5] : NULL,
        .delta_bias = c.has_bias ? inputs[6] : NULL,
        .states = c.has_states ? states : NULL,
        .y = out[0], .dy = inputs[7],
        .du = out[1], .ddelta = out[2], .dA = out[3], .dB = out[4],
        .dC = out[5], .dD = c.has_skip ? out[6] : NULL,
        .ddelta_bias = c.has_bias ? out[7] : NULL,
        .u_batch = per_batch, .u_row = row,
        .delta_batch = per_batch, .delta_row = row,
        .A_row = n,
        .B_batch = c.groups * B_group, .B_group = B_group, .B_state = row,
        .C_batch = c.groups * B_group, .C_group = B_group, .C_state = row,
        .dy_batch = per_batch, .dy_row = row,
        .batch = batch, .dim = dim, .length = length, .n_states = n,
        .n_groups = c.groups, .use_softplus = c.use_softplus,
        .n_threads = c.n_threads,
    };
    int status = is_double ? scan_forward_double(&call)
                           : scan_forward(&call);
    if (c.has_states)
        status |= is_double ? scan_backward_double(&call)
                            : scan_backward(&call);
    double total = 0;
    for (int i = 0; i < 8; i++) {
        total += sum(out[i], sizes[i], is_double) / (double)sizes[i];
        free(out[i]);
    }
    for (int i = 0; i < 8; i++)
        free(inputs[i]);
    free(states);
    if (status != SCAN_OK || (!c.is_extreme && !isfinite(total))) {
        fprintf(stderr, "status %d, checksum %g for B %d, D %d, L %d, N %d, "
                "G %d\n", status, total, (int)batch, (int)dim, (int)length,
                (int)n, (int)c.groups);
        exit(1);
    }
    return total;
}

typedef struct {
    int64_t batch, dim, length, n, paths, rank;
    int64_t n_threads;
    int is_double, merges;
    int shares_paths; /* one set of paths for all of the batch */
    int is_extreme;
} path_case;

/* Each path goes through the tokens in strides of its own, from its own
 * start: no permutation unless the stride fits, which nothing here needs. */
static int64_t *make_paths(int64_t sets, int64_t paths, int64_t length)
{
    int64_t *array = malloc((size_t)(sets * paths * length) * sizeof *array);
    for (int64_t i = 0; i < sets * paths; i++)
        for (int64_t t = 0; t < length; t++)
            array[i * length + t] = (i * 5 + t * (2 * i + 1)) % length;
    return array;
}

static double run_paths(path_case c)
{
    const int is_double = c.is_double;
    const int64_t tokens = c.batch * c.length, rows = c.paths * c.dim;
    const int64_t sizes[] = {
        tokens * c.dim, tokens * c.paths * (c.rank + 2 * c.n),
        rows * c.rank, rows * c.n, rows, rows};
    const int64_t every = scan_saved_every();
    const int64_t y_size = tokens * (c.merges ? c.dim : rows);
    const int64_t out_sizes[] = {
        y_size, c.batch * rows * ((c.length + every - 1) / every) * c.n,
        tokens * rows, sizes[1], c.batch * sizes[2], c.batch * sizes[3],
        c.batch * rows, c.batch * rows};
    void *inputs[6], *out[8], *dy = make(y_size, is_double, -1, 1);
    for (int i = 0; i < 8; i++)
        out[i] = make(out_sizes[i], is_double, 0, 0);
    for (int i = 0; i < 6; i++) {
        inputs[i] = make(sizes[i], is_double, i == 3 ? -4 : -1,
                         i == 3 ? -0.1 : 1);
        if (c.is_extreme)
            spoil(inputs[i], sizes[i], is_double);
    }
    int64_t *paths =
        make_paths(c.shares_paths ? 1 : c.batch, c.paths, c.length);
    path_call call = {
        .tokens = inputs[0], .projected = inputs[1], .dt_weight = inputs[2],
        .A = inputs[3], .D = inputs[4], .dt_bias = inputs[5],
        .paths = paths, .y = out[0], .states = out[1], .dy = dy,
        .dtokens = out[2], .dprojected = out[3], .ddt_weight = out[4],
        .dA = out[5], .dD = out[6], .ddt_bias = out[7],
        .paths_batch = c.shares_paths ? 0 : c.paths * c.length,
        .batch = c.batch, .dim = c.dim, .length = c.length, .n_states = c.n,
        .n_paths = c.paths, .rank = c.rank, .merges = c.merges,
        .n_threads = c.n_threads,
    };
    int status = is_double ? scan_paths_double(&call) : scan_paths(&call);
    call.y = NULL;
    status |= is_double ? scan_paths_backward_double(&call)
                        : scan_paths_backward(&call);
    /* The order of sums over tokens visited twice is not the same for all
     * instruction sets: the output alone is compared. */
    double total = sum(out[0], y_size, is_double) / (double)y_size;
    for (int i = 0; i < 8; i++) {
        if (!c.is_extreme && !isfinite(sum(out[i], out_sizes[i], is_double)))
            status = -2;
        free(out[i]);
    }
    call.states = NULL;
    paths[0] = c.length;
    if ((is_double ? scan_paths_double(&call) : scan_paths(&call)) !=
        SCAN_BAD_CALL)
        status = -1;
    for (int i = 0; i < 6; i++)
        free(inputs[i]);
    free(paths);
    free(dy);
    if (status != SCAN_OK || (!c.is_extreme && !isfinite(total))) {
        fprintf(stderr, "paths: status %d, checksum %g for B %d, D %d, L %d, "
                "N %d, K %d, R %d\n", status, total, (int)c.batch,
                (int)c.dim, (int)c.length, (int)c.n, (int)c.paths,
                (int)c.rank);
        exit(1);
    }
    return total;
}

typedef struct {
    int64_t rows, channels, n_threads;
    int64_t gap; /* numbers between two rows of an input */
    int is_double, is_extreme;
} gate_case;

static double run_gate(gate_case c)
{
    const int is_double = c.is_double;
    const int64_t row = c.channels + c.gap;
    const int64_t in_size = rows_size(c.rows, c.channels, row);
    const int64_t size = c.rows * c.channels;
    const int64_t tasks =
        (c.rows + gated_norm_task_rows() - 1) / gated_norm_task_rows();
    const int64_t in_sizes[] = {in_size, in_size, in_size, c.channels,
                                c.channels};
    const int64_t out_sizes[] = {size, size, size, tasks * 2 * c.channels};
    void *in[5], *out[4];
    for (int i = 0; i < 5; i++) {
        in[i] = make(in_sizes[i], is_double, -2, 2);
        if (c.is_extreme)
            spoil(in[i], in_sizes[i], is_double);
    }
    for (int i = 0; i < 4; i++)
        out[i] = make(out_sizes[i], is_double, 0, 0);
    gate_call call = {
        .x = in[0], .z = in[1], .weight = in[3], .bias = in[4],
        .y = out[0], .dy = in[2], .dx = out[1], .dz = out[2],
        .partial_sums = out[3], .x_row = row, .z_row = row, .dy_row = row,
        .rows = c.rows, .channels = c.channels, .n_threads = c.n_threads,
        .eps = 1e-5,
    };
    int status = is_double ? gated_norm_double(&call) : gated_norm(&call);
    status |= is_double ? gated_norm_backward_double(&call)
                        : gated_norm_backward(&call);
    double total = 0;
    for (int i = 0; i < 4; i++) {
        total += sum(out[i], out_sizes[i], is_double) / (double)out_sizes[i];
        free(out[i]);
    }
    for (int i = 0; i < 5; i++)
        free(in[i]);
    if (status != SCAN_OK || (!c.is_extreme && !isfinite(total))) {
        fprintf(stderr, "gate: status %d, checksum %g for %d rows of %d\n",
                status, total, (int)c.rows, (int)c.channels);
        exit(1);
    }
    return total;
}

static double run_grid(int is_double)
{
    const int64_t lengths[] = {1, 7, 31, 32, 33, 127, 128, 129, 300};
    const int64_t dims[] = {4, 20, 64}, states[] = {1, 2, 4, 5, 8, 16, 17};
    double total = 0;
    for (int l = 0; l < 9; l++)
        for (int d = 0; d < 3; d++)
            for (int n = 0; n < 7; n++)
                total += run((scan_case){
                    .batch = 1 + l % 2, .dim = dims[d],
                    .length = lengths[l], .n = states[n],
                    .groups = 1 << (n % 3), .n_threads = 3,
                    .is_double = is_double, .use_softplus = 1,
                    .has_skip = 1, .has_bias = 1, .has_states = 1,
                }) + run_paths((path_case){
                    .batch = 1 + l % 2, .dim = dims[d],
                    .length = lengths[l], .n = states[n],
                    .paths = 1 << (n % 3), .rank = d, .n_threads = 3,
                    .is_double = is_double, .merges = n % 2,
                    .shares_paths = d % 2,
                }) + run_gate((gate_case){
                    .rows = lengths[l], .channels = dims[d] + states[n] - 1,
                    .n_threads = 3, .gap = n, .is_double = is_double,
                });
    return total;
}

static int64_t draw_up_to(int64_t most)
{
    return 1 + (int64_t)((double)most * draw());
}

static void run_random(int is_double)
{
    const int64_t groups = draw_up_to(4);
    const int64_t most = draw() < 0.1 ? 600 : 140;
    const int use_softplus = draw() < 0.7;
    run((scan_case){
        .batch = draw_up_to(3), .dim = groups * draw_up_to(40),
        .length = draw_up_to(most), .n = draw_up_to(33), .groups = groups,
        .n_threads = draw_up_to(4),
        .gap = draw() < 0.5 ? 0 : draw_up_to(20),
        .is_double = is_double, .use_softplus = use_softplus,
        .has_skip = draw() < 0.7, .has_bias = draw() < 0.7,
        .has_states = draw() < 0.8, .shares_rows = draw() < 0.3,
        /* Without softplus steps may be negative: states then grow. */
        .is_extreme = !use_softplus || draw() < 0.3,
    });
    run_paths((path_case){
        .batch = draw_up_to(3), .dim = draw_up_to(40),
        .length = draw_up_to(most), .n = draw_up_to(33),
        .paths = draw_up_to(4), .rank = draw_up_to(6) - 1,
        .n_threads = draw_up_to(4), .is_double = is_double,
        .merges = draw() < 0.5, .shares_paths = draw() < 0.5,
        .is_extreme = draw() < 0.3,
    });
    run_gate((gate_case){
        .rows = draw_up_to(most), .channels = draw_up_to(90),
        .n_threads = draw_up_to(4), .gap = draw_up_to(20) - 1,
        .is_double = is_double, .is_extreme = draw() < 0.3,
    });
}

int main(int argc, char **argv)
{
    const long cases = argc > 1 ? atol(argv[1]) : 0;
    for (int level = 0; level < 4; level++) {
        const int is_double = level == 3;
        if (!is_double && scan_set_level(level) != level)
            continue;
        state = 1;
        printf("%s %.6g\n", is_double ? "double" : "float",
               run_grid(is_double));
        for (long i = 0; i < cases; i++)
            run_random(is_double);
        if (!is_double && scan_probe_exp(2, 3) < 1)
            return 1;
    }
    return 0;
}
