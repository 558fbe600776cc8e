/* The scan, on sequences and along paths. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"
#include "driver.h"

int scan(const scan_call *call);
int scan_backward(const scan_call *call);
int scan_double(const scan_call *call);
int scan_backward_double(const scan_call *call);
int scan_paths(const path_call *call);
int scan_paths_double(const path_call *call);
int scan_paths_backward(const path_call *call);
int scan_paths_backward_double(const path_call *call);
int scan_saved_every(void);

typedef struct {
    int64_t batch, dim, length, n, groups;
    int64_t n_threads;
    int64_t gap;        /* numbers between two rows */
    int is_double, use_softplus;
    int has_skip, has_bias, has_states;
    int shares_rows;    /* stride 0 between channels, and between states */
    int is_extreme;     /* some inputs are huge, infinite or NaN */
} scan_case;

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
    int status = is_double ? scan_double(&call)
                           : scan(&call);
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
    if (status != CALL_OK || (!c.is_extreme && !isfinite(total))) {
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
        CALL_IS_BAD)
        status = -1;
    for (int i = 0; i < 6; i++)
        free(inputs[i]);
    free(paths);
    free(dy);
    if (status != CALL_OK || (!c.is_extreme && !isfinite(total))) {
        fprintf(stderr, "paths: status %d, checksum %g for B %d, D %d, L %d, "
                "N %d, K %d, R %d\n", status, total, (int)c.batch,
                (int)c.dim, (int)c.length, (int)c.n, (int)c.paths,
                (int)c.rank);
        exit(1);
    }
    return total;
}

double run_scan_grid(int is_double)
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
                });
    return total;
}

void run_scan_random(int is_double)
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
}
