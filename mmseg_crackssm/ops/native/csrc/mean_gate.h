/* The mean of gates that are read from groups of channels, pixel by pixel, and
 * the gradients. One pixel per lane. A template like vector.h. */

typedef struct {
    const mean_gate_call *call;
    int64_t n_gate;  /* weights and biases of a gate */
    real *partial;   /* (tasks, groups, n_gate): sums for their gradients */
} NAME(mean_gate_work);

/* Some pixels of one image. */
typedef struct {
    const real *x, *dy;
    real *y, *dx;
    int64_t count;
} NAME(mean_gate_part);

static NAME(mean_gate_part)
NAME(mean_gate_part_at)(const mean_gate_call *call, int64_t task)
{
    const int64_t tasks = divide_up(call->pixels, GATE_PIXELS);
    const int64_t batch = task / tasks;
    const int64_t first = task % tasks * GATE_PIXELS;
    const int64_t in =
        batch * call->groups * call->channels * call->pixels + first;
    const int64_t out = batch * call->pixels + first;
    return (NAME(mean_gate_part)){
        .x = (const real *)call->x + in,
        .dy = (const real *)call->dy + out,
        .y = (real *)call->y + out,
        .dx = call->dx == NULL ? NULL : (real *)call->dx + in,
        .count = smaller(GATE_PIXELS, call->pixels - first),
    };
}

/* The weights and biases of one gate. */
typedef struct {
    const real *weight, *bias, *out_weight;
    real out_bias;
} NAME(gate_weights);

INLINE NAME(gate_weights) NAME(gate_weights_of)(const mean_gate_call *call,
                                                int64_t group)
{
    const int64_t first = group * call->hidden;
    return (NAME(gate_weights)){
        .weight = (const real *)call->weight + first * call->channels,
        .bias = (const real *)call->bias + first,
        .out_weight = (const real *)call->out_weight + first,
        .out_bias = ((const real *)call->out_bias)[group],
    };
}

/* A hidden channel before its ReLU. */
INLINE vec NAME(hidden_part)(const mean_gate_call *call, const real *x,
                             const real *weight, real bias, int64_t part)
{
    vec sum = NAME(broadcast)(bias);
    for (int64_t i = 0; i < call->channels; i++, x += call->pixels)
        sum += weight[i] * NAME(load_part)(x, part);
    return sum;
}

/* How far a gate is open, between 0 and 1. */
INLINE vec NAME(opening_part)(const mean_gate_call *call, const real *x,
                              NAME(gate_weights) gate, int64_t part)
{
    vec sum = NAME(broadcast)(gate.out_bias);
    const real *weight = gate.weight;
    for (int64_t j = 0; j < call->hidden; j++, weight += call->channels) {
        vec hidden = NAME(hidden_part)(call, x, weight, gate.bias[j], part);
        sum += gate.out_weight[j] * NAME(max)((vec){0}, hidden);
    }
    return NAME(logistic)(sum, NAME(exp_minus_abs)(sum));
}

INLINE void NAME(mean_part)(const mean_gate_call *call,
                            const NAME(mean_gate_part) *at, int64_t c,
                            int64_t part)
{
    const real *x = at->x + c;
    vec sum = {0};
    for (int64_t g = 0; g < call->groups; g++) {
        sum += NAME(opening_part)(call, x, NAME(gate_weights_of)(call, g),
                                  part);
        x += call->channels * call->pixels;
    }
    NAME(store_part)(at->y + c, sum * (1 / (real)call->groups), part);
}

static void NAME(mean_gate_task)(const void *context, int64_t task,
                                 void *scratch)
{
    const NAME(mean_gate_work) *work = context;
    const NAME(mean_gate_part) at =
        NAME(mean_gate_part_at)(work->call, task);
    (void)scratch;
    OVER_PARTS(at.count, NAME(mean_part)(work->call, &at, c, part));
}

/* The gradient of what the logistic function of a gate reads. */
INLINE vec NAME(opening_backward)(const mean_gate_call *call, const real *x,
                                  const real *dy, NAME(gate_weights) gate,
                                  real *to, int64_t part)
{
    vec open = NAME(opening_part)(call, x, gate, part);
    vec slope = open * (NAME(broadcast)(1) - open);
    vec gradient = NAME(load_part)(dy, part) * slope *
                   (1 / (real)call->groups);
    NAME(store_part)(to, gradient, part);
    return gradient;
}

/* From pixel c on: what a hidden channel adds to the sums of its weights, its
 * bias and its weight in the gate, and to dx. */
