/* The kernels of one kind of unit in continuous time, and those that all kinds share.  Times in ms.
 *
 * Items side by side: state k of item i is x[k * stride + i], parameter k is par[k * stride + i]; K are the
 * constants of the population.  Kernels work on whole groups of eight: behind item m - 1 there is room up to the
 * next multiple of eight, and what lies there may be read and written (it is kept finite and means nothing). */
#ifndef EVSIM_FLOW_H
#define EVSIM_FLOW_H

#include <stdint.h>

typedef struct {
    /* x at a time -> x h[i] later; adds the integrals of the main state and of its square to sums
     * (2 * stride) if there are any */
    void (*advance)(const double *K, int64_t m, int64_t stride, const double *h, const double *par, double *x,
                    double *sums);
    /* how long each item certainly does not cross its threshold if nothing arrives */
    void (*bound)(const double *K, int64_t m, int64_t stride, const double *par, double *x, double *wait);
    /* one item: 1 and when it crosses first, or 0 and how long it certainly does not */
    int32_t (*locate)(const double *K, const double *par, const double *x, double *when);
    /* one item: x before its event -> after it; returns the payload */
    double (*fire)(const double *K, const double *par, double *x);
    /* dx/dt, laid out like x */
    void (*rate)(const double *K, int64_t m, int64_t stride, const double *par, const double *x, double *f);
    /* adjoint of advance: x and lam at the end -> at the start; adds to dpar and dK */
    void (*retreat)(const double *K, int64_t m, int64_t stride, const double *h, const double *par, double *x,
                    double *lam, const double *dsums, double *dpar, double *dK);
    /* one delta unit: x and lam after its event -> before it; adds to dpar (stride 1) */
    void (*unfire)(const double *K, const double *par, double *x, double *lam, double payload,
                   double dpayload, double *dpar);
} Flow;

enum { EGRU_FLOW, LIF_FLOW, GRU_FLOW, LSTM_FLOW, LEAKY_FLOW, SUM_FLOW, N_FLOWS };

typedef struct {
    Flow kind[N_FLOWS];
    /* index of the first smallest of n = 1 to 64 numbers, and the number; up to a multiple of eight, INFINITY follow */
    int64_t (*least)(int64_t n, const double *numbers, double *smallest);
    /* the smallest of each so many (a multiple of eight) of n > 0 numbers; INFINITY follow likewise */
    void (*lower_bounds)(int64_t n, int64_t each, const double *numbers, double *smallest);
    /* h: from the last time to now, or from now to the last time if back; last becomes now; any h > 0? */
    int32_t (*elapse)(int64_t n, double now, int32_t back, double *last, double *h);
    /* entries of a schedule become now + wait, and not sure, but those that are sure and due; 1 if any wait is
     * no number */
    int32_t (*renew)(int64_t n, double now, const double *wait, int64_t *sure, double *entry);
    void (*egru_receive)(int64_t m, int64_t stride, double *x, const double *w, double s, double gated,
                         int32_t post);
    void (*egru_give_back)(const double *K, int64_t m, int64_t stride, const double *par, double *x,
                           double *lam, const double *w, double s, double gated, int32_t post,
                           double *gradient, double *timing, double *payload);
    /* one item of n rows into whole groups side by side */
    void (*lift)(int64_t n, int64_t stride, const double *from, double *to);
    /* numbers of either type as doubles, and added to a row of either type */
    void (*widen)(int64_t n, const float *from, double *to);
    void (*add_to_float)(int64_t n, const double *from, float *to);
    void (*add_to_double)(int64_t n, const double *from, double *to);
} FlowTable;

#endif
