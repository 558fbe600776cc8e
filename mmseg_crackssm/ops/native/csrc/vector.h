/* Vectors of LANES numbers: arithmetic, exp2, softplus.
 *
 * A template: native.c includes it once per instruction set, having defined
 *   LANES          numbers per vector
 *   REAL_IS_DOUBLE 0: float, 1: double
 *   NAME(x)        a name of its own for everything defined here
 * Only vector extensions common to GCC and clang are used, plus intrinsics
 * where an instruction does what C cannot say. */

#if REAL_IS_DOUBLE
typedef double NAME(real);
typedef int64_t NAME(lane_int);
#else
typedef float NAME(real);
typedef int32_t NAME(lane_int);
#endif
#define real NAME(real)
#define lane_int NAME(lane_int)

typedef real NAME(vec) __attribute__((vector_size(LANES * sizeof(real))));
typedef lane_int NAME(ivec)
    __attribute__((vector_size(LANES * sizeof(real))));
/* The same numbers at any address. */
typedef real NAME(unaligned_vec)
    __attribute__((vector_size(LANES * sizeof(real)),
                   aligned(sizeof(real)), may_alias));
#define vec NAME(vec)
#define ivec NAME(ivec)
#define unaligned_vec NAME(unaligned_vec)

INLINE vec NAME(broadcast)(real x) { return x - (vec){0}; }

INLINE vec NAME(load)(const real *from)
{
    return (vec) * (const unaligned_vec *)from;
}

INLINE void NAME(store)(real *to, vec x)
{
    *(unaligned_vec *)to = (unaligned_vec)x;
}

/* Lanes of `yes` where the mask's lane is -1, of `no` where it is 0. */
INLINE vec NAME(select)(ivec mask, vec yes, vec no)
{
    return (vec)(((ivec)yes & mask) | ((ivec)no & ~mask));
}

/* The first `count` numbers, zeros behind them. */
INLINE vec NAME(load_part)(const real *from, int64_t count)
{
    if (count == LANES)
        return NAME(load)(from);
#if LANES == 16
    return (vec)_mm512_maskz_loadu_ps((__mmask16)((1 << count) - 1), from);
#else
    vec x = {0};
    memcpy(&x, from, (size_t)count * sizeof(real));
    return x;
#endif
}

INLINE void NAME(store_part)(real *to, vec x, int64_t count)
{
    if (count == LANES)
        NAME(store)(to, x);
    else
#if LANES == 16
        _mm512_mask_storeu_ps(to, (__mmask16)((1 << count) - 1), (__m512)x);
#else
        memcpy(to, &x, (size_t)count * sizeof(real));
#endif
}

/* A statement for each vector of `count` numbers: `part` numbers from number
 * `c` on. `part` is a constant but for the rest behind the whole vectors. */
#define OVER_PARTS(count, statement)                     \
    do {                                                 \
        int64_t c = 0;                                   \
        for (; c + LANES <= (count); c += LANES) {       \
            const int64_t part = LANES;                  \
            statement;                                   \
        }                                                \
        if (c < (count)) {                               \
            const int64_t part = (count) - c;            \
            statement;                                   \
        }                                                \
    } while (0)

/* ---- exp2 and softplus ------------------------------------------------ */

/* The larger and the smaller of two; `y` where one of them is NaN. */
INLINE vec NAME(max)(vec x, vec y)
{
#if LANES == 16
    return (vec)_mm512_max_ps((__m512)x, (__m512)y);
#elif LANES == 8
    return (vec)_mm256_max_ps((__m256)x, (__m256)y);
#elif LANES == 4 && defined(__SSE2__) && !REAL_IS_DOUBLE
    return (vec)_mm_max_ps((__m128)x, (__m128)y);
#else
    return NAME(select)(x > y, x, y);
#endif
}

INLINE vec NAME(min)(vec x, vec y)
{
#if LANES == 8
    return (vec)_mm256_min_ps((__m256)x, (__m256)y);
#elif LANES == 4 && defined(__SSE2__) && !REAL_IS_DOUBLE
    return (vec)_mm_min_ps((__m128)x, (__m128)y);
#else
    return NAME(select)(x < y, x, y);
#endif
}

INLINE vec NAME(absolute)(vec x)
{
    const ivec sign = (ivec)NAME(broadcast)((real)-0.0);
    return (vec)((ivec)x & ~sign);
}

