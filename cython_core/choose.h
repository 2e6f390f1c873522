/* Which units fulfil a condition: `unit` becomes their numbers, in order, and `count` how many there are; `unit`
 * has room for n.
 *
 * The condition is evaluated for a block of units at once, which is vectorised, and the numbers are written
 * without branches: which ones it will be cannot be predicted. */
#ifndef EVSIM_CHOOSE_H
#define EVSIM_CHOOSE_H

#define CHOOSE(n, i, condition, unit, count)                                  \
    do {                                                                      \
        int32_t chosen[64];                                                   \
        count = 0;                                                            \
        for (int64_t first = 0; first < n; first += 64) {                     \
            const int64_t m = n - first < 64 ? n - first : 64;                \
            for (int64_t k = 0; k < m; k++) {                                 \
                const int64_t i = first + k;                                  \
                chosen[k] = condition;                                        \
            }                                                                 \
            for (int64_t k = 0; k < m; k++) {                                 \
                unit[count] = (int32_t)(first + k);                           \
                count += chosen[k];                                           \
            }                                                                 \
        }                                                                     \
    } while (0)

#endif
