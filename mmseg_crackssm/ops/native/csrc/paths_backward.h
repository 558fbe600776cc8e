/* Gradients of paths.h. A template like vector.h.
 *
 * A task takes one path of one sequence, all its channels: the gradient of
 * `projected` sums over channels, that of the tokens over paths, which the
 * caller adds up. Segments run as in backward_segment.h. */

/* What one block of channels needs beside a backward_chunk. */
typedef struct {
    NAME(path_block) path;   /* without an output */
    const real *dy;          /* this block's channels of the first token */
    int64_t dy_stride;
    real *dtokens;           /* the same, of this path's share */
    int64_t dtokens_stride;
    real *dprojected;        /* like path.projected */
    int adds_up;             /* dprojected holds the sum over other blocks */
    NAME(long_sum) *dweights; /* [rank] */
    real *numbers;           /* [rank dt, then B, then C][CHUNK_STEPS] */
    real *gradients;         /* theirs */
} NAME(backward_path_block);

static size_t NAME(backward_path_scratch_size)(const path_call *call)
{
    size_t rank = (size_t)call->rank;
    size_t width = (size_t)NAME(projected_width)(call);
    return NAME(backward_scratch_size)(call->n_states) +
           rank * (sizeof(vec) + sizeof(NAME(long_sum))) +
           (rank + width) * CHUNK_STEPS * sizeof(real);
}

INLINE NAME(backward_chunk)
    NAME(lay_out_backward_path)(const path_call *call, void *scratch,
                                NAME(backward_path_block) *block)
{
    const int64_t rank = call->rank, n_states = call->n_states;
    NAME(backward_chunk) chunk = NAME(lay_out_backward)(scratch, n_states);
    block->numbers = chunk.B;
    chunk.B = block->numbers + rank * CHUNK_STEPS;
    chunk.C = chunk.B + n_states * CHUNK_STEPS;
    block->gradients = chunk.C + n_states * CHUNK_STEPS;
    block->path.weights =
        (vec *)(block->gradients + (rank + 2 * n_states) * CHUNK_STEPS);
    block->dweights = (NAME(long_sum) *)(block->path.weights + rank);
    /* Only lines that are needed anyway. */
    chunk.next_dy.first = block->gradients;
    chunk.du_rows = chunk.ddelta_rows = chunk.next_dy;
    return chunk;
}

INLINE void NAME(prefetch_gradients)(const NAME(backward_path_block) *block,
                                     int64_t token)
{
    NAME(prefetch_numbers)(
        block->path.projected + token * block->path.projected_stride,
        NAME(projected_width)(block->path.call));
    __builtin_prefetch(block->path.tokens + token * block->path.token_stride,
                       0, 3);
    __builtin_prefetch(block->dy + token * block->dy_stride, 0, 3);
}

/* Loads `steps` steps of the path and computes what the forward did. */
static void NAME(load_backward_path)(const NAME(backward_path_block) *block,
                                     const int64_t *path, int64_t steps,
                                     int has_more,
                                     NAME(backward_chunk) *chunk)
{
    const NAME(path_block) *from = &block->path;
    const int64_t rank = from->call->rank;
    const int64_t width = NAME(projected_width)(from->call);
    vec longest = {0};
    for (int64_t i = 0; i < width; i += LANES) {
        const int64_t count = smaller(width - i, LANES);
        const NAME(channel_rows) rows = {
            .first = block->numbers + i * CHUNK_STEPS, .stride = CHUNK_STEPS};
        for (int64_t t = 0; t < steps; t++)
            chunk->input[t] = NAME(load_part)(
                from->projected + path[t] * from->projected_stride + i,
                count);
        NAME(store_channels)(rows, count, steps, chunk->input);
    }
    for (int64_t t = 0; t < steps; t++) {
        vec u = NAME(load_part)(from->tokens + path[t] * from->token_stride,
                                from->n_channels);
        vec delta = from->bias;
        for (int64_t r = 0; r < rank; r++)
            delta += from->weights[r] *
                     NAME(broadcast)(block->numbers[r * CHUNK_STEPS + t]);
        chunk->u[t] = u;
        chunk->dy[t] = NAME(load_part)(
            block->dy + path[t] * block->dy_stride, from->n_channels);
        vec e = NAME(exp_minus_abs)(delta);
        chunk->slope[t] = NAME(softplus_slope)(delta, e);
        chunk->dt[t] = NAME(softplus)(delta, e);
        longest = NAME(max)(chunk->dt[t], longest);
        chunk->input[t] = chunk->dt[t] * u;
        if (has_more)
            NAME(prefetch_gradients)(block, path[t - CHUNK_STEPS]);
    }
    chunk->has_small_exponents =
        NAME(exponents_are_small)(longest, chunk->steepest);
    memset(block->gradients, 0,
           (size_t)(width * CHUNK_STEPS) * sizeof(real));
}

