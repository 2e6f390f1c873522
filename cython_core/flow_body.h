/* The flows of one path and the table of them, see flow.h; needs template.h and ISA. */

#define TYPE f64
#define REAL double
#define REAL_IS_FLOAT 0
#include "gates.h"
#include "vec.h"
#include "crossing.h"
#include "egru_flow.h"
#include "lif_flow.h"
#include "delta_flow.h"
#include "readout_flow.h"

TARGET int64_t FN(least)(int64_t n, const double *numbers, double *smallest)
{
    VEC low = FN(splat)(INFINITY);
    int64_t i = 0;
    for (; i < n; i += WIDTH)
        low = FN(smaller)(FN(load)(numbers, i), low);
    double smallest_of[WIDTH];
    FN(store)(smallest_of, 0, low);
    for (int k = WIDTH / 2; k > 0; k /= 2)
        for (int j = 0; j < k; j++)
            smallest_of[j] = smallest_of[j + k] < smallest_of[j] ? smallest_of[j + k] : smallest_of[j];
    *smallest = smallest_of[0];
    for (i = 0; i < n - 1 && numbers[i] != *smallest;)
        i++;
    return i;
}

TARGET void FN(widen)(int64_t n, const float *restrict from, double *restrict to)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = from[i];
}

TARGET void FN(add_to_float)(int64_t n, const double *restrict from, float *restrict to)
{
    for (int64_t i = 0; i < n; i++)
        to[i] += (float)from[i];
}

TARGET void FN(add_to_double)(int64_t n, const double *restrict from, double *restrict to)
{
    for (int64_t i = 0; i < n; i++)
        to[i] += from[i];
}

#define CROSSING(kind, undo)                                                                                  \
    {FN(kind##_advance), FN(kind##_bound), FN(kind##_locate), FN(kind##_fire), FN(kind##_rate),              \
     FN(kind##_retreat), undo}
#define SILENT(kind)                                                                                          \
    {FN(kind##_advance), NULL, NULL, NULL, FN(kind##_rate), FN(kind##_retreat), NULL}
const FlowTable TABLE(flows, ISA) = {
    {CROSSING(egru, NULL), CROSSING(lif, NULL), CROSSING(delta_gru_flow, FN(delta_gru_flow_unfire)),
     CROSSING(delta_lstm_flow, FN(delta_lstm_flow_unfire)), SILENT(leaky_readout), SILENT(delta_readout_flow)},
    FN(least), FN(egru_receive), FN(egru_give_back), FN(widen), FN(add_to_float), FN(add_to_double),
};

#undef SILENT
#undef CROSSING
#undef REAL_IS_FLOAT
#undef REAL
#undef TYPE
#undef ISA
