/* The operators on maps and rows of channels. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "calls.h"
#include "driver.h"

#define DECLARE(name, call_type)              \
    int name(const call_type *call);          \
    int name##_double(const call_type *call); \
    int name##_backward(const call_type *call); \
    int name##_backward_double(const call_type *call);

DECLARE(gated_norm, gate_call)
DECLARE(mean_gate, mean_gate_call)
DECLARE(upsample_concat, merge_call)
DECLARE(batch_norm_relu, batch_norm_call)
int gated_norm_task_rows(void);

/* `name` and its backward on a call. */
#define RUN(name, call)                                                 \
    (is_double ? name##_double(&(call)) | name##_backward_double(&(call)) \
               : name(&(call)) | name##_backward(&(call)))

enum { MAX_ARRAYS = 8 };

/* The inputs and outputs of a call: as many as have sizes. */
typedef struct {
    int64_t in_sizes[MAX_ARRAYS], out_sizes[MAX_ARRAYS];
    void *in[MAX_ARRAYS], *out[MAX_ARRAYS];
    int is_double, is_extreme;
} arrays;

static void fill(arrays *a)
{
    for (int i = 0; i < MAX_ARRAYS; i++) {
        if (a->in_sizes[i] > 0)
            a->in[i] = make(a->in_sizes[i], a->is_double, -2, 2);
        if (a->in_sizes[i] > 0 && a->is_extreme)
            spoil(a->in[i], a->in_sizes[i], a->is_double);
        if (a->out_sizes[i] > 0)
            a->out[i] = make(a->out_sizes[i], a->is_double, 0, 0);
    }
}

/* Frees all; the sum of the outputs' means. */
static double finish(arrays *a, const char *name, int status)
{
    double total = 0;
    for (int i = 0; i < MAX_ARRAYS; i++) {
        if (a->out_sizes[i] > 0)
            total += sum(a->out[i], a->out_sizes[i], a->is_double) /
                     (double)a->out_sizes[i];
        free(a->in[i]);
        free(a->out[i]);
    }
    if (status != CALL_OK || (!a->is_extreme && !isfinite(total))) {
        fprintf(stderr, "%s: status %d, checksum %g; sizes", name, status,
                total);
        for (int i = 0; i < MAX_ARRAYS; i++)
            fprintf(stderr, " %d", (int)a->in_sizes[i]);
        fprintf(stderr, "\n");
        exit(1);
    }
    return total;
}

typedef struct {
    int64_t rows, channels, n_threads;
    int64_t gap; /* numbers between two rows of an input */
    int is_double, is_extreme;
} rows_case;

static double run_gated_norm(rows_case c)
{
    const int is_double = c.is_double;
    const int64_t row = c.channels + c.gap;
    const int64_t in_size = rows_size(c.rows, c.channels, row);
    const int64_t size = c.rows * c.channels;
    const int64_t tasks =
        (c.rows + gated_norm_task_rows() - 1) / gated_norm_task_rows();
    arrays a = {
        .in_sizes = {in_size, in_size, in_size, c.channels, c.channels},
        .out_sizes = {size, size, size, tasks * 2 * c.channels},
        .is_double = is_double, .is_extreme = c.is_extreme,
    };
    fill(&a);
    const gate_call call = {
        .x = a.in[0], .z = a.in[1], .weight = a.in[3], .bias = a.in[4],
        .y = a.out[0], .dy = a.in[2], .dx = a.out[1], .dz = a.out[2],
        .partial_sums = a.out[3], .x_row = row, .z_row = row, .dy_row = row,
        .rows = c.rows, .channels = c.channels, .n_threads = c.n_threads,
        .eps = 1e-5,
    };
    return finish(&a, "gated_norm", RUN(gated_norm, call));
}

static double run_batch_norm(rows_case c)
{
    const int is_double = c.is_double;
    const int64_t size = c.rows * c.channels, n = c.channels;
    arrays a = {
        .in_sizes = {size, size, n, n},
        .out_sizes = {size, size, n, n, n, n},
        .is_double = is_double, .is_extreme = c.is_extreme,
    };
    fill(&a);
    const batch_norm_call call = {
        .x = a.in[0], .dy = a.in[1], .weight = a.in[2], .bias = a.in[3],
        .y = a.out[0], .dx = a.out[1], .mean = a.out[2],
        .variance = a.out[3], .dweight = a.out[4], .dbias = a.out[5],
        .rows = c.rows, .channels = n, .n_threads = c.n_threads,
        .eps = 1e-5,
    };
    return finish(&a, "batch_norm_relu", RUN(batch_norm_relu, call));
}

typedef struct {
    int64_t batch, groups, channels, hidden, pixels, n_threads;
    int is_double, is_extreme, needs_dx;
} mean_gate_case;

static double run_mean_gate(mean_gate_case c)
{
    const int is_double = c.is_double;
    const int64_t out = c.batch * c.pixels;
    const int64_t in = out * c.groups * c.channels;
    const int64_t hidden = c.groups * c.hidden;
    const int64_t weights = hidden * c.channels;
    arrays a = {
        .in_sizes = {in, out, weights, hidden, hidden, c.groups},
        .out_sizes = {out, c.needs_dx ? in : 0, weights, hidden, hidden,
                      c.groups},
        .is_double = is_double, .is_extreme = c.is_extreme,
    };
    fill(&a);
    const mean_gate_call call = {
        .x = a.in[0], .dy = a.in[1], .weight = a.in[2], .bias = a.in[3],
        .out_weight = a.in[4], .out_bias = a.in[5], .y = a.out[0],
        .dx = a.out[1], .dweight = a.out[2], .dbias = a.out[3],
        .dout_weight = a.out[4], .dout_bias = a.out[5], .batch = c.batch,
        .groups = c.groups, .channels = c.channels, .hidden = c.hidden,
        .pixels = c.pixels, .n_threads = c.n_threads,
    };
    return finish(&a, "mean_gate", RUN(mean_gate, call));
}

typedef struct {
    int64_t batch, height, width, out_height, out_width;
    int64_t x_channels, skip_channels, n_threads;
    int is_double, is_extreme, has_gate;
} merge_case;

static double run_merge(merge_case c)
{
    const int is_double = c.is_double;
    const int64_t out = c.batch * c.out_height * c.out_width;
    const int64_t x = c.batch * c.height * c.width * c.x_channels;
    const int64_t skip = out * c.skip_channels;
    const int64_t gate = c.has_gate ? out : 0;
    const int64_t y = out * (c.x_channels + c.skip_channels);
    arrays a = {
        .in_sizes = {x, y, skip, gate},
        .out_sizes = {y, x, skip, gate},
        .is_double = is_double, .is_extreme = c.is_extreme,
    };
    fill(&a);
    const merge_call call = {
        .x = a.in[0], .dy = a.in[1], .skip = a.in[2], .gate = a.in[3],
        .y = a.out[0], .dx = a.out[1], .dskip = a.out[2],
        .dgate = a.out[3], .batch = c.batch, .height = c.height,
        .width = c.width, .out_height = c.out_height,
        .out_width = c.out_width, .x_channels = c.x_channels,
        .skip_channels = c.skip_channels, .n_threads = c.n_threads,
    };
    return finish(&a, "upsample_concat", RUN(upsample_concat, call));
}

double run_maps_grid(int is_double)
{
    const int64_t rows[] = {2, 15, 16, 17, 64, 65, 300};
    const int64_t channels[] = {1, 4, 7, 16, 17, 40, 64};
    double total = 0;
    for (int r = 0; r < 7; r++)
        for (int c = 0; c < 7; c++) {
            const rows_case at = {
                .rows = rows[r], .channels = channels[c], .n_threads = 3,
                .gap = c % 3, .is_double = is_double,
            };
            total += run_gated_norm(at) + run_batch_norm(at) +
                     run_mean_gate((mean_gate_case){
                         .batch = 1 + c % 2, .groups = 1 + c % 3,
                         .channels = 1 + r % 4, .hidden = channels[c],
                         .pixels = rows[r], .n_threads = 3,
                         .needs_dx = r % 2, .is_double = is_double,
                     }) +
                     run_merge((merge_case){
                         .batch = 1 + c % 2, .height = 1 + r % 6,
                         .width = 1 + c, .out_height = 1 + 2 * r,
                         .out_width = channels[r], .n_threads = 3,
                         .x_channels = channels[c],
                         .skip_channels = c % 3 ? channels[r] : 0,
                         .has_gate = c % 2, .is_double = is_double,
                     });
        }
    return total;
}

void run_maps_random(int is_double)
{
    const int is_extreme = draw() < 0.3;
    run_gated_norm((rows_case){
        .rows = draw_up_to(300), .channels = draw_up_to(90),
        .n_threads = draw_up_to(4), .gap = draw_up_to(20) - 1,
        .is_double = is_double, .is_extreme = is_extreme,
    });
    run_batch_norm((rows_case){
        .rows = 1 + draw_up_to(draw() < 0.1 ? 9000 : 300),
        .channels = draw_up_to(90), .n_threads = draw_up_to(4),
        .is_double = is_double, .is_extreme = is_extreme,
    });
    run_mean_gate((mean_gate_case){
        .batch = draw_up_to(3), .groups = draw_up_to(4),
        .channels = draw_up_to(5), .hidden = draw_up_to(12),
        .pixels = draw_up_to(1500), .n_threads = draw_up_to(4),
        .needs_dx = draw() < 0.5, .is_double = is_double,
        .is_extreme = is_extreme,
    });
    run_merge((merge_case){
        .batch = draw_up_to(3), .height = draw_up_to(12),
        .width = draw_up_to(12), .out_height = draw_up_to(25),
        .out_width = draw_up_to(25), .x_channels = draw_up_to(50),
        .skip_channels = draw_up_to(50) - 1, .n_threads = draw_up_to(4),
        .has_gate = draw() < 0.7, .is_double = is_double,
        .is_extreme = is_extreme,
    });
}
