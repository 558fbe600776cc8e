/* How a call is cut: along time into chunks, along channels into blocks.
 *
 * A block is up to LANES neighbouring channels of one group of one sequence,
 * one channel per lane: y needs no sum over lanes, and every step of the
 * recurrence is vectorised even with a single state. Blocks are independent
 * of each other but for dB and dC. */
#ifndef MMSEG_CRACKSSM_BLOCKS_H
#define MMSEG_CRACKSSM_BLOCKS_H

#include "calls.h"

/* Steps held in the first-level cache at a time. */
#define CHUNK_STEPS 128

/* From one array over the steps of a chunk to the next. A power of two would
 * put their steps at equal places of a page, where a load waits for any store
 * just before it. */
#define STEP_ARRAY (CHUNK_STEPS + 9)

/* The largest number of blocks that share the copies of B and C, and the
 * states from which on that pays: fewer blocks at a time read fewer rows. */
#define MAX_SHARED_BLOCKS 4
#define SHARED_FROM_STATES 4

/* States handled side by side in registers: the largest such group. */
#define MAX_STATE_GROUP 8

/* Steps between two saved states; divides CHUNK_STEPS. The backward recomputes
 * that many steps at a time. library.py holds the same number. */
#define SAVED_EVERY 32

/* Rows of a task of the gated normalisation. library.py holds the same number.
 */
#define GATE_ROWS 64

/* Rows of a task that merges maps. */
#define MERGE_ROWS 4

/* Pixels of a task that opens gates. */
#define GATE_PIXELS 512

/* Numbers of a task of the batch normalisation: twice as many fit the
 * second-level cache. */
#define NORM_TASK_NUMBERS 32768

_Static_assert(CHUNK_STEPS % SAVED_EVERY == 0 && SAVED_EVERY % 16 == 0,
               "segments fill chunks, and vectors fill segments");

static inline int64_t divide_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

typedef struct {
    int64_t batch, group;
    int64_t first_channel; /* counted over all groups */
    int64_t n_channels;
} channel_block;

static inline int64_t blocks_per_group(const scan_call *call, int64_t lanes)
{
    return divide_up(call->dim / call->n_groups, lanes);
}

static inline channel_block get_block(const scan_call *call, int64_t batch,
                                      int64_t group, int64_t index,
                                      int64_t lanes)
{
    int64_t group_size = call->dim / call->n_groups;
    return (channel_block){
        .batch = batch,
        .group = group,
        .first_channel = group * group_size + index * lanes,
        .n_channels = smaller(group_size - index * lanes, lanes),
    };
}

/* The blocks of one (batch, group), a `sequence` here, in parts that share
 * the copies of B and C. */
typedef struct {
    const scan_call *call;
    int64_t n_sequences, n_parts;
} forward_plan;

static inline forward_plan plan_forward(const scan_call *call, int64_t lanes)
{
    int64_t n_sequences = call->batch * call->n_groups;
    int64_t n_blocks = blocks_per_group(call, lanes);
    int64_t n_parts = n_blocks;
    if (call->n_states >= SHARED_FROM_STATES)
        n_parts = divide_up(n_blocks, MAX_SHARED_BLOCKS);
    /* Enough tasks to level out what other processes take away. */
    if (call->n_threads > 1)
        n_parts = larger(n_parts,
                         smaller(divide_up(4 * call->n_threads, n_sequences),
                                 n_blocks));
    return (forward_plan){
        .call = call,
        .n_sequences = n_sequences,
        .n_parts = n_parts,
    };
}

/* The same for one path of a path_call, or for all of them where they are
 * merged. */
typedef struct {
    const path_call *call;
    int64_t n_separate; /* paths that are not added up */
    int64_t n_parts;
} path_plan;

static inline path_plan plan_paths(const path_call *call, int64_t lanes)
{
    int64_t n_separate = call->merges ? 1 : call->n_paths;
    int64_t n_blocks = divide_up(call->dim, lanes);
    int64_t n_parts = divide_up(n_blocks, MAX_SHARED_BLOCKS);
    /* Something to do for each thread; more tasks would share less. */
    int64_t n_sequences = call->batch * n_separate;
    n_parts = larger(
        n_parts, smaller(divide_up(call->n_threads, n_sequences), n_blocks));
    return (path_plan){
        .call = call, .n_separate = n_separate, .n_parts = n_parts};
}

/* Where a block's saved states begin: [saved step][state][channel]. */
static inline int64_t saved_states_offset(const scan_call *call,
                                          const channel_block *block)
{
    return (block->batch * call->dim + block->first_channel) *
           divide_up(call->length, SAVED_EVERY) * call->n_states;
}

/* dB and dC sum over channels, hence over blocks. Each backward task takes a
 * part of the blocks of one sequence. The first part sums in the output
 * itself, the others have room of their own, added up in order afterwards: the
 * result does not depend on which thread comes first. */
typedef struct {
    const scan_call *call;
    int64_t n_sequences, n_parts;
    int64_t stride;        /* numbers per sequence: n_states * length */
    void *more_dB, *more_dC; /* [part - 1][sequence][state][step] */
} backward_plan;

static inline backward_plan plan_backward(const scan_call *call,
                                          int64_t lanes)
{
    int64_t n_sequences = call->batch * call->n_groups;
    int64_t n_parts = 1;
    /* Two tasks per thread level out what other processes take away. */
    if (call->n_threads > 1)
        n_parts = smaller(divide_up(2 * call->n_threads, n_sequences),
                          blocks_per_group(call, lanes));
    return (backward_plan){
        .call = call,
        .n_sequences = n_sequences,
        .n_parts = n_parts,
        .stride = call->n_states * call->length,
    };
}

#endif
