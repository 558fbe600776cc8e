/* Batch normalisation with the batch's own statistics, then ReLU, over rows
 * of channels, and the gradients. A template like vector.h. */

/* What a call's tasks share, filled in between its passes over the rows. */
typedef struct {
    const batch_norm_call *call;
    int64_t task_rows;      /* rows of a task, whatever the threads */
    int64_t tasks;
    real *partial;          /* (tasks, 2, channels) */
    real *scale;            /* (channels): weight / sqrt(variance + eps) */
    real *offset, *slant;   /* (channels): see dx_part */
} NAME(batch_norm_work);

INLINE int64_t NAME(count_rows)(const NAME(batch_norm_work) *work,
                                int64_t task)
{
    return smaller(work->task_rows,
                   work->call->rows - task * work->task_rows);
}

/* A task's rows from channel c on, `part` <= LANES channels. */
typedef struct {
    const real *x, *dy;
    real *y, *dx, *partial;
    const real *mean, *bias, *scale, *offset, *slant;
    int64_t stride, count;
} NAME(column);

INLINE NAME(column) NAME(column_at)(const NAME(batch_norm_work) *work,
                                    int64_t task, int64_t c)
{
    const batch_norm_call *call = work->call;
    const int64_t at = task * work->task_rows * call->channels + c;
    return (NAME(column)){
        .x = (const real *)call->x + at,
        .dy = (const real *)call->dy + at,
        .y = (real *)call->y + at,
        .dx = (real *)call->dx + at,
        .partial = work->partial + task * 2 * call->channels + c,
        .mean = (const real *)call->mean + c,
        .bias = (const real *)call->bias + c,
        .scale = work->scale + c,
        .offset = work->offset + c,
        .slant = work->slant + c,
        .stride = call->channels,
        .count = NAME(count_rows)(work, task),
    };
}

/* The mean of the rows, and the sum of the squares of their distances from
 * it. */
INLINE void NAME(moments_part)(NAME(column) at, int64_t part)
{
    vec sums[4] = {{0}}, squares[4] = {{0}};
    const real *x = at.x;
    int64_t r = 0;
    for (; r + 4 <= at.count; r += 4)
        UNROLL for (int i = 0; i < 4; i++, x += at.stride)
            sums[i] += NAME(load_part)(x, part);
    for (; r < at.count; r++, x += at.stride)
        sums[0] += NAME(load_part)(x, part);
    const vec mean = ((sums[0] + sums[1]) + (sums[2] + sums[3])) /
                     NAME(broadcast)((real)at.count);
    x = at.x;
    for (r = 0; r + 4 <= at.count; r += 4)
        UNROLL for (int i = 0; i < 4; i++, x += at.stride) {
            vec distance = NAME(load_part)(x, part) - mean;
            squares[i] += distance * distance;
        }
    for (; r < at.count; r++, x += at.stride) {
        vec distance = NAME(load_part)(x, part) - mean;
        squares[0] += distance * distance;
    }
    NAME(store_part)(at.partial, mean, part);
    NAME(store_part)(at.partial + at.stride,
                     (squares[0] + squares[1]) + (squares[2] + squares[3]),
                     part);
}

/* The mean and variance of all rows from those of the tasks. */
static void NAME(join_moments)(const NAME(batch_norm_work) *work)
{
    const batch_norm_call *call = work->call;
    const int64_t stride = 2 * call->channels;
    for (int64_t c = 0; c < call->channels; c++) {
        const real *means = work->partial + c;
        const real *squares = means + call->channels;
        double mean = 0, sum = 0;
        for (int64_t t = 0; t < work->tasks; t++)
            mean += (double)NAME(count_rows)(work, t) * means[t * stride];
        mean /= (double)call->rows;
        for (int64_t t = 0; t < work->tasks; t++) {
            const double distance = means[t * stride] - mean;
            sum += squares[t * stride] +
                   (double)NAME(count_rows)(work, t) * distance * distance;
        }
        ((real *)call->mean)[c] = (real)mean;
        ((real *)call->variance)[c] = (real)(sum / (double)call->rows);
    }
}

static void NAME(find_scale)(const NAME(batch_norm_work) *work)
{
    const batch_norm_call *call = work->call;
    const real *weight = call->weight, *variance = call->variance;
    for (int64_t c = 0; c < call->channels; c++)
        work->scale[c] =
            (real)(weight[c] / sqrt((double)variance[c] + call->eps));
}

/* The gradient that passes the ReLU, given x without its mean. The backward
 * and the forward round alike. */
INLINE vec NAME(passed)(vec dy, vec distance, vec scale, vec bias)
{
    return NAME(select)(scale * distance + bias <= (vec){0}, (vec){0}, dy);
}

INLINE void NAME(y_part)(NAME(column) at, int64_t part)
{
    const vec mean = NAME(load_part)(at.mean, part);
    const vec scale = NAME(load_part)(at.scale, part);
    const vec bias = NAME(load_part)(at.bias, part);
    for (int64_t r = 0; r < at.count; r++) {
        vec distance = NAME(load_part)(at.x, part) - mean;
        NAME(store_part)(
            at.y, NAME(max)((vec){0}, scale * distance + bias), part);
        at.x += at.stride;
        at.y += at.stride;
    }
}