/* 2**(x * y): exactly 1 at 0, otherwise within 1.5 units in the last place
 * of the exponential. Exact at 0 because a decay that is off by one unit
 * compounds over thousands of steps. Underflows to 0, overflows to inf, keeps
 * NaN. With `is_small` it is cheaper, and right where |x * y| is at most
 * SMALL_EXPONENT or NaN. */
#if REAL_IS_DOUBLE

#define SMALL_EXPONENT 0

INLINE vec NAME(exp2_of_product)(vec x, vec y, const int is_small)
{
    (void)is_small;
    vec product = x * y;
    for (int i = 0; i < LANES; i++)
        product[i] = exp2(product[i]);
    return product;
}

#else

#if LANES == 16

#define SMALL_EXPONENT 131072

/* The exponent is split into sixteenths and a rest: 2**(j / 16) from a table
 * that is one register, and a short polynomial for the rest. */
INLINE vec NAME(exp2_of_product)(vec x, vec y, const int is_small)
{
    const vec table = {1.0f,        1.04427378f, 1.09050773f, 1.13878863f,
                       1.18920712f, 1.24185781f, 1.29683955f, 1.35425555f,
                       1.41421356f, 1.47682615f, 1.54221083f, 1.61049033f,
                       1.68179283f, 1.75625216f, 1.83400809f, 1.91520656f};
    /* At this magnitude a unit in the last place is 1/16: a sum is rounded
     * to sixteenths, and its low bits, all that the table look-up reads,
     * hold j. */
    const vec rounder = NAME(broadcast)(786432.0f);
    vec index, sixteenths, rest;
    if (is_small) {
        index = x * y + rounder;
        sixteenths = index - rounder;
        rest = x * y - sixteenths;
    } else {
        vec product = x * y;
        /* product minus product rounded to 4 binary places; 0 for +-inf */
        rest = (vec)_mm512_reduce_ps((__m512)product, 4 << 4);
        sixteenths = product - rest;
        index = sixteenths + rounder;
    }
    vec power = (vec)_mm512_permutexvar_ps((__m512i)index, (__m512)table);
    vec p = NAME(broadcast)(0.05550410866f);
    p = p * rest + NAME(broadcast)(0.24022650696f);
    p = p * rest + NAME(broadcast)(0.69314718056f);
    p = p * rest;
    /* scalef rounds its exponent down to an integer: j is left out. */
    return (vec)_mm512_scalef_ps((__m512)(power * p + power),
                                 (__m512)sixteenths);
}

#else

#define SMALL_EXPONENT 125

INLINE vec NAME(exp2_of_product)(vec x, vec y, const int is_small)
{
    /* At this magnitude a unit in the last place is 1: the sum is rounded to
     * an integer, and its low bits hold that integer plus the bias 127. */
    const vec rounder = NAME(broadcast)(12582912.0f + 127.0f);
    vec rounded, f;
    if (is_small) {
        rounded = x * y + rounder;
        f = x * y - (rounded - rounder);
    } else {
        vec product = NAME(max)(NAME(broadcast)(-127.0f), x * y);
        product = NAME(min)(NAME(broadcast)(128.0f), product);
        rounded = product + rounder;
        f = product - (rounded - rounder);
    }
    /* 2**f for |f| <= 1/2: minimax in the relative error with p(0) = 1. One
     * degree less would do for the exponential itself, but its errors all
     * have one sign where decays are alike, and dA adds them up. */
    vec p = NAME(broadcast)(0.000153533649f);
    p = p * f + NAME(broadcast)(0.0013398875f);
    p = p * f + NAME(broadcast)(0.00961843692f);
    p = p * f + NAME(broadcast)(0.0555033237f);
    p = p * f + NAME(broadcast)(0.240226477f);
    p = p * f + NAME(broadcast)(0.693147182f);
    p = p * f + NAME(broadcast)(1.0f);
    return p * (vec)((ivec)rounded << 23);
}

#endif
#endif

/* 1 / x within a unit in the last place, for normal x of usual size. */
INLINE vec NAME(reciprocal)(vec x)
{
#if LANES == 16
    /* A division takes as long as ten of these: 14 bits, then one step of
     * Newton's method. */
    vec guess = (vec)_mm512_rcp14_ps((__m512)x);
    return guess * (NAME(broadcast)(2) - x * guess);
#else
    return NAME(broadcast)(1) / x;
#endif
}

