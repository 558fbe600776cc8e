/* Moving numbers between the lanes of vectors. A template like vector.h. */

/* Lane lists for SHUFFLE: entry j of the result, with a parameter s. A number
 * below LANES names a lane of the first vector, above it of the second. The
 * patterns are those that x86 has as instructions without an index register.
 * A quad is four neighbouring lanes, 128 bits of float. */

/* Pairs (a, b) of the quads' lower (s = 0) or upper (s = 2) halves. */
#define LANE_PAIRS(j, s) (((j) & ~3) + (s) + ((j) & 3) / 2 + ((j) & 1) * LANES)
/* The quads' lower (s = 0) or upper (s = 2) halves of a, then b. */
#define LANE_HALVES(j, s) (((j) & ~3) + (s) + ((j) & 1) + ((j) & 2) / 2 * LANES)
/* Quads s and s + 1 of a, then of b. */
#define LANE_QUADS(j, s) \
    ((j) % (LANES / 2) % 8 + 4 * (s) + (j) / (LANES / 2) * LANES)
/* Every other quad from quad s on, of a, then of b. */
#define LANE_EVERY_OTHER_QUAD(j, s)                    \
    (((j) % (LANES / 2)) / 4 * 8 + (j) % 4 + 4 * (s) + \
     (j) / (LANES / 2) * LANES)
#if LANES == 16
#define LANE_LIST(f, s)                                                     \
    f(0, s), f(1, s), f(2, s), f(3, s), f(4, s), f(5, s), f(6, s), f(7, s), \
        f(8, s), f(9, s), f(10, s), f(11, s), f(12, s), f(13, s), f(14, s), \
        f(15, s)
#elif LANES == 8
#define LANE_LIST(f, s) \
    f(0, s), f(1, s), f(2, s), f(3, s), f(4, s), f(5, s), f(6, s), f(7, s)
#else
#define LANE_LIST(f, s) f(0, s), f(1, s), f(2, s), f(3, s)
#endif
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, f, s) __builtin_shufflevector(a, b, LANE_LIST(f, s))
#else
#define SHUFFLE(a, b, f, s) __builtin_shuffle(a, b, (ivec){LANE_LIST(f, s)})
#endif

/* Transposes the 4 x 4 numbers in each quad of four vectors, in place. */
INLINE void NAME(transpose_in_quads)(vec *x)
{
    vec a = SHUFFLE(x[0], x[1], LANE_PAIRS, 0);
    vec b = SHUFFLE(x[2], x[3], LANE_PAIRS, 0);
    vec c = SHUFFLE(x[0], x[1], LANE_PAIRS, 2);
    vec d = SHUFFLE(x[2], x[3], LANE_PAIRS, 2);
    x[0] = SHUFFLE(a, b, LANE_HALVES, 0);
    x[1] = SHUFFLE(a, b, LANE_HALVES, 2);
    x[2] = SHUFFLE(c, d, LANE_HALVES, 0);
    x[3] = SHUFFLE(c, d, LANE_HALVES, 2);
}

/* Transposes LANES rows of LANES numbers, in place. */
INLINE void NAME(transpose)(vec *rows)
{
    for (int i = 0; i < LANES; i += 4)
        NAME(transpose_in_quads)(rows + i);
#if LANES > 4
    /* Now quad q of rows[4 i + c] holds column 4 q + c of the rows 4 i ..
     * 4 i + 3: whole quads remain to be moved. */
    for (int c = 0; c < 4; c++) {
#if LANES == 16
        vec a = SHUFFLE(rows[c], rows[c + 4], LANE_QUADS, 0);
        vec b = SHUFFLE(rows[c + 8], rows[c + 12], LANE_QUADS, 0);
        vec d = SHUFFLE(rows[c], rows[c + 4], LANE_QUADS, 2);
        vec e = SHUFFLE(rows[c + 8], rows[c + 12], LANE_QUADS, 2);
        rows[c] = SHUFFLE(a, b, LANE_EVERY_OTHER_QUAD, 0);
        rows[c + 4] = SHUFFLE(a, b, LANE_EVERY_OTHER_QUAD, 1);
        rows[c + 8] = SHUFFLE(d, e, LANE_EVERY_OTHER_QUAD, 0);
        rows[c + 12] = SHUFFLE(d, e, LANE_EVERY_OTHER_QUAD, 1);
#else
        vec a = rows[c], b = rows[c + 4];
        rows[c] = SHUFFLE(a, b, LANE_EVERY_OTHER_QUAD, 0);
        rows[c + 4] = SHUFFLE(a, b, LANE_EVERY_OTHER_QUAD, 1);
#endif
    }
#endif
}

/* Each quad of the result: the sums of x0, x1, x2, x3 over that quad. */
INLINE vec NAME(sum_into_quads)(vec x0, vec x1, vec x2, vec x3)
{
    vec first =
        SHUFFLE(x0, x1, LANE_PAIRS, 0) + SHUFFLE(x0, x1, LANE_PAIRS, 2);
    vec second =
        SHUFFLE(x2, x3, LANE_PAIRS, 0) + SHUFFLE(x2, x3, LANE_PAIRS, 2);
    return SHUFFLE(first, second, LANE_HALVES, 0) +
           SHUFFLE(first, second, LANE_HALVES, 2);
}

/* From results of sum_into_quads, LANES / 4 of them at x[0], x[stride], ...:
 * their finished sums, one to a quad. */
INLINE vec NAME(sum_quads)(const vec *x, int stride)
{
#if LANES == 16
    const vec *y = x + 2 * stride;
    vec first = SHUFFLE(x[0], x[stride], LANE_QUADS, 0) +
                SHUFFLE(x[0], x[stride], LANE_QUADS, 2);
    vec second = SHUFFLE(y[0], y[stride], LANE_QUADS, 0) +
                 SHUFFLE(y[0], y[stride], LANE_QUADS, 2);
#elif LANES == 8
    vec first = x[0], second = x[stride];
#else
    (void)stride;
    return x[0];
#endif
#if LANES > 4
    return SHUFFLE(first, second, LANE_EVERY_OTHER_QUAD, 0) +
           SHUFFLE(first, second, LANE_EVERY_OTHER_QUAD, 1);
#endif
}

/* The sum of each of LANES vectors. */
INLINE void NAME(sum_lanes)(const vec *x, real *sums)
{
    vec quads[LANES / 4];
    for (int q = 0; q < LANES / 4; q++, x += 4)
        quads[q] = NAME(sum_into_quads)(x[0], x[1], x[2], x[3]);
    NAME(store)(sums, NAME(sum_quads)(quads, 1));
}