/* The sums of the gradient over the rows, as it is and times the distance
 * from the mean. */
INLINE void NAME(gradient_part)(NAME(column) at, int64_t part)
{
    const vec mean = NAME(load_part)(at.mean, part);
    const vec scale = NAME(load_part)(at.scale, part);
    const vec bias = NAME(load_part)(at.bias, part);
    vec sum = {0}, product = {0};
    for (int64_t r = 0; r < at.count; r++) {
        vec distance = NAME(load_part)(at.x, part) - mean;
        vec gradient = NAME(passed)(NAME(load_part)(at.dy, part), distance,
                                    scale, bias);
        sum += gradient;
        product += gradient * distance;
        at.x += at.stride;
        at.dy += at.stride;
    }
    NAME(store_part)(at.partial, sum, part);
    NAME(store_part)(at.partial + at.stride, product, part);
}

/* dweight and dbias, and what dx needs of them. */
static void NAME(join_gradients)(const NAME(batch_norm_work) *work)
{
    const batch_norm_call *call = work->call;
    const real *variances = call->variance;
    for (int64_t c = 0; c < call->channels; c++) {
        const real *at = work->partial + c;
        double sum = 0, product = 0;
        for (int64_t t = 0; t < work->tasks; t++) {
            sum += at[0];
            product += at[call->channels];
            at += 2 * call->channels;
        }
        const double variance = (double)variances[c] + call->eps;
        ((real *)call->dbias)[c] = (real)sum;
        ((real *)call->dweight)[c] = (real)(product / sqrt(variance));
        work->offset[c] = (real)(sum / (double)call->rows);
        work->slant[c] = (real)(product / variance / (double)call->rows);
    }
}

INLINE void NAME(dx_part)(NAME(column) at, int64_t part)
{
    const vec mean = NAME(load_part)(at.mean, part);
    const vec scale = NAME(load_part)(at.scale, part);
    const vec bias = NAME(load_part)(at.bias, part);
    const vec offset = NAME(load_part)(at.offset, part);
    const vec slant = NAME(load_part)(at.slant, part);
    for (int64_t r = 0; r < at.count; r++) {
        vec distance = NAME(load_part)(at.x, part) - mean;
        vec gradient = NAME(passed)(NAME(load_part)(at.dy, part), distance,
                                    scale, bias);
        vec centred = gradient - offset - distance * slant;
        NAME(store_part)(at.dx, scale * centred, part);
        at.x += at.stride;
        at.dy += at.stride;
        at.dx += at.stride;
    }
}

#define COLUMN_TASK(name, part_function)                                  \
    static void NAME(name)(const void *context, int64_t task,             \
                           void *scratch)                                 \
    {                                                                     \
        const NAME(batch_norm_work) *work = context;                      \
        (void)scratch;                                                    \
        OVER_PARTS(work->call->channels,                                  \
                   NAME(part_function)(NAME(column_at)(work, task, c),    \
                                       part));                            \
    }

COLUMN_TASK(moments_task, moments_part)
COLUMN_TASK(y_task, y_part)
COLUMN_TASK(gradient_task, gradient_part)
COLUMN_TASK(dx_task, dx_part)

#undef COLUMN_TASK

static int NAME(run_batch_norm)(const batch_norm_call *call, int is_backward)
{
    NAME(batch_norm_work) work = {.call = call};
    const size_t channels = (size_t)call->channels;
    work.task_rows = larger(16, NORM_TASK_NUMBERS / call->channels);
    work.tasks = divide_up(call->rows, work.task_rows);
    work.scale = malloc((3 + 2 * (size_t)work.tasks) * channels *
                        sizeof(real));
    if (work.scale == NULL)
        return CALL_NO_MEMORY;
    work.offset = work.scale + channels;
    work.slant = work.offset + channels;
    work.partial = work.slant + channels;
    int status;
    if (is_backward) {
        NAME(find_scale)(&work);
        status = run_tasks(NAME(gradient_task), &work, work.tasks,
                           call->n_threads, 64);
        if (status == CALL_OK) {
            NAME(join_gradients)(&work);
            status = run_tasks(NAME(dx_task), &work, work.tasks,
                               call->n_threads, 64);
        }
    } else {
        status = run_tasks(NAME(moments_task), &work, work.tasks,
                           call->n_threads, 64);
        if (status == CALL_OK) {
            NAME(join_moments)(&work);
            NAME(find_scale)(&work);
            status = run_tasks(NAME(y_task), &work, work.tasks,
                               call->n_threads, 64);
        }
    }
    free(work.scale);
    return status;
}

static int NAME(run_batch_norm_relu)(const batch_norm_call *call)
{
    return NAME(run_batch_norm)(call, 0);
}

static int NAME(run_batch_norm_relu_backward)(const batch_norm_call *call)
{
    return NAME(run_batch_norm)(call, 1);
}