/* log(1 + e) for e in [0, 1]. */
INLINE vec NAME(log1p_fraction)(vec e)
{
#if REAL_IS_DOUBLE
    for (int i = 0; i < LANES; i++)
        e[i] = log1p(e[i]);
    return e;
#elif LANES == 16
    /* With j = 15 e rounded, 1 + e = (1 + j / 15) (1 + rest): the first
     * factor's reciprocal and logarithm from tables of one register each. */
    const vec reciprocals = {
        1.0f,         0.9375f,      0.88235295f, 0.8333333f,
        0.7894737f,   0.75f,        0.71428573f, 0.6818182f,
        0.65217394f,  0.625f,       0.6f,        0.5769231f,
        0.5555556f,   0.53571427f,  0.51724136f, 0.5f};
    const vec logarithms = {
        0.0f, 0.0645385236f, 0.125163138f, 0.182321578f,
        0.236388743f, 0.287682086f, 0.336472213f, 0.382992238f,
        0.427443981f, 0.470003635f, 0.510825574f, 0.550046325f,
        0.587786615f, 0.624154329f, 0.65924567f, 0.693147182f};
    /* A unit in the last place is 1: the low bits hold j. */
    __m512i index =
        (__m512i)(e * NAME(broadcast)(15) + NAME(broadcast)(12582912.0f));
    vec reciprocal =
        (vec)_mm512_permutexvar_ps(index, (__m512)reciprocals);
    vec logarithm = (vec)_mm512_permutexvar_ps(index, (__m512)logarithms);
    vec rest = e * reciprocal + (reciprocal - NAME(broadcast)(1));
    /* log(1 + rest) / rest for |rest| <= 1/30: minimax with p(0) = 1 */
    vec p = NAME(broadcast)(-0.250197f);
    p = p * rest + NAME(broadcast)(0.33351759f);
    p = p * rest + NAME(broadcast)(-0.49999997f);
    p = p * rest + NAME(broadcast)(1.0f);
    return p * rest + logarithm;
#else
    /* = 2 artanh(s) with s = e / (2 + e) in [0, 1/3] */
    vec s = e / (NAME(broadcast)(2) + e);
    vec square = s * s;
    vec p = NAME(broadcast)(0.1408916754f);
    p = p * square + NAME(broadcast)(0.1398030137f);
    p = p * square + NAME(broadcast)(0.2001245514f);
    p = p * square + NAME(broadcast)(0.3333315734f);
    p = p * square + NAME(broadcast)(1.0f);
    return (s + s) * p;
#endif
}

/* exp(-|x|), without a branch or overflow. */
INLINE vec NAME(exp_minus_abs)(vec x)
{
    const vec log2_of_e = NAME(broadcast)((real)LOG2_OF_E);
    vec minus_abs = -NAME(absolute)(x);
    const int is_small = LANES == 16;
    if (is_small) /* Below it is 0 all the same. */
        minus_abs = NAME(max)(NAME(broadcast)(-128), minus_abs);
    return NAME(exp2_of_product)(minus_abs, log2_of_e, is_small);
}

/* All three are given e = exp_minus_abs(x). */

/* log(1 + exp(x)), and x itself above 20, as torch has it. In float that
 * switch lies below the rounding error. */
INLINE vec NAME(softplus)(vec x, vec e)
{
    const vec zero = NAME(broadcast)(0);
    vec log_part = NAME(log1p_fraction)(e);
#if REAL_IS_DOUBLE
    log_part = NAME(select)(x > NAME(broadcast)(20), zero, log_part);
#endif
    return NAME(max)(x, zero) + log_part;
}

/* 1 / (1 + exp(-x)). */
INLINE vec NAME(logistic)(vec x, vec e)
{
    const vec one = NAME(broadcast)(1);
    return NAME(select)(x < NAME(broadcast)(0), e, one) *
           NAME(reciprocal)(one + e);
}

/* The derivative of softplus. */
INLINE vec NAME(softplus_slope)(vec x, vec e)
{
#if REAL_IS_DOUBLE
    e = NAME(select)(x > NAME(broadcast)(20), NAME(broadcast)(0), e);
#endif
    return NAME(logistic)(x, e);
}