/* From ddelta, in chunk->dt: the gradients of the step sizes' projection. */
static void NAME(project_back)(const NAME(backward_path_block) *block,
                               int64_t steps, NAME(backward_chunk) *chunk)
{
    const int64_t rank = block->path.call->rank;
    const vec *weights = block->path.weights;
    vec *sums = chunk->grad_input; /* no longer needed */
    int64_t r = 0;
    for (; r + GROUP <= rank; r += GROUP) {
        for (int64_t t = 0; t < steps; t++) {
            vec x = chunk->dt[t];
            sums[t] = NAME(sum_into_quads)(weights[r] * x, weights[r + 1] * x,
                                           weights[r + 2] * x,
                                           weights[r + 3] * x);
        }
        NAME(add_lane_sums)(sums, steps, GROUP,
                            block->gradients + r * CHUNK_STEPS, CHUNK_STEPS);
    }
    for (; r < rank; r++) {
        for (int64_t t = 0; t < steps; t++)
            sums[t] = weights[r] * chunk->dt[t];
        NAME(add_lane_sums)(sums, steps, 1,
                            block->gradients + r * CHUNK_STEPS, CHUNK_STEPS);
    }
    for (r = 0; r < rank; r++) {
        const real *numbers = block->numbers + r * CHUNK_STEPS;
        vec sum = {0};
        for (int64_t t = 0; t < steps; t++)
            sum += chunk->dt[t] * NAME(broadcast)(numbers[t]);
        NAME(add_to_sum)(&block->dweights[r], sum);
    }
}

/* Gradients of one chunk, from scratch to where their tokens are. */
static void NAME(store_backward_path)(const NAME(backward_path_block) *block,
                                      const int64_t *path, int64_t steps,
                                      NAME(backward_chunk) *chunk)
{
    const path_call *call = block->path.call;
    const int64_t width = NAME(projected_width)(call);
    vec *rows_of_steps = chunk->grad_decay; /* no longer needed */
    for (int64_t t = 0; t < steps; t++)
        NAME(store_part)(block->dtokens + path[t] * block->dtokens_stride,
                         chunk->u[t], block->path.n_channels);
    for (int64_t i = 0; i < width; i += LANES) {
        const int64_t count = smaller(width - i, LANES);
        const NAME(channel_rows) rows = {
            .first = block->gradients + i * CHUNK_STEPS,
            .stride = CHUNK_STEPS};
        NAME(load_channels)(rows, count, steps, rows_of_steps);
        for (int64_t t = 0; t < steps; t++) {
            real *to = block->dprojected +
                       path[t] * block->path.projected_stride + i;
            vec x = rows_of_steps[t];
            if (block->adds_up)
                x += NAME(load_part)(to, count);
            NAME(store_part)(to, x, count);
        }
    }
}

static void NAME(store_path_sums)(const path_call *call, int64_t first,
                                  const NAME(backward_path_block) *block,
                                  const NAME(backward_chunk) *chunk,
                                  const NAME(channel_sums) *sums)
{
    const int64_t n_states = call->n_states, rank = call->rank;
    for (int64_t j = 0; j < block->path.n_channels; j++) {
        const int64_t channel = first + j;
        for (int64_t n = 0; n < n_states; n++)
            ((real *)call->dA)[channel * n_states + n] =
                chunk->dA[n].sum[j];
        for (int64_t r = 0; r < rank; r++)
            ((real *)call->ddt_weight)[channel * rank + r] =
                block->dweights[r].sum[j];
        ((real *)call->dD)[channel] = sums->dD.sum[j];
        ((real *)call->ddt_bias)[channel] = sums->ddelta_bias.sum[j];
    }
}

