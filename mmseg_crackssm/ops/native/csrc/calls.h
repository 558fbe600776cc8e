/* The calls between the Python operators and the C kernel.
 *
 * The first runs the recurrence of Mamba's S6 (Gu & Dao, arXiv:2312.00752,
 * section 3.2) over a whole batch:
 *
 *     dt = delta + delta_bias, through softplus if asked
 *     h[t] = exp(dt[t] * A) * h[t-1] + dt[t] * u[t] * B[t]
 *     y[t] = <C[t], h[t]> + D * u[t]
 *
 * u, delta, dy are (batch, dim, length); A (dim, n_states); B, C
 * (batch, n_groups, n_states, length), channel d reading group
 * d / (dim / n_groups); D and delta_bias (dim).
 */
#ifndef MMSEG_CRACKSSM_CALLS_H
#define MMSEG_CRACKSSM_CALLS_H

#include <stdint.h>

/* Raise it whenever a call or the meaning of a field changes: library.py
 * refuses a library left over from an older build. */
#define NATIVE_INTERFACE_VERSION 5

enum { CALL_OK = 0, CALL_NO_MEMORY = 1, CALL_IS_BAD = 2 };

/* Instruction sets, in rising order; the numbers are known to library.py. */
enum { LEVEL_BASELINE = 0, LEVEL_AVX2 = 1, LEVEL_AVX512 = 2 };

/* Only pointers and 64-bit integers, so that Python packs it in one go.
 * Strides count elements; along time the stride is always 1. All outputs
 * are contiguous. Fields of the other direction are ignored. */
typedef struct {
    const void *u, *delta, *A, *B, *C;
    const void *D, *delta_bias;         /* NULL where absent */
    void *states;                       /* saved states; NULL: not saved */
    void *y;                            /* forward: (batch, dim, length) */
    const void *dy;                     /* backward from here on */
    void *du, *ddelta;                  /* (batch, dim, length) */
    void *dA;                           /* (batch, dim, n_states) */
    void *dB, *dC;                      /* (batch, groups, states, length) */
    void *dD, *ddelta_bias;             /* (batch, dim); NULL: not wanted */
    int64_t u_batch, u_row;
    int64_t delta_batch, delta_row;
    int64_t A_row;
    int64_t B_batch, B_group, B_state;
    int64_t C_batch, C_group, C_state;
    int64_t dy_batch, dy_row;
    int64_t batch, dim, length, n_states, n_groups;
    int64_t use_softplus;
    int64_t n_threads;
} scan_call;

/* S6 along several paths over the same tokens: for each path k, with the rows
 * of projected split into dt, B and C,
 *
 *     dt = softplus(dt_weight[k] dt + dt_bias[k])
 *
 * and the recurrence above over tokens[paths[k][0]], tokens[paths[k][1]], ...
 * Each result goes where its token is. All tensors are contiguous. */
typedef struct {
    const void *tokens;          /* (batch, length, dim) */
    const void *projected;       /* (batch, length, paths, rank + 2 states) */
    const void *dt_weight;       /* (paths, dim, rank) */
    const void *A;               /* (paths * dim, states) */
    const void *D, *dt_bias;     /* (paths * dim) */
    const int64_t *paths;        /* ([batch,] paths, length) */
    void *y;                     /* (batch, length, [paths,] dim) */
    void *states;                /* saved states; NULL: not saved */
    const void *dy;              /* backward from here on: like y */
    void *dtokens;               /* (batch, length, paths, dim) */
    void *dprojected;            /* like projected */
    void *ddt_weight;            /* (batch, paths, dim, rank) */
    void *dA;                    /* (batch, paths * dim, states) */
    void *dD, *ddt_bias;         /* (batch, paths * dim) */
    int64_t paths_batch;         /* 0: the same for all of the batch */
    int64_t batch, dim, length, n_states, n_paths, rank;
    int64_t merges;              /* y is the sum over paths */
    int64_t n_threads;
} path_call;

/* What follows the scan in a block with a gate, row by row:
 *
 *     y = ((x - mean) / sqrt(variance + eps) * weight + bias) * silu(z)
 *
 * Numbers of a row are neighbours; y, dx, dz are contiguous. */
typedef struct {
    const void *x, *z;           /* (rows, channels) */
    const void *weight, *bias;   /* (channels) */
    void *y;                     /* forward: (rows, channels) */
    const void *dy;              /* backward from here on: (rows, channels) */
    void *dx, *dz;               /* (rows, channels) */
    void *partial_sums;          /* (tasks, 2, channels): dweight and dbias */
    int64_t x_row, z_row, dy_row;
    int64_t rows, channels;
    int64_t n_threads;
    double eps;
} gate_call;

/* What the first convolution of a decoder level reads, maps in channels-last
 * memory:
 *
 *     y = cat(x resized, skip) * (1 + gate)
 *
 * resized bilinearly, without aligned corners. All tensors are contiguous. */
typedef struct {
    const void *x;         /* (batch, height, width, x_channels) */
    const void *skip;      /* (batch, out_height, out_width, skip_channels) */
    const void *gate;      /* (batch, out_height, out_width); NULL: none */
    void *y;               /* forward: like skip, with all the channels */
    const void *dy;        /* backward from here on: like y */
    void *dx, *dskip;
    void *dgate;           /* NULL: not wanted */
    int64_t batch, height, width, out_height, out_width;
    int64_t x_channels, skip_channels;
    int64_t n_threads;
} merge_call;

/* Batch normalisation in training, then ReLU:
 *
 *     y = max(0, (x - mean) / sqrt(variance + eps) * weight + bias)
 *
 * with mean and variance (the biased one) of each channel over the rows. All
 * tensors are contiguous. */
typedef struct {
    const void *x;               /* (rows, channels) */
    const void *weight, *bias;   /* (channels) */
    void *mean, *variance;       /* (channels): from the forward */
    void *y;                     /* forward: (rows, channels) */
    const void *dy;              /* backward from here on: (rows, channels) */
    void *dx;                    /* (rows, channels) */
    void *dweight, *dbias;       /* (channels) */
    int64_t rows, channels;
    int64_t n_threads;
    double eps;
} batch_norm_call;

/* The mean of one gate per group of channels, at each pixel:
 *
 *     y = mean over groups of logistic(<out_weight, max(0, hidden)> + out_bias)
 *     hidden = weight x + bias
 *
 * All tensors are contiguous. */
typedef struct {
    const void *x;                  /* (batch, groups, channels, pixels) */
    const void *weight;             /* (groups, hidden, channels) */
    const void *bias, *out_weight;  /* (groups, hidden) */
    const void *out_bias;           /* (groups) */
    void *y;                        /* forward: (batch, pixels) */
    const void *dy;                 /* backward from here on: like y */
    void *dx;                       /* NULL: not wanted */
    void *dweight, *dbias, *dout_weight, *dout_bias;
    int64_t batch, groups, channels, hidden, pixels;
    int64_t n_threads;
} mean_gate_call;

#endif