INLINE void NAME(hidden_backward)(const mean_gate_call *call, const real *x,
                                  real *dx, const real *gradient,
                                  const real *weight, real bias,
                                  real out_weight, vec *sums, int64_t part)
{
    const int64_t channels = call->channels;
    vec hidden = NAME(hidden_part)(call, x, weight, bias, part);
    vec dout = NAME(load_part)(gradient, part);
    vec dhidden =
        NAME(select)(hidden <= (vec){0}, (vec){0}, out_weight * dout);
    sums[channels] += dhidden;
    sums[channels + 1] += dout * NAME(max)((vec){0}, hidden);
    for (int64_t i = 0; i < channels; i++) {
        sums[i] += dhidden * NAME(load_part)(x + i * call->pixels, part);
        if (dx == NULL)
            continue;
        real *to = dx + i * call->pixels;
        NAME(store_part)(
            to, NAME(load_part)(to, part) + weight[i] * dhidden, part);
    }
}

static real NAME(total)(vec x)
{
    real sum = 0;
    for (int i = 0; i < LANES; i++)
        sum += x[i];
    return sum;
}

static void NAME(mean_gate_backward_task)(const void *context, int64_t task,
                                          void *scratch)
{
    const NAME(mean_gate_work) *work = context;
    const mean_gate_call *call = work->call;
    const int64_t channels = call->channels;
    const int64_t map = channels * call->pixels;
    NAME(mean_gate_part) at = NAME(mean_gate_part_at)(call, task);
    real *gradient = scratch;
    vec *sums = (vec *)(gradient + GATE_PIXELS);
    real *to = work->partial + task * call->groups * work->n_gate;
    for (int64_t g = 0; g < call->groups; g++) {
        const NAME(gate_weights) gate = NAME(gate_weights_of)(call, g);
        vec dout_bias = {0};
        OVER_PARTS(at.count, dout_bias += NAME(opening_backward)(
                                 call, at.x + c, at.dy + c, gate,
                                 gradient + c, part));
        if (at.dx != NULL)
            for (int64_t i = 0; i < channels; i++)
                memset(at.dx + i * call->pixels, 0,
                       (size_t)at.count * sizeof(real));
        for (int64_t j = 0; j < call->hidden; j++) {
            memset(sums, 0, (size_t)(channels + 2) * sizeof(vec));
            OVER_PARTS(at.count,
                       NAME(hidden_backward)(
                           call, at.x + c, at.dx == NULL ? NULL : at.dx + c,
                           gradient + c, gate.weight + j * channels,
                           gate.bias[j], gate.out_weight[j], sums, part));
            for (int64_t i = 0; i < channels + 2; i++)
                *to++ = NAME(total)(sums[i]);
        }
        *to++ = NAME(total)(dout_bias);
        at.x += map;
        if (at.dx != NULL)
            at.dx += map;
    }
}

/* The tasks' sums, added up, in the order of the parameters. */
static void NAME(join_gates)(const NAME(mean_gate_work) *work, int64_t tasks)
{
    const mean_gate_call *call = work->call;
    const int64_t n_all = call->groups * work->n_gate;
    const int64_t n_hidden = call->channels + 2;
    for (int64_t p = 0; p < n_all; p++) {
        double sum = 0;
        for (int64_t t = 0; t < tasks; t++)
            sum += work->partial[t * n_all + p];
        const int64_t group = p / work->n_gate, rest = p % work->n_gate;
        const int64_t hidden = group * call->hidden + rest / n_hidden;
        const int64_t i = rest % n_hidden;
        if (rest == call->hidden * n_hidden)
            ((real *)call->dout_bias)[group] = (real)sum;
        else if (i == call->channels)
            ((real *)call->dbias)[hidden] = (real)sum;
        else if (i == call->channels + 1)
            ((real *)call->dout_weight)[hidden] = (real)sum;
        else
            ((real *)call->dweight)[hidden * call->channels + i] = (real)sum;
    }
}

static int NAME(run_mean_gate)(const mean_gate_call *call)
{
    const NAME(mean_gate_work) work = {.call = call};
    return run_tasks(NAME(mean_gate_task), &work,
                     call->batch * divide_up(call->pixels, GATE_PIXELS),
                     call->n_threads, 64);
}

static int NAME(run_mean_gate_backward)(const mean_gate_call *call)
{
    const int64_t tasks =
        call->batch * divide_up(call->pixels, GATE_PIXELS);
    NAME(mean_gate_work) work = {
        .call = call,
        .n_gate = call->hidden * (call->channels + 2) + 1,
    };
    work.partial = malloc((size_t)(tasks * call->groups * work.n_gate) *
                          sizeof(real));
    if (work.partial == NULL)
        return CALL_NO_MEMORY;
    const int status =
        run_tasks(NAME(mean_gate_backward_task), &work, tasks,
                  call->n_threads,
                  GATE_PIXELS * sizeof(real) +
                      (size_t)(call->channels + 2) * sizeof(vec));
    if (status == CALL_OK)
        NAME(join_gates)(&work, tasks);
    free(work.partial);
    return status;
}