static void NAME(backward_path_block_of)(const path_call *call,
                                         const channel_block *channels,
                                         int64_t path, void *scratch)
{
    const int64_t n_states = call->n_states, length = call->length;
    const int64_t width = NAME(projected_width)(call);
    const int64_t first_token = channels->batch * length;
    const int64_t c = channels->first_channel;
    const int64_t saved_size = n_states * channels->n_channels;
    NAME(backward_path_block) block = {
        .path = NAME(get_path_block)(call, channels, path),
        .dy = (const real *)call->dy +
              NAME(output_offset)(call, channels, path),
        .dy_stride = NAME(output_stride)(call),
        .dtokens = (real *)call->dtokens +
                   (first_token * call->n_paths + path) * call->dim + c,
        .dtokens_stride = call->n_paths * call->dim,
        .dprojected = (real *)call->dprojected +
                      (first_token * call->n_paths + path) * width,
        .adds_up = c > 0,
    };
    NAME(backward_chunk) chunk =
        NAME(lay_out_backward_path)(call, scratch, &block);
    NAME(channel_sums) sums = {0};
    chunk.steepest = NAME(load_path_parameters)(
        call, channels, path, &block.path, chunk.rates);
    for (int64_t r = 0; r < call->rank; r++)
        block.dweights[r] = (NAME(long_sum)){0};
    for (int64_t n = 0; n < n_states; n++) {
        chunk.grad_state[n] = (vec){0};
        chunk.dA[n] = (NAME(long_sum)){0};
    }
    const real *saved = NAME(saved_path_states)(call, channels, path);
    int64_t start = (length - 1) / CHUNK_STEPS * CHUNK_STEPS;
    for (; start >= 0; start -= CHUNK_STEPS) {
        const int64_t steps = smaller(length - start, CHUNK_STEPS);
        const int64_t *tokens = block.path.path + start;
        NAME(load_backward_path)(&block, tokens, steps, start > 0, &chunk);
        int64_t t = (steps - 1) / SAVED_EVERY * SAVED_EVERY;
        for (; t >= 0; t -= SAVED_EVERY) {
            real *gradients = block.gradients + call->rank * CHUNK_STEPS + t;
            const NAME(segment) segment = {
                .saved = saved + (start + t) / SAVED_EVERY * saved_size,
                .saved_size = saved_size,
                .n_channels = channels->n_channels,
                .begin = t,
                .end = smaller(t + SAVED_EVERY, steps),
                .dB = gradients,
                .dC = gradients + n_states * CHUNK_STEPS,
                .length = CHUNK_STEPS,
            };
            NAME(segment_all)(&chunk, &segment, n_states);
        }
        NAME(finish_chunk)(&chunk, block.path.D, steps, &sums);
        NAME(project_back)(&block, steps, &chunk);
        NAME(store_backward_path)(&block, tokens, steps, &chunk);
    }
    NAME(store_path_sums)(
        call, (channels->batch * call->n_paths + path) * call->dim + c,
        &block, &chunk, &sums);
}

static void NAME(backward_path_task)(const void *context, int64_t task,
                                     void *scratch)
{
    const path_call *call = context;
    const int64_t n_blocks = divide_up(call->dim, LANES);
    for (int64_t i = 0; i < n_blocks; i++) {
        const channel_block channels =
            NAME(get_channels)(call, task / call->n_paths, i);
        NAME(backward_path_block_of)(call, &channels, task % call->n_paths,
                                     scratch);
    }
}

static int NAME(run_paths_backward)(const path_call *call)
{
    return run_tasks(NAME(backward_path_task), call,
                     call->batch * call->n_paths, call->n_threads,
                     NAME(backward_path_scratch_size)(call));
}
